"""Numbers of bytes, seconds and things, for people."""

from __future__ import annotations

import re


def counted(n: int, noun: str) -> str:
    """Return a number of things as text: 1 layer, 1,200 layers."""
    return f"{n:,} {noun}{'s' if n != 1 else ''}"


def singular(text: str) -> str:
    """Return a text that counts things with one of them in the singular: 1 layer x 4 checkpoints."""
    return re.sub(r"(?<![\d.,])1 (\w+)s\b", r"1 \1", text)


def size(n: float) -> str:
    """Return a number of bytes as text: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if n < 1024 or unit == "TiB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError


def duration(seconds: float) -> str:
    """Return a time as text, to two digits: 1.5 min."""
    for unit, length in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= length or unit == "s":
            return f"{seconds / length:.2g} {unit}" if seconds < 100 * length else f"{seconds / length:,.0f} {unit}"
    raise AssertionError
