"""From a running training loop to the store."""

from featdyn.capture.axis import Axis
from featdyn.capture.options import CaptureOptions
from featdyn.capture.probes import Probes
from featdyn.capture.recorder import Recorder

__all__ = ["Axis", "CaptureOptions", "Probes", "Recorder"]
