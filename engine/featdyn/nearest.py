"""What may have been meant by a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence: the nearest name, or all of them."""
    names = list(known)
    found = get_close_matches(word, names, 1, 0.6)
    return f"did you mean {found[0]}?" if found else f"there are {', '.join(names)}"
