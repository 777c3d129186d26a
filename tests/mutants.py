"""Can the tests fail? Random single-token mutants of ``engine``: ``python -m tests.mutants --number 100 --seed 1``.

A mutant has one operator, comparison, boolean or number changed, but for what ``zip`` and ``dataclass`` are told, which
only refuses mistakes in the code itself. The tests that execute its line (``tests.executed`` has found which;
``tests.likely`` chooses) run on a copy of the tree, in a fork of a process that has loaded the libraries, until one
fails. Those that failed run once more on the tree as it is, where all must pass.

Survivors are printed with their change: a test is missing, or it is one that was too dear to be tried, or the mutant
behaves like the original, which only a person can tell (CONTRIBUTING.md has the rule).
"""

from __future__ import annotations

import argparse
import ast
import compileall
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.executed import ROOT, SOURCE
from tests.likely import Suite

COMPARE = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
BINARY = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*"}
BOOLEAN = {ast.And: "or", ast.Or: "and"}
TOKENS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Add: "+", ast.Sub: "-",
    ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.And: "and", ast.Or: "or",
}  # fmt: skip
SAID = {"failed": "caught", "passed": "SURVIVED", "out of time": "OUT OF TIME", "nothing ran": "NOTHING RAN"}
ASSERTING = {"zip", "dataclass"}
"""What these are told by name changes nothing that is right."""
LIBRARIES = (
    "torch", "torch.fx", "torch.export", "torch.func", "torch.utils.data", "xarray", "zarr", "scipy.stats",
    "scipy.optimize", "pandas", "pydantic", "pyarrow.parquet", "sklearn.linear_model", "click", "jinja2",
    "plotly.graph_objects", "hypothesis.extra.numpy", "featdyn_kernels.stitch", "featdyn_kernels.kde",
    "featdyn_kernels.moments",
)  # fmt: skip
"""What is loaded once for all mutants: no line of it is mutated."""
SECONDS = 1200
"""Of waiting for a mutant, whatever else runs on the machine."""


@dataclass(frozen=True)
class Mutant:
    """One changed token: ``source[start:stop]`` of a file becomes ``new``."""

    path: str
    line: int
    start: int
    stop: int
    old: str
    new: str


def mutants(path: Path) -> Iterator[Mutant]:
    """Yield all mutants of a file; annotations and what is there for type checkers only are left out."""
    source = path.read_text()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    raw, name = source.encode(), str(path.relative_to(ROOT))

    def at(line: int, column: int) -> int:
        return starts[line - 1] + column

    def token(left: ast.expr, right: ast.expr, old: str, new: str) -> Iterator[Mutant]:
        first, last = at(left.end_lineno or 0, left.end_col_offset or 0), at(right.lineno, right.col_offset)
        found = raw[first:last].decode().find(old)
        if found >= 0:
            start = first + found
            line = raw[:start].count(b"\n") + 1
            yield Mutant(name, line, start, start + len(old), old, new)

    def visit(node: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
                if type(operator) in COMPARE:
                    yield from token(left, right, TOKENS[type(operator)], COMPARE[type(operator)])
        elif isinstance(node, ast.BinOp) and type(node.op) in BINARY:
            yield from token(node.left, node.right, TOKENS[type(node.op)], BINARY[type(node.op)])
        elif isinstance(node, ast.BoolOp):
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from token(left, right, TOKENS[type(node.op)], BOOLEAN[type(node.op)])
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            value = node.value
            other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 2 or 1.0
            start, stop = at(node.lineno, node.col_offset), at(node.end_lineno or 0, node.end_col_offset or 0)
            yield Mutant(name, node.lineno, start, stop, raw[start:stop].decode(), str(other))
        asserts = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ASSERTING
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "type_params") or (asserts and field == "keywords"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child)

    yield from visit(ast.parse(source))


class Failed:
    """A plugin of pytest that keeps the names of tests that fail, and of files that cannot be loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed:
            with self._path.open("a") as out:
                out.write(f"{report.nodeid}\n")


class OwnAnalysis:
    """A plugin of pytest: tests that go over all analyses are of the mutant's own where its file is of one."""

    def __init__(self, path: str) -> None:
        self._places = set(Path(path).parts)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        from featdyn.analysis import analyses

        own, every = self._places & set(analyses()), set(analyses())
        if own:
            said = {item: set(re.split(r"[\[\]-]", item.nodeid)[1:]) for item in items}
            items[:] = [item for item in items if not every & said[item] or own & said[item]]


