"""All variables of a run by their dotted names: what a name or a pattern stands for, and what there is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np

from featdyn.errors import FeatdynError
from featdyn.nearest import near
from featdyn.output import quoted
from featdyn.query import derived
from featdyn.query.cells import Array
from featdyn.store import Run
from featdyn.store.metadata import Document


class Catalogue:
    """The arrays of a run, those that follow from others, and the newest results under names without a number."""

    def __init__(self, run: Run) -> None:
        self.run, self.nodes = run, run.nodes
        self.coordinate_values: dict[str, Array] = {}  # by path, which variables share
        arrays = [path for path, document in run.nodes.items() if document["node_type"] == "array"]
        arrays += [path for path in derived.paths(run) if path not in run.nodes]
        # Layer names hold dots themselves: the whole dotted name is looked up, never split.
        self.paths = {path.replace("/", "."): path for path in arrays}
        for newest in (run.results(name)[-1] for name in run.analyses):
            alias = newest.rpartition("/")[0].replace("/", ".")
            within = [path for path in arrays if path.startswith(f"{newest}/")]
            self.paths |= {f"{alias}.{path.removeprefix(newest + '/')}": path for path in within}

    @cached_property
    def names(self) -> list[str]:
        """What to offer: numbered results are left out, they have a name without the number."""
        return sorted(n for n, p in self.paths.items() if not p.startswith("results/") or n != p.replace("/", "."))

    def path(self, name: str) -> str:
        """Return where a variable lies, or raise :class:`FeatdynError`, whose message lists near names."""
        path = self.paths.get(name.replace("/", "."))
        if path is None:
            raise FeatdynError(f"{self.run.path}: {self.no_result(name) or f'no variable {name!r}{self._near(name)}'}")
        return path

    def no_result(self, name: str) -> str:
        """Say how to get the result that a variable would be of, where its analysis has none; else nothing."""
        from featdyn.analysis import analyses  # known to what is wrong alone: most questions need no analysis

        group, _, rest = name.replace("/", ".").partition(".")
        analysis = rest.partition(".")[0]
        if group != "results" or analysis in self.run.analyses or analysis not in analyses():
            return ""
        there = f"there are results of {', '.join(self.run.analyses)}" if self.run.analyses else "there are none"
        return f"no result of {analysis}, {there}: featdyn analyze {quoted(self.run.path)} {analysis}"

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Return names in place of patterns: ``cube.*norm``, or a regular expression behind ``~``."""
        found: list[str] = []
        for pattern in patterns:
            if pattern.startswith("~"):
                try:
                    compiled = re.compile(pattern[1:])
                except re.error as error:
                    raise FeatdynError(f"{pattern!r} is not a regular expression: {error}") from None
                names = [name for name in self.names if compiled.search(name)]
            elif set(pattern) & {"*", "?", "["} and pattern.replace("/", ".") not in self.paths:
                names = [name for name in self.names if fnmatchcase(name, pattern.replace("/", "."))]
            else:
                self.path(pattern)
                names = [pattern.replace("/", ".")]
            if not names:
                raise FeatdynError(f"{self.run.path}: no variable matches {pattern!r}{self._near(pattern)}")
            found += names
        return list(dict.fromkeys(found))

    def _near(self, name: str) -> str:
        """Return the end of a sentence that lists what may have been meant, or what there is."""
        dotted = name.replace("/", ".").rstrip(".")
        inside = [n for n in self.names if n.startswith(f"{dotted}.")]
        last = [n for n in self.names if n.rpartition(".")[2] == dotted]
        found = inside or last or near(dotted, self.names, 6, 0.5)
        there = found or list(dict.fromkeys(n.partition(".")[0] + (".*" if "." in n else "") for n in self.names))
        more = f" and {len(there) - 12} more" if len(there) > 12 else ""
        listed = f"{', '.join(there[:12])}{more}"
        return f"; did you mean {listed}?" if found else f"; there are {listed}" if there else ""

    def near(self, name: str, dims: Sequence[str]) -> str:
        """Return the variables along these axes that a name without its group, or with a slip, may stand for; or ''."""
        dotted = name.replace("/", ".")
        last = [known for known in self.names if known.rpartition(".")[2] == dotted]
        close = near(dotted, self.names, 3, 0.8) if "." in dotted else []
        fit = [known for known in last or close if set(dims_of(self.document(self.paths[known]))) <= set(dims)]
        return ", ".join(fit[:6])

    def coordinates(self, path: str) -> dict[str, str]:
        """Return the paths of the coordinates along one axis of an array, from its own group and from the root."""
        of = self.document(path)
        own = path.rpartition("/")[0]
        dims, found = dims_of(of), dict[str, str]()
        named = of["attributes"].get("coordinates", "").split()
        if own in self.nodes:
            named += self.nodes[own]["attributes"].get("coordinates", "").split()
        for candidate in [*self._lines.get("", []), *(self._lines.get(own, []) if own else [])]:
            group, _, name = candidate.rpartition("/")
            axis = dims_of(self.nodes[candidate])[0]
            if axis in dims and candidate != path and (not group or name == axis or name in named):
                found[name] = candidate
        return found

    @cached_property
    def _lines(self) -> dict[str, list[str]]:
        """Arrays along one axis, by their groups."""
        found: dict[str, list[str]] = {}
        for path in dict.fromkeys(self.paths.values()):
            if path in self.nodes and len(dims_of(self.nodes[path])) == 1:
                found.setdefault(path.rpartition("/")[0], []).append(path)
        return found

    def document(self, path: str) -> Document:
        """Return the metadata of an array, also of one that follows from others."""
        return self.nodes[path] if path in self.nodes else derived.document(self.run, path)


def dims_of(document: Document) -> tuple[str, ...]:
    """Return the names of an array's axes."""
    names = document.get("dimension_names") or [None] * len(document["shape"])
    return tuple(name or f"axis{axis}" for axis, name in enumerate(names))


def kind_of(document: Document) -> np.dtype[Any]:
    """Return the type of an array's values as numpy has it, not scaled; text is an object."""
    try:
        found = np.dtype(document["data_type"])
    except TypeError:
        return np.dtype(object)
    return found if found.kind in "biufc" else np.dtype(object)
