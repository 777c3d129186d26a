"""Where a share is largest: planted curves are read back, and known worlds get the verdict they should."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import xarray as xr

from featdyn.reproduce.load import load
from featdyn.reproduce.measured import Measured
from featdyn.reproduce.quantities.kind import Seen
from featdyn.reproduce.quantities.stored import Stored
from featdyn.reproduce.quantities.turn import Turn
from featdyn.reproduce.rules import FAILS, HOLDS, NO_POWER, UNDECIDED, judge
from featdyn.reproduce.study import Claim, Study

SETS, DRAWS, SEEDS = ("train", "test"), 100, 3
LABELS = ("test", "decay")
STEPS = np.arange(8)
Z = 1.959963984540054


class Planted:
    """A run with one result, and times by name."""

    def __init__(self, result: xr.Dataset, **times: int | None) -> None:
        self.result = lambda name: result
        self.at = {"last": len(STEPS) - 1, **times}.__getitem__

    @property
    def seen(self) -> Seen:
        return Seen(cast(Any, self), cast(Any, self))


def generalization(share: np.ndarray, decay: np.ndarray, gap: np.ndarray, error: float) -> xr.Dataset:
    """A result of shares ``(set, t)`` and a gap ``(t,)``, each with an interval of a known standard error."""
    dims = {"power": ("cut", "set", "t", "reference"), "decay_share": ("cut", "set", "t"), "gap": ("cut", "t")}
    values = {"power": share[None, ..., None], "decay_share": decay[None], "gap": gap[None]}
    data = {
        f"{name}{end}": (dims[name], values[name] + side * Z * error)
        for name in values
        for end, side in (("", 0), ("_low", -1), ("_high", 1))
    }
    return xr.Dataset(data, {"set": list(SETS), "reference": ["test"], "step": ("t", 10 * STEPS)})


def test_a_turn_is_chosen_on_one_set_and_read_on_the_other() -> None:
    rng = np.random.default_rng(0)
    share, decay, gap = rng.random((2, 8)), rng.random((2, 8)), rng.random(8)
    run = Planted(generalization(share, decay, gap, 0.1)).seen
    for i, curve in enumerate((share, decay)):
        at = int(np.argmax(curve[0]))
        wanted = {
            "rise": curve[1, at] - curve[1, 0],
            "fall": curve[1, at] - curve[1, -1],
            "gap": gap[-1] - gap[at],
            "step": 10 * at,
        }
        for measure, value in wanted.items():
            found = Turn(measure=cast(Any, measure), labels=LABELS).measured(run)
            assert found.at({"labels": LABELS[i]})[0] == pytest.approx(value, rel=1e-12)
            if measure != "step":  # two checkpoints, as if independent
                assert found.at({"labels": LABELS[i]})[1] == pytest.approx(2 * 0.1**2)
    share[0, 3] = np.nan
    found = Turn(measure="rise", labels=LABELS).measured(Planted(generalization(share, decay, gap, 0.1)).seen)
    assert np.isnan(found.value).tolist() == [True, False]
    assert found.missing == "the share is undefined at a checkpoint: nothing is salient there"


def planted(rng: np.random.Generator, curve: np.ndarray, gap: np.ndarray, error: float) -> xr.Dataset:
    """A run whose images, and whose seed, move a curve."""
    seed = 0.01 * rng.standard_normal(8)
    share, decay = curve + seed + error * rng.standard_normal((2, 2, 8))
    return generalization(share, decay, gap + error * rng.standard_normal(8), error)


def verdict(study: Study, claim: str, measured: list[Measured]) -> str:
    rule = next(each for each in study.claims if each.id == claim)
    asked = study.model_copy(update={"claims": (rule.model_copy(update={"needs": ()}),)})
    runs = {rule.groups[0]: {seed: {rule.quantity: found} for seed, found in enumerate(measured)}}
    (found,) = judge(asked, "planted", {rule.experiment: runs})
    return found.verdict


UP = np.array([0.1, 0.1, 0.2, 0.4, 0.6, 0.6, 0.6, 0.6])
CURVES = {  # H, the gap, and what the three phases' rules should say of it
    "three phases": (np.array([0.1, 0.1, 0.2, 0.4, 0.8, 0.5, 0.4, 0.3]), np.linspace(0, 4, 8), (HOLDS, HOLDS, HOLDS)),
    "opposite ends": (UP[::-1], np.linspace(4, 0, 8), (NO_POWER, HOLDS, FAILS)),
    "flat": (np.full(8, 0.4), np.zeros(8), (UNDECIDED, UNDECIDED, UNDECIDED)),
}


@pytest.mark.parametrize("world", ["three phases", "flat", pytest.param("opposite ends", marks=pytest.mark.slow)])
def test_planted_phases_get_the_verdict_that_they_should(world: str) -> None:
    """A flat curve, whose largest value is large by chance, neither rises nor falls in 95 of 100 draws."""
    study, rng = load("three-phase"), np.random.default_rng(list(CURVES).index(world))
    curve, gap, wanted = CURVES[world]
    rules = {"1-rise-mlp": "rise", "2-fall-mlp": "fall", "3-gap-mlp": "gap"}
    right = dict.fromkeys(rules, 0)
    for _ in range(DRAWS):
        runs = [Planted(planted(rng, curve, gap, 0.01)).seen for _ in range(SEEDS)]
        for (claim, measure), expected in zip(rules.items(), wanted, strict=True):
            found = [Turn(measure=cast(Any, measure), labels=LABELS).measured(run) for run in runs]
            said = verdict(study, claim, found)
            right[claim] += said == expected or (expected in (UNDECIDED, NO_POWER) and said in (UNDECIDED, NO_POWER))
    assert all(count >= 0.95 * DRAWS for count in right.values()), right


def norm(rng: np.random.Generator, before: float, after: float, error: float = 0.01) -> xr.Dataset:
    """A result of richness: D_LR falls from one value to another at checkpoint 5."""
    value = np.where(STEPS < 5, before, after) + 0.01 * rng.standard_normal() + error * rng.standard_normal((1, 2, 8))
    data = {
        f"low_rank{end}": (("layer", "set", "t"), value + s * Z * error)
        for end, s in zip(("", "_low", "_high"), (0, -1, 1), strict=True)
    }
    return xr.Dataset(data, {"layer": ["norm"], "set": list(SETS)})


def test_a_place_is_taken_from_another() -> None:
    result = norm(np.random.default_rng(0), 0.5, 0.2)
    study = load("richness")
    options = Stored.model_validate(study.quantities["drop"].options)
    found = options.measured(Planted(result, before_jump=4).seen)
    values = result["low_rank"].values[0]
    np.testing.assert_allclose(found.value, values[:, 4] - values[:, 7], rtol=1e-12)
    np.testing.assert_allclose(found.variance, 2 * 0.01**2)
    never = options.measured(Planted(result, before_jump=None).seen)
    assert np.isnan(never.value).all()
    assert never.missing == "no checkpoint is before_jump"
    layers = Stored.model_validate(study.quantities["by_depth"].options)
    both = xr.concat([result.assign_coords(layer=["hidden1"]), result.assign_coords(layer=["hidden2"]) * 0.5], "layer")
    np.testing.assert_allclose(layers.measured(Planted(both).seen).value, values[:, 7] / 2)


@pytest.mark.slow
@pytest.mark.parametrize(("after", "expected"), [(0.1, HOLDS), (0.7, FAILS), (0.4, UNDECIDED)])
def test_planted_grokking_gets_the_verdict_that_it_should(after: float, expected: str) -> None:
    study, rng, right = load("richness"), np.random.default_rng(7), 0
    options = Stored.model_validate(study.quantities["drop"].options)
    for _ in range(DRAWS):
        runs = [Planted(norm(rng, 0.5, after), before_jump=4).seen for _ in range(SEEDS)]
        said = verdict(study, "7-grokking", [options.measured(run) for run in runs])
        right += said == expected
    assert right >= 0.95 * DRAWS


@pytest.mark.parametrize("name", ["richness", "three-phase"])
def test_what_a_rule_asks_has_the_axes_that_it_needs(name: str) -> None:
    """Of each claim with a margin, all its numbers can violate it: a margin is never at an end of what is possible."""
    study = load(name)
    for claim in study.claims:
        possible = study.quantities[claim.quantity].possible
        if possible is None or claim.informs:
            continue
        low, high = possible if len(claim.groups) == 1 else (possible[0] - possible[1], possible[1] - possible[0])
        for margin in (claim.at_least, claim.at_most):
            assert margin is None or low < margin < high, claim.id
        assert isinstance(claim, Claim)
