"""Can the tests fail? Random single-token mutants of ``engine``: ``python -m tests.mutants --number 100 --seed 1``.

A mutant has one operator, comparison, boolean or number changed. The tests most likely to see it run on a copy of the
tree, in a fork of a process that has loaded the libraries, until one fails: those that name the function that it is
in, or who uses it, and those named like its file. That needs no coverage, which takes longer than the whole suite.

Survivors are printed with their change: a test is missing, or it is one that was not tried, or the mutant behaves like
the original, which only a person can tell.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import compileall
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
SECONDS = 1200
"""Of waiting for a mutant, whatever else runs on the machine."""
COMMON = {"__init__", "compute", "analysis", "features", "statistics", "engine", "featdyn", "self", "options"}
"""What names no module in particular."""


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
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child)

    yield from visit(ast.parse(source))


class Suite:
    """The tests of the engine that are not slow, by the words of their text; and who uses which name of the engine."""

    def __init__(self) -> None:
        self.users: dict[str, set[str]] = {}
        for path in (ROOT / SOURCE).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    for name in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
                        self.users.setdefault(name, set()).add(node.name)
        self.words: dict[str, frozenset[str]] = {}
        for path in sorted((ROOT / "tests" / "engine").rglob("test_*.py")):
            source = path.read_text()
            for node in ast.parse(source).body:
                if not (isinstance(node, ast.FunctionDef) and node.name.startswith("test_")):
                    continue
                decorators = " ".join(map(ast.unparse, node.decorator_list))
                words = re.findall(r"\w+", f"{path.stem} {ast.unparse(node)}")
                if "mark.slow" not in re.sub(r"param\(.*", "", decorators):
                    self.words[f"{path.relative_to(ROOT)}::{node.name}"] = frozenset(words)

    def of(self, mutant: Mutant, number: int) -> list[str]:
        """Return so many tests, the likeliest first: a name weighs the more the fewer tests have it."""
        folders = Path(mutant.path).relative_to(SOURCE).with_suffix("").parts
        inside, places = _names(mutant) - COMMON, set(folders) - COMMON
        weights = dict.fromkeys(set().union(*(self.users.get(name, set()) for name in inside)) - COMMON, 1.0)
        weights |= dict.fromkeys(places, 1.0) | dict.fromkeys(inside, 2.0)
        if "analysis" in folders:
            weights["analyses"] = 2.0  # tests that go over the registry
        counts = {name: sum(name in words for words in self.words.values()) for name in weights}

        def score(test: str) -> float:
            file, _, name = test.partition("::")
            alike = max((len(place) for place in places if place in f"{Path(file).stem} {name}"), default=0) / 20
            beside = bool(folders[:-1]) and Path(file).parts[2:-1] == folders[:-1]
            return alike + beside + sum(w / counts[name] for name, w in weights.items() if name in self.words[test])

        found = sorted(self.words, key=score, reverse=True)[:number]
        return [test for test in found if score(test) > 0]


def _names(mutant: Mutant) -> set[str]:
    """Return what a mutant is in, functions and classes or else the names that are assigned; who uses that in its file;
    and what its statement calls.
    """
    tree = ast.parse((ROOT / mutant.path).read_text())
    inside = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and n.lineno <= mutant.line <= (n.end_lineno or 0)]
    found = {n.name for n in inside if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    found = found or {n.id for part in inside for n in ast.walk(part) if isinstance(n, ast.Name)}
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    used = {f.name: {n.id for n in ast.walk(f) if isinstance(n, ast.Name)} for f in functions}
    calls = {n.func.id for n in ast.walk(inside[-1]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return found | {name for name, names in used.items() if names & found} | calls - set(dir(builtins))


def tried(mutant: Mutant, tree: Path, tests: list[str], seconds: int) -> str:
    """Return whether a test fails on the mutated copy ("caught"), all pass, or they take more CPU than that."""
    path = tree / mutant.path
    original = path.read_bytes()
    path.write_bytes(original[: mutant.start] + mutant.new.encode() + original[mutant.stop :])
    try:
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                resource.setrlimit(resource.RLIMIT_CPU, (seconds + int(time.process_time()), resource.RLIM_INFINITY))
                _run(mutant, tree, tests)
            finally:  # whatever happens, the copy of the tree is the parent's to remove
                os._exit(1)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                out = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
                return "OUT OF TIME" if out else "caught" if status else "SURVIVED"
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "OUT OF TIME"
    finally:
        path.write_bytes(original)


class OwnAnalysis:
    """A plugin of pytest: tests that go over all analyses are of the mutant's own where its file is of one."""

    def __init__(self, mutant: Mutant) -> None:
        self._places = set(Path(mutant.path).parts)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        from featdyn.analysis import analyses

        own = self._places & set(analyses())
        if own:
            items[:] = [i for i in items if not set(analyses()) & {*_parameters(i)} or own & {*_parameters(i)}]


def _parameters(item: Any) -> list[str]:
    return re.split(r"[\[\]-]", item.nodeid)[1:]


def _run(mutant: Mutant, tree: Path, tests: list[str]) -> None:
    os.chdir(tree)
    sys.path[:0] = [str(tree / "engine"), str(tree)]
    os.environ["PYTHONPATH"] = f"{tree / 'engine'}:{ROOT / 'kernels'}:{tree}"
    sys.dont_write_bytecode = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    import pytest

    # Every example of Hypothesis is drawn from a fixed seed, so that a mutant's verdict can be repeated.
    quiet = ["--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist"]
    code = pytest.main(["-q", "-x", *quiet, "--hypothesis-seed=0", *tests], plugins=[OwnAnalysis(mutant)])
    os._exit(0 if code == 0 else 1)


def main() -> None:
    """Try some mutants and print what came out, as JSON too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tests", type=int, default=40, help="how many are tried on each mutant, with all parameters")
    parser.add_argument("--seconds", type=int, default=120, help="of CPU for each mutant")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    every = [m for path in sorted((ROOT / SOURCE).rglob("*.py")) for m in mutants(path)]
    chosen, suite = random.Random(options.seed).sample(every, options.number), Suite()
    for name in ("torch", "torch.fx", "xarray", "zarr", "scipy.stats", "pandas", "pydantic", "featdyn_kernels.stitch"):
        __import__(name)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        for part in ("engine", "tests", "bench", "docs"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "results"))
        compileall.compile_dir(tree, quiet=2)
        (tree / "kernels").symlink_to(ROOT / "kernels")  # where Numba has compiled them
        for part in ("pyproject.toml", "README.md", "cli.py", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile"):
            shutil.copy(ROOT / part, tree / part)
        for number, mutant in enumerate(chosen, 1):
            tests, start = suite.of(mutant, options.tests), time.monotonic()
            same = replace(mutant, new=mutant.old)
            if number == 1 and tried(same, tree, tests, options.seconds) == "caught":
                raise SystemExit("the tests fail on the tree as it is: nothing can be said of mutants")
            found = tried(mutant, tree, tests, options.seconds) if tests else "SURVIVED"
            results.append({**asdict(mutant), "found": found, "tests": len(tests)})
            print(
                f"{number:3d} {found:11s} {mutant.path}:{mutant.line} {mutant.old} -> {mutant.new} "
                f"({len(tests)} tests, {time.monotonic() - start:.0f} s)",
                flush=True,
            )
    number = sum(r["found"] == "caught" for r in results)
    print(f"{number} of {len(results)} caught (of {len(every)} possible mutants)")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
