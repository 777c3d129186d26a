"""Colours of lines, on light and on dark paper: by depth, or by kind.

Depth takes viridis (Smith and van der Walt 2015), which is ordered for any colour vision; of it the part that stands
out from the paper. Neighbours differ in dash and marker too, so that twenty can be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from featdyn.report.figure import Series

# After Okabe and Ito, for any colour vision; on light paper darker, so that each has a contrast of 3 to it at least.
KINDS = (
    ("#0072B2", "#56B4E9"), ("#C25400", "#F08A4B"), ("#00835F", "#2CC295"),
    ("#A8508A", "#D993BC"), ("#947000", "#E8B93C"), ("#56616E", "#AEB8C4"),
)  # fmt: skip
NEUTRAL = ("#6c727b", "#8f97a1")
_VIRIDIS = (
    (0x44, 0x01, 0x54), (0x48, 0x28, 0x78), (0x3E, 0x49, 0x89), (0x31, 0x68, 0x8E), (0x26, 0x82, 0x8E),
    (0x1F, 0x9E, 0x89), (0x35, 0xB7, 0x79), (0x6E, 0xCE, 0x58), (0xB5, 0xDE, 0x2B), (0xFD, 0xE7, 0x25),
)  # fmt: skip
_PART = ((0.0, 0.57), (0.35, 1.0))  # on each paper a contrast of 3 at least
DASHES = ("solid", "dash", "dot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x")
FEW = 4
"""Lines, evenly spread by depth, up to which colours alone tell them apart."""


def colours(series: Series) -> tuple[str, str]:
    """Return the colour of a series on light and on dark paper."""
    if series.depth is not None:
        light, dark = (_viridis(low + (high - low) * series.depth) for low, high in _PART)
        return light, dark
    return NEUTRAL if series.order is None else KINDS[series.order % len(KINDS)]


def patterns(series: Sequence[Series]) -> list[tuple[str, str]]:
    """Return marker and dash of each line: where depths are closer than those of :data:`FEW` lines, neighbours
    differ in both.
    """
    depths = sorted({one.depth for one in series if one.depth is not None})
    many = any(after - before < 1 / (FEW - 1) - 1e-9 for before, after in pairwise(depths))
    found = []
    for one in series:
        if not many or one.depth is None or one.order is None:
            found.append((MARKERS[0], one.dash))
            continue
        dash = DASHES[one.order % len(DASHES)] if one.dash == "solid" else one.dash  # the order is the line's number
        found.append((MARKERS[one.order % len(MARKERS)], dash))
    return found


def _viridis(at: float) -> str:
    place = at * (len(_VIRIDIS) - 1)
    below = min(int(place), len(_VIRIDIS) - 2)
    mixed = (a + (b - a) * (place - below) for a, b in zip(_VIRIDIS[below], _VIRIDIS[below + 1], strict=True))
    return "#" + "".join(f"{round(channel):02x}" for channel in mixed)
