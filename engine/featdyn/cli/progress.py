"""Progress bars on the terminal; none where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(title: str, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """Yield ``update(done, total)``, drawn on standard error when that is a terminal."""
    from tqdm import tqdm

    with tqdm(desc=title, unit=unit, disable=not sys.stderr.isatty(), leave=False, unit_scale=unit == "B") as drawn:

        def update(done: int, total: int) -> None:
            drawn.total = total
            drawn.update(done - drawn.n)

        yield update
