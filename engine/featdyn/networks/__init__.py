"""Networks that can be cut in depth: `build` makes one by name, `cuts` finds where any module comes apart."""

from featdyn.classes import predicted_classes
from featdyn.networks.choose import default_cuts, resolve
from featdyn.networks.classes import class_loss
from featdyn.networks.cut import Cut, features_at, segments, state_for
from featdyn.networks.registry import build, names
from featdyn.networks.skeleton import is_skeleton, skeleton
from featdyn.networks.taps import Taps, taps
from featdyn.networks.unwrap import asked_layers, named_layers, plain_names, unwrap
from featdyn.networks.ways import cuts, module_cuts, ways

__all__ = [
    "Cut",
    "Taps",
    "asked_layers",
    "build",
    "class_loss",
    "cuts",
    "default_cuts",
    "features_at",
    "is_skeleton",
    "module_cuts",
    "named_layers",
    "names",
    "plain_names",
    "predicted_classes",
    "resolve",
    "segments",
    "skeleton",
    "state_for",
    "taps",
    "unwrap",
    "ways",
]
