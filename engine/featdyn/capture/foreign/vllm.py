"""Hidden states that vLLM extracted: a safetensors file a request, with ``token_ids`` and ``hidden_states``.

``hidden_states`` is ``(token, layer, feature)``. Requests differ in length, so each token is a sample; its ``origin``
is the request, as tokens of one are no independent samples. Which layers they are is not in the files.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from featdyn.capture.foreign.recorded import Layer, Recorded, as_array, one_layer, readable
from featdyn.errors import DataError

try:
    import fcntl
except ImportError:  # Windows, where vLLM does not run
    fcntl = None  # type: ignore[assignment]

STATES, TOKENS = "hidden_states", "token_ids"
_TYPES = {"BF16": "float32", "F16": "float16", "F32": "float32"}


def is_mine(path: Path) -> bool:
    """Whether a folder holds such files; of the first it is looked at what is in it."""
    first = next(iter(sorted(path.glob("*.safetensors"))), None)
    if first is None:
        return False
    with readable(first), safe_open(first, "pt") as file:
        return {STATES, TOKENS} <= set(file.keys())


def opened(path: Path) -> dict[int | None, Recorded]:
    """Return the one checkpoint in a folder; its step is not known."""
    files = sorted(path.glob("*.safetensors"))
    tokens, shapes, types = [], [], []
    for file in files:
        _refuse_unfinished(file)
        with readable(file), safe_open(file, "pt") as held:
            if not {STATES, TOKENS} <= set(held.keys()):
                raise DataError(f"{file}: does not hold {STATES} and {TOKENS}")
            states = held.get_slice(STATES)
            shapes.append(tuple(states.get_shape()))
            types.append(str(states.get_dtype()))
            tokens.append(held.get_tensor(TOKENS).to(torch.int64).numpy().ravel())
        if len(shapes[-1]) != 3 or len(tokens[-1]) != shapes[-1][0]:
            raise DataError(
                f"{file}: {STATES} of shape {shapes[-1]} are not (token, layer, feature) of {len(tokens[-1])} tokens"
            )
        if types[-1] not in _TYPES:
            raise DataError(f"{file}: {STATES} are {types[-1]}, not of {', '.join(_TYPES)}")
    if len({shape[1] for shape in shapes}) > 1:
        raise DataError(f"{path}: its files hold {', '.join(sorted({str(s[1]) for s in shapes}))} layers")
    lengths = [len(ids) for ids in tokens]
    layers = {}
    for i in range(shapes[0][1]):
        parts = [Layer((shape[2],), _TYPES[kind], partial(_rows, file, i))
                 for file, shape, kind in zip(files, shapes, types, strict=True)]  # fmt: skip
        layers[f"hidden_states.{i}"] = one_layer(path, parts, lengths)
    names = np.array([file.stem for file in files], dtype=object)
    places = np.concatenate([np.arange(n) for n in lengths])
    requests = np.repeat(names, lengths)
    coords = {
        "sample": np.array([f"{name}:{place}" for name, place in zip(requests, places, strict=True)], dtype=object),
        "origin": requests,
        "position": places,
        "token_id": np.concatenate(tokens),
    }
    return {None: Recorded(layers, sum(lengths), coords)}


def _refuse_unfinished(file: Path) -> None:
    """Raise where the writer of a file still holds the lock beside it."""
    lock = file.with_name(file.name + ".lock")
    if fcntl is None or not lock.exists():
        return
    with readable(lock), lock.open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{file}: is being written: try again when vLLM is done") from error


def _rows(file: Path, layer: int, start: int, stop: int) -> NDArray[Any]:
    with readable(file), safe_open(file, "pt") as held:
        return as_array(held.get_slice(STATES)[start:stop, layer])
