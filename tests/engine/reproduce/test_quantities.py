"""Quantities of a run: planted results are read back, cell by cell, with what images say of their spread."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from featdyn.analysis.composites.batchnorm import POLICIES
from featdyn.analysis.composites.controls import KINDS, STRICT
from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError
from featdyn.reproduce.measured import Measured, variance_of
from featdyn.reproduce.quantities import measure, options_of
from featdyn.reproduce.quantities.kind import Seen
from featdyn.reproduce.quantities.stored import Stored
from featdyn.reproduce.study import Quantity, Time
from featdyn.reproduce.times import Times
from featdyn.statistics.ratios import ratio_interval
from featdyn.statistics.resampling import difference_interval, share_interval
from featdyn.store import Run, RunWriter

CUTS, SETS, T, N = ("a", "b"), ("train", "test"), 5, 20
TIMES = {
    "half": Time(reaches=0.5),
    "t2": Time(reaches=0.9),
    "never": Time(reaches=1.0, set="test"),
    "before": Time(reaches=0.9, before=True),
    "earlier": Time(steps=0.5, of="t2"),
    "just": Time(reaches=0.4),
    "at once": Time(reaches=0.1),
    "before all": Time(reaches=0.1, before=True),
    "after never": Time(steps=0.5, of="never"),
    "all steps": Time(steps=1.0, of="just"),
}
RIGHT = (0.1, 0.4, 0.6, 0.8, 0.95)
"""Share of training probes that each checkpoint has right: t1 = 2, t2 = 4."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Five checkpoints of a table of logits, one row a probe, and random results beside them."""
    path, rng = tmp_path_factory.mktemp("quantities") / "run.zarr", np.random.default_rng(0)
    size = len(SETS) * N
    labels = np.arange(size) % 3
    model = torch.nn.Sequential(torch.nn.Linear(size, 3, bias=False), torch.nn.Identity())
    coords = {"split": np.repeat(SETS, N), "origin": np.array([f"image{i // 2}" for i in range(size)])}
    probes = Probes(torch.eye(size), torch.from_numpy(labels), coords)
    with Recorder(model, probes, path, layers=["1"], gradients=False, coords=["test_accuracy"]) as recorder:
        for t, share in enumerate(RIGHT):
            right = np.arange(size) % N < round(share * N)
            table = 5 * np.eye(3)[np.where(right, labels, (labels + 1) % 3)]
            model[0].weight.data = torch.from_numpy(table.T.astype(np.float32))
            recorder.record(step=10 * t, test_accuracy=0.1 * t)
    index, shape = range(T), (len(KINDS), 2, 2, T, T)
    at: dict[str, Any] = {"cut": np.array(CUTS, object), "set": np.array(SETS, object), "t1": index, "t2": index}
    predicted = np.where(rng.random((2, T, T, size)) < 0.7, labels, (labels + 1) % 3)
    names = Run(path).values("sample").astype(object)
    pairs = xr.Dataset({"prediction": (("cut", "t1", "t2", "probe"), predicted)}, at | {"probe": names})
    pairs["plain_accuracy"] = ("set", "t1"), rng.random((2, T))
    controls = xr.Dataset(
        {
            name: (("kind", "cut", "set", "t1", "t2"), rng.random(shape))
            for name in ("accuracy", "advantage", "advantage_low", "advantage_high")
        },
        at | {"kind": np.array(KINDS, object)},
    )
    noise = {"k": [1, 10], "cut": at["cut"], "t": [0, 3], "probe": names[-16:]}
    shares = {
        f"feature_drift_share{end}": (("k", "cut", "t", "probe"), rng.random((2, 2, 2, 16)))
        for end in ("", "_permuted")
    }
    held = {f"parameter_held_out{end}": (("k", "cut", "t"), rng.random((2, 2, 2))) for end in ("", "_isotropic_high")}
    anew = xr.Dataset(
        {
            name: (("policy", "cut", "set", "t1", "t2"), rng.random((3, 2, 2, T, 1)))
            for name in ("accuracy", "accuracy_low", "accuracy_high")
        },
        at | {"policy": np.array(POLICIES, object), "t2": [T - 1]},
    )
    apart = {
        name: (("measure", "cut", "set", "pair"), rng.random((2, 2, 2, 3))) for name in ("excess", "null_deviation")
    }
    between = {"measure": np.array(["energy", "mmd"], object), "cut": at["cut"], "set": at["set"]}
    between |= {"t1": ("pair", [2, 2, 4]), "t2": ("pair", [3, 4, 4])}
    with RunWriter.open(path) as writer:
        for name, result in (
            ("consistency", pairs),
            ("controls", controls),
            ("isotropy", xr.Dataset(shares | held, noise)),
            ("batchnorm", anew),
            ("density", xr.Dataset(apart, between)),
        ):
            writer.result(name, result)
    return Run(path)


