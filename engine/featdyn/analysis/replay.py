"""A stored result computed again from its own options, and whether it comes out the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn.analysis.driver import compute
from featdyn.analysis.identity import network_of
from featdyn.analysis.registry import analysis as named
from featdyn.errors import FeatdynError
from featdyn.nearest import meant
from featdyn.store import Run
from featdyn.store.locate import Store

if TYPE_CHECKING:
    import xarray as xr

NUMBERS = set("biufc")  # kinds of NumPy's types


@dataclass(frozen=True)
class Replayed:
    """What came out.

    Attributes
    ----------
    path : of the result in its store
    variables : how many were compared
    differences : of each that is not the same to the bit, in words
    notes : what else is not as it was, such as the analysis's version
    """

    path: str
    variables: int
    differences: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether every bit is as it was."""
        return not self.differences

    def __str__(self) -> str:
        notes = "".join(f"; {note}" for note in self.notes)
        if self.same:
            return f"{self.path}: the same, bit for bit, in {self.variables} variables{notes}"
        found = ", ".join(f"{name} {words}" for name, words in self.differences.items())
        return f"{self.path}: {len(self.differences)} of {self.variables} variables differ{notes}: {found}"


def replay(store: Store, path: str, **more: Any) -> Replayed:
    """Compute a stored result again, as of the commit that it was computed from, and compare; nothing is written.

    Parameters
    ----------
    path
        Of the result, such as ``results/drift`` for the newest of that analysis or ``results/drift/000007``.
    **more
        ``model``, ``batches``, ``loss``, ``forward``, ``output``, ``progress`` and ``workers``, as
        :func:`featdyn.analyze` takes them.

    Raises
    ------
    FeatdynError
        No such result, one that no analysis made, or what :func:`featdyn.analyze` raises.
    """
    run = Run(store)
    parts = path.strip("/").split("/")
    if len(parts) not in (2, 3) or parts[0] != "results":
        raise FeatdynError(f"{path}: name a result as results/ANALYSIS or results/ANALYSIS/NUMBER")
    known = run.results(parts[1])
    if len(parts) == 3 and parts[2].isdecimal():
        parts[2] = parts[2].zfill(6)  # as they are stored
    chosen = "/".join(parts) if len(parts) == 3 else known[-1] if known else ""
    if chosen not in known:
        there = ", ".join(known) or ", ".join(f"results/{name}" for name in run.analyses) or "none"
        guess = meant(parts[1], run.analyses) if not known else ""
        raise FeatdynError(f"{run.path}: no result {path}; {guess}there are {there}")
    earlier = run.result(parts[1], chosen).load()
    options, commit = earlier.attrs.get("options"), earlier.attrs.get("input_commit")
    if not isinstance(options, dict) or not isinstance(commit, int):
        raise FeatdynError(f"{run.path}: {chosen} does not say how it was computed: no analysis of featdyn made it")
    if more.get("model") is None and _given(run, earlier):
        raise FeatdynError(
            f"{run.path}: {chosen} was computed with a network of your own: give it with --model MODULE:FACTORY, from "
            "Python with model="
        )
    analysis = named(parts[1])
    defaults = analysis.options().model_dump(mode="json")
    gone = sorted(set(options) - set(defaults))
    if gone:
        raise FeatdynError(f"{run.path}: {chosen} was computed with {', '.join(gone)}, which {parts[1]} has no more")
    asked = {name: value for name, value in options.items() if value != defaults[name]}
    again = compute(analysis, Run(store, commit), fresh=True, **more, **asked)
    return Replayed(f"{run.path}/{chosen}", *_compared(earlier, again), _notes(earlier, again))


def _given(run: Run, earlier: xr.Dataset) -> bool:
    """Whether a result was computed with a network that was given, of a run that cannot make one."""
    mark = (earlier.attrs.get("identity") or {}).get("network")
    return mark is not None and "recipe" not in run.attributes and mark != network_of(run, None)


def _compared(earlier: xr.Dataset, again: xr.Dataset) -> tuple[int, dict[str, str]]:
    found = {}
    for name in map(str, earlier.variables):
        if name not in again.variables:
            found[name] = "is not there any more"
        elif words := _difference(earlier[name], again[name]):
            found[name] = words
    found |= {str(name): "is new" for name in again.variables if name not in earlier.variables}
    return len({*earlier.variables, *again.variables}), found


def _difference(before: xr.DataArray, after: xr.DataArray) -> str:
    """Return how two arrays differ, '' where all bits are the same."""
    if set(before.dims) != set(after.dims) or dict(before.sizes) != dict(after.sizes):
        return f"is of {dict(after.sizes)}, was of {dict(before.sizes)}"
    a, b = np.asarray(before.values), np.asarray(after.transpose(*before.dims).values)
    if not {a.dtype.kind, b.dtype.kind} <= NUMBERS:
        others = int(np.asarray(a.astype(object) != b.astype(object)).sum())
        return f"in {others:,} of {a.size:,} cells" if others else ""
    other = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not other.any():
        return "" if a.dtype == b.dtype else f"is {b.dtype}, was {a.dtype}"
    lost = int((np.isnan(a) != np.isnan(b)).sum())
    x, y = (values[other].astype(np.result_type(values, np.float64)) for values in (a, b))
    with np.errstate(invalid="ignore"):
        most = np.nanmax(np.abs(x - y), initial=0)
    missing = f", {lost} missing in one only" if lost else ""
    return f"by up to {most:.3g} in {len(x):,} of {a.size:,} cells{missing}"


def _notes(earlier: xr.Dataset, again: xr.Dataset) -> tuple[str, ...]:
    """Return what of analysis, network, probes and packages is not as it was."""
    before, after = (found.attrs.get("identity") or {} for found in (earlier, again))
    keys = [key for key in after if isinstance(before, dict) and key in before and before[key] != after[key]]
    notes = [f"its {key} was {before[key]}, is {after[key]}" for key in keys if key != "weights"]
    notes += ["weights are others"] if "weights" in keys else []
    versions = [(found.attrs.get("provenance") or {}).get("versions", {}) for found in (earlier, again)]
    for name, now in versions[1].items():
        if versions[0].get(name, now) != now:
            notes.append(f"{name} was {versions[0][name]}, is {now}")
    return tuple(notes)
