"""Labels, losses and phases that are read off stored tables, against their definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import featdyn
from featdyn.analysis import analyses
from featdyn.analysis.features.generalization import GeneralizationOptions
from featdyn.analysis.features.generalization.joined import Baseline, Joined, joined
from featdyn.analysis.features.generalization.labels import Labels
from featdyn.analysis.status import reasons
from featdyn.errors import FeatdynError
from featdyn.report.sections.generalization import section
from featdyn.statistics.interactions import and_or, log_odds
from featdyn.store import Run
from tests.engine.on_workers import own_run, plans, same_on

generalization = analyses()["generalization"]
PLAYERS = {"players": 4, "samples": 9, "cuts": ["one"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    found, model = own_run(tmp_path_factory.mktemp("generalization") / "run.zarr", checkpoints=5)
    featdyn.analyze(found, "interactions", model=model, **PLAYERS)
    return Run(found.path)


@pytest.fixture(scope="module")
def found(run) -> xr.Dataset:
    return generalization(run, baselines=[f"near={run.path}@3", f"near={run.path}@2", f"far={run.path}@0"], in_a_row=1)


def sizes(v: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Interactions (probe, 2, 16) of some rows, and which are salient, by their definition."""
    model = and_or(v.astype(np.float64))
    both = np.stack([model.i_and, model.i_or], 1)[rows]
    span = np.abs(v[rows, -1] - v[rows, 0]).mean()
    return both, (np.abs(both) >= 0.03 * span) & (both != 0)


def test_labels_shares_and_losses_are_those_of_their_definitions(run, found) -> None:
    v = run.result("interactions")["v"].sel(cut="one").transpose("t", "probe", "subset").values
    order = np.array([s.bit_count() for s in range(16)])
    t, lost = 4, {}
    for name, rows in (("train", slice(0, 9)), ("test", slice(9, 18))):
        own, chosen = sizes(v[t], rows)
        for reference, steps in (("near", (3, 2)), ("far", (0,))):
            use = np.zeros(own.shape, bool)
            for step in steps:
                theirs, there = sizes(v[step], rows)
                use |= there & (np.sign(theirs) == np.sign(own))
            cell = found.isel(cut=0, t=t).sel(set=name, reference=reference)
            whole, part = (np.abs(own[mask]).sum() for mask in (chosen, chosen & use))
            assert float(cell["power"]) == pytest.approx(part / whole, rel=1e-9)
            assert float(cell["count_share"]) == pytest.approx((chosen & use).sum() / chosen.sum())
            up = [np.where(chosen & use & (own > 0) & (order == k), own, 0).sum((1, 2)).mean() for k in range(1, 5)]
            np.testing.assert_allclose(cell["generalizable_positive"], up, atol=1e-12)
            # v - (what does not generalize), at the unmasked sample.
            out = v[t, rows, -1] - (own * (chosen & ~use)).sum((1, 2))
            lost[name, reference] = np.log1p(np.exp(-out)).mean()
            loss = found["loss_without"].isel(cut=0, t=t).sel(reference=reference, role=name)
            assert float(loss) == pytest.approx(lost[name, reference], rel=1e-9)
    for reference in ("near", "far"):
        cell = found.isel(cut=0, t=t).sel(reference=reference)
        gap = lost["test", reference] - lost["train", reference]
        assert float(cell["gap_without"]) == pytest.approx(gap, rel=1e-9)
        assert float(cell["explained"]) == pytest.approx(float(cell["gap"]) - gap, rel=1e-9)


def test_loss_is_the_cross_entropy_of_the_network_within_the_slack(run, found) -> None:
    held = run.result("interactions")
    logits = torch.from_numpy(run.array("outputs/logits").values).double()
    entropy = torch.nn.CrossEntropyLoss(reduction="none")
    places = [run.values("sample").tolist().index(p) for p in held["probe"].values]
    exact = generalization(run, slack=0.0)
    for t in range(5):
        each = entropy(logits[t, places], torch.from_numpy(held["label"].values))
        for role, rows in (("train", slice(0, 9)), ("test", slice(9, 18))):
            assert float(exact["loss"].isel(cut=0, t=t).sel(role=role)) == pytest.approx(
                float(each[rows].mean()), abs=1e-4
            )
    assert not [name for name in exact.variables if "reference" in exact[name].dims]
    assert exact["criterion"].values.tolist() == ["decay", "mean_order"]
    values = log_odds(logits[0, places].numpy(), held["label"].values)
    np.testing.assert_allclose(held["v"].isel(cut=0, t=0, subset=-1), values, atol=1e-4)


