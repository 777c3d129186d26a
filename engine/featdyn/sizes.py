"""Numbers of bytes, for people."""

from __future__ import annotations


def size(n: float) -> str:
    """Return a number of bytes as text: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if n < 1024 or unit == "TiB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError
