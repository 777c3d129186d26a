"""Open the store of a recording: a new one, or the same recording to be continued; one rank writes, the others help."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn.capture import layers
from featdyn.capture.nest import leaves, structure
from featdyn.capture.probes import Probes
from featdyn.capture.ranks import Ranks
from featdyn.capture.resume import CHOOSE
from featdyn.errors import StoreError, TrainingError
from featdyn.provenance import provenance
from featdyn.store import Run, RunPart, RunWriter, Schema, erase, exists, locate


def identity(model: nn.Module, probes: Probes) -> dict[str, Any]:
    """Return by what a recording knows its probes and its network again: checksums, and in words what has them.

    Of the network its modules count, with the names of their types and forward functions and what they say of
    themselves, and the names, shapes and types of parameters and buffers; not their values.
    """
    modules = [
        f"{name} {type(module).__qualname__} {getattr(module.forward, '__qualname__', '')} {module.extra_repr()}"
        for name, module in model.named_modules()
    ]
    tensors = [f"{name} {tuple(t.shape)} {t.dtype}" for name, t in model.state_dict().items() if isinstance(t, Tensor)]
    structure = re.sub(r"0x[0-9a-f]+", "", "\n".join(modules + tensors))  # addresses of functions
    said = f"{type(model).__qualname__}, {len(modules)} modules, {len(tensors)} tensors"
    found = {"network": f"{said}, {zlib.crc32(structure.encode()):08x}"}
    for name, tensor in (*leaves(probes.inputs, "inputs"), *leaves(probes.labels, "labels")):
        content = tensor.contiguous().view(-1).view(torch.uint8).numpy().data
        found[name] = f"{tuple(tensor.shape)} {tensor.dtype}, {zlib.crc32(content):08x}"
    if probes.mask is not None:
        found["mask"] = f"{tuple(probes.mask.shape)}, {zlib.crc32(probes.mask.numpy().tobytes()):08x}"
    for name, values in probes.coords.items():
        found[f"coordinate {name}"] = f"{zlib.crc32(repr(values.tolist()).encode()):08x}"
    return found


def check_alike(claims: Sequence[Mapping[str, Any]], rule: str) -> None:
    """Raise :class:`TrainingError` where a rank claims something else than rank 0; all ranks hold the same claims."""
    for rank, claim in enumerate(claims):
        for what, value in claim.items():
            first = claims[0][what]
            if value == first:
                continue
            if isinstance(value, Mapping):
                what = f"{what} {next(name for name in (*first, *value) if first.get(name) != value.get(name))}"
            raise TrainingError(f"rank {rank} does not have rank 0's {what}: {rule}")


def open_store(
    ranks: Ranks,
    store: str | Path,
    schema: Schema,
    probes: Probes,
    names: Iterable[str],
    attributes: Mapping[str, Any],
    *,
    overwrite: bool,
    accept_changes: bool,
) -> RunWriter | RunPart:
    """Return the run's writer on rank 0, which alone holds the lock, and a part of it on all others.

    A run that is there is removed with ``overwrite``, else continued; with ``accept_changes`` another network or other
    options are put on record instead of refused. Raises :class:`StoreError` on every rank where the store holds another
    recording, has a writer, cannot be written, or not by several ranks, or another rank does not see it.
    """
    opened: list[RunWriter | RunPart] = []

    def begin() -> tuple[Schema, int, str]:
        if ranks.several:
            locate(store).check_several()
        if overwrite and exists(store):
            erase(store)
        writer = writer_of(store, schema, *_static(probes, names), attributes, accept_changes=accept_changes)
        opened.append(writer)
        return writer.schema, writer.checkpoints, writer.invite() if ranks.several else ""

    def join() -> None:
        if not opened:
            opened.append(RunPart(store, *shared))

    try:
        shared = ranks.first(begin)
        ranks.all(join)
    except BaseException:
        for run in opened:
            run.close()
        raise
    return opened[0]


def writer_of(
    store: str | Path,
    schema: Schema,
    static: Mapping[str, xr.Dataset],
    said: Mapping[str, Any],
    attributes: Mapping[str, Any],
    *,
    accept_changes: bool = False,
) -> RunWriter:
    """Return the writer of a new run, or of the same recording; StoreError where the store holds another.

    ``static`` is as :meth:`featdyn.store.RunWriter.create` takes it, with a coordinate ``sample`` in the root. By
    ``attributes`` a recording is known again (``capture``, ``identity``, ``call``); what is ``said`` stands in a new
    run.
    """
    if not exists(store):
        try:
            everything = {**attributes, **said, "provenance": provenance()}
            return RunWriter.create(store, schema, static=static, attributes=everything)
        except StoreError:
            if not exists(store):  # else another's first commit has just come, which is as if it had been there
                raise
    writer = RunWriter.open(store)
    try:
        run = Run(store)
        changed = _changed(run, attributes)
        for what, (before, after) in changed.items() if not accept_changes else ():
            differs = f"other {what}: {before} there" if what == "network" else f"{what} is {before} there"
            raise StoreError(f"{store}: holds another recording ({differs}, {after} here): {CHOOSE}")
        for what in _differences(run, schema, static[""]["sample"].values.tolist(), attributes):
            raise StoreError(f"{store}: holds another recording ({what}): choose another path")
        writer.accept(changed)
    except BaseException:
        writer.close()
        raise
    return writer


def sample_coords(coords: Mapping[str, NDArray[Any]]) -> xr.Dataset:
    """Return what is known of the samples as coordinates of the root."""
    return xr.Dataset(coords={n: values if n == "sample" else ("sample", values) for n, values in coords.items()})


def layer_names(names: Iterable[str]) -> xr.Dataset:
    """Return the coordinate that tells the order of the layers."""
    return xr.Dataset(coords={"layer": np.array(list(names), dtype=object)})


def _static(probes: Probes, names: Iterable[str]) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:
    """Return the coordinates and the probes themselves, and which of their tensors stands where."""
    given = {"input": probes.inputs, "target": probes.labels}
    inputs = dict(_variable(*leaf) for name, values in given.items() for leaf in leaves(values, name))
    if probes.mask is not None:
        inputs["mask"] = ("probe", "mask.position"), probes.mask.numpy()
    static = {
        "": sample_coords(probes.coords),
        "cube": layer_names(names),
        "inputs": xr.Dataset(inputs),
    }
    return static, {"probes": {name: structure(values, name) for name, values in given.items()}}


def _variable(path: str, values: Tensor) -> tuple[str, tuple[tuple[str, ...], NDArray[Any]]]:
    """Return one tensor of the probes as it is stored; axes of several have names of their own."""
    axes = layers.dims(tuple(values.shape[1:]))
    if path != "input":
        axes = tuple(f"{path}.{axis}" for axis in axes)
    # Zarr has no bfloat16; float32 holds all its values.
    return path, (("probe", *axes), (values.float() if values.dtype == torch.bfloat16 else values).numpy())


def _differences(run: Run, schema: Schema, samples: list[Any], attributes: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a recording has otherwise than that of a run; what an older run does not say counts not."""
    # Positions were called tokens.
    stored, new = (
        {a.path: replace(a, dims=tuple("position" if d == "token" else d for d in a.dims)) for a in s.arrays}
        for s in (run.schema, schema)
    )
    for path in sorted({*stored, *new}):
        if stored.get(path) != new.get(path):
            both = path in stored and path in new
            yield f"{path} is {'of another shape or type' if both else 'in one of the two only'}"
    if run.schema.shard_samples != schema.shard_samples:
        yield f"blocks of {run.schema.shard_samples} samples there, {schema.shard_samples} here"
    before, after = run.described("identity"), attributes.get("identity", {})
    for name, value in after.items():
        if name != "network" and before.get(name, value) != value:
            yield f"other {name}: {before[name]} there, {value} here"
    if run.values("sample").tolist() != samples:
        yield "other sample ids"


def _changed(run: Run, attributes: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return what fits the arrays of a run and is not as it was: its name, how it was last, and how it is."""
    found: dict[str, tuple[str, str]] = {}
    for table, names in (("capture", None), ("identity", ("network",)), ("call", None)):
        before, after = run.described(table), attributes.get(table, {})
        for name, value in after.items():
            # The layers themselves are compared; what is stored stays in the codec that it began with.
            if name in ("layers", "codec") or (names and name not in names) or name not in before:
                continue
            said = [change.what[name][1] for change in run.changes if name in change.what]
            last, here = said[-1] if said else _worded(before[name], table), _worded(value, table)
            if last != here:
                found[name] = last, here
    return found


def _worded(value: Any, table: str) -> str:
    """Return in words what a recording says of itself: of a function its name, which any module may import."""
    if table != "call":
        return str(value)
    return str(value["function"]).rpartition(":")[2] if isinstance(value, dict) else repr(value)