def test_a_network_is_its_own_baseline(run, found) -> None:
    itself = found.isel(t=3).sel(reference="near")
    np.testing.assert_allclose(itself["power"], 1)
    np.testing.assert_allclose(itself["count_share"], 1)
    np.testing.assert_allclose(found["loss"].isel(t=3), itself["loss_without"])
    assert (itself["chance"] <= 1).all()
    twice = generalization(run, baselines=[f"a={run.path}@0", f"b={run.path}@0"], in_a_row=1)
    assert twice["compared"].values.tolist() == ["a | b"]
    known = twice["kappa"].values[np.isfinite(twice["kappa"].values)]
    assert len(known)
    np.testing.assert_allclose(known, 1)


def test_phases_name_their_criterion_and_say_why(found) -> None:
    assert found["criterion"].values.tolist() == ["near", "far", "decay", "mean_order"]
    assert set(found["second_phase_verdict"].values.ravel()) <= {"yes", "no", "cannot tell"}
    assert (found["third_phase_reason"] != "").all()
    words = reasons(found, "second_phase")
    assert words is not None
    missing = found["second_phase"].isnull()
    assert ((words != "") == missing).all()
    steps = [0, 10, 20, 30, 40]
    assert np.isin(found["second_phase"].values[~missing.values], steps).all()


def test_a_new_baseline_or_threshold_asks_no_network(run, monkeypatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "__call__", None)
    for options in ({"salient": "top", "top": 3}, {"salient": "largest", "share": 0.05}, {"salient": "common"}):
        assert np.isfinite(generalization(run, baselines=[f"{run.path}@1"], need="all", **options)["power"]).any()
    shared = generalization(run, baselines=[f"a={run.path}@1", f"b={run.path}@2"], amount="shared", sign=False)
    words = reasons(shared, "kappa")
    assert words is not None
    assert set(words.values.ravel()) == {"shared amounts are no labels"}


def test_probes_that_stores_do_not_share_are_left_out(run, tmp_path) -> None:
    other, model = own_run(tmp_path / "other.zarr", checkpoints=1)
    featdyn.analyze(other, "interactions", model=model, **{**PLAYERS, "samples": 5})
    beside = generalization(run, baselines=[str(other.path)])
    ids = [set(Run(r.path).result("interactions")["probe"].values) for r in (run, other)]
    assert int(beside["used"].sum()) == len(ids[0] & ids[1])
    last = generalization(Run(other.path), baselines=[str(run.path)])  # one checkpoint has no phases
    words = reasons(last, "second_phase")
    assert words is not None
    assert set(words.values.ravel()) == {"too few checkpoints"}


def test_a_checkpoint_of_a_baseline_is_looked_for_in_all_its_results(run, tmp_path) -> None:
    other, model = own_run(tmp_path / "other.zarr", checkpoints=3)
    whole = featdyn.analyze(other, "interactions", model=model, **PLAYERS)
    featdyn.analyze(other, "interactions", model=model, checkpoints="last", **PLAYERS)
    at = [dict(generalization(run, baselines=[f"{other.path}{t}"]).attrs["baselines"][0])["t"] for t in ("", "@1")]
    assert at == [2, 1]
    featdyn.commit_result(other.path, "interactions", whole.isel(t=[0]))  # as of an analysis that was stopped
    assert generalization(run, baselines=[str(other.path)]).attrs["baselines"][0]["t"] == 2


