"""What a study measures of a run: functions of its stored results and coordinates, and of nothing else.

A quantity of a study names one of :data:`KINDS` and gives its options, which are the fields declared here.
What is missing in a result is missing here, with a word on why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from featdyn.analysis.composites.controls import STRICT
from featdyn.analysis.inputs.class_labels import predictions_labelled
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.errors import FeatdynError
from featdyn.nearest import meant
from featdyn.reproduce.kind import NEVER, Kind, Seen
from featdyn.reproduce.measured import Measured, variance_of
from featdyn.reproduce.phases import Turn, turn
from featdyn.reproduce.study import FIRST, LAST, Quantity, Time
from featdyn.reproduce.times import Times
from featdyn.statistics.ratios import ratio_interval
from featdyn.statistics.resampling import Interval, difference_interval, share_interval
from featdyn.store import Run
from featdyn.validation import validate

Label = str | int | float


class Stored(Kind):
    """``stored``: a variable of a result, or a coordinate of checkpoints, at given places."""

    path: str = Field(description="results.ANALYSIS.VARIABLE as query has it, or a coordinate such as test_accuracy")
    minus: str = Field("", description="another variable of the same result, at the same places, taken from it")
    where: dict[str, Label | tuple[Label, ...]] = Field(
        default_factory=dict,
        description="coordinate to its value; '@time' is that checkpoint; a list becomes an axis, all other axes must "
        "have one place. What varies over a run's checkpoints is at the last one where nothing is said",
    )
    before: bool = Field(
        False, description="a time that the axis has no place for, as not every checkpoint was sampled: the one before"
    )
    less: dict[str, Label] = Field(
        default_factory=dict,
        description="coordinate to another place, as in 'where': what is there is taken from it, such as another time",
    )
    log10: bool = Field(False, description="the decimal logarithm of it, before a difference is taken")

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        listed = {name: given for name, given in self.where.items() if isinstance(given, tuple)}
        return {name: tuple(str(label).removeprefix("@") for label in given) for name, given in listed.items()}

    @property
    def results(self) -> tuple[str, ...]:  # noqa: D102
        parts = self.path.split(".")
        return (parts[1],) if parts[0] == "results" else ()


class Composite(Kind):
    """``composite``: the prefix of t1 with the suffix of t2, clustered by image; axes cut, set, t1 and batchnorm."""

    measure: Literal["accuracy", "gain", "kept", "agreement"] = Field(
        description="accuracy A(t1, t2); gain A(t1, t2) - A(t1, t1); kept A(t1, t2) / A(t2, t2); agreement with t2's "
        "network"
    )
    cuts: tuple[str, ...] = Field(min_length=1)
    sets: tuple[str, ...] = Field(min_length=1)
    t1: tuple[str, ...] = Field(min_length=1, description="times")
    t2: str = Field(LAST, description="a time")
    batchnorm: tuple[Literal["travel", "reestimated"], ...] = Field(
        ("travel",), description="statistics; other than 'travel' are of the analysis batchnorm, and only accuracy, "
        "gain and kept, whose plain networks keep their own statistics",
    )  # fmt: skip

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        return {"cut": self.cuts, "set": self.sets, "t1": self.t1, "batchnorm": self.batchnorm}

    @property
    def results(self) -> tuple[str, ...]:  # noqa: D102
        return ("consistency", "batchnorm") if set(self.batchnorm) != {"travel"} else ("consistency",)


class ControlAdvantage(Kind):
    """``control_advantage``: accuracy of the drift minus that of controls of its length; axis cut.

    The mean over controls, sets and all t1 before t2 at which the worst control loses at least ``least_loss``.
    """

    cuts: tuple[str, ...] = Field(min_length=1)
    sets: tuple[str, ...] = Field(min_length=1)
    t2: str = LAST
    least_loss: float = Field(0.05, ge=0, description="of accuracy, from t2's own network to the worst control")
    kinds: tuple[str, ...] = Field(STRICT, description="controls")

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        return {"cut": self.cuts}

    @property
    def results(self) -> tuple[str, ...]:  # noqa: D102
        return ("controls",)


class Distance(Kind):
    """``distance``: how far the distribution of features at t1 is from that at the last checkpoint; axes measure, cut.

    In standard deviations of the null of ``density``, above its mean.
    """

    measures: tuple[str, ...] = Field(min_length=1)
    cuts: tuple[str, ...] = Field(min_length=1)
    set: str
    t1: str

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        return {"measure": self.measures, "cut": self.cuts}

    @property
    def results(self) -> tuple[str, ...]:  # noqa: D102
        return ("density",)


class Survivors(Kind):
    """``survivors``: do samples whose predictions survive stitching move along the noise's directions? Axis cut.

    The mean over probes of the share of their features' drift along the noise's first ``k`` directions, less that with
    permuted labels: of probes on which the composite of t1 with t2 agrees with t2, minus that of the others.
    """

    cuts: tuple[str, ...] = Field(min_length=1)
    t1: str
    t2: str = LAST
    k: int = 10
    least: int = Field(4, ge=2, description="probes of each kind, for there to be a number")

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        return {"cut": self.cuts}

    @property
    def results(self) -> tuple[str, ...]:  # noqa: D102
        return ("isotropy", "noise", "consistency")


def stored(seen: Seen, options: Stored) -> Measured:
    """Return a stored variable at given places; its variance is what its stored interval says."""
    where = {
        name: [_place(seen, label) for label in (given if isinstance(given, tuple) else (given,))]
        for name, given in options.where.items()
    }
    axes = options.axes
    never = [time for time in _times_of(options) if seen.times.at(time) is None]
    data, name = _dataset(seen.run, options.path)
    value, variance = _picked(data, name, where, axes, options)
    if options.minus:
        other, more = _picked(data, options.minus.rpartition(".")[2], where, axes, options)
        value, variance = value - other, variance + more  # as of independent ones
    if options.less:
        there = where | {name: [_place(seen, label)] for name, label in options.less.items()}
        other, more = _picked(data, name, there, axes, options)
        value, variance = value - other, variance + more  # as of independent ones
    return Measured.of(axes, value, variance, f"{NEVER} {', '.join(never)}" if never else "")


def composite(seen: Seen, options: Composite) -> Measured:
    """Return what composites of pairs of checkpoints do, from the predictions of ``consistency``."""
    axes = options.axes
    shape = tuple(map(len, axes.values()))
    value, variance = np.full(shape, np.nan), np.full(shape, np.nan)
    t2 = seen.times.at(options.t2)
    result = seen.run.result("consistency")
    sets, labels = predictions_labelled(seen.run, ProbeSets.of(seen.run))
    anew = seen.run.result("batchnorm") if set(options.batchnorm) != {"travel"} else None
    for place in np.ndindex(shape):
        cut, name, early, policy = (labels_[i] for labels_, i in zip(axes.values(), place, strict=True))
        t1 = seen.times.at(early)
        if t1 is None or t2 is None:
            continue
        pairs = (t1, t2), (t1, t1), (t2, t2)
        member = sets.member(name)
        mixed, old, new = (
            result["prediction"].sel(cut=cut, t1=a, t2=b).values[member] for a, b in pairs
        )  # fmt: skip
        found = _measure(options.measure, mixed, old, new, labels[member], sets.origins[member])
        if policy != "travel":
            assert anew is not None
            found = _reestimated(options.measure, anew, (cut, name, t1, t2, policy), old, new, labels[member],
                                 sets.origins[member])  # fmt: skip
        value[place], variance[place] = found.estimate, variance_of(found.low, found.high)
    lacking = [time for time in (*options.t1, options.t2) if seen.times.at(time) is None]
    return Measured.of(axes, value, variance, f"{NEVER} {', '.join(lacking)}" if lacking else "")


def control_advantage(seen: Seen, options: ControlAdvantage) -> Measured:
    """Return how much better the drift keeps accuracy than controls, where these lose enough to tell."""
    result, t2 = seen.run.result("controls"), seen.times.at(options.t2)
    axes = options.axes
    if t2 is None or t2 not in result["t2"].values:
        return Measured.of(axes, np.nan, np.nan, f"{NEVER} {options.t2}, or controls were not asked there")
    mine = result.sel(set=list(options.sets), t2=t2, kind=list(options.kinds))
    own = result["accuracy"].sel(kind="drift", set=list(options.sets), t1=t2, t2=t2)
    value, variance = np.full(len(options.cuts), np.nan), np.full(len(options.cuts), np.nan)
    for c, cut in enumerate(options.cuts):
        of = mine.sel(cut=cut)
        worst = of["accuracy"].min("kind")
        telling = ((own.sel(cut=cut) - worst) >= options.least_loss) & (of["t1"] < t2)  # (set, t1)
        if telling.any():
            value[c] = float(of["advantage"].where(telling).mean())
            # Cells share their probes and their drift, so their mean is no surer than one of them.
            variance[c] = float(
                np.nanmean(np.where(telling, variance_of(of["advantage_low"], of["advantage_high"]), np.nan))
            )
    few = np.isnan(value).any()
    return Measured.of(axes, value, variance, f"no control loses {options.least_loss:g}" if few else "")


def distance(seen: Seen, options: Distance) -> Measured:
    """Return distances between distributions of features, beside their nulls."""
    axes = options.axes
    result, t1 = seen.run.result("density"), seen.times.at(options.t1)
    if t1 is None:
        return Measured.of(axes, np.nan, np.nan, f"{NEVER} {options.t1}")
    pairs = np.flatnonzero((result["t1"].values == t1) & (result["t2"].values == seen.run.checkpoints - 1))
    if not len(pairs):
        return Measured.of(axes, np.nan, np.nan, f"{options.t1} is the last checkpoint")
    mine = result.isel(pair=int(pairs[0])).sel(measure=list(options.measures), cut=list(options.cuts), set=options.set)
    return Measured.of(axes, (mine["excess"] / mine["null_deviation"]).transpose("measure", "cut").values, np.nan)


def survivors(seen: Seen, options: Survivors) -> Measured:
    """Return whether probes that survive stitching drift more along the noise than the others do."""
    axes = options.axes
    t1, t2 = seen.times.at(options.t1), seen.times.at(options.t2)
    noise, pairs = seen.run.result("isotropy"), seen.run.result("consistency")
    sampled = noise["t"].values.tolist()
    value, variance = np.full(len(options.cuts), np.nan), np.full(len(options.cuts), np.nan)
    if t1 is None or t2 is None:
        return Measured.of(axes, value, variance, f"{NEVER} {options.t1 if t1 is None else options.t2}")
    t = max((s for s in sampled if s <= t1), default=sampled[0])
    names = pairs["probe"].values.tolist()
    at = [names.index(probe) for probe in noise["probe"].values.tolist()]
    for c, cut in enumerate(options.cuts):
        cell = noise.sel(cut=cut, t=t, k=options.k)
        along = (cell["feature_drift_share"] - cell["feature_drift_share_permuted"]).values
        predicted = pairs["prediction"].sel(cut=cut)
        same = (predicted.sel(t1=t1, t2=t2).values == predicted.sel(t1=t2, t2=t2).values)[at]
        kept, lost = (along[mask & np.isfinite(along)] for mask in (same, ~same))
        if min(len(kept), len(lost)) >= options.least:
            value[c] = kept.mean() - lost.mean()
            variance[c] = kept.var(ddof=1) / len(kept) + lost.var(ddof=1) / len(lost)
    few = np.isnan(value).any()
    return Measured.of(axes, value, variance, f"fewer than {options.least} probes survive, or do not" if few else "")


KINDS: dict[str, tuple[type[Kind], Callable[[Seen, Any], Measured]]] = {
    "stored": (Stored, stored),
    "composite": (Composite, composite),
    "control_advantage": (ControlAdvantage, control_advantage),
    "distance": (Distance, distance),
    "survivors": (Survivors, survivors),
    "turn": (Turn, turn),
}


def options_of(quantity: Quantity) -> Kind:
    """Return a quantity's options, which know its axes and the results that it reads."""
    return validate(KINDS[quantity.kind][0], quantity.options, quantity.kind)