def asked(run: Run, kind: str, **options: Any) -> Measured:
    quantity = Quantity(about="", kind=kind, options=options)
    found = measure(run, quantity, TIMES)
    assert {name: tuple(labels) for name, labels in found.axes.items()} == options_of(quantity).axes
    return found


def test_times_are_of_what_networks_can_do(run: Run) -> None:
    times = Times(run, TIMES)
    found = {name: times.at(name) for name in ("first", "last", *TIMES)}
    told = {"first": 0, "last": 4, "half": 2, "t2": 4, "never": None, "before": 3, "earlier": 2}
    assert found == told | {"just": 1, "at once": 0, "before all": None, "after never": None, "all steps": 1}


@pytest.mark.parametrize("measured", ["accuracy", "gain", "kept", "agreement"])
def test_composites_are_those_of_the_stored_predictions(run: Run, measured: str) -> None:
    found = asked(run, "composite", measure=measured, cuts=CUTS, sets=SETS, t1=["half", "never"], t2="t2")
    predicted, labels = run.result("consistency")["prediction"].values, run.values("label")
    origins = np.arange(2 * N) // 2
    for c, cut in enumerate(CUTS):
        for s, name in enumerate(SETS):
            mine = slice(N * s, N * s + N)
            mixed, old, new = (predicted[c, a, b, mine] for a, b in ((2, 4), (2, 2), (4, 4)))
            right = [(each == labels[mine]).astype(float) for each in (mixed, old, new)]
            of = origins[mine]
            interval = {
                "accuracy": share_interval(right[0], groups=of),
                "gain": difference_interval(right[0] - right[1], groups=of),
                "kept": ratio_interval(right[0], right[2], groups=of),
                "agreement": share_interval(mixed == new, groups=of),
            }[measured]
            value, variance = found.at({"cut": cut, "set": name, "t1": "half", "batchnorm": "travel"})
            assert value == pytest.approx(interval.estimate)
            assert variance == pytest.approx(((interval.high - interval.low) / 2 / 1.959963984540054) ** 2)
            assert np.isnan(found.at({"cut": cut, "set": name, "t1": "never", "batchnorm": "travel"})).all()
    assert found.missing == "no checkpoint is never"


