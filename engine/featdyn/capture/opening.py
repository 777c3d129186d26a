"""Open the store of a recording: a new one, or the same recording to be continued; one rank writes, the others help."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from featdyn.capture import layers
from featdyn.capture.probes import Probes
from featdyn.capture.ranks import Ranks
from featdyn.errors import StoreError, TrainingError
from featdyn.provenance import provenance
from featdyn.store import Run, RunPart, RunWriter, Schema, exists, locate


def fingerprint(probes: Probes) -> int:
    """Return a checksum of inputs, labels and ids, by which ranks see that they have the same probes."""
    found = zlib.crc32(repr(probes.coords["sample"].tolist()).encode())
    for tensor in (probes.inputs, probes.labels):
        found = zlib.crc32(tensor.contiguous().numpy().data, found)
    return found


def same(claims: Sequence[Mapping[str, Any]], rule: str) -> None:
    """Raise :class:`TrainingError` where a rank claims something else than rank 0; all ranks hold the same claims."""
    for rank, claim in enumerate(claims):
        for what, value in claim.items():
            first = claims[0][what]
            if value == first:
                continue
            if isinstance(value, Mapping):
                what = f"{what} {next(name for name in (*first, *value) if first.get(name) != value.get(name))}"
            raise TrainingError(f"rank {rank} does not have rank 0's {what}: {rule}")


def open_run(
    ranks: Ranks,
    store: str | Path,
    schema: Schema,
    probes: Probes,
    names: Iterable[str],
    attributes: Mapping[str, Any],
) -> RunWriter | RunPart:
    """Return the run's writer on rank 0, which alone holds the lock, and a part of it on all others.

    Raises
    ------
    StoreError
        On every rank: the store holds another recording, has a writer, cannot be written, or not by several ranks, or
        another rank does not see it.
    """
    opened: list[RunWriter | RunPart] = []

    def begin() -> tuple[Schema, int, str]:
        if ranks.several:
            locate(store).check_several()
        writer = _writer(store, schema, probes, names, attributes)
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


def _writer(
    store: str | Path, schema: Schema, probes: Probes, names: Iterable[str], attributes: Mapping[str, Any]
) -> RunWriter:
    if exists(store):
        writer = RunWriter.open(store)
        same = sorted(writer.schema.arrays, key=str) == sorted(schema.arrays, key=str)
        same = same and writer.schema.shard_samples == schema.shard_samples
        if not same or Run(store).values("sample").tolist() != probes.coords["sample"].tolist():
            writer.close()
            raise StoreError(f"{store}: holds another recording (other layers, probes or options); choose another path")
        return writer
    coords = {name: values if name == "sample" else ("sample", values) for name, values in probes.coords.items()}
    inputs = probes.inputs.numpy()
    axes = ("probe", *layers.dims(inputs.shape[1:]))
    static = {
        "": xr.Dataset(coords=coords),
        "cube": xr.Dataset(coords={"layer": np.array(list(names), dtype=object)}),
        "inputs": xr.Dataset({"input": (axes, inputs), "target": ("probe", probes.labels.numpy())}),
    }
    return RunWriter.create(store, schema, static=static, attributes={**attributes, "provenance": provenance()})
