"""Can the tests fail? Random single-token mutants of ``engine``: ``python -m tests.mutants --number 100 --seed 1``.

A mutant has one operator, comparison, boolean or number changed. The tests that execute its line run on a copy of the
tree, those of the same name and the fast ones first, until one fails. Which tests execute which line is measured once
(``--map FILE`` keeps it): ``coverage run --contexts``, so lines that run only in other processes are known to the tests
of the same name alone. Each mutant is tried in a fork of a process that has loaded the libraries.

Survivors are printed with their change: either a test is missing, or the mutant behaves like the original, which only
a person can tell. ``EQUIVALENT`` holds what was judged so, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = "engine/featdyn"
COMPARE = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
BINARY = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*"}
BOOLEAN = {ast.And: "or", ast.Or: "and"}
TOKENS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Add: "+", ast.Sub: "-",
    ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.And: "and", ast.Or: "or",
}  # fmt: skip
SECONDS = 240
"""For one mutant; one that makes tests hang counts as caught."""


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
            new = str(not value) if isinstance(value, bool) else str(value + 1 if isinstance(value, int) else value * 2)
            start, stop = at(node.lineno, node.col_offset), at(node.end_lineno or 0, node.end_col_offset or 0)
            yield Mutant(name, node.lineno, start, stop, raw[start:stop].decode(), new)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child)

    yield from visit(ast.parse(source))


def measure(target: Path, workers: int) -> None:
    """Run the suite under coverage and write which tests execute which lines, and how long each takes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rc").write_text(
            f"[run]\nsource = {ROOT / SOURCE}\nparallel = true\ndata_file = {folder}/data\n"
            "dynamic_context = none\ndisable_warnings = no-data-collected\n"
        )
        plugin = "-p tests.mutants_plugin"
        env = {**os.environ, "FEATDYN_MUTANTS": f"{folder}/rc", "PYTHONPATH": _paths(ROOT)}
        split = ["-n", str(workers)] if workers > 1 else ["-p", "no:xdist"]
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *split, *plugin.split(), "tests/engine"],
            cwd=ROOT, env=env, check=False,
        )  # fmt: skip
        lines: dict[str, list[str]] = {}
        seconds: dict[str, float] = {}
        for part in Path(folder).glob("map-*.json"):
            found = json.loads(part.read_text())
            seconds |= found["seconds"]
            for line, tests in found["lines"].items():
                lines.setdefault(line, []).extend(tests)
    target.write_text(json.dumps({"lines": lines, "seconds": seconds}))


def tests_of(mutant: Mutant, known: dict[str, Any], budget: float) -> list[str]:
    """Return the tests to run: of the same name first, then fast before slow, up to so many seconds."""
    found = set(known["lines"].get(f"{mutant.path}:{mutant.line}", ()))
    if not _inside_function(
        ROOT / mutant.path, mutant.line
    ):  # it ran once, for whichever test imported the module first
        found.update(*(tests for line, tests in known["lines"].items() if line.startswith(f"{mutant.path}:")))
    parts = Path(mutant.path).with_suffix("").parts[2:]
    same = [t for t in known["seconds"] if any(p in Path(t.partition("::")[0]).stem for p in parts if len(p) > 4)]
    if not found:
        found = set(same)
    seconds = known["seconds"]
    order = sorted(found, key=lambda t: (seconds.get(t, 1.0) > 5, t not in same, seconds.get(t, 1.0)))
    chosen, spent = [], 0.0
    for test in order:
        spent += seconds.get(test, 1.0)
        if spent > budget and chosen:
            break
        chosen.append(test)
    return chosen


def _inside_function(path: Path, line: int) -> bool:
    functions = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.Lambda)]
    return any(n.lineno < line <= (n.end_lineno or 0) for n in functions)


def caught(mutant: Mutant, tree: Path, tests: list[str]) -> bool:
    """Return whether a test fails on the mutated copy, or hangs."""
    path = tree / mutant.path
    original = path.read_bytes()
    path.write_bytes(original[: mutant.start] + mutant.new.encode() + original[mutant.stop :])
    try:
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                _run(tree, tests)
            finally:  # whatever happens, the copy of the tree is the parent's to remove
                os._exit(1)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status != 0
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return True
    finally:
        path.write_bytes(original)


def _run(tree: Path, tests: list[str]) -> None:
    os.chdir(tree)
    sys.path[:0] = [str(tree / "engine"), str(tree / "kernels"), str(tree)]
    os.environ["PYTHONPATH"] = _paths(tree)
    sys.dont_write_bytecode = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    import pytest

    # Every example of Hypothesis is drawn from a fixed seed, so that a mutant's verdict can be repeated.
    # Libraries that pytest would rewrite are loaded already.
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:cacheprovider", "-p", "no:xdist"]
    code = pytest.main(["-q", "-x", *quiet, "--hypothesis-seed=0", *tests])
    os._exit(0 if code == 0 else 1)


def _paths(tree: Path) -> str:
    return f"{tree / 'engine'}:{tree / 'kernels'}:{tree}"


def main() -> None:
    """Try some mutants and print what came out, as JSON too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--map", type=Path, default=Path(tempfile.gettempdir()) / "featdyn-mutants-map.json")
    parser.add_argument("--measure", action="store_true", help="measure which tests execute which lines, and end")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--budget", type=float, default=120, help="seconds of tests for each mutant")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.measure or not options.map.exists():
        measure(options.map, options.workers)
    if options.measure:
        return
    known = json.loads(options.map.read_text())
    every = [m for path in sorted((ROOT / SOURCE).rglob("*.py")) for m in mutants(path)]
    chosen = random.Random(options.seed).sample(every, options.number)
    for name in ("torch", "torch.fx", "numba", "xarray", "zarr", "scipy.stats", "pandas"):
        __import__(name)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        for part in ("engine", "kernels", "tests", "bench"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "results"))
        for part in ("pyproject.toml", "README.md", "cli.py", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile"):
            shutil.copy(ROOT / part, tree / part)
        for number, mutant in enumerate(chosen, 1):
            tests, start = tests_of(mutant, known, options.budget), time.monotonic()
            same = replace(mutant, new=mutant.old)
            if number == 1 and caught(same, tree, tests):
                raise SystemExit("the tests fail on the tree as it is: nothing can be said of mutants")
            found = caught(mutant, tree, tests) if tests else False
            results.append({**asdict(mutant), "caught": found, "tests": len(tests)})
            said = "caught" if found else "SURVIVED"
            print(
                f"{number:3d} {said:8s} {mutant.path}:{mutant.line} {mutant.old} -> {mutant.new} "
                f"({len(tests)} tests, {time.monotonic() - start:.0f} s)",
                flush=True,
            )
    number = sum(r["caught"] for r in results)
    print(f"{number} of {len(results)} caught (of {len(every)} possible mutants)")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
