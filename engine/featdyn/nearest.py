"""What may have been meant by a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_BEGINNING = 5
"""Letters from which a word may be the beginning of a longer name: our own choice."""


def meant(word: str, known: Iterable[str]) -> str:
    """Return a question for the middle of a sentence, which names the nearest; empty where nothing is near."""
    return "".join(f"did you mean {found}? " for found in near(word, known))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence: the nearest name, or all of them."""
    names = list(known)
    return meant(word, names).rstrip() or f"there are {', '.join(names)}"


def near(word: str, known: Iterable[str], count: int = 1, alike: float = 0.6) -> list[str]:
    """Return at most so many names that a word may stand for, the nearest first; upper and lower case are the same.

    A name must share letters (``alike``, as difflib has it) and be few slips away, one for three letters (of the last
    part of a dotted name): a letter that is wrong, lacking, too many or swapped with the next, in the name or in its
    beginning. Our own choice.
    """
    small, last = word.lower(), word.rpartition(".")[2]
    slips = max(1, len(last) // 3)
    names: dict[str, list[str]] = {}
    for name in known:
        names.setdefault(name.lower(), []).append(name)
    found: list[str] = []
    for name in get_close_matches(small, names, max(6, count), alike):
        begins = [name[: len(small)]] if len(last) >= _BEGINNING else []
        if min(_slips(small, whole) for whole in (name, *begins)) <= slips:
            found += dict.fromkeys(names[name])
    return found[:count]


def _slips(one: str, other: str) -> int:
    """Return how many letters have to be changed, put in, left out or swapped with their neighbour."""
    before, last = list[int](), list(range(len(other) + 1))
    for i, a in enumerate(one):
        row = [i + 1]
        for j, b in enumerate(other):
            row.append(min(last[j] + (a != b), last[j + 1] + 1, row[j] + 1))
            if i and j and a == other[j - 1] and b == one[i - 1]:
                row[-1] = min(row[-1], before[j - 1] + 1)
        before, last = last, row
    return last[-1]
