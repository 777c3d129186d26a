"""Networks that can be cut in depth: `build` makes one by name, `cuts` finds where any traceable module comes apart."""

from featdyn.networks.choose import default_cuts, resolve
from featdyn.networks.cut import Cut, cuts, features_at, segments, state_for
from featdyn.networks.registry import build, names

__all__ = ["Cut", "build", "cuts", "default_cuts", "features_at", "names", "resolve", "segments", "state_for"]
