"""The tests that are likely to see a change of one line of ``engine``, those first that find it soonest.

Which tests execute the line is known from ``tests.executed``; of these, tests that name the function that it is in, or
who uses it, and those named like its file come first, the cheaper before the dearer. A line outside functions (a
constant, a default, a field of a class) is executed by those who use its name. Of files of tests of which it is not
known what they execute, the likeliest are added by their words alone; of all where no test is seen to execute the line.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

from tests.executed import ROOT, SOURCE, digest, files_of_tests, is_known, kept

COMMON = {"__init__", "compute", "analysis", "features", "statistics", "engine", "featdyn", "self", "options", "name"}
"""What names no module in particular."""
UNKNOWN_SECONDS = 1.5
"""Of CPU that a test is taken to cost where that is not known."""
BY_WORDS = 10
"""How many tests are added by their words alone."""
OF_DECLARATIONS = [
    "tests/engine/test_cli.py::test_what_each_command_takes_several_times_needs_and_shows_of_its_defaults",
    "tests/engine/test_defaults.py::test_the_page_of_defaults_is_the_declarations",
    "tests/engine/test_declared_ranges.py::test_a_variable_s_range_is_what_its_definition_allows",
    "tests/engine/test_spec_numbers.py::test_the_number_is_the_one_in_the_specification",
]
"""What reads declarations, and so sees a change outside functions that it does not execute."""


class Suite:
    """The tests of the engine that are not slow: their words, what they cost, and the lines that they execute."""

    def __init__(self) -> None:
        self._trees = {str(p.relative_to(ROOT)): ast.parse(p.read_text()) for p in (ROOT / SOURCE).rglob("*.py")}
        self._words = dict[str, frozenset[str]]()
        for file in files_of_tests():
            for node in ast.parse((ROOT / file).read_text()).body:
                decorated = " ".join(map(ast.unparse, getattr(node, "decorator_list", [])))
                slow = "mark.slow" in re.sub(r"param\(.*", "", decorated)
                if not isinstance(node, ast.FunctionDef | ast.ClassDef) or slow:
                    continue
                if node.name.startswith(("test_", "Test")):
                    words = re.findall(r"\w+", f"{Path(file).stem} {ast.unparse(node)}")
                    self._words[f"{file}::{node.name}"] = frozenset(words)  # of a class as a whole
        self.seconds = dict[str, float]()
        self._executed: defaultdict[str, defaultdict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._anywhere: defaultdict[str, set[str]] = defaultdict(
            set
        )  # of source files whose lines may have moved since
        self._read()

    def _read(self) -> None:
        found = {file: json.loads(kept(file).read_text()) for file in files_of_tests() if is_known(file)}
        asks = defaultdict[str, set[str]](set)  # a fixture -> the tests that ask for it; those of conftest everywhere
        everywhere = set(re.findall(r"def (\w+)\(", (ROOT / "tests/engine/conftest.py").read_text()))
        for file, one in found.items():
            for test, of in one["tests"].items():
                if _named(test) in self._words:
                    self.seconds[test] = of["seconds"]
                    for fixture in of["fixtures"]:
                        asks[fixture if fixture.partition(" ")[2] in everywhere else file + fixture].add(test)
        for file, one in found.items():
            contexts = [asks.get(c, asks.get(file + c, set())) or {c} & self.seconds.keys() for c in one["contexts"]]
            for source, lines in one["lines"].items():
                if source not in self._trees:
                    continue
                if one["sources"][source] != digest(ROOT / source):
                    self._anywhere[source].update(*(contexts[i] for of in lines.values() for i in of))
                    continue
                for line, of in lines.items():
                    self._executed[source][int(line)].update(*(contexts[i] for i in of))

    def of(self, path: str, line: int, seconds: float) -> list[str]:
        """Return the tests to try on a changed line, of about so many seconds of CPU."""
        scores = self._scores(path, line)
        known = {test: scores.get(_named(test), 0.0) for test in self._executing(path, line)}
        files = {test.partition("::")[0] for test in self.seconds}
        # Where no test is seen to execute the line, one may do so in another process, or in a thread of a library.
        words = {test: score for test, score in scores.items() if not known or test.partition("::")[0] not in files}
        known |= {test: words[test] for test in sorted(words, key=words.__getitem__, reverse=True)[:BY_WORDS]}
        cost = {test: self.seconds.get(test, UNKNOWN_SECONDS) for test in known}
        outside = not _inside_function(_around(self._trees[path], line), line)
        known = {test: score for test, score in known.items() if test.partition("[")[0] not in OF_DECLARATIONS}
        chosen, spent = OF_DECLARATIONS * outside, 0.0
        of_function = Counter[str]()  # the cases of one test are much alike: others come between them
        worth = dict[str, float]()
        for test in sorted(known, key=lambda test: (cost[test], test)):
            of_function[function := test.partition("[")[0]] += 1
            worth[test] = (0.1 + known[test]) / (0.3 + cost[test]) / of_function[function]
        for test in sorted(known, key=lambda test: (-worth[test], test)):
            if spent + cost[test] <= seconds or not chosen:
                chosen.append(test)
                spent += cost[test]
        return chosen

    def _executing(self, path: str, line: int) -> set[str]:
        """Return the tests that execute the statement of a line, or who uses the names that it defines."""
        inside = _around(self._trees[path], line)
        statement = inside[-1]
        if _inside_function(inside, line):
            end = statement.body[0].lineno - 1 if hasattr(statement, "body") else statement.end_lineno or line
            spots = [(path, range(statement.lineno, end + 1))]
        else:
            names = {n.name for n in inside if isinstance(n, ast.ClassDef | ast.FunctionDef)}
            targets = getattr(statement, "targets", [getattr(statement, "target", None)])
            names |= {n.id for target in targets if target for n in ast.walk(target) if isinstance(n, ast.Name)}
            spots = [spot for name in names for spot in self._users(name)]
        found = {test for file, lines in spots for at in lines for test in self._executed[file].get(at, ())}
        return found.union(*(self._anywhere[file] for file, _ in spots))

    def _users(self, name: str) -> list[tuple[str, range]]:
        """Return the bodies of functions that mention a name, or are of it, in any file."""
        return [
            (path, range(node.body[0].lineno, (node.end_lineno or 0) + 1))
            for path, tree in self._trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and (node.name == name or name in _mentioned(node))
        ]

    def _scores(self, path: str, line: int) -> dict[str, float]:
        """Return how likely tests are by their words: a name weighs the more the fewer tests have it."""
        folders = Path(path).relative_to(SOURCE).with_suffix("").parts
        inside, places = _names(self._trees[path], line) - COMMON, set(folders) - COMMON
        weights = dict.fromkeys(places, 1.0) | dict.fromkeys(inside, 2.0)
        counts = {name: sum(name in words for words in self._words.values()) for name in weights}
        found = dict[str, float]()
        for test, words in self._words.items():
            file, _, name = test.partition("::")
            alike = max((len(place) for place in places if place in f"{Path(file).stem} {name}"), default=0) / 20
            beside = bool(folders[:-1]) and Path(file).parts[2:-1] == folders[:-1]
            found[test] = alike + beside + sum(w / counts[one] for one, w in weights.items() if one in words)
        return {test: score for test, score in found.items() if score > 0}


def _named(test: str) -> str:
    """Return a test's file with its function or class."""
    return "::".join(test.partition("[")[0].split("::")[:2])


def _around(tree: ast.Module, line: int) -> list[ast.stmt]:
    """Return the statements that a line is in, its decorators too, from the outermost to the innermost."""
    found = list[ast.stmt]()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            first = min((d.lineno for d in getattr(node, "decorator_list", [])), default=node.lineno)
            if first <= line <= (node.end_lineno or 0):
                found.append(node)
    return found


def _inside_function(around: list[ast.stmt], line: int) -> bool:
    """Return whether a line is in the body of a function, not among its defaults or decorators."""
    return any(isinstance(node, ast.FunctionDef) and line >= node.body[0].lineno for node in around)


def _mentioned(node: ast.AST) -> set[str]:
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return names | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def _names(tree: ast.Module, line: int) -> set[str]:
    """Return what a line is in, functions and classes or else the names that are assigned; who uses that in its file;
    and what its statement calls.
    """
    inside = _around(tree, line)
    found = {n.name for n in inside if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    found = found or {n.id for part in inside for n in ast.walk(part) if isinstance(n, ast.Name)}
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    calls = {n.func.id for n in ast.walk(inside[-1]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return found | {f.name for f in functions if _mentioned(f) & found} | calls - set(dir(builtins))
