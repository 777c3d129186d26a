"""Choosing among the cuts of a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from featdyn.errors import NetworkError
from featdyn.nearest import meant
from featdyn.networks.cut import Cut
from featdyn.networks.layer_patterns import matching

SHARES = (2 / 3, 1 / 3, 0.0)
"""Suffix shares of the multiply-adds near which a default cut lies: [I], our choice."""
NEAR = 0.05
"""Difference in suffix share up to which a smaller tensor is the better cut: [I], our choice."""


def default_cuts(found: Sequence[Cut]) -> list[str]:
    """Choose up to three of the cuts that `cuts` found, spread over the depth of a network; return names, in order.

    Those are chosen whose suffixes cost closest to 2/3, 1/3 and none of the multiply-adds; the last of equals.
    A cut stands back for a later one that holds fewer values if their suffixes differ by at most 5% of the network.

    For resnet20 these are s1b3, s2b3 and pooled: the end of stage 1, the end of stage 2 and the pooled vector. The rule
    is this project's own choice ([I] in the method note).
    """
    worthy = [cut for place, cut in enumerate(found) if not any(_replaces(later, cut) for later in found[place + 1 :])]
    worthy.reverse()  # min takes the first of equals
    chosen = {min(worthy, key=lambda cut: abs(_suffix_share(cut) - share)).name for share in SHARES if worthy}
    return [cut.name for cut in found if cut.name in chosen]


class NoCut(NetworkError):
    """A name or pattern of no cut."""


def resolve(found: Sequence[Cut], patterns: Sequence[str]) -> list[Cut]:
    """Pick cuts that `cuts` found by names, glob patterns such as ``s3*``, ``default`` or ``all``: each once, in order.

    A cut is also called as an inner module that returns its tensor, and then has that name. Raises :class:`NoCut` where
    a pattern matches no cut.
    """
    chosen: dict[int, str] = {}  # by place in what was found
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = _matches(found, pattern)
        if not matches:
            names = [cut.name for cut in found]
            raise NoCut(f"no cut {pattern!r}; {meant(pattern, names)}there are {_shortened(names)}")
        for place, name in matches:
            chosen.setdefault(place, name)
    picked = ((found[place], name) for place, name in sorted(chosen.items()))
    return [cut if cut.name == name else replace(cut, name=name, module=name) for cut, name in picked]


def _matches(found: Sequence[Cut], pattern: str) -> list[tuple[int, str]]:
    """Return places in what was found, and the names that match."""
    own = {cut.name: place for place, cut in enumerate(found)}
    if pattern not in own and pattern in ("default", "all"):
        return [(own[name], name) for name in (default_cuts(found) if pattern == "default" else own)]
    every = {name: place for place, cut in enumerate(found) for name in cut.also if name not in own} | own
    return [(every[name], name) for name in ([pattern] if pattern in every else matching(pattern, [*own, *every]))]


def _shortened(names: list[str], most: int = 16) -> str:
    if len(names) <= most:
        return ", ".join(names) or "none"
    return ", ".join([*names[: most - 2], "...", names[-1]]) + f" ({len(names)} in all)"


def _replaces(later: Cut, cut: Cut) -> bool:
    return prod(later.shape) < prod(cut.shape) and _suffix_share(cut) - _suffix_share(later) <= NEAR


def _suffix_share(cut: Cut) -> float:
    return cut.suffix_macs / max(1, cut.prefix_macs + cut.suffix_macs)
