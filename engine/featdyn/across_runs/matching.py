"""How runs are set beside each other: which of their checkpoints, and which of them are repeats.

Which pair of checkpoints stands for a run, and matching runs by training accuracy, are our own choice.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.errors import FeatdynError
from featdyn.sizes import counted
from featdyn.store import Run

LONGEST = 80
"""Letters of a group's name up to which it has all fields that differ."""


def before(steps: NDArray[np.int64], step: float) -> int:
    """Return the last checkpoint at or before a step; the first where there is none."""
    return max(0, int(np.searchsorted(steps, step, side="right")) - 1)


def first_fit(run: Run, level: float) -> int:
    """Return the first checkpoint whose network has this share of its training probes right; there must be one."""
    accuracy = training_accuracy(run)
    fits = np.flatnonzero(accuracy >= level)
    if not len(fits):
        best = f"{accuracy.max():.3f}"
        raise FeatdynError(f"{run.path}: no checkpoint fits {level:g} of its training probes (best: {best})")
    return int(fits[0])


def training_accuracy(run: Run) -> NDArray[np.float64]:
    """Return the share of training probes that the network of each checkpoint has right, ``(checkpoint,)``.

    As a result holds it where one knows all checkpoints, so that no outputs are read; else from the outputs.
    """
    if "split" not in run.paths("sample") or "train" not in run.values("split").tolist():
        raise FeatdynError(f"{run.path}: holds no training probes, by which runs are matched")
    for name in run.analyses:
        result = run.result(name)
        if "plain_accuracy" in result and result.sizes["t1"] == run.checkpoints and "train" in result["set"].values:
            return np.asarray(result["plain_accuracy"].sel(set="train").values, np.float64)
    from featdyn.analysis.inputs.class_labels import recorded_accuracy  # loads torch

    return recorded_accuracy(run, "train")


def recipe_fields(run: Run) -> dict[str, Any]:
    """Return a run's recipe, flat; of one without recipe only where it is, so that it is a group of its own."""
    return dict(_flat(run.described("recipe") or {"store": str(run.path)}))


def group_names(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name each run by the fields in which the recipes differ, seeds left out: runs of one name are repeats.

    Where names would be long, by as few of them as tell the groups apart, and by how many more there are.
    """
    keys = list(dict.fromkeys(key for recipe in recipes for key in recipe))
    kept = [key for key in keys if key.rpartition(".")[2] not in ("seed", "description")]
    differ = [key for key in kept if len({repr(recipe.get(key)) for recipe in recipes}) > 1]
    named = _named(recipes, differ)
    if max(map(len, named)) > LONGEST:
        few = list(differ)
        for key in reversed(differ):  # the first ones, such as the network's name, say most
            left = [name for name in few if name != key]
            shorter = _named(recipes, left)
            if len(set(shorter)) == len(set(named)) and all(map(bool, shorter)):
                few = left
        more = [sum(key in recipe for key in differ if key not in few) for recipe in recipes]
        named = [
            f"{name} and {counted(n, 'more field')}" if n else name
            for name, n in zip(_named(recipes, few), more, strict=True)
        ]
    return [name or "all runs" for name in named]


def _named(recipes: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    return [", ".join(f"{key}={recipe[key]}" for key in keys if key in recipe) for recipe in recipes]


def refuse_copies(marks: Sequence[Hashable], stores: Sequence[str], what: str) -> None:
    """Raise where two runs have one mark (their seed, their recipe): a copy tells nothing of another seed."""
    first: dict[Hashable, str] = {}
    for mark, store in zip(marks, stores, strict=True):
        if mark in first:
            raise FeatdynError(
                f"{first[mark]} and {store} are {what}, which are no independent repeats: give one of them"
            )
        first[mark] = store


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