def measure(run: Run, quantity: Quantity, times: Mapping[str, Time]) -> Measured:
    """Return a quantity of a run.

    Raises
    ------
    FeatdynError
        A result or coordinate that the run does not hold.
    """
    try:
        return KINDS[quantity.kind][1](Seen(run, Times(run, times)), options_of(quantity))
    except KeyError as error:
        raise FeatdynError(f"{run.path}: {quantity.kind}: there is no {error.args[0]!r}") from None


def check(quantity: Quantity, times: Mapping[str, Time], where: str) -> None:
    """Raise where a quantity has no such kind, options or times."""
    if quantity.kind not in KINDS:
        raise ValueError(f"{where}.kind {quantity.kind!r} is not there; {meant(quantity.kind, KINDS)}"
                         f"there are {', '.join(KINDS)}")  # fmt: skip
    options = validate(KINDS[quantity.kind][0], quantity.options, f"{where}.options")
    known = [FIRST, LAST, *times]
    for time in _times_of(options):
        if time not in known:
            raise ValueError(f"{where}: time {time!r} is not there; {meant(time, known)}there are {', '.join(known)}")


def _times_of(options: Kind) -> Iterable[str]:
    if isinstance(options, Stored):
        for given in (*options.where.values(), *options.less.values()):
            for label in given if isinstance(given, tuple) else (given,):
                if isinstance(label, str) and label.startswith("@"):
                    yield label[1:]
        return
    for name in ("t1", "t2"):
        given = getattr(options, name, ())
        yield from (given,) if isinstance(given, str) else given


