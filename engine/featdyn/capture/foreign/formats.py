"""Which format a path holds, and the checkpoints of several paths by their step."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

from featdyn.capture.checkpoint_steps import by_step
from featdyn.capture.foreign import arrays, pico, saev, thingsvision, vllm
from featdyn.capture.foreign.npz import Scratch
from featdyn.capture.foreign.recorded import Recorded
from featdyn.errors import DataError

FORMATS: Mapping[str, ModuleType] = {
    "pico": pico,
    "saev": saev,
    "vllm": vllm,
    "thingsvision": thingsvision,
    "arrays": arrays,
}
"""In the order in which they are tried: the more special first."""
ALONE = "features"
"""The layer of recordings of one layer, whose files are named by their step."""
_SAID = re.compile(r"(?:step|iter|iteration|checkpoint)[-_=. ]?(\d+)", re.IGNORECASE)


def checkpoints(
    paths: Sequence[Path],
    scratch: Scratch,
    name: str | None,
    axes: Sequence[str],
    steps: Sequence[int] | None,
    pattern: str | None,
    layers: Sequence[str] = ("**",),
) -> tuple[str, dict[int, Recorded]]:
    """Return the format of a recording, and its checkpoints by step, all of the same layers and samples.

    Steps are those that a path says of its checkpoints; where it does not, ``steps``; else the numbers in the paths;
    of a single one the number after a word such as step, or 0.
    """
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: is not there")
    if name is not None and name not in FORMATS:
        raise DataError(f"no format {name!r}: there are {', '.join(FORMATS)}")
    found = name or next((one for one, module in FORMATS.items() if _is_mine(module, paths[0])), None)
    if found is None:
        raise DataError(f"{paths[0]}: is none of {', '.join(FORMATS)}")
    for path in paths:
        if not _is_mine(FORMATS[found], path):
            raise DataError(f"{path}: is no recording of the format {found}")
    opened: Callable[[Path], dict[int | None, Recorded]] = FORMATS[found].opened
    if found == "arrays":
        opened = partial(arrays.opened, scratch=scratch, axes=axes, steps=steps, layers=layers)
    elif axes:
        raise DataError(f"{paths[0]}: axes are given for plain arrays, and this is {found}")
    if len(paths) == 1:
        held = opened(paths[0])
        if None not in held:
            if pattern or (steps is not None and found != "arrays"):
                raise DataError(f"{paths[0]}: says the steps of its checkpoints itself: give none")
            return found, _alike({step: one for step, one in held.items() if step is not None})
        return found, _alike({_only(paths[0], steps, pattern): held[None]})
    named = _given(paths, steps) if steps is not None else by_step(list(paths), pattern)
    each = {step: opened(path) for step, path in named.items()}
    for step, one in each.items():
        if None not in one:
            raise DataError(f"{named[step]}: holds steps of its own: give it alone")
    return found, _alike(_named_alike({step: one[None] for step, one in each.items()}))


def _is_mine(module: ModuleType, path: Path) -> bool:
    return bool(module.is_mine(path))


def _given(paths: Sequence[Path], steps: Sequence[int]) -> dict[int, Path]:
    if len(steps) != len(paths) or len(set(steps)) != len(steps):
        raise DataError(f"{len(steps)} steps for {len(paths)} paths: give one for each, no two the same")
    return dict(sorted(zip(steps, paths, strict=True)))


def _only(path: Path, steps: Sequence[int] | None, pattern: str | None) -> int:
    """Return the step of the one checkpoint there is."""
    if steps is not None:
        return next(iter(_given([path], steps)))
    if pattern:
        return next(iter(by_step([path], pattern)))
    said = _SAID.findall(str(path))
    return int(said[-1]) if said else 0


def _named_alike(found: dict[int, Recorded]) -> dict[int, Recorded]:
    """Return checkpoints of one layer each under one name: that of a file of one array has its step in it."""
    if len({name for one in found.values() for name in one.layers}) == 1 or any(
        len(o.layers) > 1 for o in found.values()
    ):
        return found
    return {step: replace(one, layers={ALONE: next(iter(one.layers.values()))}) for step, one in found.items()}


def _alike(found: dict[int, Recorded]) -> dict[int, Recorded]:
    """Raise where checkpoints are not of the same layers and samples, or hold nothing."""
    if not found:
        raise DataError("the recording holds no checkpoint")
    (first, one), *others = found.items()
    for name, layer in one.layers.items():
        if not one.samples or 0 in layer.shape:
            raise DataError(f"layer {name} has {one.samples} samples of shape {layer.shape}: it holds no value")
    for step, other in others:
        if other.samples != one.samples:
            raise DataError(f"step {first} has {one.samples} samples, step {step} {other.samples}")
        for name in (*one.layers, *other.layers):
            if one.layers.get(name) != other.layers.get(name):
                raise DataError(f"steps {first} and {step} differ in layer {name}: its shape, its type, or its name")
        for name in {*one.coords, *other.coords}:
            if name not in one.coords or name not in other.coords or (one.coords[name] != other.coords[name]).any():
                raise DataError(f"step {first} and step {step} are of other samples: their {name} differs")
    return found
