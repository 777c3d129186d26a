"""Record what happens inside a network while it trains, and ask questions about it afterwards.

``open_run(path)`` opens a store; ``Recorder`` and ``Probes`` record your own training; ``analyses()`` lists the
questions and ``analyze(run, name, ...)`` answers one. Everything is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featdyn.analysis.driver import analyze
    from featdyn.analysis.registry import analyses
    from featdyn.capture import Probes, Recorder
    from featdyn.store import Run as open_run

__version__ = "0.1.0"
__all__ = ["Probes", "Recorder", "analyses", "analyze", "open_run"]

_PLACES = {
    "Probes": "featdyn.capture:Probes",
    "Recorder": "featdyn.capture:Recorder",
    "analyses": "featdyn.analysis.registry:analyses",
    "analyze": "featdyn.analysis.driver:analyze",
    "open_run": "featdyn.store:Run",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'featdyn' has no attribute {name!r}; it offers {', '.join(__all__)}")
    module, _, attribute = _PLACES[name].partition(":")
    found = globals()[name] = getattr(importlib.import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
