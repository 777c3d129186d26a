"""An xarray dataset as the files of a zarr group: for coordinates and results, which are small and of any type."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn.store.metadata import Document
from featdyn.store.schema import check_name

if TYPE_CHECKING:
    import xarray as xr

CHUNK_BYTES = 2**24
MISSING = "<missing>"  # stored in place of text that is missing, unless it is there itself


def encode(dataset: xr.Dataset, path: str) -> tuple[dict[str, Document], dict[str, bytes]]:
    """Return the zarr documents and the chunk files of a dataset stored at ``path`` (``""`` for the root).

    xarray and zarr do the encoding, into memory; the commit then writes these files like any others.
    """
    import zarr
    from zarr.storage import MemoryStore

    for part in (*filter(None, path.split("/")), *dataset.variables):
        check_name(str(part), "variable")
    held: dict[str, Any] = {}
    # Fixed-width text has no Zarr v3 specification; text of any length has.
    dataset = dataset.assign({n: v.astype(object) for n, v in dataset.variables.items() if v.dtype.kind == "U"})
    dataset, marks = _marked(dataset)
    # Each chunk must be a file, also one that equals the fill value: the commit record lists it.
    with zarr.config.set({"array.write_empty_chunks": True}):
        dataset.to_zarr(
            MemoryStore(held), group=path or None, zarr_format=3, consolidated=False, encoding=_encoding(dataset)
        )
    documents: dict[str, Document] = {}
    chunks: dict[str, bytes] = {}
    for key, buffer in held.items():
        if not key.startswith(f"{path}/" if path else ""):
            continue  # groups above: the writer makes them
        content = buffer.to_bytes()
        if key.endswith("zarr.json"):
            documents[key.removesuffix("zarr.json").rstrip("/")] = json.loads(content)
        else:
            chunks[key] = content
    for name, mark in marks.items():
        documents[f"{path}/{name}" if path else name]["attributes"]["missing_value"] = mark
    return documents, chunks


def _marked(dataset: xr.Dataset) -> tuple[xr.Dataset, dict[str, str]]:
    """Return the dataset with a mark in place of each text that is missing, and the marks by their variables."""
    import pandas as pd

    marks: dict[str, str] = {}
    for name, variable in dataset.variables.items():
        missing = np.asarray(pd.isna(variable.values)) if variable.dtype.kind == "O" else np.array(False)
        if not missing.any():
            continue
        there = set(np.atleast_1d(variable.values)[~np.atleast_1d(missing)].tolist())
        if not all(isinstance(value, str) for value in there):
            raise ValueError(f"{name} holds text that is missing, and what is no text")
        mark = MISSING
        while mark in there:
            mark = f"<{mark}>"
        marks[str(name)] = mark
        dataset = dataset.assign({name: variable.copy(data=np.where(missing, mark, variable.values))})
    return dataset, marks


def _encoding(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return chunks of at most 16 MiB, cut along the first axes so that a chunk is contiguous."""
    encoding = {}
    for name, variable in dataset.variables.items():
        if variable.ndim == 0 or variable.dtype.kind not in "biuf":
            continue
        chunks, room = [], max(1, CHUNK_BYTES // variable.dtype.itemsize)
        for length in reversed(variable.shape):
            chunks.append(max(1, min(length, room)))
            room = max(1, room // max(1, length))
        encoding[str(name)] = {"chunks": tuple(reversed(chunks))}
    return encoding
