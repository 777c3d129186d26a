"""Whole groups shuffled, for nulls: copies of one image keep together, whatever they are dealt."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks


def dealt(size: int, seed: int | list[int], groups: ArrayLike | None = None) -> NDArray[np.intp]:
    """Return ``(size,)``, whose label or row each sample is dealt: groups are shuffled whole, for nulls.

    See :func:`exchanged`.
    """
    member = checks.groups(groups, size)
    return exchanged(member, np.random.default_rng(seed).permutation(int(member.max(initial=-1)) + 1))


def exchanged(member: NDArray[np.intp], source: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return ``(N,)``, which sample each is given where the g-th group that comes has what ``source[g]`` names.

    The k-th of a group is given the k-th of the other, from the first on again where there are fewer: a permutation
    where groups are equally large.
    """
    member = np.argsort(np.argsort(np.unique(member, return_index=True)[1]))[member]  # numbered as they come
    sizes, order = np.bincount(member), np.argsort(member, kind="stable")
    starts = np.cumsum(sizes) - sizes
    place = np.empty(len(member), np.intp)
    place[order] = np.arange(len(member)) - starts[member[order]]
    other = source[member]
    return order[starts[other] + place % sizes[other]]
