"""The tests that are for a GPU: those marked ``gpu``, and every ``test_*_gpu.py``, which runs on the card where one is.

A test that was skipped for want of a card has decided nothing.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.harness import sized

ROOT = Path(__file__).parents[2]


class Reporter:
    """Puts a row for each test into a queue."""

    def __init__(self) -> None:
        self.rows: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        ok = None if report.skipped else report.passed
        note = "" if report.passed else str(report.longrepr).strip().splitlines()[-1][:300]
        self.rows.put({"what": report.nodeid, "ok": ok, "note": note, "seconds": report.duration})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.rows.put({"what": report.nodeid, "ok": False, "note": report.longreprtext.splitlines()[-1][:300]})


def marked() -> list[str]:
    """Return the files that hold a test marked ``gpu``."""
    return sorted(str(p) for p in (ROOT / "tests").rglob("test_*.py") if "@pytest.mark.gpu" in p.read_text())


def whole() -> list[str]:
    """Return the files whose tests all are for a card."""
    return sorted(str(p) for p in (ROOT / "tests" / "kernels").glob("test_*_gpu.py"))


def rows(device: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield a row for each test, as it ends."""
    few = ["-k", "test_matches_the_reference and float32", str(ROOT / "tests/kernels/test_moments_gpu.py")]
    calls = sized([["-m", "gpu", *marked()], ["-m", "not gpu and not slow", *whole()]], [few])
    reporter = Reporter()

    def work() -> None:
        try:
            for arguments in calls:
                pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *arguments], plugins=[reporter])
        finally:
            reporter.rows.put(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield from iter(reporter.rows.get, None)