@pytest.mark.parametrize("measured", ["accuracy", "gain", "kept", "agreement"])
def test_of_statistics_estimated_anew_intervals_are_joined_as_independent(run: Run, measured: str) -> None:
    options: dict[str, Any] = {"measure": measured, "cuts": CUTS, "sets": SETS, "t1": ["half"], "t2": "t2"}
    found = asked(run, "composite", **options, batchnorm=["travel", "reestimated"])
    result = run.result("batchnorm").sel(policy="reestimated", t1=2, t2=4)
    predicted, labels = run.result("consistency")["prediction"].values, run.values("label")
    for c, cut in enumerate(CUTS):
        for s, name in enumerate(SETS):
            a, low, high = (float(result[f"accuracy{end}"].sel(cut=cut, set=name)) for end in ("", "_low", "_high"))
            mine, at, half = slice(N * s, N * s + N), 4 if measured == "kept" else 2, abs(high - low) / 2
            plain = share_interval(predicted[c, at, at, mine] == labels[mine], groups=np.arange(N) // 2)
            own, width = plain.estimate, (plain.high - plain.low) / 2
            wanted = {
                "accuracy": (a, half),
                "gain": (a - own, (half**2 + width**2) ** 0.5),
                "kept": (a / own, (half**2 + (a / own * width) ** 2) ** 0.5 / own),
                "agreement": (np.nan, np.nan),
            }[measured]
            value, variance = found.at({"cut": cut, "set": name, "t1": "half", "batchnorm": "reestimated"})
            np.testing.assert_allclose((value, variance**0.5 * 1.959963984540054), wanted)
            plain_cell = asked(run, "composite", **options).at(
                {"cut": cut, "set": name, "t1": "half", "batchnorm": "travel"}
            )
            assert found.at({"cut": cut, "set": name, "t1": "half", "batchnorm": "travel"}) == plain_cell
    elsewhere = asked(run, "composite", **options | {"t2": "before"}, batchnorm=["reestimated"])
    assert np.isnan(elsewhere.value).all()  # nothing was estimated there


def test_a_distance_is_in_deviations_of_its_null(run: Run) -> None:
    options: dict[str, Any] = {"measures": ["mmd", "energy"], "cuts": CUTS, "set": "test"}
    found, result = asked(run, "distance", **options, t1="half"), run.result("density").sel(set="test")
    for measured in ("mmd", "energy"):
        for cut in CUTS:
            cell = result.sel(measure=measured, cut=cut).isel(
                pair=1
            )  # from the checkpoint that is half right to the last
            wanted = float(cell["excess"]) / float(cell["null_deviation"])
            assert found.at({"measure": measured, "cut": cut})[0] == pytest.approx(wanted)
    assert asked(run, "distance", **options, t1="never").missing == "no checkpoint is never"
    beside = asked(run, "distance", **options, t1="before")
    assert beside.missing == "before is the last checkpoint"
    assert np.isnan(beside.value).all()


def test_what_is_elsewhere_is_taken_from_it_and_variances_add(run: Run) -> None:
    where = {"kind": "isotropic", "cut": ["a", "b"], "set": "train", "t1": "@half", "t2": "@t2"}
    found = asked(run, "stored", path="results.controls.advantage", where=where, less={"t1": "@first"})
    result = run.result("controls").sel(kind="isotropic", set="train", t2=4)
    spread = variance_of(result["advantage_low"], result["advantage_high"])  # (cut, t1)
    np.testing.assert_allclose(found.value, result["advantage"].sel(t1=2) - result["advantage"].sel(t1=0))
    np.testing.assert_allclose(found.variance, spread[:, 2] + spread[:, 0])


def test_stored_variables_are_read_at_their_places(run: Run) -> None:
    plain = run.result("consistency")["plain_accuracy"]
    where = {"set": ["test", "train"], "t1": "@half"}
    found = asked(run, "stored", path="results.consistency.plain_accuracy", where=where)
    np.testing.assert_array_equal(found.value, plain.sel(set=["test", "train"], t1=2))
    logged = asked(run, "stored", path="results.consistency.plain_accuracy", where=where, log10=True)
    np.testing.assert_allclose(logged.value, np.log10(found.value))
    advantage = run.result("controls").sel(kind="isotropic", cut="a", set="train", t1=2, t2=4)
    where = {"kind": "isotropic", "cut": "a", "set": "train", "t1": "@half", "t2": "@t2"}
    found = asked(run, "stored", path="results.controls.advantage", where=where)
    assert float(found.value) == float(advantage["advantage"])
    assert float(found.variance) == pytest.approx(variance_of(advantage["advantage_low"], advantage["advantage_high"]))
    assert float(asked(run, "stored", path="test_accuracy").value) == pytest.approx(0.4)
    assert float(asked(run, "stored", path="test_accuracy", where={"checkpoint": "@half"}).value) == pytest.approx(0.2)
    missing = asked(run, "stored", path="test_accuracy", where={"checkpoint": "@never"})
    assert np.isnan(missing.value)
    assert missing.missing == "no checkpoint is never"


def test_two_variables_and_the_checkpoint_sampled_before(run: Run) -> None:
    held, where = "results.isotropy.parameter_held_out", {"k": 10, "cut": ["a", "b"], "t": "@t2"}
    found = asked(run, "stored", path=held, minus=f"{held}_isotropic_high", where=where, before=True)
    result = run.result("isotropy").sel(k=10, t=3)
    np.testing.assert_allclose(found.value, result["parameter_held_out"] - result["parameter_held_out_isotropic_high"])
    assert np.isnan(asked(run, "stored", path=held, where=where).value).all()  # it was not sampled there


def test_the_advantage_over_controls_is_of_pairs_that_tell(run: Run) -> None:
    result = run.result("controls")
    for least in (0.05, 2.0):
        found = asked(run, "control_advantage", cuts=CUTS, sets=SETS, t2="t2", least_loss=least)
        for cut in CUTS:
            kept = [
                float(result["advantage"].sel(kind=kind, cut=cut, set=name, t1=t1, t2=4))
                for name in SETS
                for t1 in range(4)
                if float(result["accuracy"].sel(kind="drift", cut=cut, set=name, t1=4, t2=4))
                - min(float(result["accuracy"].sel(kind=k, cut=cut, set=name, t1=t1, t2=4)) for k in STRICT)
                >= least
                for kind in STRICT
            ]
            assert (len(kept) > 0) == (least < 1)
            wanted = np.mean(kept) if kept else np.nan
            value, variance = found.at({"cut": cut})
            np.testing.assert_allclose(value, wanted)
            assert np.isnan(variance) == (not kept)
    assert found.missing == "no control loses 2"


def test_survivors_are_compared_with_the_others(run: Run) -> None:
    found = asked(run, "survivors", cuts=CUTS, t1="half", t2="t2")
    noise, predicted = run.result("isotropy").sel(k=10, t=0), run.result("consistency")["prediction"]
    for cut in CUTS:
        along = (noise["feature_drift_share"] - noise["feature_drift_share_permuted"]).sel(cut=cut).values
        same = (predicted.sel(cut=cut, t1=2, t2=4) == predicted.sel(cut=cut, t1=4, t2=4)).values[-16:]
        value, variance = found.at({"cut": cut})
        assert value == pytest.approx(along[same].mean() - along[~same].mean())
        test = stats.ttest_ind(along[same], along[~same], equal_var=False)
        assert value / np.sqrt(variance) == pytest.approx(test.statistic)
    later = asked(run, "survivors", cuts=CUTS, t1="before", t2="t2")  # where the noise was sampled itself
    assert not np.isin(later.value, found.value).any()
    few = asked(run, "survivors", cuts=CUTS, t1="half", t2="t2", least=16)
    assert np.isnan(few.value).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "test_acuracy"}, "no coordinate test_acuracy of checkpoints; did you mean test_accuracy"),
        ({"path": "results.consistency.plain_acuracy"}, "no variable plain_acuracy; did you mean plain_accuracy"),
        ({"path": "results.consistency.plain_accuracy", "where": {"set": "tran"}}, "no set 'tran'; did you mean train"),
        ({"path": "results.consistency.plain_accuracy"}, "plain_accuracy has 2 places along set: say which"),
        ({"path": "results.drift.motion"}, "no result of drift yet"),
    ],
)
def test_what_is_not_there_is_one_line(run: Run, options: dict[str, Any], said: str) -> None:
    with pytest.raises(FeatdynError, match=said):
        asked(run, "stored", **options)


