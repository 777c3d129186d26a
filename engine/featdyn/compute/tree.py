"""Sums whose order depends on nothing but the number of terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Value = TypeVar("Value")


def fold(combine: Callable[[Value, Value], Value], values: Iterable[Value]) -> Value:
    """Combine values, one at least, in a balanced binary tree over neighbours: ``((v0 v1) (v2 v3)) (v4 v5)``.

    At most ``log2(n) + 1`` values are held at once. Every aligned run of a power of two of them is a subtree, so runs
    may be folded anywhere and combined in their order by the same function: the result keeps every bit.
    """
    held: list[tuple[int, Value]] = []  # (leaves below, value), leaves falling
    for value in values:
        leaves = 1
        while held and held[-1][0] == leaves:
            value = combine(held.pop()[1], value)
            leaves *= 2
        held.append((leaves, value))
    if not held:
        raise ValueError("there are no values to combine")
    _, total = held.pop()
    while held:
        total = combine(held.pop()[1], total)
    return total


def runs(count: int, length: int) -> list[range]:
    """Cut ``range(count)`` into aligned runs of the largest power of two up to ``length``, or not at all."""
    step = count if length >= count else 1 << max(0, length.bit_length() - 1)
    return [range(start, min(start + step, count)) for start in range(0, count, max(1, step))]