def run(tree: Path, tests: list[str], seconds: float, *flags: str, of: str = "") -> tuple[str, list[str]]:
    """Run tests on a copy of the tree, in a fork.

    Return "passed", "failed", "out of time", which is so many seconds of CPU, or "nothing ran", where pytest ended
    without a test that failed (none was left, or it broke), and the tests that failed. ``of`` is the path that was
    changed.
    """
    names = tree / "failed.txt"
    names.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            limit = int(seconds + time.process_time()) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
            _run(tree, tests, [Failed(names), OwnAnalysis(of)], *flags)
        finally:  # whatever happens, the copy of the tree is the parent's to remove
            os._exit(1)
    end, said = time.monotonic() + SECONDS, "out of time"
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
                said = "failed" if status and names.exists() else "nothing ran" if status else "passed"
            break
        time.sleep(0.05)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return said, names.read_text().splitlines() if names.exists() else []


def _run(tree: Path, tests: list[str], plugins: list[object], *flags: str) -> None:
    os.chdir(tree)
    sys.path[:0] = [str(tree / "engine"), str(tree)]
    os.environ["PYTHONPATH"] = f"{tree / 'engine'}:{ROOT / 'kernels'}:{tree}"
    sys.dont_write_bytecode = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    # Every example of Hypothesis is drawn from a fixed seed, so that a mutant's verdict can be repeated.
    quiet = ["--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=0"]
    code = pytest.main(["-q", *quiet, "--hypothesis-seed=0", *flags, *tests], plugins=plugins)
    os._exit(0 if code == 0 else 1)


@contextmanager
def copied() -> Iterator[Path]:
    """Yield a copy of the tree, for mutants to be made in."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        for part in ("engine", "tests", "bench", "docs"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(tree, quiet=2)
        (tree / "kernels").symlink_to(ROOT / "kernels")  # where Numba has compiled them
        for part in (
            "pyproject.toml",
            "README.md",
            "cli.py",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
            "Makefile",
            "mkdocs.yml",
        ):
            shutil.copy(ROOT / part, tree / part)
        yield tree


@contextmanager
def mutated(mutant: Mutant, tree: Path) -> Iterator[None]:
    """Change a copy of the tree for as long as this is open."""
    path = tree / mutant.path
    original = path.read_bytes()
    path.write_bytes(original[: mutant.start] + mutant.new.encode() + original[mutant.stop :])
    try:
        yield
    finally:
        path.write_bytes(original)


def main() -> None:
    """Try some mutants and print what came out, as JSON too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=60, help="of CPU that the tests of a mutant are to take")
    parser.add_argument(
        "--only", default="", help="only mutants whose file and line begin so: engine/featdyn/sizes.py:12"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    every = [m for path in sorted((ROOT / SOURCE).rglob("*.py")) for m in mutants(path)]
    every = [m for m in every if f"{m.path}:{m.line}:".startswith(options.only)]
    chosen = random.Random(options.seed).sample(every, min(options.number, len(every)))
    for name in LIBRARIES:
        importlib.import_module(name)
    suite, results = Suite(), list[dict[str, Any]]()
    with copied() as tree:
        for number, mutant in enumerate(chosen, 1):
            tests, start = suite.of(mutant.path, mutant.line, options.seconds), time.monotonic()
            with mutated(mutant, tree):
                said, failed = run(tree, tests, 4 * options.seconds, "-x", of=mutant.path) if tests else ("passed", [])
            results.append({**asdict(mutant), "found": said, "by": failed, "tests": len(tests)})
            print(
                f"{number:3d} {SAID[said]:11s} {mutant.path}:{mutant.line} {mutant.old} -> {mutant.new} "
                f"({len(tests)} tests, {time.monotonic() - start:.0f} s) {' '.join(failed)}",
                flush=True,
            )
        wrong = sorted({test for result in results for test in result["by"]})
        wrong = run(tree, wrong, 3600)[1] if wrong else []
    for result in results:
        if set(result["by"]) & set(wrong):
            result["found"] = "fails anyway"
            print(
                f"nothing is known of {result['path']}:{result['line']}: {result['by'][0]} fails on the tree as it is"
            )
    number = sum(r["found"] == "failed" for r in results)
    print(f"{number} of {len(results)} caught (of {len(every)} possible mutants)")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
