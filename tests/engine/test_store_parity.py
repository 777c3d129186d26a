"""Chunks that gather checkpoints, damaged: made anew from the rows beside them and the parities of the manifests."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from featdyn.store import ArraySpec, Run, RunWriter, Schema, commit, parity, repair, verify
from featdyn.store import schema as schemas
from featdyn.store.gathered import WrittenRow
from tests.engine.runs import refused
from tests.engine.spec_reader import SpecReader

LAYERS, SAMPLES, CHECKPOINTS = 20, 5, 7


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of several lengths, two blocks each, four checkpoints of a layer in a chunk."""
    monkeypatch.setattr(schemas, "GATHERED_BYTES", 64)
    write(tmp_path / "run.zarr", CHECKPOINTS)
    return tmp_path / "run.zarr"


def write(path: Path, checkpoints: int) -> None:
    names = [f"layers/l{i}/{of}" for i in range(LAYERS) for of in ("activation", "gradient")]
    specs = [ArraySpec("step", (), (), "int64"), ArraySpec("norm", ("sample",), (SAMPLES,), "float32")]
    specs += [ArraySpec(name, ("sample", "f"), (SAMPLES, 2), "float16") for name in names]
    schema = Schema(tuple(specs), SAMPLES, 4).gathered()
    static = {"": xr.Dataset(coords={"sample": np.arange(SAMPLES)})}
    new = not path.exists()
    with RunWriter.create(path, schema, static=static, attributes={}) if new else RunWriter.open(path) as writer:
        while writer.checkpoints < checkpoints:
            rng = np.random.default_rng(writer.checkpoints)
            with writer.checkpoint() as checkpoint:
                for spec in sorted(writer.schema.arrays, key=lambda spec: spec.path):
                    values = rng.standard_normal(spec.shape).astype(spec.dtype)[...]
                    for block in range(schema.blocks if spec.shape else 1):
                        checkpoint.write(spec.path, values[schema.block_slice(block)] if spec.shape else values, block)


def groups(path: Path) -> list[list[str]]:
    return [[row.path for row in group.rows] for group in Run(path).commits[-1].listing(path).groups]


def test_each_chunk_is_made_anew(run: Path) -> None:
    SpecReader(run).check()
    before = SpecReader(run).arrays()
    chunks = [path for group in groups(run) for path in group]
    assert len(chunks) == 1 + 2 * (1 + 2 * LAYERS)
    for path in [*chunks[::5], "step/0", "layers/l3/gradient/0.1.0"]:
        content = (run / path).read_bytes()
        (run / path).write_bytes(b"x")
        assert verify(run).mendable == (path,)
        assert repair(run).checkpoints == CHECKPOINTS
        assert (run / path).read_bytes() == content
        for name, values in SpecReader(run).arrays().items():
            np.testing.assert_array_equal(values, before[name])
    SpecReader(run).check()


def test_a_layer_that_is_lost_is_made_anew(run: Path) -> None:
    """Chunks of one array, and arrays of one layer, lie in different groups."""
    before = SpecReader(run).arrays()
    shutil.rmtree(run / "layers" / "l7" / "activation")
    shutil.rmtree(run / "layers" / "l7" / "gradient")
    verdict = verify(run)
    assert (len(verdict.mendable), verdict.lost) == (8, ())
    repair(run)
    for name, values in SpecReader(run).arrays().items():
        np.testing.assert_array_equal(values, before[name])


def test_two_chunks_of_one_group_cost_the_checkpoints_from_them_on(run: Path) -> None:
    write(run.with_name("undisturbed.zarr"), CHECKPOINTS)
    one, other, *_ = (path for group in groups(run) if len(group) > 2 for path in group if "/1." in path)
    whole = groups(run)
    third = next(path for group in whole if one not in group for path in group if "/1." in path)
    for path in (one, other, third):
        (run / path).unlink()
    verdict = verify(run)
    assert verdict.lost == ("checkpoint 4", "checkpoint 5", "checkpoint 6")
    assert verdict.mendable == (third,)
    assert {problem.partition(":")[0] for problem in verdict.problems} == {one, other, third}
    assert repair(run).checkpoints == 4
    assert verify(run).sound
    write(run, CHECKPOINTS)
    SpecReader(run).check()
    theirs = SpecReader(run.with_name("undisturbed.zarr")).arrays()
    for name, values in SpecReader(run).arrays().items():
        np.testing.assert_array_equal(values, theirs[name])


def test_two_first_chunks_of_one_group_are_beyond_repair(run: Path) -> None:
    one, other = next(group for group in groups(run) if len(group) > 2 and "layers" in group[0])[:2]
    for path in (one, other):
        (run / path.replace("/1.", "/0.")).unlink()
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    refused(lambda: repair(run), "the damage reaches the first commit")
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name[:5] != ".feat"} == {
        p: content for p, content in before.items() if p.name[:5] != ".feat"
    }


def test_a_manifest_that_nobody_could_read_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "DOCUMENT", 1000)
    refused(lambda: write(tmp_path / "run.zarr", 1), "more small arrays than a commit can hold")
    assert not (tmp_path / "run.zarr").exists()


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 7, 8, 9, 63, 64, 65, 130])
def test_rows_are_grouped_by_sixteen_or_a_fourth_of_them(number: int) -> None:
    """As SPEC.md says; the exclusive or of a group and of all its rows but one is that one."""
    rng = np.random.default_rng(number)
    rows = []
    for i in range(number):
        content = rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8).tobytes()
        rows.append(WrittenRow(f"layers/l{i % 5}/of{i % 2}/{i}", 3 * len(content), i, len(content), content))
    found = parity.grouped(rows)
    size = 16 if number >= 64 else max(1, number // 4)
    assert [len(group.rows) for group in found] == [min(size, number - start) for start in range(0, number, size)]
    assert sorted(row.path for group in found for row in group.rows) == sorted(row.path for row in rows)
    by_path = {row.path: row for row in rows}
    lengths = [row.length for group in found for row in group.rows]
    assert lengths == sorted(lengths, reverse=True)  # those of one length together
    for group in found:
        assert len(group.parity) == max(row.length for row in group.rows)
        for lost in group.rows:
            left = np.frombuffer(group.parity, np.uint8).copy()
            for row in group.rows:
                if row.path != lost.path:
                    left[: row.length] ^= np.frombuffer(by_path[row.path].row, np.uint8)
            assert left[: lost.length].tobytes() == by_path[lost.path].row
            assert not left[lost.length :].any()


def test_what_lies_in_one_folder_or_of_one_layer_is_in_groups_apart() -> None:
    """So that a folder that is lost costs each group one row."""
    rows = [
        WrittenRow(f"layers/l{layer}/{kind}/0.{block}.0", 8, 0, 8, b"12345678")
        for layer in range(16) for kind in ("activation", "gradient") for block in range(2)
    ]  # fmt: skip
    found = parity.grouped(rows)
    assert len(found) == 4
    for group in found:
        assert len({row.path.split("/")[1] for row in group.rows}) == 16
