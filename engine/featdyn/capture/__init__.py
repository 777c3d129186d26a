"""From a running training loop to the store; what needs torch is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from featdyn.capture.options import CaptureOptions
from featdyn.extras import asked_for

if TYPE_CHECKING:
    from featdyn.capture.axis import Axis
    from featdyn.capture.probes import Probes
    from featdyn.capture.recorder import Recorder

__all__ = ["Axis", "CaptureOptions", "Probes", "Recorder"]

_LATE = {"Axis": "axis", "Probes": "probes", "Recorder": "recorder"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'featdyn.capture' has no attribute {name!r}")
    with asked_for():
        found = globals()[name] = getattr(importlib.import_module(f"featdyn.capture.{_LATE[name]}"), name)
    return found
