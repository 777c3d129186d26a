"""The rules of the bench on richness: that they can be applied, and that each verdict can come out."""

from __future__ import annotations

import json
import math
import tomllib

import pytest

from bench import harness
from bench import richness_runs as bench
from featdyn.training import load

PLAYED = {"data_dir": "there", "cifar10": "here"}


PLANS = [bench.PLAN, bench.PLAN.with_name("richness_fitted.toml")]


@pytest.fixture(scope="module")
def plan():
    return tomllib.loads(bench.PLAN.read_text())


def run(low_rank, accuracy=(0.1, 0.4, 0.9), train=1.0):
    times = len(accuracy)
    values = {"test_accuracy": list(accuracy), "train_accuracy": [train] * times}
    return values | {"low_rank/train": low_rank if isinstance(low_rank, list) else [math.nan, 0.5, low_rank]}


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_run_has_a_recipe_and_every_rule_its_runs(path):
    plan = tomllib.loads(path.read_text())
    recipes = {job: bench.recipe(plan, *job, PLAYED) for job in bench.jobs(plan)}
    assert len({repr(r.identity) for r in recipes.values()}) == len(recipes)  # no two are one run
    assert {r.data.name for r in recipes.values()} == {"mnist", "mod97", "imagefolder:here"}
    assert len(plan["seeds"]) == 3
    assert {r.training.seed for r in recipes.values()} == set(plan["seeds"])
    for rule in plan["rule"]:
        groups = plan["experiment"][rule["experiment"]]["groups"]
        assert set(rule["contrast"]) <= {*groups, "before_jump", "last"}
        assert rule["within"][0] < rule["within"][1]
    assert load("grokking").network.name == "transformer"


@pytest.mark.parametrize(
    ("lazy", "rich", "verdict"),
    [
        ([0.60, 0.61, 0.62], [0.05, 0.06, 0.07], "holds"),
        ([0.10, 0.11, 0.12], [0.05, 0.06, 0.07], "does not hold"),
        ([0.20, 0.60, 0.40], [0.05, 0.06, 0.07], "undecided"),
        ([math.nan] * 3, [0.05, 0.06, 0.07], "undecided"),
        ([0.6, 0.6, 0.6], [0.1, 0.1, 0.1], "undecided"),  # equal repeats tell no spread
    ],
)
def test_a_verdict_is_where_the_whole_interval_lies(plan, lazy, rich, verdict):
    rule = plan["rule"][0] | {"within": [0.2, 1.0]}
    found = bench.judged(rule, {"rich": [run(v) for v in rich], "lazy": [run(v) for v in lazy]})
    assert found["verdict"] == verdict
    assert found["values"]["rich"] == rich


def test_two_times_of_a_run_are_paired_and_what_is_needed_is_asked_for(plan):
    rule = next(rule for rule in plan["rule"] if rule["experiment"] == "grokking")
    runs = [run([math.nan, before, 0.2], accuracy=(0.0, 0.3, 0.95)) for before in (0.6, 0.7, 0.8)]
    found = bench.judged(rule, {"sums": runs})
    assert found["estimate"]["value"] == pytest.approx(0.5)
    assert found["verdict"] == "holds"
    assert bench.judged(rule, {"sums": [*runs[:2], run([0.1, 0.2, 0.2], accuracy=(0.0, 0.3, 0.4))]})["lacking"]
    never = [run([0.1, 0.2, 0.2], accuracy=(0.0, 0.3, 0.4))] * 3
    assert bench.judged(rule, {"sums": never})["verdict"] == "undecided"


def test_what_is_written_is_json():
    found = {"a": [1.0, math.nan, {"b": -math.inf}], "c": "words"}
    assert json.loads(json.dumps(harness.plain(found), allow_nan=False)) == {
        "a": [1.0, None, {"b": "-inf"}],
        "c": "words",
    }


def test_runs_that_stand_in_the_file_are_kept(plan, tmp_path):
    path = tmp_path / "found.json"
    assert bench.before(None) == bench.before(str(path)) == {}
    bench.write(str(path), plan, {"encoded/rich/0": {"recipe": {"a": 1}, "measured": run(math.nan)}})
    assert bench.before(str(path))["encoded/rich/0"]["recipe"] == {"a": 1}
    kept = bench.before(str(path))["encoded/rich/0"]["measured"]
    assert math.isnan(bench.number(kept, "low_rank", "train"))  # null in the file


def test_experiments_that_are_not_complete_get_no_verdict(plan):
    every = {f"{n}/{g}/{s}": {"measured": run(0.1 + 0.01 * s)} for n, g, s in bench.jobs(plan) if n == "shuffled"}
    assert [v["experiment"] for v in bench.verdicts(plan, every)] == ["shuffled"]
    every.popitem()
    assert bench.verdicts(plan, every) == []
