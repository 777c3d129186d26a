"""Shards of saev, its protocol 2: ``(example, layer, token, feature)`` float32, cut into files along the examples.

``metadata.json`` says what they hold, ``shards.json`` how many examples lie in each file. Its member ``data`` is a
pickle, which is never opened; labels of patches are left out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.capture.foreign.recorded import Layer, Recorded, one_layer, read_json, readable
from featdyn.errors import DataError

_NAMES = {"tokens": ("content_tokens_per_example", "patches_per_ex")}
"""What versions of the protocol's text and code call the same."""


def is_mine(path: Path) -> bool:
    """Whether a folder is one of shards."""
    return (path / "metadata.json").is_file() and ((path / "shards.json").is_file() or any(path.glob("acts*.bin")))


def opened(path: Path) -> dict[int | None, Recorded]:
    """Return the one checkpoint in a folder; its step is not known."""
    said = read_json(path / "metadata.json")
    try:
        if not str(said["protocol"]).startswith("2.") or said.get("dtype") != "float32":
            raise DataError(f"{path}: protocol {said['protocol']} of {said.get('dtype')}; 2.1 of float32 is known")
        places = [int(place) for place in said["layers"]]
        tokens = int(next(said[name] for name in _NAMES["tokens"] if name in said)) + bool(said["cls_token"])
        width, examples = int(said["d_model"]), int(said["n_examples"])
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise DataError(f"{path / 'metadata.json'}: does not say {error or 'tokens'} as the protocol has it") from error
    files = _files(path, (len(places), tokens, width), examples)
    lengths = [count for _, count in files]
    layers = {}
    for i, place in enumerate(places):
        parts = [Layer((tokens, width), "float32", partial(_rows, file, count, (len(places), tokens, width), i))
                 for file, count in files]  # fmt: skip
        layers[f"layer{place}"] = one_layer(path, parts, lengths)
    if len(layers) < len(places) or not places:
        raise DataError(f"{path / 'metadata.json'}: layers {places} are not distinct")
    return {None: Recorded(layers, examples)}


def _files(path: Path, shape: tuple[int, ...], examples: int) -> list[tuple[Path, int]]:
    """Return the files with how many examples count in each: the last one's file may be longer than that."""
    listed = read_json(path / "shards.json")
    try:
        files = [(path / Path(str(one["name"])).name, int(one["n_examples"])) for one in listed]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path / 'shards.json'}: does not list name and n_examples of each shard") from error
    if sum(count for _, count in files) != examples:
        held = sum(count for _, count in files)
        raise DataError(f"{path}: its shards hold {held} of {examples} examples: it was not finished")
    for file, count in files:
        with readable(file):
            size = file.stat().st_size
        if size < count * 4 * int(np.prod(shape)):
            raise DataError(f"{file}: is cut short: {size} bytes, {count} examples take {count * 4 * np.prod(shape)}")
    return [(file, count) for file, count in files if count]


def _rows(file: Path, count: int, shape: tuple[int, ...], layer: int, start: int, stop: int) -> NDArray[Any]:
    with readable(file):
        return np.array(np.memmap(file, dtype="<f4", mode="r", shape=(count, *shape))[start:stop, layer])
