"""The table of claims: planted agreements are read back, matched, and judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner
from scipy import stats

from featdyn.across_runs.claims import claims
from featdyn.across_runs.matching import before, first_fit, training_accuracy
from featdyn.analysis.composites.controls import KINDS
from featdyn.cli.main import featdyn
from featdyn.compute import Workers
from featdyn.errors import FeatdynError
from featdyn.statistics.repeats import mean_difference, mean_estimate
from featdyn.store import Run, RunWriter
from tests.engine.synthetic_run import make_run, steps

SETS, CUTS = ("train", "test"), ("s1b3", "pooled")


def planted(
    path: Path, *, agreement: float, fits: int, noise: float = 0.0, seed: int = 0, frozen: str = "",
    checkpoints: int = 6, controls: bool = True, advantage: float = 0.2,
) -> Run:  # fmt: skip
    """A run whose composites agree as planted at the pair that claims read, and not at all elsewhere."""
    recipe: dict[str, Any] = {"labels": {"noise": noise}, "training": {"seed": seed}, "network": {}, "data": {}}
    if frozen:
        recipe["intervention"] = {"cut": frozen, "freeze_at": 2.0}
    attributes = {"recipe": recipe, "dataset": {"name": "planted"}}
    sets = {"train": 4, "test": 4}
    make_run(path, checkpoints=checkpoints, sets=sets, attributes=attributes)
    step = steps(checkpoints)
    t1 = max(t for t in range(checkpoints) if step[t] <= step[fits] / 2)
    values = np.zeros((len(CUTS), len(SETS), checkpoints, checkpoints))
    values[:, :, t1, fits] = agreement
    plain = np.where(np.arange(checkpoints) >= fits, 1.0, 0.5)
    index = range(checkpoints)
    coords = {
        "cut": np.array(CUTS, object), "set": np.array(SETS, object), "t1": index, "t2": index,
        "step1": ("t1", step), "step2": ("t2", step), "set_size": ("set", [4, 4]),
    }  # fmt: skip
    pairs = xr.Dataset(
        {
            "agreement": (("cut", "set", "t1", "t2"), values),
            "plain_accuracy": (("set", "t1"), np.stack([plain, plain / 2])),
        },
        coords,
    )
    last = max(t for t in range(checkpoints) if step[t] <= step[-1] / 2)
    better = np.full((len(KINDS), len(CUTS), len(SETS), checkpoints, 1), -1.0)
    better[..., last, :] = advantage
    kind = {**coords, "kind": np.array(KINDS, object), "t2": [checkpoints - 1], "step2": ("t2", step[-1:])}
    drift = xr.Dataset({"advantage": (("kind", "cut", "set", "t1", "t2"), better)}, kind)
    with RunWriter.open(path) as writer:
        writer.result("consistency", pairs)
        if controls:
            writer.result("controls", drift)
    return Run(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("claims")
    found = []
    for seed in range(3):
        wobble = 0.01 * seed
        clean = planted(
            folder / f"clean{seed}.zarr", agreement=0.95 + wobble, fits=4, seed=seed, advantage=0.2 + wobble
        )
        found += [
            clean,
            planted(folder / f"random{seed}.zarr", agreement=0.4 + wobble, fits=5, noise=1.0, seed=seed),
            planted(folder / f"frozen{seed}.zarr", agreement=0.9, fits=4, seed=seed, frozen="s1b3", checkpoints=5),
        ]
    return found


def test_planted_agreements_are_found_and_judged(runs: list[Run]) -> None:
    table = claims(runs)
    by_claim = dict(iter(table.groupby(table["claim"].str[0])))
    assert set(by_claim) == set("12345")
    wanted = mean_estimate([0.95, 0.96, 0.97])
    for number in "12":
        assert len(by_claim[number]) == len(CUTS)
        for row in by_claim[number].itertuples():
            assert (row.value, row.low, row.high) == pytest.approx((wanted.value, wanted.low, wanted.high))
            raw = stats.ttest_1samp([0.95, 0.96, 0.97], 0.9).pvalue
            assert row.pvalue == pytest.approx(min(1, len(CUTS) * raw))  # Holm's, of equal ones
            assert (row.runs, row.verdict) == (3, "holds")
    difference = by_claim["3"][by_claim["3"]["quantity"].str.contains("minus")]
    assert difference["value"].to_numpy() == pytest.approx(0.55)
    assert set(difference["verdict"]) == {"holds"}
    assert set(by_claim["4"]["verdict"]) == {"holds"}
    assert len(by_claim["4"]) == len(CUTS) * len(SETS) * 3
    (freezing,) = by_claim["5"].itertuples()
    lost = float(runs[0].values("test_accuracy")[-1] - runs[2].values("test_accuracy")[-1])
    assert freezing.value == pytest.approx(lost)
    assert lost > 0
    # Each seed loses the same, which does not tell how another would vary.
    assert (freezing.cut, freezing.verdict) == ("s1b3 from epoch 2", "no power")
    assert np.isnan([freezing.low, freezing.high, freezing.pvalue]).all()
    assert set(claims(runs, stable=0.999).query("claim.str.startswith('1')")["verdict"]) == {"does not hold"}
    assert set(claims(runs, stable=0.96).query("claim.str.startswith('1')")["verdict"]) == {"undecided"}


def test_one_run_gets_no_verdict(runs: list[Run]) -> None:
    table = claims(runs[:1])
    assert set(table["verdict"]) == {"undecided"}
    assert table["low"].isna().all()
    assert set(table["claim"].str[0]) == set("124")


def test_what_cannot_be_judged_is_said_in_one_line(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(FeatdynError, match="planted: every claim needs a run with clean labels"):
        claims(runs[1:2])
    bare = planted(tmp_path / "bare.zarr", agreement=0.5, fits=5, controls=False)
    with pytest.raises(FeatdynError, match=r"bare.zarr: no result of controls yet; run: featdyn analyze"):
        claims([bare])


def test_command_line(runs: list[Run]) -> None:
    done = CliRunner().invoke(featdyn, ["claims", *(str(r.path) for r in runs), "--format", "json", "--age", "0.5"])
    assert done.exit_code == 0
    assert {record["claim"][0] for record in json.loads(done.stdout)} == set("12345")


def test_estimates_are_scipy_s() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(5), 2 * rng.standard_normal(4) + 1
    interval = stats.ttest_1samp(a, 0).confidence_interval()
    found = mean_estimate(a)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    found = mean_difference(a, b)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert np.isnan(mean_difference([1.0], [2.0, 3.0]).low)
    assert found.pvalue == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert mean_estimate(a).minus(0.3).pvalue == pytest.approx(stats.ttest_1samp(a, 0.3).pvalue)
    assert np.isnan(mean_difference([1.0, 1.0], [0.5, 0.5]).low)  # two equal seeds are no certainty
    assert np.isnan(mean_estimate([0.7, 0.7]).high)
    assert np.isnan(mean_estimate([0.7, 0.7]).pvalue)


def test_intervals_of_shares_stay_among_shares() -> None:
    found = mean_estimate([0.02, 0.16, 0.09])
    assert found.low < 0  # Student's own
    assert found.within(0, 1).low == 0
    assert found.within(0, 1).high == found.high
    assert np.isnan(mean_estimate([0.5]).within(0, 1).low)


def test_a_ceiling_has_no_power_and_copies_are_refused(tmp_path: Path) -> None:
    flat = [planted(tmp_path / f"{s}.zarr", agreement=1.0, fits=4, seed=s, advantage=0.0) for s in range(3)]
    table = claims(flat)
    assert set(table["verdict"]) == {"no power"}
    assert table[["low", "high", "pvalue"]].isna().all().all()
    twin = planted(tmp_path / "twin.zarr", agreement=0.9, fits=4, seed=1)
    with pytest.raises(FeatdynError, match=r"1\.zarr and .*twin\.zarr are runs of one kind and seed"):
        claims([*flat, twin])


def test_verdicts_are_of_a_family(tmp_path: Path) -> None:
    """One seed's wobble makes each line significant alone, and not all lines of the claim together."""
    runs = []
    for seed, advantage in enumerate((0.02, 0.16, 0.12, 0.1)):
        path = tmp_path / f"{seed}.zarr"
        runs.append(planted(path, agreement=0.95 + 0.01 * seed, fits=4, seed=seed, advantage=advantage))
    alone = stats.ttest_1samp([0.02, 0.16, 0.12, 0.1], 0).pvalue
    table = claims(runs).query("claim.str.startswith('4')")
    assert alone < 0.05
    np.testing.assert_allclose(table["pvalue"], min(1, alone * len(table)))
    assert set(table["verdict"]) == {"undecided"}


