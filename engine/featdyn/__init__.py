"""Record what happens inside a network while it trains, and ask questions about it afterwards.

``Recorder`` and ``Probes`` record your own training into a store (``Axis`` says how a layer's output is to be read),
``import_recording(paths, store)`` brings in what other tools recorded, ``open_run(path)`` opens a store and says what
it holds.
``analyses()`` lists the questions, ``analyze(run, name, ...)`` answers one. All is imported when it is first used.

    run = featdyn.open_run("run.zarr")
    featdyn.analyses()                                     # names and questions; featdyn.analyses()["drift"] says more
    result = featdyn.analyze(run, "spectra")               # an xarray.Dataset, also kept in the store
    run = featdyn.open_run("run.zarr"); run.result("spectra")
    featdyn.query.query(run, "results.spectra.effective_rank", where=["set=test"])
    tree = featdyn.open_tree("run.zarr")                   # for xarray, with tree.featdyn.query and tree.featdyn.plot
    featdyn.commit_result("run.zarr", "mine", dataset)     # a result that other code made
    featdyn.report.write_report(run, "report.html")

``featdyn.statistics`` holds the tests and distances as functions of arrays.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from featdyn.extras import asked_for

if TYPE_CHECKING:
    from featdyn.analysis.driver import analyze
    from featdyn.analysis.registry import analyses
    from featdyn.capture import Axis, Probes, Recorder
    from featdyn.capture.foreign import import_recording
    from featdyn.query.tree import open_tree
    from featdyn.store import Run as open_run
    from featdyn.store import commit_result

__version__ = "0.1.0"
__all__ = [
    "Axis",
    "Probes",
    "Recorder",
    "analyses",
    "analyze",
    "commit_result",
    "import_recording",
    "open_run",
    "open_tree",
]

_PLACES = {
    "Axis": "featdyn.capture:Axis",
    "Probes": "featdyn.capture:Probes",
    "Recorder": "featdyn.capture:Recorder",
    "analyses": "featdyn.analysis.registry:analyses",
    "analyze": "featdyn.analysis.driver:analyze",
    "commit_result": "featdyn.store:commit_result",
    "import_recording": "featdyn.capture.foreign:import_recording",
    "open_run": "featdyn.store:Run",
    "open_tree": "featdyn.query.tree:open_tree",
}


_MODULES = ("query", "report", "statistics")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"featdyn.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'featdyn' has no attribute {name!r}; it offers {', '.join(__all__)}")
    module, _, attribute = _PLACES[name].partition(":")
    with asked_for():
        found = globals()[name] = getattr(importlib.import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, "__version__"})
