"""Checkpoints that were recorded, and whose files hold other weights by now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from featdyn.errors import NetworkError
from featdyn.store import Run
from featdyn.store.reader import state_path


def say_overwritten(
    store: str | Path,
    checkpoints: Mapping[int, Path],
    state_in: Callable[[Path], dict[str, Tensor]],
    said: Callable[[str], None],
) -> None:
    """Say which of some recorded checkpoints, by step, are no longer those that were recorded.

    Only files that are newer than what is recorded of them are read, by ``state_in``: nothing is said of one that was
    replaced by an older one, nor of stores in a bucket.
    """
    run = Run(store) if checkpoints else None
    place = {step: t for t, step in enumerate(run.values("step").tolist())} if run else {}
    for step, path in checkpoints.items():
        if run is None or step not in place or not run.has_state(place[step]):
            continue
        try:
            newer = _written(path) > _written(Path(run.path) / state_path(place[step], "model"))
        except OSError:
            continue
        if not newer:
            continue
        held = run.state(place[step])
        try:
            other = any(name in held and not _same(held[name], value) for name, value in state_in(path).items())
        except NetworkError as error:
            said(f"{error}; what is recorded of it stays")
            continue
        if other:
            said(f"{path}: holds other weights than those recorded of step {step}, which stay: take another store")


def _written(path: Path) -> float:
    """Return when a file was written, or the newest of a folder."""
    return max(float(each.stat().st_mtime) for each in (path, *(path.iterdir() if path.is_dir() else ())))


def _same(recorded: Tensor, value: Tensor) -> bool:
    return torch.equal(recorded.nan_to_num(), value.to(recorded.dtype).nan_to_num())
