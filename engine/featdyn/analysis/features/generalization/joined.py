"""Stored tables of a network and of its baselines, on the probes and players that they have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.errors import FeatdynError
from featdyn.output import quoted
from featdyn.store import Run

SAME = ("at", "kind", "players", "masked", "token", "seed")
"""Options of ``interactions`` that decide what its players are."""
OWN = ("channels", "components")
"""Players that mean something within one training only."""
_NAMED = re.compile(r"(?:([\w.-]+)=)?(.+?)(?:@(\d+))?")


@dataclass(frozen=True)
class Baseline:
    """The tables of one checkpoint of another network."""

    name: str
    store: str
    result: xr.Dataset  # of one checkpoint

    @classmethod
    def read(cls, text: str, run: Run, own: xr.Dataset) -> Baseline:
        """Return what ``[NAME=]STORE[@CHECKPOINT]`` says, of the newest result with the players of ``own``."""
        found = _NAMED.fullmatch(text)
        if found is None or not found[2]:
            raise FeatdynError(f"baselines: {text!r} is not [NAME=]STORE[@CHECKPOINT]")
        name, store, checkpoint = found[1] or "baseline", found[2], found[3]
        other = Run(store)
        asked = own.attrs["options"]
        if asked["kind"] in OWN and other.fingerprint != run.fingerprint:
            raise FeatdynError(f"{asked['kind']} of {store} are not those of {run.path}: mask patches or words instead")
        every = (other.result("interactions", path) for path in reversed(other.results("interactions")))
        alike = [found for found in every if all(found.attrs["options"].get(key) == asked.get(key) for key in SAME)]
        if not alike:
            flags = " ".join(f"--{key} {asked[key]}" for key in SAME)
            raise FeatdynError(
                f"{store}: no interactions of the same players; run: "
                f"featdyn analyze {quoted(store)} interactions {flags} --checkpoints last"
            )
        times = alike[0]["t"].values.tolist()
        t = max(int(found["t"][-1]) for found in alike) if checkpoint is None else int(checkpoint)
        result = next((found for found in alike if t in found["t"].values), None)
        if result is None:
            raise FeatdynError(f"{store}: its interactions are not those of checkpoint {t}, but of {_range(times)}")
        return cls(name, store, result.sel(t=t))


@dataclass(frozen=True)
class Joined:
    """One cut's tables: the network's, and those of each baseline that has the cut, on the same probes."""

    v: NDArray[np.float32]  # (t, probe, subset)
    baselines: dict[str, NDArray[np.float32]]  # by name, (network, probe, subset)
    splits: NDArray[np.object_]  # (probe,), the set of each
    origins: NDArray[np.int64]


def joined(own: xr.Dataset, baselines: Sequence[Baseline], cut: int) -> Joined:
    """Return the tables of one cut; a baseline that has one cut stands for the network's one, whatever their names.

    Probes are those that all have, with the same label and the same players, and of baselines finite.
    """
    name = own["cut"].values[cut]
    mine = own.isel(cut=cut)
    ids = [str(probe) for probe in mine["probe"].values.tolist()]
    kept = np.ones(len(ids), bool)
    tables: dict[str, list[NDArray[np.float32]]] = {}
    for baseline in baselines:
        result = baseline.result
        places = [i for i, other in enumerate(result["cut"].values) if other == name]
        if not places and own.sizes["cut"] == result.sizes["cut"] == 1:
            places = [0]
        if not places:
            continue
        theirs = result.isel(cut=places[0])
        held = {str(probe): i for i, probe in enumerate(theirs["probe"].values.tolist())}
        at = np.array([held.get(probe, -1) for probe in ids])
        table = theirs["v"].transpose("probe", "subset").values[at]
        same = (at >= 0) & (theirs["label"].values[at] == mine["label"].values)
        same &= (theirs["region"].values[at] == mine["region"].values).all(-1)
        kept &= same & np.isfinite(table).all(-1)
        tables.setdefault(baseline.name, []).append(table)
    return Joined(
        mine["v"].transpose("t", "probe", "subset").values[:, kept],
        {key: np.stack(found)[:, kept] for key, found in tables.items()},
        np.array(mine["split"].values.tolist(), dtype=object)[kept],
        mine["origin"].values[kept],
    )


def _range(times: Sequence[int]) -> str:
    return f"{times[0]}" if len(times) == 1 else f"{times[0]} to {times[-1]}"