LEAST: dict[str, dict[str, Any]] = {
    "composite": {"measure": "accuracy", "cuts": ["a"], "sets": ["test"], "t1": ["half"]},
    "control_advantage": {"cuts": ["a"], "sets": ["test"]},
    "distance": {"measures": ["mmd"], "cuts": ["a"], "set": "test", "t1": "half"},
    "survivors": {"cuts": ["a"], "t1": "half"},
}


@pytest.mark.parametrize("kind", LEAST)
def test_one_of_each_is_enough_and_none_too_few(run: Run, kind: str) -> None:
    found = asked(run, kind, **LEAST[kind])
    assert np.isfinite(found.value).all()
    assert found.missing == ""
    for name, given in LEAST[kind].items():
        if isinstance(given, list):
            with pytest.raises(FeatdynError, match=name):
                asked(run, kind, **LEAST[kind] | {name: []})
    with pytest.raises(FeatdynError, match=f"{kind}: results of .* do not hold all of .*cut zz"):
        asked(run, kind, **LEAST[kind] | {"cuts": ["zz"]})


def equal(one: Measured, other: Measured) -> bool:
    return np.array_equal(one.value, other.value, True) and np.array_equal(one.variance, other.variance, True)


def test_what_is_not_said_is_as_declared(run: Run) -> None:
    for kind, said in (
        ("composite", {"t2": "last", "batchnorm": ["travel"]}),
        ("control_advantage", {"t2": "last", "least_loss": 0.05, "kinds": STRICT}),
        ("survivors", {"t2": "last", "k": 10, "least": 4}),
    ):
        assert equal(asked(run, kind, **LEAST[kind]), asked(run, kind, **LEAST[kind] | said))


def test_controls_tell_from_the_least_loss_on(run: Run) -> None:
    result, options = run.result("controls").sel(set="test", cut="a", t2=4), LEAST["control_advantage"]
    strict = result.sel(kind=list(STRICT))
    loss = float(result["accuracy"].sel(kind="drift", t1=4)) - strict["accuracy"].min("kind").values[:4]
    order = np.argsort(loss)[::-1]
    for count in (1, 3, 4):
        least = loss[order[count - 1]]
        if least < 0:
            continue
        pairs = strict.isel(t1=np.sort(order[:count]))
        found = asked(run, "control_advantage", **options, least_loss=float(least))
        assert float(found.value[0]) == pytest.approx(float(pairs["advantage"].mean()))
        spread = variance_of(pairs["advantage_low"], pairs["advantage_high"])
        assert float(found.variance[0]) == pytest.approx(spread.mean())
    more = np.nextafter(loss[order[0]], 2)
    assert np.isnan(asked(run, "control_advantage", **options, least_loss=float(more)).value).all()
    with pytest.raises(FeatdynError, match="least_loss"):
        asked(run, "control_advantage", **options, least_loss=-0.001)
    asked(run, "control_advantage", **options, least_loss=0)
    assert asked(run, "control_advantage", **options, t2="never").missing == (
        "no checkpoint is never, or controls were not asked there"
    )


