"""A plugin of pytest for ``tests.mutants --measure``: which test executes which line, and how long each takes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parent.parent
RC = os.environ["FEATDYN_MUTANTS"]
_seconds: dict[str, float] = {}
_lines: dict[str, list[str]] = {}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure a test with its fixtures."""
    measured, start = coverage.Coverage(config_file=RC), time.monotonic()
    measured.start()
    yield
    measured.stop()
    _seconds[item.nodeid] = time.monotonic() - start
    data = measured.get_data()
    for name in data.measured_files():
        path = Path(name).relative_to(ROOT)
        for line in data.lines(name) or ():
            _lines.setdefault(f"{path}:{line}", []).append(item.nodeid)
    measured.erase()


def pytest_sessionfinish() -> None:
    """Write what was measured; each worker its own."""
    if _seconds:
        target = Path(RC).parent / f"map-{os.getpid()}.json"
        target.write_text(json.dumps({"lines": _lines, "seconds": _seconds}))
