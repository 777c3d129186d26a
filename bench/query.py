"""Reductions of a summary over many checkpoints, from the store to the numbers: ours beside xarray, eager and on Dask.

Ours reads the store's own blocks and folds them one by one; xarray reads through zarr's codecs, and holds all values
where it is eager.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr

from bench.harness import Case, sized
from featdyn.query import query
from featdyn.store import ArraySpec, Run, RunWriter, Schema

NORM = "cube/activation_norm"
QUANTILES = {"median": 0.5, "q0.9": 0.9}


def cases(device: str) -> Iterator[Case]:
    if device != "cpu":
        return
    folder = Path(tempfile.mkdtemp(prefix="featdyn-bench-"))
    try:
        values = _write(folder / "run.zarr", *sized((100, 18, 3_000), (3, 2, 20)))
        for reduction in ("mean:sample", "std:sample", "median:sample", "q0.9:sample", "mean:checkpoint", "max:layer"):
            yield _case(folder / "run.zarr", values, reduction)
    finally:
        shutil.rmtree(folder)


def _write(store: Path, checkpoints: int, layers: int, samples: int) -> np.ndarray:
    specs = [
        ArraySpec("checkpoint", (), (), "int64"),
        ArraySpec(NORM, ("layer", "sample"), (layers, samples), "float32"),
    ]
    schema = Schema.build(specs, samples, "none")
    values = np.random.default_rng(0).uniform(1, 2, (checkpoints, layers, samples)).astype(np.float32)
    values.flat[::97] = np.nan
    static = {"": xr.Dataset(coords={"sample": np.arange(samples)})}
    with RunWriter.create(store, schema, static=static, attributes={}) as writer:
        for t, now in enumerate(values):
            with writer.checkpoint() as checkpoint:
                checkpoint.write("checkpoint", np.array(t))
                for block in range(schema.blocks):
                    checkpoint.write(NORM, now[:, schema.block_slice(block)], block)
    return values


def _case(store: Path, values: np.ndarray, reduction: str) -> Case:
    function, dim = reduction.split(":")
    run, axis = Run(store), ("checkpoint", "layer", "sample").index(dim)
    wide = values.astype(np.float64)
    expected = np.nanquantile(wide, QUANTILES[function], axis) if function in QUANTILES else None
    expected = getattr(np, f"nan{function}")(wide, axis) if expected is None else expected

    def reduced(array: xr.DataArray) -> Any:
        return array.quantile(QUANTILES[function], dim) if function in QUANTILES else getattr(array, function)(dim)

    def eager() -> Any:
        return reduced(xr.open_datatree(store, engine="zarr", chunks=None)[NORM].load()).to_dataframe()

    def lazy() -> Any:
        array = xr.open_datatree(store, engine="zarr", chunks={})[NORM]
        with dask.config.set(scheduler="threads"):
            return reduced(array.chunk({dim: -1}) if function in QUANTILES else array).compute().to_dataframe()

    def check(found: Any) -> None:
        np.testing.assert_allclose(found["activation_norm"], expected.reshape(-1), rtol=1e-5)

    peers = {"xarray, eager": eager, "xarray on Dask": lazy}
    name = f"{reduction} of {' x '.join(map(str, values.shape))} float32"
    return Case(name, lambda: query(run, NORM.replace("/", "."), reduce=[reduction]), peers, check, repeats=5)
