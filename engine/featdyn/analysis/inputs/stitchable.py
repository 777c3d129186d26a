"""A recorded network taken apart: its cuts, the weights of its checkpoints, and where its features come from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from featdyn.analysis.inputs import feature_source as source
from featdyn.analysis.inputs.feature_source import Rates, Source
from featdyn.analysis.inputs.features_at_cuts import Batches, Features, measure_rates
from featdyn.analysis.inputs.one_input import Inputs, of_one_input
from featdyn.analysis.inputs.positions import SEEN
from featdyn.analysis.inputs.prefixes import PrefixOrder, PrefixSizes, pieces_of
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.recorded_arrays import refuse_vanished
from featdyn.analysis.inputs.weights import (
    CHECKED,
    States,
    device_for,
    network_of,
    refuse_other_function,
    refuse_other_outputs,
)
from featdyn.capture.call import Call
from featdyn.capture.tap import device_of
from featdyn.compute import Limits, Plan
from featdyn.errors import FeatdynError, NetworkError
from featdyn.functional import functional_call
from featdyn.networks import Cut, is_skeleton, resolve, state_for, ways
from featdyn.networks.choose import NoCut
from featdyn.networks.layer_patterns import matching
from featdyn.networks.trace import CannotCut
from featdyn.networks.twin import eval_twin
from featdyn.store import Run

Made = TypeVar("Made")

_PLAIN = Call()
FEW = 8
"""So many probes tell whether the halves of a network are the network."""
SAME = 1e-5
"""Of the largest output, the most that they may differ by where their bits are not the same: our own choice."""
UNTIMED = 16 << 20
"""Bytes of features that are read without asking what is cheaper: timing both ways would take longer than either."""
BETWEEN = 12
"""So many copies of the widest features are held at once by layers and threads, at most."""


@dataclass(frozen=True, eq=False)
class Stitchable:
    """What every analysis of composites starts from."""

    model: nn.Module  # in eval mode; of recorded layers without a network one that holds nothing
    cuts: list[Cut]  # those asked for, in the order of the network
    states: States  # parameters and buffers of each checkpoint
    sources: dict[str, Source]  # by name of the cut, whether its features are read or computed
    features: Features
    again: Callable[..., Stitchable] = field(repr=False)  # takes it apart in the same way, on a worker
    method: str = ""  # which way it was taken apart, in words
    halves: bool = True  # whether there are any: recorded layers have none
    network: nn.Module | None = None  # as it was recorded, which takes and returns whatever it does
    call: Call = _PLAIN  # how that is asked
    difference: float = 0.0  # between the halves of a checkpoint and its network, over the largest output
    places: Sequence[Cut] = ()  # all at which it comes apart in this way, for who goes through it piece by piece

    def around(self, make: Callable[..., Made], run: Run, *rest: Any) -> Callable[[], Made]:
        """Return the recipe of ``make(run, self, *rest)`` on a worker, where the network is taken apart again."""
        return partial(_around, make, run, self.again, *rest)

    def in_order(self, run: Run, whole: Plan, limits: Limits, asked: int) -> tuple[Stitchable, Plan]:
        """Return this with prefixes that pass piece by piece, where the network has no weights, and what that needs.

        ``whole`` is the plan of an analysis that finds features in memory, ``asked`` how often it asks for those of a
        checkpoint; ``limits`` are those of a worker.
        """
        if not is_skeleton(self.model) or not self.features.computed:
            return self, whole
        pieces, read = pieces_of(run, self.places, self.features.device), self.features
        sizes = PrefixSizes.of(run, pieces, read.computed, read.batches, asked)
        order, plan = sizes.cheapest(whole, limits)
        again = partial(self.again, order=order)
        return again(), plan

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
        copies = 2 if self.features.padded else 1  # without padding, and as they were made
        found: int = self.features.batches.size * (copies * self.sample_bytes + between)
        return found

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
        if self.halves:
            result["prefix_macs"] = "cut", [cut.prefix_macs for cut in self.cuts]
            result["suffix_macs"] = "cut", [cut.suffix_macs for cut in self.cuts]
        result["source"] = "cut", np.array([self.sources[cut.name] for cut in self.cuts], dtype=object)
        seen = {"positions": SEEN} if self.features.padded else {}
        of_cut = seen | {"cut_method": self.method} | ({"cut_difference": self.difference} if self.difference else {})
        return result.set_coords(list(result.data_vars)).assign_attrs(of_cut)


def cut_network(
    run: Run,
    model: nn.Module | None,
    patterns: Sequence[str],
    features: str | Mapping[str, Source] = "auto",
    method: str = "",
    *,
    masked: bool = False,
    call: Call = _PLAIN,
    empty: bool = False,
    order: PrefixOrder | None = None,
) -> Stitchable:
    """Take a run's network apart at cuts of these names or patterns, at the "default" ones or at "all".

    ``features`` "auto" takes the cheaper of reading and computing, by the clock, and reads only float32 (all of it
    where that is little, so that a small run is always answered in one way); "stored" or "recomputed"
    take that; a source for each cut was chosen before, and so was the ``method`` then. With ``masked`` padding takes
    no part in features, which no suffix is to be given then. ``call`` says how the model is asked. With ``empty`` the
    run's own network has no weights, as a given one may have none: what is recorded exactly is then read, and only
    torch.fx takes it apart, which needs no values; features are then computed in an ``order`` that was chosen before.

    Raises
    ------
    NetworkError
        The network cannot be cut, there is no such cut, or the model is not the one recorded.
    """
    given = model
    network = network_of(run, model, empty=empty)
    model = of_one_input(run, network, call)
    empty = is_skeleton(model)
    batch = Batches(run, device_for(model))[0]
    apart = _taken_apart(run, model, batch.inputs[:FEW], patterns, method)
    picked, found = apart.picked, apart.states
    if given is not None and isinstance(features, str):  # once, and not again on each worker
        if empty:
            pieces = pieces_of(run, apart.places, device_for(model))
            for t in dict.fromkeys((0, run.checkpoints - 1)):
                refuse_other_outputs(run, t, pieces.outputs(t, batch.inputs), batch)
        else:
            refuse_other_function(run, model, found, batch)
    stored = source.stored_layers(run, picked, exact=features == "auto", masked=masked)
    if not isinstance(features, str):
        sources = dict(features)
    elif features == "auto":
        held = [cut for cut in picked if cut.name in stored]
        widths = {cut.name: run.schema[f"layers/{cut.name}/activation"].sample_bytes for cut in held}
        soon = run.checkpoints * run.schema.samples * sum(widths.values()) < UNTIMED
        rates = Rates(1.0, float("inf")) if empty or soon else measure_rates(run, model, picked, stored)
        sources = source.choose(picked, stored, widths, rates)
    else:
        sources = {cut.name: "stored" if features == "stored" else "recomputed" for cut in picked}
        missing = [cut.name for cut in picked if cut.name not in stored]
        if features == "stored" and missing:
            raise FeatdynError(
                f"the store holds no activations at {', '.join(missing)} as the network hands them on: "
                "leave --features at auto"
            )
        if features == "stored":
            refuse_vanished(run, [cut.name for cut in picked], "leave --features at auto")
    names = [cut.name for cut in picked]
    way = picked[0].method if picked else ""
    again = partial(cut_network, run, given, names, sources, way, masked=masked, call=call, empty=empty)
    try:
        read = Features(run, model, picked, found, sources, masked=masked, places=apart.places, order=order)
    except ValueError as error:
        raise CannotCut(model, str(error)) from error
    return Stitchable(
        model, picked, found, sources, read, again, way, network=network, call=call, difference=apart.difference,
        places=apart.places,
    )  # fmt: skip


def exact_cuts(run: Run, parts: Stitchable) -> tuple[nn.Module, list[Cut]]:
    """Return the network in float64 and the same cuts of it, taken apart anew.

    What was traced in float32 may hold constants of that type. Raises :class:`NetworkError` where the network does not
    run in float64.
    """
    assert parts.network is not None
    few = Inputs(run, exact=True).of(slice(0, FEW)).to(device_of(parts.network))
    try:
        model = of_one_input(run, copy.deepcopy(parts.network).double(), parts.call, exact=True)
        with torch.inference_mode():
            eval_twin(model)(few.clone())
        return model, _taken_apart(run, model, few, [cut.name for cut in parts.cuts], parts.method).picked
    except (NetworkError, RuntimeError) as error:
        first = str(error).removeprefix(f"{run.path}: ").partition("\n")[0]
        raise NetworkError(
            f"{run.path}: the moves of features are computed in float64, in which the network does not run (its code "
            f"may say float32: {first}): leave them out with probes=0 (--probes 0)"
        ) from error


@dataclass(frozen=True)
class _Apart:
    picked: list[Cut]  # the cuts that are asked for
    states: States
    difference: float  # how far the halves are from the network
    places: list[Cut]  # all cuts that there are to choose from


def _taken_apart(run: Run, model: nn.Module, inputs: Tensor, patterns: Sequence[str], method: str) -> _Apart:
    """Return the cuts that are asked for, of the first way whose halves are the network.

    That is checked on some probes with the weights of the first and the last checkpoint, unless the way was chosen
    before, or the network has no weights: then all that it does was traced.
    """
    states: States | None = None
    missing: NoCut | None = None
    for found in ways(model, inputs):
        if method and found[0].method != method:
            continue
        try:
            picked = resolve(found, patterns)
        except NoCut:  # maybe one that costs the same as another
            every = next((cuts for cuts in ways(model, inputs, every=True) if cuts[0].method == found[0].method), found)
            try:
                picked = resolve(every, [name for each in patterns for name in _known(found, each, [each])])
                found = every
            except NoCut as error:
                missing = missing or error
                if all(_names_a_module(model, each) or _known(every, each, []) for each in patterns):
                    continue  # maybe one that another way finds
                break
        states = states or States(run, model)
        difference = 0.0 if method or is_skeleton(model) else _difference(model, picked, states, inputs)
        if difference <= SAME:
            return _Apart(picked, states, difference, found)
    if missing is not None:
        held = {spec.path: spec.attrs for spec in run.schema.arrays}
        for name in patterns:
            if axis := held.get(f"layers/{name}/activation", {}).get("sample_axis"):
                said = f"it gives its samples on axis {axis}, and halves are joined where samples come first"
                raise NoCut(str(missing).replace(f"{name!r};", f"{name!r}: {said};"))
        raise missing
    if states is None:
        raise CannotCut(model, "no single tensor on its way separates it into two halves")
    raise NetworkError(f"{run.path}: the halves of the network give other outputs than the network itself")


def _known(cuts: Sequence[Cut], pattern: str, otherwise: list[str]) -> list[str]:
    """Return the names of the cuts that match."""
    try:
        return [cut.name for cut in resolve(cuts, [pattern])]
    except NoCut:
        return otherwise


def _names_a_module(model: nn.Module, pattern: str) -> bool:
    """Whether a pattern fits a module: other ways of taking it apart, which take seconds, find no other names."""
    names = [name for name, _ in model.named_modules()]
    inside = [name.partition(".")[2] for name in names]  # of a model that stands for one of several inputs
    return bool(matching(pattern, [*names, *inside]))


def _difference(model: nn.Module, cuts: Sequence[Cut], states: States, inputs: Tensor) -> float:
    """Return the largest difference between the halves of a checkpoint and its network, over the largest output.

    0 where all bits are the same.
    """
    twin, largest = eval_twin(model), 0.0
    # What was seen whole does the same with any weights.
    many = 2 if all(cut.traced for cut in cuts) else CHECKED
    for t in sorted(set(np.linspace(0, len(states) - 1, many).astype(int).tolist())):
        state = states[t]
        with torch.inference_mode():
            whole = functional_call(twin, state, (inputs.clone(),))  # into which it may write
            if not isinstance(whole, Tensor):
                raise NetworkError(f"the model returns {type(whole).__name__}, not one tensor: wrap it so that it does")
            for cut in cuts:
                z = functional_call(cut.prefix, state_for(cut.prefix, state), (inputs,))
                handed = cut.handed(z, lambda: inputs)
                joined = functional_call(cut.suffix, state_for(cut.suffix, state), (handed,))
                if not torch.equal(joined.nan_to_num(), whole.nan_to_num()):
                    apart = (joined.double() - whole.double()).abs().nan_to_num(nan=torch.inf).max()
                    largest = max(largest, float(apart / whole.double().abs().nan_to_num(nan=0.0).max()))
    return largest


def _around(make: Callable[..., Made], run: Run, again: Callable[[], Stitchable], *rest: Any) -> Made:
    return make(run, again(), *rest)
