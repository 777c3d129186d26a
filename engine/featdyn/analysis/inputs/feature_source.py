"""Where the features at a cut come from: read from the store, or computed again, whichever is cheaper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from featdyn.analysis.inputs.positions import padding_of
from featdyn.networks import Cut
from featdyn.store import Run

CHANGED = {"sample_axis", "position_axis", "pool", "output"}
"""Attributes of an array that is not as the layer returns it."""
Source: TypeAlias = Literal["stored", "recomputed"]


@dataclass(frozen=True)
class Rates:
    """What this machine does, measured."""

    macs: float  # multiply-adds per second of a prefix pass
    bytes: float  # per second, read from the store


def stored_layers(run: Run, cuts: Sequence[Cut], exact: bool, *, masked: bool = False) -> set[str]:
    """Return the cuts whose features the store holds; with ``exact`` only those that kept every bit (float32).

    What was pooled, or recorded with its axes in another order, is not what the network hands on; nor are features
    without those at padding, unless padding is ``masked``.
    """
    held = {a.path: a for a in run.schema.arrays}
    found = set()
    for cut in cuts:
        spec = held.get(f"layers/{cut.name}/activation")
        if spec is None or (exact and spec.dtype != "float32") or spec.shape[1:] != cut.shape:
            continue
        if not CHANGED & spec.attrs.keys() and (masked or padding_of(run, spec) is None):
            found.add(cut.name)
    return found


def choose(cuts: Sequence[Cut], stored: set[str], widths: Mapping[str, int], rates: Rates) -> dict[str, Source]:
    """Return the cheapest source of each cut.

    One prefix pass serves all cuts up to the deepest it goes to, so the choice is how deep to compute; what lies deeper
    is read. A cut that is not stored must be computed. Cuts are in the order of the network; ``widths`` are the bytes
    of one sample's stored features at each.
    """

    def cost(depth: int) -> float:
        # Of a lookup, such as an embedding, no multiply-add is counted: its rate is 0, and so is its cost.
        compute = cuts[depth - 1].prefix_macs / rates.macs if depth and rates.macs else 0.0
        return compute + sum(widths[cut.name] for cut in cuts[depth:]) / rates.bytes

    depths = range(len(cuts) + 1)
    best = min((d for d in depths if all(cut.name in stored for cut in cuts[d:])), key=cost)
    return {cut.name: "recomputed" if i < best else "stored" for i, cut in enumerate(cuts)}
