"""Which tests execute which lines of ``engine``: ``python -m tests.executed [FILES OF TESTS]`` finds and keeps it.

It is what ``tests.mutants`` chooses tests by. Tests run under coverage, each with a context of its own, and so does
each fixture that is shared: what made a store is executed by all tests that ask for it. What runs in other
processes is not seen. A file is kept for each file of tests, outside the repository; without arguments those are run
that have none yet or have changed since.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = "engine/featdyn"
KNOWN = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "featdyn" / "executed"


def digest(path: Path) -> str:
    """Return a name for what is in a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def kept(file: str) -> Path:
    """Return where it lies what a file of tests executes."""
    return KNOWN / file.replace("/", ".").replace(".py", ".json")


class Executed:
    """A plugin of pytest that notes for each test its seconds of CPU, its fixtures and the lines that it runs."""

    def __init__(self) -> None:
        import coverage

        self._cover = coverage.Coverage(
            data_file=None, include=[f"{ROOT / SOURCE}/*"], config_file=False, messages=False
        )
        self._cover.set_option("run:disable_warnings", ["no-data-collected"])  # all tests of a file may be skipped
        self._tests: dict[str, dict[str, Any]] = {}
        self._cover.start()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        self._cover.switch_context(item.nodeid)
        start = sum(os.times()[:4])
        yield
        self._tests[item.nodeid] = {
            "seconds": round(sum(os.times()[:4]) - start, 2),
            "fixtures": [f"fixture {name}" for name in getattr(item, "fixturenames", [])],
        }
        if nextitem is None or nextitem.path != item.path:
            self._keep(str(item.path.relative_to(ROOT)))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        shared = fixturedef.scope != "function"
        if shared:
            self._cover.switch_context(f"fixture {fixturedef.argname}")
        yield
        if shared:
            self._cover.switch_context(os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0])

    def _keep(self, file: str) -> None:
        self._cover.stop()
        data, numbers = self._cover.get_data(), dict[str, int]()
        lines: dict[str, dict[int, list[int]]] = {}
        for source in data.measured_files():
            found = {line: sorted(filter(None, of)) for line, of in data.contexts_by_lineno(source).items()}
            lines[str(Path(source).relative_to(ROOT))] = {
                line: [numbers.setdefault(context, len(numbers)) for context in of] for line, of in found.items() if of
            }
        whole = {
            "digest": digest(ROOT / file),
            "sources": {source: digest(ROOT / source) for source in lines},
            "tests": self._tests,
            "contexts": list(numbers),
            "lines": lines,
        }
        KNOWN.mkdir(parents=True, exist_ok=True)
        kept(file).write_text(json.dumps(whole))
        self._tests = {}
        self._cover.erase()
        self._cover.start()


def files_of_tests() -> list[str]:
    """Return all files of tests of the engine, from the root of the repository."""
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests/engine").rglob("test_*.py"))]


def is_known(file: str) -> bool:
    """Return whether what a file of tests executes is kept, of the file as it is and of sources that are there."""
    if not kept(file).exists():
        return False
    found = json.loads(kept(file).read_text())
    return found["digest"] == digest(ROOT / file) and all((ROOT / source).exists() for source in found["sources"])


def main() -> None:
    """Run files of tests and keep what they execute."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="files of tests; by default those that are new or have changed")
    files = parser.parse_args().files or [file for file in files_of_tests() if not is_known(file)]
    sys.exit(pytest.main(["-q", "-p", "no:xdist", "--timeout=0", *files], plugins=[Executed()]))


if __name__ == "__main__":
    main()
