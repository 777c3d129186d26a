"""What may have been meant by a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def meant(word: str, known: Iterable[str]) -> str:
    """Return a question for the middle of a sentence, which names the nearest; empty where nothing is near."""
    return "".join(f"did you mean {found}? " for found in get_close_matches(word, list(known), 1, 0.6))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence: the nearest name, or all of them."""
    names = list(known)
    return meant(word, names).rstrip() or f"there are {', '.join(names)}"
