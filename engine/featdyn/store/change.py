"""A change of a recording that somebody accepted when it was continued, which stays on record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """What was no longer as it had been, from which commit on, and when that was accepted."""

    commit: int  # number of the first checkpoint's commit that was recorded with it
    when: str  # ISO 8601, UTC
    what: Mapping[str, list[str]]  # by its name how it was, and how it has been since

    @classmethod
    def parse(cls, document: Any) -> Change:
        """Return what JSON said of a change, or raise ValueError, KeyError or TypeError."""
        commit, when, what = (document[key] for key in ("commit", "when", "what"))
        texts = [text for pair in what.values() for text in pair]
        if not (isinstance(commit, int) and all(isinstance(text, str) for text in (when, *what, *texts))):
            raise ValueError("no change")
        if any(len(pair) != 2 for pair in what.values()):
            raise ValueError("no change")
        return cls(commit, when, what)
