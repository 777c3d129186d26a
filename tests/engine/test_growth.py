"""What a long run of small layers takes: few files, few requests, and no more for a commit late than early."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import xarray as xr

from featdyn.cli.info import describe
from featdyn.query import query
from featdyn.report.page import write_report
from featdyn.store import ArraySpec, Run, RunWriter, Schema, commit_list, gc, repair, verify
from featdyn.store.files import Folder
from featdyn.store.root import COPY, Root
from tests.engine.counted import Counter, counted_bucket, upload
from tests.engine.small_run import record
from tests.engine.spec_reader import SpecReader
from tests.engine.synthetic_run import make_run

LONG = 70  # checkpoints: more than a root lists
BLOCK = 4096
READ: dict[str, tuple[int, Callable[[Run], Any]]] = {
    "info": (18, describe),
    "a coordinate": (10, lambda run: run.values("step")),
    "query step": (18, lambda run: query(run, "step")),
    "query a row of the cube": (18, lambda run: query(run, "cube.activation_norm", where=["layer=stem"])),
    "query a layer": (18, lambda run: query(run, "layers.stem.activation")),
    "report": (90, lambda run: write_report(run, "/dev/null")),
}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Counter]]:
    """A short run and a long one."""
    with counted_bucket() as (url, counter):
        for checkpoints in (3, LONG):
            folder = tmp_path_factory.mktemp("growth") / "run.zarr"
            make_run(folder, checkpoints=checkpoints)
            upload(folder, f"{url}/{checkpoints}.zarr")
        yield url, counter


def test_a_run_is_opened_with_few_requests(bucket: tuple[str, Counter]) -> None:
    url, counter = bucket
    assert counter.count(lambda: Run(f"{url}/{LONG}.zarr"))[0] <= 4
    run = Run(f"{url}/{LONG}.zarr")
    assert counter.count(lambda: run.values("train_loss"))[0] <= 2  # the first time zarr looks at the root, too
    assert counter.count(lambda: run.values("test_loss"))[0] == 1
    assert counter.count(lambda: [run.block("cube/activation_norm", t, 0) for t in range(LONG)])[0] == 1


@pytest.mark.parametrize("what", READ)
def test_a_long_run_takes_no_more_requests_to_read_than_a_short_one(bucket: tuple[str, Counter], what: str) -> None:
    (url, counter), (most, read) = bucket, READ[what]
    short, long = (counter.count(lambda t=t: read(Run(f"{url}/{t}.zarr")))[0] for t in (3, LONG))
    assert long <= most
    assert long <= short + 1  # the list of older commits


def many_layers(samples: int = 6) -> Schema:
    layers = [f"layers/l{i}/{of}" for i in range(50) for of in ("activation", "gradient")]
    specs = [ArraySpec(name, (), (), "float64") for name in ("checkpoint", "step", "epoch", "train_loss")]
    specs += [ArraySpec(name, ("sample", "feature"), (samples, 16), "float16") for name in layers]
    specs += [ArraySpec(f"cube/{n}", ("layer", "sample"), (50, samples), "float32") for n in ("norm", "mean", "cosine")]
    return Schema.build(specs, samples)


def write(path: Path, schema: Schema, checkpoints: int) -> None:
    rng = np.random.default_rng(0)
    static = {"": xr.Dataset(coords={"sample": np.arange(schema.samples)})}
    with RunWriter.create(path, schema, static=static, attributes={}) as writer:
        for t in range(checkpoints):
            with writer.checkpoint() as checkpoint:
                for spec in schema.arrays:
                    checkpoint.write(spec.path, rng.standard_normal(spec.shape).astype(spec.dtype)[...])
                checkpoint.put(f"checkpoints/{t:06d}/model.safetensors", [rng.bytes(20_000)])


def test_fifty_small_layers_are_few_files_a_checkpoint_and_waste_no_disk(folder: Path) -> None:
    counts, checkpoints = {}, (2, 26)
    for number in checkpoints:
        write(folder / f"{number}.zarr", many_layers(), number)
        counts[number] = [p.stat().st_size for p in (folder / f"{number}.zarr").rglob("*") if p.is_file()]
    assert len(counts[26]) - len(counts[2]) == 24 * 2  # weights and manifest: the chunks are those of the first commit
    # Of values that do not compress: 256 bytes a layer, 1,600 a row of the cube, and the weights.
    raw = 24 * (sum(spec.nbytes for spec in many_layers().arrays) + 20_000)
    assert sum(map(blocks, counts[26])) - sum(map(blocks, counts[2])) <= 1.3 * raw


def blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def test_a_full_chunk_is_not_written_again(tmp_path: Path) -> None:
    record(tmp_path / "run.zarr", "cc")
    first = tmp_path / "run.zarr" / "norm" / "0.0"
    before = first.stat()
    record(tmp_path / "run.zarr", "cccc")
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert SpecReader(tmp_path / "run.zarr").check().count("norm/1.0") == 1


def test_a_commit_costs_no_more_late_than_early(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two checkpoints: whatever grows beyond them is of the commits themselves."""
    monkeypatch.setattr(commit_list, "LISTED", 8)
    monkeypatch.setattr(commit_list, "CHAINED", 32)
    written: list[int] = []
    swap, plain = Folder._swap, Folder.write

    def counted(self: Folder, path: str, content: bytes, **options: Any) -> Path:
        written.append(len(content))
        return swap(self, path, content, **options)

    def counted_plain(self: Folder, path: str, pieces: Any) -> Any:
        done = plain(self, path, pieces)
        written.append(done.size)
        return done

    costs = []
    with mock.patch.object(Folder, "_swap", counted), mock.patch.object(Folder, "write", counted_plain):
        for number in range(1, 100):
            written.clear()
            record(folder / "run.zarr", "c" * number)
            costs.append((len(written), sum(written)))
    assert len({files for files, _ in costs[1:]}) == 1
    first, last = (np.mean([size for _, size in costs[start : start + 32]]) for start in (1, 65))
    assert last <= 1.2 * first + 32 * 150 / 2  # a list of 32 commits at most, half of them on average