def test_survivors_need_so_many_of_each_kind(run: Run) -> None:
    predicted = run.result("consistency")["prediction"].sel(cut="a")
    same = (predicted.sel(t1=2, t2=4) == predicted.sel(t1=4, t2=4)).values[-16:]
    fewest = int(min(same.sum(), (~same).sum()))
    assert fewest >= 2
    options = LEAST["survivors"]
    assert np.isfinite(asked(run, "survivors", **options, least=fewest).value).all()
    few = asked(run, "survivors", **options, least=fewest + 1)
    assert np.isnan(few.value).all()
    assert few.missing == f"fewer than {fewest + 1} probes survive, or do not"
    with pytest.raises(FeatdynError, match="least"):
        asked(run, "survivors", **options, least=1)
    for times in ({"t1": "never"}, {"t2": "never"}):
        assert asked(run, "survivors", **options | times).missing == "no checkpoint is never"


class Planted:
    """A run with one result, and times by name."""

    checkpoints, path = 9, "planted"

    def __init__(self, result: xr.Dataset, **times: int | None) -> None:
        self.result = lambda name: result
        self.at = times.__getitem__

    def ask(self, **options: Any) -> Measured:
        return Stored.model_validate(options).measured(Seen(cast(Any, self), cast(Any, self)))


def test_a_time_that_was_not_sampled_is_the_one_before_where_that_is_asked_for() -> None:
    run = Planted(xr.Dataset({"x": ("t", [0.25, 0.5])}, {"t": [2, 5]}), early=1, at=2, middle=4, end=5, late=8, no=None)
    sampled = {"early": np.nan, "at": 0.25, "middle": np.nan, "end": 0.5, "late": np.nan, "no": np.nan}
    before = sampled | {"early": 0.25, "middle": 0.25, "late": 0.5}
    for name in sampled:
        options: dict[str, Any] = {"path": "results.r.x", "where": {"t": [f"@{name}"]}}
        np.testing.assert_equal(run.ask(**options).value, [sampled[name]])
        np.testing.assert_equal(run.ask(**options, before=True).value, [before[name]])
        assert run.ask(**options).missing == ("no checkpoint is no" if name == "no" else "")
    assert run.ask(path="results.r.x").value == 0.5  # the last, where nothing is said
    plain = Planted(xr.Dataset({"x": (("one", "u"), [[0.25]])}, {"u": [2]}))
    assert plain.ask(path="results.r.x", where={"u": 2}).value == 0.25
    with pytest.raises(FeatdynError, match="no u 3; there are 2"):  # no time: a label
        plain.ask(path="results.r.x", where={"u": 3}, before=True)
    with pytest.raises(FeatdynError, match="x has no axis v; it has one, u"):
        plain.ask(path="results.r.x", where={"u": 2, "v": [1]})


def test_logarithms_and_differences_take_intervals_along() -> None:
    x = xr.DataArray([1e-3, 0.0, 10.0, -1.0], dims="a")
    data = xr.Dataset({"x": x, "x_low": x / 10, "x_high": 10 * x, "y": 2 * x, "y_low": x, "y_high": 3 * x})
    run, where = Planted(data.assign_coords(a=[1, 2, 3, 4])), {"a": [1, 2, 3, 4]}
    logged = run.ask(path="results.r.x", where=where, log10=True)
    np.testing.assert_allclose(logged.value, [-3, np.nan, 1, np.nan])
    np.testing.assert_allclose(logged.variance, np.array([1, np.nan, 1, np.nan]) / 1.959963984540054**2)
    one, other = (run.ask(path=f"results.r.{name}", where=where) for name in "xy")
    apart = run.ask(path="results.r.x", minus="results.r.y", where=where)
    np.testing.assert_allclose(apart.value, one.value - other.value)
    np.testing.assert_allclose(apart.variance, one.variance + other.variance)
    half = Planted(data.drop_vars("x_low").assign_coords(a=[1, 2, 3, 4]))  # of one limit nothing follows
    assert np.isnan(half.ask(path="results.r.x", where=where).variance).all()


@pytest.mark.parametrize("path", ["results.consistency", "results.controls.advantage.low", "result.controls.advantage"])
def test_a_path_has_three_parts_or_names_a_coordinate(run: Run, path: str) -> None:
    with pytest.raises(FeatdynError, match=f"no coordinate {path} of checkpoints"):
        asked(run, "stored", path=path)
