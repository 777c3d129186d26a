"""Arguments at their limits, and beyond them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def check_limits(
    call: Callable[[Any], Any],
    taken: Iterable[Any],
    refused: Iterable[Any],
    error: type[BaseException] | tuple[type[BaseException], ...],
) -> None:
    """Fail where a call refuses what it is to take, or takes what it is to refuse with an error of this kind."""
    for value in taken:
        call(value)
    for value in refused:
        with pytest.raises(error):
            call(value)
