"""Every option of every recipe and analysis refuses what is no number in a line, before anything is begun."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self, get_args

import pytest
from pydantic import Field, model_validator

from featdyn.analysis import analyses
from featdyn.capture.options import CaptureOptions
from featdyn.compute.options import ComputeOptions
from featdyn.data.options import DataOptions, LabelOptions, ProbeOptions
from featdyn.errors import RecipeError
from featdyn.training.options import CheckpointOptions, InterventionOptions, TrainingOptions
from featdyn.training.recipe import LARGEST, load
from featdyn.validation import Fraction, Options, validate

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


class Inner(Options):
    width: Annotated[int, Field(gt=0)] = 1
    shares: tuple[Fraction, ...] = ()


class Outer(Options):
    number: int = 0
    flag: bool = False
    name: str
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    named: dict[str, dict[str, Inner]] = Field(default_factory=dict)
    either: int | str = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.number == 7 and self.flag:
            raise ValueError("Seven has no flag")
        return self


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"number": 2**63}, "number: input should be less than 2^63, got 9223372036854775808"),
        ({"number": -(2**63) - 1}, "number: input should be at least -2^63, got -9223372036854775809"),
        ({"number": True}, "number: input should be a number, got True"),
        ({"flag": "no way"}, "flag: input should be a valid boolean, unable to interpret input, got 'no way'"),
        ({"inner": {"width": 0}}, "inner.width: input should be greater than 0, got 0"),
        ({"inner": {"shares": [0, 1, 1.01]}}, "inner.shares.2: input should be less than or equal to 1, got 1.01"),
        ({"inner": {"shares": [-0.01]}}, "inner.shares.0: input should be greater than or equal to 0, got -0.01"),
        ({"inner": {"shares": 3}}, "inner.shares: input should be a valid list, got 3"),
        ({"either": 1.5}, "either: input should be a valid integer, got a number with a fractional part, got 1.5"),
        ({"nam": "b"}, "no field nam; did you mean name? there are number, flag, name, inner, many, named, either"),
        ({"inner": {"widht": 1}}, "no field inner.widht; did you mean width? there are width, shares"),
        ({"many": [{}, {"sahres": 1}]}, "no field many.1.sahres; did you mean shares? there are width, shares"),
        (
            {"named": {"a": {"b": {"shaers": 1}}}},
            "no field named.a.b.shaers; did you mean shares? there are width, shares",
        ),
        ({"number": 7, "flag": True}, "seven has no flag"),  # of several fields: without what was given
        ({"name": None}, "name: input should be a valid string, got None"),
    ],
)
def test_a_line_names_the_field_that_is_wrong_and_what_it_got(values: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as refused:
        validate(Outer, {"name": "a", **values}, "w")
    assert str(refused.value) == f"w: {says}"


def test_what_is_not_given_is_said_without_all_that_is() -> None:
    with pytest.raises(RecipeError, match=r"^w: name: field required$"):
        validate(Outer, {"number": 3}, "w")
    with pytest.raises(RecipeError, match=r"^w: no field nmae; did you mean name\? "):
        validate(Outer, {"nmae": "a"}, "w")  # before the field that is lacking


def test_numbers_of_64_bits_and_shares_at_their_ends_are_taken_and_stay() -> None:
    ends = validate(Outer, {"name": "a", "number": 2**63 - 1, "flag": True, "inner": {"shares": [0, 1]}}, "w")
    assert (ends.number, ends.flag, ends.inner) == (2**63 - 1, True, Inner(shares=(0.0, 1.0)))
    assert validate(Outer, {"name": "a", "number": -(2**63)}, "w").number == -(2**63)
    with pytest.raises(ValueError, match="frozen"):
        ends.number = 3  # type: ignore[misc]
