"""Recorded layers in the place of cuts, for analyses of features: they need no network, and none that comes apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from featdyn.analysis.inputs.feature_source import Source
from featdyn.analysis.inputs.features_at_cuts import Features
from featdyn.analysis.inputs.recorded_arrays import recorded, refuse_vanished
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.inputs.weights import States
from featdyn.errors import NetworkError
from featdyn.networks import Cut
from featdyn.store import Run


class _Stored:
    """No way to take a network apart: there is none."""

    method = "not at all, layers stand as they were recorded"
    traced = True

    def part(self, source: Any, result: Any, module: nn.Module | None = None) -> nn.Module:
        raise NetworkError("recorded layers have no halves: the network is not known")

    def handed(self, features: Tensor, inputs: Callable[[], Tensor]) -> Tensor:
        return features


def recorded_layers(run: Run, patterns: Sequence[str], why: str) -> Stitchable:
    """Return the recorded layers of these names or patterns, all of them for "default" or "all", as if they were cuts.

    ``why`` says for what reason it is not the network's cuts. Raises :class:`FeatdynError` where no activation was
    recorded of any, or float16 holds too little of one.
    """
    specs = recorded(run, ["all" if pattern == "default" else pattern for pattern in patterns], "activation")
    names = [spec.path.split("/")[1] for spec in specs]
    refuse_vanished(run, names, "record with dtype float32")
    way, sources = _Stored(), dict[str, Source]((name, "stored") for name in names)
    cuts = [Cut(name, name, spec.shape[1:], 0, 0, 0, 0, way, name) for name, spec in zip(names, specs, strict=True)]
    states = States(run, None)
    features = Features(run, None, cuts, states, sources, masked=True)
    again = partial(recorded_layers, run, names, why)
    return Stitchable(nn.Module(), cuts, states, sources, features, again, f"{way.method}; {why}", halves=False)
