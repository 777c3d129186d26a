"""What is written is read back equal, by everything that may read it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.store import ArraySpec, Run, RunWriter, Schema, datasets, gathered, reader, shard, verify
from featdyn.store import schema as schema_module
from featdyn.store.kept import Kept
from featdyn.store.metadata import chunk_key
from featdyn.store.schema import DTYPES, Codec
from tests.engine.runs import CHECKPOINTS, LAYERS, SAMPLES, refused, result_dataset, write_run
from tests.engine.spec_reader import SpecReader
from tests.engine.synthetic_run import make_run

Values = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("store") / "run.zarr", "zstd")


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    samples = draw(st.integers(1, 9))
    lengths = st.integers(1, 4)
    shapes = st.sampled_from([(), ("f",), ("sample",), ("sample", "f"), ("f", "sample"), ("f", "sample", "g")])
    arrays = [ArraySpec("checkpoint", (), (), "int64")]
    for i, dims in enumerate(draw(st.lists(shapes, min_size=1, max_size=3))):
        shape = tuple(samples if dim == "sample" else draw(lengths) for dim in dims)
        path = draw(st.sampled_from([f"layers/l.{i}/activation", f"cube {i}/x", f"_größe{i}"]))
        names = tuple(f"{d}{i}" if d != "sample" else d for d in dims)
        arrays.append(ArraySpec(path, names, shape, draw(dtypes), span=draw(st.sampled_from([1, 1, 2, 3, 64]))))
    return Schema(tuple(arrays), samples, draw(st.sampled_from([1, 2, 4, 16])), draw(st.sampled_from(["none", "zstd"])))


dtypes = st.sampled_from(DTYPES)


def random_values(schema: Schema, checkpoints: int, seed: int) -> Values:
    """Return values of every bit pattern, and stretches of zeros, which other writers leave out."""
    rng = np.random.default_rng(seed)
    found = {"checkpoint": np.arange(checkpoints)}
    for spec in schema.arrays[1:]:
        raw = rng.bytes(checkpoints * spec.nbytes)
        values = np.frombuffer(raw, "u1" if spec.dtype == "bool" else spec.dtype).reshape(checkpoints, *spec.shape)
        values = values % 2 == 1 if spec.dtype == "bool" else values.copy()
        found[spec.path] = np.where(
            rng.random((checkpoints, *spec.shape[:1], *[1] * len(spec.shape[1:]))) < 0.4, 0, values
        )
        found[spec.path] = found[spec.path].astype(spec.dtype)
    return found


def write(path: Path, schema: Schema, values: Values, static: dict[str, xr.Dataset]) -> None:
    with RunWriter.create(path, schema, static=static, attributes={"note": "å", "n": [1, None]}) as writer:
        for t in range(len(values["checkpoint"])):
            with writer.checkpoint() as checkpoint:
                for spec, block, region in shards(schema):
                    checkpoint.write(spec.path, values[spec.path][t][region], block)


def shards(schema: Schema) -> list[tuple[ArraySpec, int, tuple[slice, ...]]]:
    """Return each shard of a checkpoint: its array, its block, and where it lies in the checkpoint's values."""
    found: list[tuple[ArraySpec, int, tuple[slice, ...]]] = []
    for spec in schema.arrays:
        axis = spec.sample_axis
        if axis is None:
            found.append((spec, 0, ()))
        else:
            before = (slice(None),) * axis
            found += [(spec, b, (*before, schema.block_slice(b))) for b in range(schema.blocks)]
    return found