def _place(seen: Seen, label: Any) -> Any:
    """Return a label as the coordinate has it; None for a time that the run does not reach."""
    return seen.times.at(label[1:]) if isinstance(label, str) and label.startswith("@") else label


def _dataset(run: Run, path: str) -> tuple[xr.Dataset, str]:
    parts = path.split(".")
    if parts[0] == "results" and len(parts) == 3:
        return run.result(parts[1]), parts[2]
    if path not in run.paths("checkpoint"):
        raise FeatdynError(
            f"{run.path}: no coordinate {path} of checkpoints; {meant(path, run.paths('checkpoint'))}"
            f"there are {', '.join(run.paths('checkpoint'))}, and results.ANALYSIS.VARIABLE"
        )
    values = xr.DataArray(run.values(path), dims="checkpoint", coords={"checkpoint": np.arange(run.checkpoints)})
    return values.to_dataset(name=path), path


def _picked(
    data: xr.Dataset, name: str, where: Mapping[str, list[Any]], axes: Mapping[str, Any], options: Stored
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return values and variances of the listed places, over the axes in their order."""
    if name not in data:
        raise FeatdynError(f"no variable {name}; {meant(name, map(str, data))}there are {', '.join(map(str, data))}")
    found = [_at(data, each, where, axes, options) for each in (name, f"{name}_low", f"{name}_high") if each in data]
    if options.log10:
        found = [np.log10(np.where(each > 0, each, np.nan)) for each in found]
    return found[0], variance_of(found[1], found[2]) if len(found) == 3 else np.full_like(found[0], np.nan)


def _at(
    data: xr.Dataset, name: str, where: Mapping[str, list[Any]], axes: Mapping[str, Any], options: Stored
) -> NDArray[np.float64]:
    array = data[name]
    asked = {dim: labels for dim, labels in where.items() if dim in array.dims}
    if any(dim in ("checkpoint", "t") and dim not in asked for dim in array.dims):
        array = array.isel({dim: -1 for dim in array.dims if dim in ("checkpoint", "t") and dim not in asked})
    for dim, labels in asked.items():
        array = _along(array, dim, labels, keep=dim in axes, before=options.before)
    for left in [left for left in array.dims if left not in axes]:
        if array.sizes[left] > 1:
            raise FeatdynError(f"{name} has {array.sizes[left]} places along {left}: say which in 'where'")
        array = array.isel({left: 0})
    for axis in axes:
        if axis not in array.dims:
            raise FeatdynError(f"{name} has no axis {axis}; it has {', '.join(map(str, data[name].dims)) or 'none'}")
    return np.asarray(array.transpose(*axes).values, np.float64)


def _along(array: xr.DataArray, dim: str, labels: list[Any], *, keep: bool, before: bool) -> xr.DataArray:
    """Return places along a dimension; NaN where there is no such time, an error where there is no such label."""
    known = array[dim].values.tolist() if dim in array.coords else list(range(array.sizes[dim]))
    parts = []
    for label in labels:
        if before and dim.startswith("t") and label is not None and label not in known:
            label = max((place for place in known if place < label), default=known[0])
        if label is None or (dim.startswith("t") and label not in known):
            parts.append(xr.full_like(array.isel({dim: [0]}), np.nan, dtype=np.float64))
        elif label not in known:
            raise FeatdynError(f"no {dim} {label!r}; {meant(str(label), map(str, known))}"
                               f"there are {', '.join(map(str, known))}")  # fmt: skip
        else:
            parts.append(array.isel({dim: [known.index(label)]}).astype(np.float64))
    of_dim = [name for name, coord in array.coords.items() if dim in coord.dims]
    joined = xr.concat([part.drop_vars(of_dim) for part in parts], dim)
    return joined if keep else joined.isel({dim: 0})


def _measure(
    name: str, mixed: NDArray[Any], old: NDArray[Any], new: NDArray[Any], labels: NDArray[Any], origins: NDArray[Any]
) -> Interval:
    """Return a measure of predictions of a composite, and of t1's and t2's own networks, on the same probes."""
    right, before, after = mixed == labels, old == labels, new == labels
    if name == "accuracy":
        return share_interval(right, groups=origins)
    if name == "gain":
        return difference_interval(right.astype(np.int8) - before.astype(np.int8), groups=origins)
    if name == "agreement":
        return share_interval(mixed == new, groups=origins)
    return ratio_interval(right, after, groups=origins)


def _reestimated(
    measure: str, result: xr.Dataset, cell: tuple[str, str, int, int, str], old: NDArray[Any], new: NDArray[Any],
    labels: NDArray[Any], origins: NDArray[Any],
) -> Interval:  # fmt: skip
    """Return the same where the composite's statistics were estimated anew, as ``batchnorm`` keeps it.

    Of that composite no predictions are kept: its interval and the plain network's are joined as if independent, which
    is wider than of predictions on the same probes.
    """
    cut, name, t1, t2, policy = cell
    if t2 not in result["t2"].values or measure == "agreement":
        return Interval(np.nan, np.nan, np.nan)
    found = result.sel(cut=cut, set=name, t1=t1, t2=t2, policy=policy)
    a, half = float(found["accuracy"]), float(found["accuracy_high"] - found["accuracy_low"]) / 2
    if measure == "accuracy":
        return Interval(a, a - half, a + half)
    plain = share_interval((old if measure == "gain" else new) == labels, groups=origins)
    other = (plain.high - plain.low) / 2
    if measure == "gain":
        width = float(np.hypot(half, other))
        return Interval(a - plain.estimate, a - plain.estimate - width, a - plain.estimate + width)
    ratio = a / plain.estimate if plain.estimate else np.nan
    width = float(np.hypot(half, ratio * other) / plain.estimate) if plain.estimate else np.nan
    return Interval(ratio, ratio - width, ratio + width)
