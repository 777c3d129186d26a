"""Numbers of bytes and seconds, for people."""

from __future__ import annotations


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