@settings(deadline=None, max_examples=25)
@given(schema=schemas(), checkpoints=st.integers(1, 3), seed=st.integers(0, 999), chunk=st.sampled_from([1, 32, 2**18]))
def test_everything_reads_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, schema: Schema, checkpoints: int, seed: int, chunk: int
) -> None:
    path = tmp_path_factory.mktemp("store") / "run.zarr"
    values = random_values(schema, checkpoints, seed)
    names = np.array([f"ü{i}" * (i % 3) + f"/{i}" for i in range(schema.samples)], dtype=object)
    flags = ("sample", np.arange(schema.samples) % 2 == 0)
    static = {"": xr.Dataset(coords={"sample": names, "even": flags})}
    with mock.patch.object(schema_module, "CHUNK_BYTES", chunk):  # what reads must not depend on it
        write(path, schema, values, static)

    tree = xr.open_datatree(path, engine="zarr")
    assert tree.attrs["note"] == "å"
    assert tree["sample"].values.tolist() == names.tolist()
    spec_reader = SpecReader(path)
    spec_reader.check()
    independent = spec_reader.arrays()
    assert independent["sample"].tolist() == names.tolist()
    run = Run(path)
    assert run.checkpoints == checkpoints
    for array, expected in values.items():
        for found in (tree[array], zarr.open_array(path / array, mode="r")[...], independent[array]):
            np.testing.assert_array_equal(np.asarray(found), expected)
            assert np.asarray(found).dtype == expected.dtype
    for t in range(checkpoints):
        for spec, block, region in shards(schema):
            np.testing.assert_array_equal(run.block(spec.path, t, block), values[spec.path][t][region])
    assert {"sample", "even"} <= set(tree.coords)
    assert verify(path).sound


