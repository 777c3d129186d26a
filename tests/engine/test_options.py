"""Every option of every recipe and analysis refuses what is no number in a line, before anything is begun."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest

from featdyn.analysis import analyses
from featdyn.capture.options import CaptureOptions
from featdyn.compute.options import ComputeOptions
from featdyn.data.options import DataOptions, LabelOptions, ProbeOptions
from featdyn.errors import RecipeError
from featdyn.training.options import CheckpointOptions, InterventionOptions, TrainingOptions
from featdyn.training.recipe import LARGEST, load
from featdyn.validation import Options, validate

TABLES: list[type[Options]] = [
    *(CaptureOptions, CheckpointOptions, ComputeOptions, DataOptions, InterventionOptions, LabelOptions, ProbeOptions),
    *(TrainingOptions, *(analysis.options for analysis in analyses().values())),
]
NUMBERS = [
    (table, name, {int, float} & {field.annotation, *get_args(field.annotation)})
    for table in TABLES
    for name, field in table.model_fields.items()
]


@pytest.mark.parametrize(("table", "name", "kinds"), [each for each in NUMBERS if each[2]])
def test_a_number_is_finite_and_no_truth(table: type[Options], name: str, kinds: set[type]) -> None:
    wrong: list[Any] = [True, False, math.nan, math.inf, -math.inf, 2**63]
    for value in wrong if int in kinds else wrong[:-1]:
        with pytest.raises(RecipeError, match=rf"^t: {name}: .*got"):
            validate(table, {name: value}, "t")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("training.learning_rate=1e300", "less than or equal to"),
        ("training.weight_decay=1e300", "less than or equal to"),
        ("training.milestones=[nan]", "milestones.0: input should be a finite number"),
        ("training.milestones=[1.5]", "milestones.0: input should be less than or equal to 1"),
        ("training.epochs=1e9", "less than or equal to 1000000"),
        ("training.seed=18446744073709551616", r"less than 2\^63"),
        ("data.image_size=100000", "less than or equal to 8192"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused(change: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says) as refused:
        load("digits", [change])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "", "no/such"])
def test_a_name_that_is_no_recipe(name: str) -> None:
    with pytest.raises(RecipeError, match=r"^no recipe") as refused:
        load(name)
    assert len(str(refused.value)) < 300


def test_a_file_that_is_too_large_for_a_recipe(tmp_path) -> None:
    (tmp_path / "r.toml").write_text("#" * (LARGEST + 1))
    with pytest.raises(RecipeError, match="more than 1,000,000 characters"):
        load(str(tmp_path / "r.toml"))