def test_wrong_baselines_are_refused_in_one_line(run, tmp_path) -> None:
    other, model = own_run(tmp_path / "other.zarr", checkpoints=1)
    for baseline, message in (
        (f"{run.path}@9", "not those of checkpoint 9, but of 0 to 4"),
        (str(other.path), "featdyn analyze .* interactions"),
        (str(tmp_path / "none"), "none"),
        ("", r"NAME=\]STORE"),
    ):
        with pytest.raises(FeatdynError, match=message) as caught:
            generalization(run, baselines=[baseline])
        assert "\n" not in str(caught.value)
    with pytest.raises(FeatdynError, match="reads a result of interactions"):
        generalization(other)
    featdyn.analyze(other, "interactions", model=model, kind="channels", players=3, samples=5, cuts=["one"])
    with pytest.raises(FeatdynError, match="committed after this run was opened: open it again"):
        generalization(other)
    featdyn.analyze(run, "interactions", model=model, kind="channels", players=3, samples=5, cuts=["one"])
    again = Run(run.path)
    with pytest.raises(FeatdynError, match="mask patches or words instead"):
        generalization(again, baselines=[str(other.path)])


def test_the_same_on_workers(run, clusters, found) -> None:
    chosen = {"baselines": [f"near={run.path}@3", f"near={run.path}@2", f"far={run.path}@0"], "in_a_row": 1}
    same_on(clusters, generalization, found, run, **chosen)


def test_it_says_what_it_needs(run, caplog) -> None:
    plans(generalization, run, caplog)


def test_its_section_has_a_row_for_each_criterion(found) -> None:
    shown = section(found.copy(deep=True))
    assert shown.grid is not None
    assert len(shown.grid.rows) == 2 * 4
    assert [p.caption for p in shown.panels][-1] == "Loss gap"


def tables(cuts: list[str], probes: str, steps: int | None, seed: int) -> xr.Dataset:
    """Return stored tables of three players, of all checkpoints or of one."""
    rng, n, time = np.random.default_rng(seed), len(probes), [] if steps is None else ["t"]
    shape = [len(cuts), *([] if steps is None else [steps]), n, 8]
    return xr.Dataset(
        {"v": (["cut", *time, "probe", "subset"], rng.standard_normal(shape).astype(np.float32)),
         "region": (["cut", "probe", "player"], np.arange(3 * n * len(cuts)).reshape(len(cuts), n, 3))},
        {"cut": np.array(cuts, object), "probe": np.array([*probes], object), "label": ("probe", np.arange(n) % 2),
         "split": ("probe", np.array([*"xy" * n][:n], object)), "origin": ("probe", 10 + np.arange(n))},
    )  # fmt: skip


def test_tables_are_joined_on_what_all_networks_have() -> None:
    own = tables(["one", "two"], "abcdef", 3, 0)
    near = tables(["two", "one"], "fedcba", None, 1)
    near = near.assign_coords(label=("probe", own["label"].values[::-1]))
    near["region"] = ("cut", "probe", "player"), own["region"].values[::-1, ::-1].copy()
    near["region"][0, 5, 2] = 99  # of probe a at the cut two
    other = near.isel(probe=[4, 0, 1, 5, 2]).copy(deep=True)  # without c
    other["label"][0] = 7  # of b
    other["v"][1, 3, 5] = np.inf  # of a at the cut one
    far = near.isel(cut=[0]).isel(probe=[0, 1, 2, 3, 4, 5])
    baselines = [Baseline(name, "s", of) for name, of in (("near", near), ("near", other), ("far", far))]
    for cut, name, kept, there in ((0, "one", "def", ["near"]), (1, "two", "def", ["near", "far"])):
        found = joined(own, baselines, cut)
        places = ["abcdef".index(probe) for probe in kept]
        np.testing.assert_array_equal(found.v, own["v"].sel(cut=name).values[:, places])
        assert list(found.baselines) == there
        mine = [near, other]
        for k, of in enumerate(mine):
            np.testing.assert_array_equal(found.baselines["near"][k], of["v"].sel(cut=name, probe=[*kept]))
        assert found.splits.tolist() == own["split"].values[places].tolist()
        assert found.origins.tolist() == own["origin"].values[places].tolist()
    alone = joined(own, [baselines[2]], 1)
    assert len(alone.splits) == 5  # all but a, whose players differ
    renamed = far.assign_coords(cut=np.array(["head"], object))
    renamed["region"][0, 5] = own["region"][1, 0]
    one = joined(
        own.isel(cut=[1]), [Baseline("far", "s", renamed)], 0
    )  # one cut stands for the other, by whatever name
    assert len(one.splits) == 6
    np.testing.assert_array_equal(one.baselines["far"][0], renamed["v"][0, ::-1])
    assert joined(own, [Baseline("far", "s", renamed)], 1).baselines == {}
    two = near.assign_coords(cut=np.array(["p", "q"], object))
    for cuts in ([1], [0, 1]):
        assert joined(own.isel(cut=cuts), [Baseline("far", "s", two)], 0).baselines == {}