def test_checkpoints_are_matched_by_steps_and_by_what_fits(runs: list[Run]) -> None:
    at = np.array([0, 3, 9, 28, 90])
    for step in (-1, 0, 2.9, 3, 50, 1000):
        assert before(at, step) == max([t for t in range(5) if at[t] <= step], default=0)
    accuracy = training_accuracy(runs[0])
    np.testing.assert_array_equal(accuracy, [0.5] * 4 + [1.0] * 2)
    assert (first_fit(runs[0], 0.5), first_fit(runs[0], 0.99)) == (0, 4)


def test_claims_need_no_torch(runs: list[Run]) -> None:
    code = f"import sys; from featdyn.across_runs.claims import claims; claims({[str(r.path) for r in runs]!r});"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_many_stores_are_read_by_workers(runs: list[Run], clusters: dict[str, Workers]) -> None:
    paths = [run.path for run in runs]
    for workers in clusters.values():
        pd.testing.assert_frame_equal(claims(paths, workers=workers), claims(runs), check_exact=True)
        with pytest.raises(FeatdynError, match="planted: every claim needs a run with clean labels"):
            claims(paths[1:2], workers=workers)


def test_the_command_line_opens_workers(runs: list[Run]) -> None:
    arguments = ["claims", *(str(run.path) for run in runs), "--format", "json"]
    alone = CliRunner().invoke(featdyn, arguments)
    threads = CliRunner().invoke(featdyn, [*arguments, "--scheduler", "threads", "--workers", "2"])
    assert threads.exit_code == 0
    assert json.loads(threads.stdout) == json.loads(alone.stdout)
    wrong = CliRunner().invoke(featdyn, [*arguments, "--scheduler", "nowhere"])
    assert isinstance(wrong.exception, FeatdynError)
    assert "scheduler" in str(wrong.exception)