@pytest.fixture
def chained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose list of commits takes several manifests."""
    monkeypatch.setattr(commit_list, "LISTED", 4)
    monkeypatch.setattr(commit_list, "CHAINED", 12)
    record(folder / "run.zarr", "crccrc" * 5)
    return folder / "run.zarr"


def test_the_root_lists_the_newest_commits_and_a_manifest_those_before(chained: Path) -> None:
    root, independent = Root.read(chained), SpecReader(chained)
    assert (root.start, root.since) == (29, 25)
    assert len(independent.state["commits"]) == 2
    assert [c["number"] for c in independent.commits] == list(range(1, 31)) == [c.number for c in root.commits]
    assert verify(chained).sound
    assert Run(chained, commit=7).checkpoints == 5
    content = (chained / "zarr.json").read_bytes()
    (chained / "zarr.json").unlink()
    (chained / COPY).unlink()
    repair(chained)
    assert (chained / "zarr.json").read_bytes() == content


def test_a_repair_lists_all_commits_until_the_next_list(chained: Path) -> None:
    dropped = Run(chained).results("r")[2]
    (chained / dropped / "value" / "c" / "0").write_bytes(b"damaged")
    repair(chained)
    gc(chained)
    kinds = {c.number: c.kind for c in Run(chained).commits}
    assert list(kinds.values()).count("dropped") == 1
    for plan in ("crccrc" * 5 + "cc", "crccrc" * 9):
        record(chained, plan)
        assert {c.number: c.kind for c in Run(chained).commits[:30]} == kinds
        assert verify(chained).sound
        SpecReader(chained).check()


@pytest.mark.parametrize("number", [25, 29])
def test_a_list_that_is_lost(chained: Path, number: int) -> None:
    whole = {c.number: c for c in Run(chained).commits}
    (chained / f"commits/{number:06d}.json").unlink()
    with pytest.raises(
        Exception,
        match=rf"commits/{number:06d}\.json: missing; run: featdyn verify .* --repair",
    ):
        Run(chained)
    assert repair(chained).changed
    found = {c.number: c for c in Run(chained).commits}
    assert all(whole[n] == c for n, c in found.items() if c.kind != "dropped")
    assert len(found) >= number - 1
    assert verify(chained).sound
    record(chained, "crccrc" * 6)
    assert verify(chained).sound


def test_a_damaged_chunk_costs_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run.zarr", checkpoints=5)
    before = SpecReader(run.path).arrays()
    damage = {"step/0": None, "cube/activation_norm/0.0.0": b"", "layers/stem/activation/0.0.0": b"x" * 90}
    for path, content in damage.items():
        (run.path / path).unlink() if content is None else (run.path / path).write_bytes(content)
        verdict = verify(run.path)
        assert (verdict.mendable, verdict.lost, verdict.sound) == ((path,), (), False)
        assert [problem.partition(":")[0] for problem in verdict.problems] == [path]
        found = repair(run.path)
        assert (found.changed, found.checkpoints, found.aside) == (True, 5, None)
    for path, values in SpecReader(run.path).arrays().items():
        np.testing.assert_array_equal(values, before[path])


def test_a_writer_does_not_go_on_from_a_damaged_chunk(tmp_path: Path) -> None:
    record(tmp_path / "run.zarr", "c")
    shutil.copy(tmp_path / "run.zarr" / "norm" / "0.0", tmp_path / "run.zarr" / "norm" / "0.1")
    with pytest.raises(Exception, match=r"norm/0\.1 is damaged; run: featdyn verify .* --repair"):
        record(tmp_path / "run.zarr", "cc")
    repair(tmp_path / "run.zarr")
    record(tmp_path / "run.zarr", "cc")
    assert verify(tmp_path / "run.zarr").sound


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_checkpoints_of_many_layers_are_few_files_and_requests(folder: Path) -> None:
    checkpoints, layers, samples = 500, [f"layers/l{i}/activation" for i in range(60)], 24
    specs = [ArraySpec(name, (), (), "float64") for name in ("checkpoint", "step", "train_loss")]
    specs += [ArraySpec(name, ("sample", "feature"), (samples, 8), "float16") for name in layers]
    specs += [ArraySpec("cube/norm", ("layer", "sample"), (60, samples), "float32")]
    write(folder / "run.zarr", Schema.build(specs, samples), checkpoints)
    files = [p for p in (folder / "run.zarr").rglob("*") if p.is_file() and p.name != "zarr.json"]
    chunks = sum(-(-checkpoints // spec.span) for spec in Root.read(folder / "run.zarr").schema.arrays)
    assert len(files) <= 2 * checkpoints + chunks + 10  # weights and a manifest each
    assert SpecReader(folder / "run.zarr").checkpoints == checkpoints
    with counted_bucket() as (url, counter):
        upload(folder / "run.zarr", f"{url}/run.zarr")
        assert counter.count(lambda: Run(f"{url}/run.zarr"))[0] <= 4
        assert counter.count(lambda: describe(Run(f"{url}/run.zarr")))[0] <= 12
        assert counter.count(lambda: Run(f"{url}/run.zarr").values("layers/l7/activation"))[0] <= 4 + 500 // 64
    assert verify(folder / "run.zarr").sound
