"""``learning_dynamics`` folders of pico-train: activations of a token of each sequence, weights and their gradients.

A run holds ``checkpoints/step_<n>/learning_dynamics/<split>_{activations,weights,gradients}.pt``, each a dict of
tensors by module. Of its splits ``val`` is the same data at each step; ``train`` is the batch of that step, so its
samples are others each time and no recording of one set of probes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from numpy.typing import NDArray
from torch import Tensor

from featdyn.capture.foreign.recorded import Layer, Recorded, as_array, load, same_samples, stored_dtype
from featdyn.errors import DataError

FOLDER = "learning_dynamics"
SPLIT = "val"
_STEP = re.compile(r"step_(\d+)")


def is_mine(path: Path) -> bool:
    """Whether a folder is one of these, or a run that holds some."""
    return bool(_folders(path)) or _own(path) is not None


def opened(path: Path) -> dict[int | None, Recorded]:
    """Return the checkpoints below a folder by their step; of a single folder the step is not known."""
    own = _own(path)
    if own is not None:
        return {None: _checkpoint(own)}
    return {step: _checkpoint(folder) for step, folder in sorted(_folders(path).items())}


def _own(path: Path) -> Path | None:
    return path if path.name == FOLDER else path / FOLDER if (path / FOLDER).is_dir() else None


def _folders(path: Path) -> dict[int, Path]:
    """Return the folders of each step; ``latest`` is a link to one of them."""
    found = [*path.glob(f"step_*/{FOLDER}"), *path.glob(f"checkpoints/step_*/{FOLDER}")]
    steps = ((_STEP.fullmatch(folder.parent.name), folder) for folder in found)
    return {int(step[1]): folder for step, folder in steps if step}


def _checkpoint(folder: Path) -> Recorded:
    path = folder / f"{SPLIT}_activations.pt"
    if not path.is_file():
        only = "; train_activations.pt are of another batch at each step" * (folder / "train_activations.pt").is_file()
        raise DataError(f"{path}: is not there, so there are no activations of the same samples at each step{only}")
    held = _tensors(path)
    for name, values in held.items():
        if values.ndim != 2:
            raise DataError(f"{path}: {name} has shape {tuple(values.shape)}, not (samples, features)")
    layers = {
        name: Layer(tuple(values.shape[1:]), stored_dtype(path, name, values.dtype), partial(_rows, path, name))
        for name, values in held.items()
    }
    samples = same_samples(path, {name: len(values) for name, values in held.items()})
    return Recorded(layers, samples, tensors=partial(_state, folder))


def _tensors(path: Path) -> dict[str, Tensor]:
    found = load(path)
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError(f"{path}: holds no tensors by module")
    return {str(name): value for name, value in found.items()}


def _rows(path: Path, name: str, start: int, stop: int) -> NDArray:  # type: ignore[type-arg]
    return as_array(_tensors(path)[name][start:stop])


def _state(folder: Path) -> Mapping[str, Mapping[str, Tensor]]:
    """Return the weights that were kept, which are not all of the network, and their gradients over all samples."""
    files = {"model": "weights", "weight_gradients": "gradients"}
    paths = {kind: folder / f"{SPLIT}_{name}.pt" for kind, name in files.items()}
    held = {kind: _tensors(path) for kind, path in paths.items() if path.is_file()}
    return {kind: {f"{name}.weight": value for name, value in found.items()} for kind, found in held.items()}
