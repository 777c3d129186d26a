"""Choosing among the cuts of a module."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from featdyn.errors import NetworkError
from featdyn.networks.cut import Cut

SHARES = (2 / 3, 1 / 3, 0.0)
"""Suffix shares of the multiply-adds near which a default cut lies: [I], our choice."""


def default_cuts(found: Sequence[Cut]) -> list[str]:
    """Choose up to three cuts that spread over the depth of a network.

    Candidates are the last cut of each shape (the end of a stage), or every cut where the shape changes fewer than three
    times. Of them come those whose suffixes cost closest to 2/3, 1/3 and none of the network; between equals, the last.
    For resnet20 these are s1b3, s2b3 and pooled: the end of stage 1, the end of stage 2 and the pooled vector. The rule
    is this project's own choice ([I] in the method note).

    Parameters
    ----------
    found
        What `cuts` returns.

    Returns
    -------
    list of str
        Names, in execution order; empty only if `found` is.
    """
    ends = list({cut.shape: cut for cut in found}.values())
    candidates = ends if len(ends) >= len(SHARES) else found
    chosen = {
        min(reversed(candidates), key=lambda cut: abs(_suffix_share(cut) - share)).name
        for share in SHARES
        if candidates
    }
    return [cut.name for cut in found if cut.name in chosen]


def resolve(found: Sequence[Cut], patterns: Sequence[str]) -> list[Cut]:
    """Pick cuts by name.

    Parameters
    ----------
    found
        What `cuts` returns.
    patterns
        Names, glob patterns such as ``s3*``, ``default`` or ``all``.

    Returns
    -------
    list of Cut
        Each once, in execution order.

    Raises
    ------
    NetworkError
        A pattern matches no cut.
    """
    chosen: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = _matches(found, pattern)
        if not matches:
            raise NetworkError(f"no cut {pattern!r}; there are {_shortened([cut.name for cut in found])}")
        chosen.update(matches)
    return [cut for cut in found if cut.name in chosen]


def _matches(found: Sequence[Cut], pattern: str) -> list[str]:
    every = [cut.name for cut in found]
    if pattern in every:
        return [pattern]
    if pattern == "default":
        return default_cuts(found)
    return every if pattern == "all" else [name for name in every if fnmatchcase(name, pattern)]


def _shortened(names: list[str], most: int = 16) -> str:
    if len(names) <= most:
        return ", ".join(names) or "none"
    return ", ".join([*names[: most - 2], "...", names[-1]]) + f" ({len(names)} in all)"


def _suffix_share(cut: Cut) -> float:
    return cut.suffix_macs / max(1, cut.prefix_macs + cut.suffix_macs)