def test_tables_of_an_earlier_version_are_asked_for_anew(run, monkeypatch) -> None:
    result = Run.result
    monkeypatch.setattr(Run, "result", lambda self, *given: result(self, *given).drop_vars("split"))
    with pytest.raises(FeatdynError, match="its interactions are of an earlier version: analyze them again"):
        generalization(run)


@pytest.mark.parametrize("salient", ["span", "common", "largest", "top"])
@pytest.mark.parametrize(
    ("need", "sign", "amount"),
    [("one", True, "whole"), ("majority", False, "whole"), ("all", True, "whole"), ("majority", True, "shared")],
)
def test_what_generalizes_is_what_enough_baselines_use_too(salient, need, sign, amount) -> None:
    rng, share, count = np.random.default_rng(3), 0.2, 5
    v = rng.standard_normal((1, 6, 16)).astype(np.float32)
    theirs = 2 * v + 1.5 * rng.standard_normal((3, 6, 16)).astype(np.float32)
    joined_ = Joined(v, {"near": theirs}, np.array(["train", "test"] * 3, object), np.arange(6))
    options = GeneralizationOptions(
        salient=salient, share=share, top=count, need=need, sign=sign, amount=amount, slack=0.05
    )
    found = Labels([joined_], ["train", "test"], options).at((0, 0))
    for name, rows in (("train", slice(0, 6, 2)), ("test", slice(1, 6, 2))):

        def chosen(table: np.ndarray, rows: slice = rows) -> tuple[np.ndarray, np.ndarray]:
            both = and_or(table.astype(np.float64), slack=0.05).both[rows]
            size, of = np.abs(both), v[0] if salient == "common" else table
            if salient == "top":
                least = np.sort(size.reshape(3, -1), 1)[:, -count]
            elif salient == "largest":
                least = share * size.max((1, 2))
            else:
                least = share * np.full(3, np.abs(of[rows, -1] - of[rows, 0]).mean())
            return both, (size >= least[:, None, None]) & (size > 0)

        own, mine = chosen(v[0])
        votes = []
        for table in theirs:
            other, there = chosen(table)
            agree = there & ((np.sign(other) == np.sign(own)) | (not sign))
            votes.append(np.where(agree, np.abs(other), 0))
        used = np.array(votes) > 0
        enough = used.sum(0) >= {"one": 1, "majority": 2, "all": 3}[need]
        cell = found.sets[name].references["near"][0]
        assert 0 < (mine & enough).sum() < mine.sum()
        if amount == "whole":
            assert float(cell["power"]) == pytest.approx(np.abs(own)[mine & enough].sum() / np.abs(own)[mine].sum())
            assert float(cell["count_share"]) == pytest.approx((mine & enough).sum() / mine.sum())
        strength = np.where(mine, np.abs(own), 0).sum((1, 2))
        np.testing.assert_allclose(found.strength[rows].sum(1), strength, rtol=1e-9)
        losses = np.log1p(np.exp(-v[0, rows, -1].astype(np.float64)))
        np.testing.assert_allclose(found.loss[rows], losses, atol=0.05 * np.abs(v[0, rows, -1] - v[0, rows, 0]).max())


def test_all_interactions_are_at_most_as_many_as_there_are() -> None:
    v = np.random.default_rng(4).standard_normal((1, 4, 16)).astype(np.float32)
    cut = Joined(v, {}, np.array(["train"] * 4, object), np.arange(4))
    every = [Labels([cut], ["train"], GeneralizationOptions(salient="top", top=top)).at((0, 0)) for top in (32, 999)]
    np.testing.assert_array_equal(*(one.strength for one in every))
    np.testing.assert_allclose(
        every[0].strength.sum(1), np.abs(and_or(v[0].astype(float), slack=0.02).both).sum((1, 2))
    )
