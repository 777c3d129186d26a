"""The studies that come with featdyn, at tiny sizes: all that they ask can be answered, and all claims are judged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from featdyn.reproduce import document
from featdyn.reproduce.jobs import Data, jobs
from featdyn.reproduce.load import load
from featdyn.reproduce.page import render
from featdyn.reproduce.quantities import options_of
from featdyn.reproduce.records import current
from featdyn.reproduce.runs import Runs
from featdyn.reproduce.study import Study

TINY = ("training.epochs=4", "probes.train=24", "probes.test=24", "checkpoints.first_epoch=0", "checkpoints.every=2")
OPTIONS = {"interactions": {"players": 4, "samples": 12}}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tiny(name: str) -> Study:
    """A study whose quick runs are one seed of few steps."""
    study = load(name)
    experiments = {}
    for key, experiment in study.experiments.items():
        places = {
            data: place.model_copy(
                update={
                    "changes": (*place.changes, *TINY),
                    "groups": {
                        group: tuple(c for c in changes if not c.startswith(("training.epochs", "checkpoints.")))
                        for group, changes in place.groups.items()
                    },
                    "options": place.options
                    | {a.name: OPTIONS[a.name] for a in experiment.analyses if a.name in OPTIONS},
                }
            )
            for data, place in experiment.at.get("quick", {}).items()
        }
        experiments[key] = experiment.model_copy(update={"at": {"quick": places} if places else {}})
    quick = study.scales["quick"].model_copy(update={"seeds": 1})
    return study.model_copy(update={"experiments": experiments, "scales": {"quick": quick}})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["richness", "three-phase"])
def test_all_that_a_study_asks_is_answered(name: str, tmp_path: Path) -> None:
    study = tiny(name)
    found = jobs(study, "quick")
    assert Runs(found, tmp_path, Data()).go()
    for job in found:
        for group in job.experiment.groups:
            record = current(job, group, tmp_path)
            assert record is not None
            assert list(record.quantities) == study.quantities_of(job.name, group)
            for key, measured in record.quantities.items():
                axes = options_of(study.quantities[key]).axes
                assert {axis: tuple(labels) for axis, labels in measured.axes.items()} == axes
    said = document.document(study, "quick", found, tmp_path)
    judged = [each for each in said["verdicts"] if each["rows"]]
    assert {each["claim"] for each in judged} | set(said["not_at_this_scale"]) == {c.id for c in study.claims}
    known = [row["value"] for each in judged for row in each["rows"] if row["value"] is not None]
    assert len(known) > len(judged) / 2
    assert all(map(math.isfinite, known))
    assert all(each["verdict"] in ("no power", "informs") for each in judged)  # of one seed
    assert all(each["statement"] in render(said) for each in judged if "'" not in each["statement"])


@pytest.mark.parametrize("name", ["richness", "three-phase"])
def test_a_claim_is_of_groups_that_are_asked_for_its_quantity(name: str) -> None:
    study = load(name)
    for claim in study.claims:
        experiment = study.experiments[claim.experiment]
        for key, groups in [(claim.quantity, claim.groups), *((n.quantity, n.groups) for n in claim.needs)]:
            for group in groups:
                answered = {ask.name for ask in experiment.analyses if not ask.groups or group in ask.groups}
                assert set(options_of(study.quantities[key]).results) <= answered, (claim.id, key, group)
