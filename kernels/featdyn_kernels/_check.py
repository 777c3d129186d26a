"""Argument checks whose messages name the argument and its shape."""

from __future__ import annotations

from typing import Any


def require_ndim(array: Any, name: str, ndim: int, meaning: str) -> None:
    """Raise ``ValueError`` unless ``array`` has ``ndim`` axes; ``meaning`` is the wanted shape, such as ``(N, d)``."""
    if array.ndim != ndim:
        raise ValueError(f"{name} must have shape {meaning}, got {tuple(array.shape)}")


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless the condition holds."""
    if not condition:
        raise ValueError(message)
