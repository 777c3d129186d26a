"""What cannot be read gets one clear line: folders that are no stores, damage, newer formats, paths that lead out."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.store import Run, RunWriter, gc, repair, verify
from featdyn.store.lock import NAME as LOCK
from featdyn.store.record import FileRecord
from featdyn.store.root import Root
from tests.engine.runs import refused, result_dataset, tree, write_run


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("store") / "run.zarr", checkpoints=2).path


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "run.zarr"))


def test_folders_that_are_no_stores(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    for opened in (Run, RunWriter.open, verify):
        refused(lambda opened=opened: opened(tmp_path / "nowhere"), "no such folder")
        refused(lambda opened=opened: opened(tmp_path), "not a featdyn store")
        refused(lambda opened=opened: opened(tmp_path / "file"), "not a featdyn store")
        refused(lambda opened=opened: opened(tmp_path / "foreign"), "not a featdyn store")
    assert not list(tmp_path.rglob(LOCK))  # looking leaves nothing behind


def test_a_newer_format(store: Path) -> None:
    content = (store / "zarr.json").read_bytes().replace(b'"format": 3,', b'"format": 4,')
    (store / "zarr.json").write_bytes(content)
    refused(lambda: Run(store), r"format 4 is newer than this featdyn reads \(3\): update featdyn")
    refused(lambda: RunWriter.open(store), "newer")


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_root_that_was_cut_or_flipped_is_refused(original: Path, data: st.DataObject) -> None:
    content = (original / "zarr.json").read_bytes()
    refused(lambda: Root.decode(content[: data.draw(st.integers(0, len(content) - 1))], original), "damaged")
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    refused(lambda: Root.decode(bytes(flipped), original), "damaged|newer|not a featdyn store")


def test_shards_that_are_missing_or_short(store: Path) -> None:
    path = "layers/s1.b1/activation/c.1.0.0.0"
    content = (store / path).read_bytes()
    (store / path).write_bytes(content[:-3])
    problem = f"{path}: {len(content) - 3} bytes instead of {len(content)}".replace(".", r"\.")
    root = Root.read(store)  # its commit 4 is a result: shards are checked when they are read
    assert root.commits[-1].kind == "result"
    refused(lambda: Run(store).block("layers/s1.b1/activation", 1, 0), rf"{path} cannot be read \(.*featdyn verify")
    assert [*verify(store).problems] == [problem.replace("\\", "")]
    (store / path).unlink()
    refused(lambda: Run(store).block("layers/s1.b1/activation", 1, 0), "cannot be read")
    assert verify(store).problems == (f"{path}: missing",)


def test_the_newest_commit_is_checked_on_opening(store: Path) -> None:
    newest = Root.read(store).commits[-1]
    file = store / newest.name / "accuracy" / "c/0/0/0/0"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    for opened in (Run, RunWriter.open):
        refused(lambda opened=opened: opened(store), "bytes instead of .*; run: featdyn verify")
    file.write_bytes(content)
    (store / newest.manifest.path).write_bytes(b"{}")
    refused(lambda: Run(store), "commits/000004.json: 2 bytes instead of")
    assert verify(store).problems == (f"{newest.manifest.path}: 2 bytes instead of {newest.manifest.size}",)


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "a/../../secret", "", "layers//x", "link/secret"])
def test_paths_that_lead_out_of_the_store(store: Path, path: str) -> None:
    (store.parent / "secret").write_bytes(b"secret")
    (store / "link").symlink_to(store.parent)
    root = Root.read(store)
    last = root.commits[-1]
    hostile = replace(last, manifest=FileRecord(path, 6, 0))
    (store / "zarr.json").write_bytes(replace(root, commits=(*root.commits[:-1], hostile)).encode())
    refused(lambda: Run(store), "leads out of the store or through a symbolic link")
    assert verify(store).problems == (f"{path}: leads out of the store or through a symbolic link",)
    nodes = {**root.nodes, path: root.nodes["layers/stem/activation"]}
    (store / "zarr.json").write_bytes(replace(root, nodes=nodes).encode())
    refused(lambda: Run(store), "is not a path inside a store|which a store does not hold|damaged")


def test_a_layer_behind_a_link_is_not_followed(store: Path, tmp_path: Path) -> None:
    (store / "layers/stem").rename(tmp_path / "elsewhere")
    (store / "layers/stem").symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path / "elsewhere")
    refused(lambda: Run(store), "layers/stem is a symbolic link")
    refused(lambda: RunWriter.open(store), "layers/stem is a symbolic link")
    assert tree(tmp_path / "elsewhere") == before


@pytest.mark.parametrize(
    "path",
    ["layers/stem/activation/c.1.0.0.0", "split/c/0", "checkpoints/000001/model.safetensors", "commits/000002.json"],
)
def test_a_file_that_is_a_link_is_neither_read_nor_written_nor_removed(store: Path, tmp_path: Path, path: str) -> None:
    secret = Path(shutil.copy(store / path, tmp_path / "secret"))
    content = secret.read_bytes()
    (store / path).unlink()
    (store / path).symlink_to(secret)
    link = "through a symbolic link|is a symbolic link"
    run = Run(store)
    for call, reads in [
        (lambda: run.block("layers/stem/activation", 1, 0), "layers"),
        (lambda: run.values("layers/stem/activation"), "layers"),
        (lambda: run.values("split"), "split"),
        (lambda: run.state(1), "c"),
        (lambda: gc(store), "commits"),
    ]:
        if path.startswith(reads):
            refused(call, link)
    assert [problem.partition(": ")[0] for problem in verify(store).problems] == [path]
    if path.startswith("split"):
        refused(lambda: repair(store), "reaches the first commit")
    else:
        assert repair(store).checkpoints == 1
        assert gc(store).foreign == (path,)
        with suppress(Stop), RunWriter.open(store) as writer, writer.checkpoint() as checkpoint:
            if path.startswith("layers"):
                refused(lambda: checkpoint.write("layers/stem/activation", np.ones((4, 3, 2), "float16"), 0), link)
            elif path.startswith("checkpoints"):
                refused(lambda: checkpoint.put(path, [b"x"]), link)
            raise Stop
    assert (store / path).is_symlink()
    assert secret.read_bytes() == content


def test_a_link_to_a_store_is_fine(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link.zarr").symlink_to(store)
    assert Run(tmp_path / "link.zarr").checkpoints == 2
    assert verify(tmp_path / "link.zarr").sound
    with RunWriter.open(tmp_path / "link.zarr") as writer:
        writer.result("r", result_dataset(0.0))


def test_what_a_run_does_not_hold(original: Path) -> None:
    run = Run(original)
    refused(lambda: run.array("layers/zzz/activation"), "no array layers/zzz/activation")
    refused(lambda: run.values("zzz"), "no array zzz")
    refused(lambda: run.block("zzz", 0, 0), "no array zzz")
    refused(lambda: run.block("split", 0, 0), "no array split that grows")
    refused(lambda: run.block("step", 2, 0), "no checkpoint 2, there are 2")
    refused(lambda: run.block("step", -1, 0), "no checkpoint -1")
    refused(lambda: run.result("noise"), "no result of noise yet; run: featdyn analyze")
    refused(lambda: run.state(7), "no checkpoint 7")
    refused(lambda: run.state(0, "../model"), "cannot be stored")
    refused(lambda: run.state(0), r"model\.safetensors cannot be read")  # what was written there is no such file
    with pytest.raises(ValueError, match=r"outputs/loss: block must be below 3, got 3"):
        run.block("outputs/loss", 0, 3)
