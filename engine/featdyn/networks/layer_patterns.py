"""Patterns of layer names: ``*`` and ``?`` stay within one part of a dotted name, ``**`` crosses dots."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that a pattern fits, in their order; a name fits itself.

    Parameters
    ----------
    pattern
        Such as ``layer*`` (``layer1``, but no module inside it), ``layer1.*``, ``encoder.**.attn`` or ``s[23]b1``.
    names
        Dotted names, as in ``named_modules``.

    Examples
    --------
    >>> matching("layer*", ["layer1", "layer1.0", "layer2"])
    ['layer1', 'layer2']
    """
    fits = _compiled(pattern).fullmatch
    return [name for name in names if name == pattern or fits(name)]


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("".join(map(_expression, re.split(r"(\*\*|\*|\?|\[!?\]?[^\]]*\])", pattern))))


def _expression(part: str) -> str:
    known = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    if part in known or not part.startswith("["):
        return known.get(part) or re.escape(part)
    inside = part[1:-1]
    negated = inside.startswith("!")
    body = inside[negated:].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]").replace("^", r"\^")
    return f"[{'^' * negated}{body}]" if body else re.escape(part)
