"""When a checkpoint is due: against lists of steps made in another way."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.capture.cadence import Cadence

STEPS = 1100


def due(every: int | str) -> list[int]:
    cadence = Cadence(every)
    return [step for step in range(STEPS + 1) if cadence.due(step)]


@settings(max_examples=25)
@given(st.integers(1, 5000))
def test_each_kth_step(every):
    assert due(every) == [*range(every, STEPS + 1, every)]


@settings(max_examples=25)
@given(st.decimals("0.1", 100, places=2))
def test_a_share_of_the_steps_is_that_many_and_evenly(percent):
    found = due(f"{percent}%")
    share = Fraction(str(percent)) / 100
    assert len(found) == math.floor(STEPS * share)
    assert set(np.diff([0, *found])) <= {math.floor(1 / share), math.ceil(1 / share)}


def test_shares_as_people_write_them():
    assert due("1%") == due("1.0 %") == due(100)
    assert due("0.1%") == due(".1%") == due(1000)
    assert due("100%") == due(1)


def test_doubling():
    assert due("doubling") == [2**i for i in range(11)]


@settings(max_examples=25)
@given(st.integers(1, 200))
def test_logarithmic(per_decade):
    expected = {round(10 ** (i / per_decade)) for i in range(4 * per_decade)}
    assert due(f"{per_decade} per decade") == sorted(step for step in expected if step <= STEPS)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, None, True + 0.5, "", "0%", "101%", "1", "twice", "0 per decade", "%"])
def test_anything_else_is_one_line(wrong):
    with pytest.raises(ValueError, match="every must be"):
        Cadence(wrong)