@settings(deadline=None, max_examples=15)
@given(schema=schemas(), seed=st.integers(0, 999), chunk=st.sampled_from([1, 32]))
def test_shards_that_zarr_wrote_are_decoded(
    tmp_path_factory: pytest.TempPathFactory, schema: Schema, seed: int, chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("zarr")
    values = random_values(schema, 2, seed)
    with mock.patch.object(schema_module, "CHUNK_BYTES", chunk):
        write(folder / "ours.zarr", schema, values, {})
        for spec in {s.path: s for s in schema.arrays}.values():
            there = folder / "theirs.zarr" / spec.path
            there.mkdir(parents=True)
            (there / "zarr.json").write_bytes((folder / "ours.zarr" / spec.path / "zarr.json").read_bytes())
            zarr.open_array(there, mode="r+")[...] = values[spec.path]
        for t in range(2):
            for spec, block, region in shards(schema):
                file, expected = folder / "theirs.zarr" / chunk_key(spec, t, block), values[spec.path][t][region]
                if spec.span > 1:
                    if file.exists():
                        row = gathered.decode(file.read_bytes(), spec, schema)[t % spec.span]
                        np.testing.assert_array_equal(row[tuple(slice(n) for n in expected.shape)], expected)
                    continue
                if not file.exists():  # zarr leaves shards of zeros out
                    assert not expected.any()
                    continue
                rows = 0 if spec.sample_axis is None else expected.shape[spec.sample_axis]
                np.testing.assert_array_equal(shard.decode(file.read_bytes(), spec, schema, rows), expected)


def test_a_damaged_shard_is_never_decoded_in_silence(run: Run) -> None:
    spec = run.schema["cube/activation_norm"]
    content = (run.path / chunk_key(spec, 1, 0)).read_bytes()
    expected = shard.decode(content, spec, run.schema, 4)
    for length in range(len(content)):
        with pytest.raises((ValueError, RuntimeError)):
            shard.decode(content[:length], spec, run.schema, 4)
    for place in range(len(content) - 20, len(content)):  # in the index
        flipped = bytearray(content)
        flipped[place] ^= 16
        with pytest.raises(ValueError, match="index is damaged"):
            shard.decode(bytes(flipped), spec, run.schema, 4)
    np.testing.assert_array_equal(shard.decode(content, spec, run.schema, 4), expected)


def test_gradients_are_scaled_back_by_xarray_and_stored_as_they_are(run: Run) -> None:
    stored = run.block("layers/stem/gradient", 2, 1, stored=True)
    assert stored.dtype == np.float16
    values = run.array("layers/stem/gradient")[2, 4:8]
    np.testing.assert_array_equal(values, stored.astype(np.float32) / 4096)
    np.testing.assert_array_equal(SpecReader(run.path).array("layers/stem/gradient")[2, 4:8], values)


def test_the_specification_is_enough_to_read_everything(run: Run) -> None:
    reader = SpecReader(run.path)
    listed = reader.check()
    tree = xr.open_datatree(run.path, engine="zarr")
    arrays = reader.arrays()
    assert set(tree["layers"].children) == set(LAYERS)
    assert tree["cube/activation_norm"].dims == ("checkpoint", "layer", "sample")
    assert len(arrays) == 41
    for path, values in arrays.items():
        np.testing.assert_array_equal(np.asarray(tree[path].values), values)
    there = {p.relative_to(run.path).as_posix() for p in run.path.rglob("*") if p.is_file()}
    metadata = {p for p in there if p.endswith("zarr.json")}
    manifests = {c["manifest"]["path"] for c in reader.commits}
    assert there == {*listed, *metadata, *manifests, "commits/root.json", ".featdyn.lock", ".featdyn.turn"}


@pytest.mark.filterwarnings("ignore:Object at:zarr.errors.ZarrUserWarning")  # weights and manifests are no nodes
def test_each_node_can_be_opened_by_itself(run: Run) -> None:
    root = zarr.open_group(run.path, mode="r", use_consolidated=False)
    members = {name for name, _ in root.members(max_depth=None)}
    assert members == set(run.nodes)
    for path, document in run.nodes.items():
        assert json.loads((run.path / path / "zarr.json").read_bytes()) == document


def test_results_are_numbered_and_the_newest_is_given(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.zarr", checkpoints=1)
    old = run.results("consistency")
    assert old == ["results/consistency/000002", "results/consistency/000003"]
    with RunWriter.open(run.path) as writer:
        path = writer.result("consistency", result_dataset(7.0))
        assert writer.result("noise", result_dataset(0.0)) == "results/noise/000005"
    xr.testing.assert_identical(run.result("consistency"), result_dataset(1.0).load())  # what was open does not move
    again = Run(run.path)
    assert again.results("consistency") == [*old, path]
    np.testing.assert_array_equal(again.result("consistency")["accuracy"], result_dataset(7.0)["accuracy"])
    np.testing.assert_array_equal(again.tree[old[0]]["accuracy"], result_dataset(0.0)["accuracy"])
    assert again.result("consistency").attrs == {"note": "test"}
    assert verify(run.path).sound


def test_an_open_run_does_not_change_while_it_is_written(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.zarr", checkpoints=2)
    with RunWriter.open(run.path) as writer, writer.checkpoint() as checkpoint:
        for spec, block, region in shards(run.schema):
            checkpoint.write(spec.path, np.ones(spec.shape, spec.dtype)[region], block)
    assert run.checkpoints == 2
    assert run.tree.sizes["checkpoint"] == len(run.values("step")) == len(run.coords["epoch"]) == 2
    sent = pickle.loads(pickle.dumps(run.array("cube/activation_norm")))  # as Dask sends it to another process
    assert sent.shape == (2, len(LAYERS), SAMPLES)
    np.testing.assert_array_equal(sent, run.array("cube/activation_norm"))
    again = Run(run.path)
    assert again.checkpoints == again.tree.sizes["checkpoint"] == 3
    assert again.block("step", 2, 0) == 1


def test_verify_names_every_file_that_is_not_as_it_was_written(run: Run, tmp_path: Path) -> None:
    verdict = verify(run.path)
    assert (verdict.sound, verdict.commits) == (True, CHECKPOINTS + 2)
    unnamed = ("zarr.json", "root.json", ".featdyn.lock", ".featdyn.turn")
    files = [p for p in sorted(run.path.rglob("*")) if p.is_file() and p.name not in unnamed]
    assert verdict.files == len(files)
    assert verdict.bytes == sum(p.stat().st_size for p in files)
    seen: list[tuple[int, int]] = []
    verify(run.path, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (verdict.bytes, verdict.bytes)
    rng = np.random.default_rng(0)
    for number, file in enumerate(files):
        content = file.read_bytes()
        name = file.relative_to(run.path).as_posix()
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
        damaged = (bytes(flipped), content[:-1], bytes(flipped), content + b"\0", bytes(flipped), None)[number % 6]
        file.unlink() if damaged is None else file.write_bytes(damaged)
        problems = verify(run.path).problems
        assert len(problems) == 1
        assert problems[0].startswith(f"{name}: ")
        file.write_bytes(content)
    assert verify(run.path).sound


@pytest.mark.parametrize("number", [7, 8, 9, 11])
def test_a_run_names_eight_layers_and_counts_the_others(tmp_path: Path, number: int) -> None:
    names = [f"l{i:02d}" for i in range(number)]
    specs = [ArraySpec(f"layers/{name}/activation", ("sample", "f"), (4, 96), "float16") for name in names]
    with RunWriter.create(tmp_path / "run.zarr", Schema.build(specs, 4), static={}, attributes={}) as writer:
        for _ in range(2):
            with writer.checkpoint() as checkpoint:
                for spec in specs:
                    checkpoint.write(spec.path, np.zeros((4, 96), np.float16))
    said = repr(Run(tmp_path / "run.zarr"))
    more = f" and {number - 8} more" if number > 8 else ""
    kib = 2 * number * 4 * 96 * 2 / 1024
    assert f"layers       {number}, {kib:.1f} KiB: {', '.join(names[:8])}{more}\n" in said
    assert "checkpoints  2\n" in said  # nothing says the step


def test_of_a_share_of_the_files_one_more_is_checked_than_too_few(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run.zarr", checkpoints=1).path
    whole = verify(store)
    for share in (0.01, 0.3, 0.5, 0.999, 1.0):
        drawn = verify(store, sample=share, seed=3)
        least = share * (whole.files - whole.commits)
        assert least <= drawn.files - whole.commits < least + 1
        assert (drawn.of, drawn.seed, whole.of, whole.seed) == (whole.files, 3, whole.files, None)
    assert verify(store, sample=0.01).seed is not None
    for wrong in (0.0, -0.1, 1.001):
        with pytest.raises(ValueError, match="sample must be above 0 and at most 1"):
            verify(store, sample=wrong)


@pytest.mark.parametrize(
    ("dtype", "width", "rows"), [("int8", 2**23, 2), ("int8", 2**23 + 1, 1), ("float64", 2**20, 2)]
)
def test_a_chunk_of_a_result_has_16_mebibytes_at_most(dtype: str, width: int, rows: int) -> None:
    dataset = xr.Dataset({"x": (("a", "b"), np.zeros((3, width), dtype)), "y": ((), 1.0), "empty": ("c", np.zeros(0))})
    documents, chunks = datasets.encode(dataset, "results/r/000002")
    grid = documents["results/r/000002/x"]["chunk_grid"]["configuration"]["chunk_shape"]
    assert grid == [rows, width]
    assert sum(path.startswith("results/r/000002/x/") for path in chunks) == -(-3 // rows)
    assert not any(path.startswith("results/zarr") for path in chunks)


def test_what_is_kept_fits_into_its_room() -> None:
    kept, three = Kept(10), np.zeros(3, np.uint8)
    for key in range(3):
        kept.put(key, three)
        kept.put(key, np.ones(3, np.uint8))  # what comes first stays
    kept.put("more", np.zeros(2, np.uint8))
    assert kept.get("more") is None
    kept.put("last", np.zeros(1, np.uint8))
    assert kept.get("last") is not None
    assert kept.nbytes == 10
    assert all(kept.get(key) is three for key in range(3))


@pytest.mark.parametrize("piece", [16, 24, 2**24])
def test_any_part_of_a_tensor_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    import torch
    from safetensors.torch import save

    from featdyn.store import state_file

    tensors = {
        "half": torch.arange(7, dtype=torch.float16).reshape(7, 1), "long": torch.arange(6).reshape(2, 3),
        "none": torch.zeros(0, 3), "one": torch.tensor(2.5), "truth": torch.tensor([True, False]),
        "brain": torch.arange(5).to(torch.bfloat16), "both": torch.ones(3, dtype=torch.complex64),
    }  # fmt: skip
    path = "checkpoints/000000/model.safetensors"
    made = RunWriter.create(tmp_path / "run.zarr", Schema.build([], 1), static={}, attributes={})
    with made as writer, writer.checkpoint() as checkpoint:
        checkpoint.put(path, [save(tensors, metadata={"made": "here"})])
    monkeypatch.setattr(state_file, "PIECE", piece)
    stored = (tmp_path / "run.zarr" / path).read_bytes()
    file = Run(tmp_path / "run.zarr").state_file(0)
    assert file.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        held = file.tensors[name]
        assert (held.size, held.nbytes, held.beside) == (tensor.numel(), tensor.nbytes, min(piece, tensor.nbytes))
        torch.testing.assert_close(file.read(name), tensor, rtol=0, atol=0)
        for first in range(tensor.numel() + 2):
            for stop in range(first, tensor.numel() + 3):
                assert torch.equal(file.part(name, first, stop), tensor.reshape(-1)[first:stop])
    (tmp_path / "run.zarr" / path).write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    Run(tmp_path / "run.zarr").state_file(0, checked=False)  # for its header, which is whole
    refused(lambda: Run(tmp_path / "run.zarr").state_file(0), "the content does not match its checksum")


@pytest.mark.parametrize("gathers", [False, True])
@pytest.mark.parametrize(("path", "blocks"), [("step", 1), ("cube/activation_norm", 2)])
def test_a_block_that_an_array_has_not_is_refused_and_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, blocks: int, gathers: bool
) -> None:
    monkeypatch.setattr(schema_module, "GATHERED_BYTES", 2**16 if gathers else 1)
    monkeypatch.setattr(schema_module, "SHARD_SAMPLES", 8)
    run = make_run(tmp_path / "run.zarr", checkpoints=2)
    assert (run.schema[path].span > 1) == gathers
    for block in (-1, blocks):
        with pytest.raises(ValueError, match=f"{path}: block must be below {blocks}, got {block}"):
            run.block(path, 1, block)
    found = [run.block(path, 1, block) for block in range(blocks)]
    whole = run.values(path)[1]
    np.testing.assert_array_equal(np.concatenate(found, axis=-1) if blocks > 1 else found[0], whole)


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("gathers", [False, True])
@pytest.mark.parametrize("partly", [0, 2**20])
def test_rows_of_a_block_are_those_of_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Codec, gathers: bool, partly: int
) -> None:
    monkeypatch.setattr(reader, "PARTLY", partly)
    spec = ArraySpec("layers/a/activation", ("d", "sample"), (2, 6), "float32")
    schema = Schema((spec,), 6, 8, codec)
    values = np.arange(12, dtype=np.float32).reshape(2, 6)
    made = RunWriter.create(
        tmp_path / "run.zarr", schema.gathered() if gathers else schema, static={}, attributes={}
    )  # fmt: skip
    with made as writer, writer.checkpoint() as checkpoint:
        checkpoint.write(spec.path, values)
    run = Run(tmp_path / "run.zarr")
    for start in (None, -2, 0, 3, 6, 9):
        for stop in (None, -5, 0, 1, 4, 12):
            for step in (None, 2, -1):
                rows = slice(start, stop, step)
                np.testing.assert_array_equal(run.block(spec.path, 0, 0, rows=rows), values[:, rows])
