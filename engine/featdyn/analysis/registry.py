"""Which analyses there are: featdyn's own, and those of any package with an entry point of the group."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType

from featdyn.analysis.declaration import Analysis
from featdyn.analysis.table import AnalysisTable
from featdyn.errors import FeatdynError
from featdyn.nearest import nearest

GROUP = "featdyn.analyses"
OWN = "featdyn.analysis"
"""Its rooms hold a folder for each analysis, which declares it as ``ANALYSIS``; nothing lists them."""


@cache
def analyses() -> AnalysisTable:
    """Return all analyses by name: those of featdyn, then those of other packages. Prints as a table of questions.

    An entry point of the group ``featdyn.analyses`` names an :class:`Analysis`, or a package like this one.

    Raises
    ------
    FeatdynError
        An entry point that is none, or a name that is taken.

    Examples
    --------
    >>> featdyn.analyses()["drift"].question
    'do features and weights still move while predictions hold?'
    """
    found = AnalysisTable()
    for analysis in [*_declared(importlib.import_module(OWN)), *_foreign()]:
        if analysis.name in found:
            both = f"{found[analysis.name].module}, {analysis.module}"
            raise FeatdynError(f"two analyses are called {analysis.name}: {both}")
        found[analysis.name] = analysis
    return found


def analysis(name: str) -> Analysis:
    """Return one analysis; where there is none of that name FeatdynError says which is near."""
    known = analyses()
    if name not in known:
        raise FeatdynError(f"no analysis {name!r}: {nearest(name, known)}")
    return known[name]


def _foreign() -> Iterator[Analysis]:
    for entry in entry_points(group=GROUP):
        if entry.value == OWN:
            continue
        try:
            held = entry.load()
        except Exception as error:  # of any kind: it is another package's code
            raise FeatdynError(f"the analysis {entry.name} ({entry.value}) cannot be loaded: {error}") from error
        if isinstance(held, Analysis):
            yield replace(held, module=entry.value)
        elif isinstance(held, ModuleType):
            yield from _declared(held)
        else:
            raise FeatdynError(f"the entry point {entry.name} ({entry.value}) is no Analysis and no package of them")


def _declared(package: ModuleType) -> Iterator[Analysis]:
    """Yield what the folders in the rooms of a package declare; their modules are not imported."""
    for room in _folders(package):
        for folder in _folders(room):
            held = getattr(folder, "ANALYSIS", None)
            if isinstance(held, Analysis):
                yield replace(held, module=folder.__name__)


def _folders(package: ModuleType) -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(package.__path__):
        if module.ispkg:
            yield importlib.import_module(f"{package.__name__}.{module.name}")
