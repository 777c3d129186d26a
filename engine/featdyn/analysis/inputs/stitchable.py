"""A recorded network taken apart: its cuts, the weights of its checkpoints, and where its features come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from torch import nn

from featdyn.analysis.inputs import feature_source as source
from featdyn.analysis.inputs.feature_source import Source
from featdyn.analysis.inputs.features_at_cuts import Batches, Features, measure_rates
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.recorded_arrays import vanished
from featdyn.analysis.inputs.weights import States, network_of, refuse_other_function
from featdyn.capture.tap import device_of
from featdyn.errors import FeatdynError
from featdyn.networks import Cut, cuts, resolve
from featdyn.store import Run

Made = TypeVar("Made")

BETWEEN = 12
"""So many copies of the widest features are held at once by layers and threads, at most."""


@dataclass(frozen=True, eq=False)
class Stitchable:
    """What every analysis of composites starts from."""

    model: nn.Module  # in eval mode
    cuts: list[Cut]  # those asked for, in the order of the network
    states: States  # parameters and buffers of each checkpoint
    sources: dict[str, Source]  # by name of the cut, whether its features are read or computed
    features: Features
    again: Callable[[], Stitchable] = field(repr=False)  # takes it apart in the same way, on a worker

    def around(self, make: Callable[..., Made], run: Run, *rest: Any) -> Callable[[], Made]:
        """Return the recipe of ``make(run, self, *rest)`` on a worker, where the network is taken apart again."""
        return partial(_around, make, run, self.again, *rest)

    @property
    def held(self) -> dict[str, int]:
        """Bytes that a process holds for this: weights of checkpoints, and blocks of inputs and features."""
        return {"weights": self.states.room * self.states.nbytes, "blocks": self.features.block_bytes}

    @property
    def sample_bytes(self) -> int:
        """Bytes of one probe's features at all cuts, float32."""
        return 4 * sum(prod(cut.shape) for cut in self.cuts)

    @property
    def pass_bytes(self) -> int:
        """Bytes of one recorded batch on its way to the cuts: features, and those between or as they were stored."""
        widest = 4 * max(prod(cut.shape) for cut in self.cuts)
        between = BETWEEN * widest if "recomputed" in self.sources.values() else widest
        return int(self.features.batches.size * (self.sample_bytes + between))

    def coords(self, run: Run, sets: ProbeSets) -> xr.Dataset:
        """Return the coordinates of results over (cut, set, t1, t2)."""
        known, steps = run.coords, np.arange(run.checkpoints)
        named = {"cut": [cut.name for cut in self.cuts], "set": sets.names}
        result = xr.Dataset(coords={name: np.array(values, dtype=object) for name, values in named.items()})
        result = result.assign_coords(t1=steps, t2=steps)
        for end in ("1", "2"):
            for name, column in (("step", "step"), ("rate", "learning_rate")):
                if column in known:
                    result[f"{name}{end}"] = f"t{end}", known[column].values
        result["set_size"] = "set", sets.sizes
        result["prefix_macs"] = "cut", [cut.prefix_macs for cut in self.cuts]
        result["suffix_macs"] = "cut", [cut.suffix_macs for cut in self.cuts]
        result["source"] = "cut", np.array([self.sources[cut.name] for cut in self.cuts], dtype=object)
        return result.set_coords(list(result.data_vars))


def cut_network(
    run: Run, model: nn.Module | None, patterns: Sequence[str], features: str | Mapping[str, Source] = "auto"
) -> Stitchable:
    """Take a run's network apart at cuts of these names or patterns, at the "default" ones or at "all".

    ``features`` "auto" takes the cheaper of reading and computing, and reads only float32; "stored" or "recomputed"
    take that; a source for each cut was chosen before.

    Raises
    ------
    NetworkError
        The network cannot be cut, there is no such cut, or the model is not the one recorded.
    """
    given = model
    model = network_of(run, model)
    batch = Batches(run, device_of(model))[0]
    picked = resolve(cuts(model, batch.inputs[:1]), patterns)
    found = States(run, model)
    if given is not None and isinstance(features, str):  # once, and not again on each worker
        refuse_other_function(run, model, found, batch)
    stored = source.stored_layers(run, picked, exact=features == "auto")
    if not isinstance(features, str):
        sources = dict(features)
    elif features == "auto":
        held = [cut for cut in picked if cut.name in stored]
        widths = {cut.name: run.schema[f"layers/{cut.module}/activation"].sample_bytes for cut in held}
        sources = source.choose(picked, stored, widths, measure_rates(run, model, picked, stored))
    else:
        sources = {cut.name: "stored" if features == "stored" else "recomputed" for cut in picked}
        missing = [cut.name for cut in picked if cut.name not in stored]
        if features == "stored" and missing:
            raise FeatdynError(f"the store holds no activations at {', '.join(missing)}: leave --features at auto")
        for cut in picked if features == "stored" else ():
            lost = vanished(run, run.schema[f"layers/{cut.module}/activation"])
            if (lost.mean(1) > 0.5).any():
                raise FeatdynError(
                    f"{run.path}: the activations at {cut.name} are too small for float16, as which they were stored "
                    f"(checkpoint {int(lost.mean(1).argmax())}): leave --features at auto"
                )
    again = partial(cut_network, run, given, [cut.name for cut in picked], sources)
    return Stitchable(model, picked, found, sources, Features(run, model, picked, found, sources), again)


def _around(make: Callable[..., Made], run: Run, again: Callable[[], Stitchable], *rest: Any) -> Made:
    return make(run, again(), *rest)
