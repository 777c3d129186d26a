"""Cells and rows of a question beside the whole array in memory, however it is stored and whatever is let go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featdyn.errors import FeatdynError
from featdyn.query import rows as module
from featdyn.query.answer import Answer
from featdyn.query.cells import Array, Cells, Region
from featdyn.query.groups import Groups, split
from featdyn.query.reduce import Reduction, reduce
from featdyn.query.rows import rows

DIMS = ("checkpoint", "sample")


@st.composite
def stored(draw: st.DrawFn) -> tuple[Array, Cells]:
    """An array with missing values and equal ones, in cells of any size, of which some places are selected."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 9)))
    values = np.array(draw(st.lists(st.sampled_from([np.nan, -1.0, 0.0, 0.5, 2.0]), min_size=54, max_size=54)))
    whole = values[: shape[0] * shape[1]].reshape(shape)
    cell = draw(st.tuples(st.integers(1, 3), st.integers(1, 5)))
    kept = [draw(st.sets(st.integers(0, n - 1), min_size=1)) for n in shape]

    def read(index: tuple[int, ...]) -> Array:
        return whole[tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, cell, strict=True))]

    positions = tuple(np.array(sorted(places), np.intp) for places in kept)
    read_part = (lambda index, span: read(index)[span]) if draw(st.booleans()) else None
    cells = Cells(DIMS, positions, cell, whole.dtype, read, read_part)
    return whole[np.ix_(*positions)], cells


@given(stored())
def test_cells_together_are_the_selection(held: tuple[Array, Cells]) -> None:
    selected, cells = held
    assert cells.shape == selected.shape
    np.testing.assert_array_equal(cells.load(), selected)
    seen = np.zeros(selected.shape, int)
    for region, values in cells.pieces():
        np.testing.assert_array_equal(values, selected[region])
        seen[region] += 1
    assert (seen == 1).all()
    assert [region for region, _ in cells.pieces()] == list(cells.regions())
    along = [(region[0], part.load()) for region, part in cells.groups(("sample",))]
    np.testing.assert_array_equal(np.concatenate([part for _, part in along], axis=1), selected)
    for region, part in along:
        np.testing.assert_array_equal(part, selected[:, region])
    rows, columns = slice(selected.shape[0] // 2, None), slice(0, max(1, selected.shape[1] // 2))
    turned = cells.at(("sample", "draw", "checkpoint"), (columns, slice(0, 1), rows))
    np.testing.assert_array_equal(turned[:, 0], selected[rows, columns].T)
    np.testing.assert_array_equal(Cells.held(selected, DIMS).load(), selected)


@given(stored(), st.sampled_from(["argmax", "argmin"]), st.sampled_from(DIMS))
def test_the_first_of_equal_extremes_is_told_however_it_is_stored(
    held: tuple[Array, Cells], function: str, dim: str
) -> None:
    selected, cells = held
    axis, fill = DIMS.index(dim), -np.inf if function == "argmax" else np.inf
    filled = np.where(np.isnan(selected), fill, selected)
    none = np.isnan(selected).all(axis)
    found = reduce(cells, Reduction(function, (dim,)))
    assert found.places is not None
    assert found.places.tolist() == np.where(none, -1, getattr(np, function)(filled, axis)).tolist()
    extreme = filled.max(axis) if function == "argmax" else filled.min(axis)
    np.testing.assert_array_equal(found.cells.load(), np.where(none, np.nan, extreme))


@dataclass
class Question:
    """What :func:`rows` asks of a selection: one variable, and a condition on it."""

    cells: dict[str, Cells]
    least: float
    widest: str = "v"
    dims: tuple[str, ...] = DIMS

    @property
    def shape(self) -> tuple[int, ...]:
        return self.cells["v"].shape

    def holds(self, region: Region) -> Any:
        return ~(self.cells["v"].at(DIMS, region) < self.least)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stored(), st.sampled_from([None, "v", "-v"]), st.none() | st.integers(1, 12), st.sampled_from([-2.0, 0.0, 3.0]),
    st.integers(0, 3),
)  # fmt: skip
def test_rows_are_the_first_of_all_that_hold(
    monkeypatch: pytest.MonkeyPatch,
    held: tuple[Array, Cells],
    key: str | None,
    limit: int | None,
    least: float,
    kept: int,
) -> None:
    selected, cells = held
    monkeypatch.setattr(module, "KEPT", kept)  # so that rows are let go while it reads
    places, values = rows(Question({"v": cells}, least), key=key, limit=limit, most=54)  # type: ignore[arg-type]
    table = pd.DataFrame({"place": np.arange(selected.size), "v": selected.ravel()})
    table = table[~(table["v"] < least)]
    if key is not None:
        table = table.sort_values("v", ascending=key == "v", kind="stable", na_position="last")
    table = table[: len(table) if limit is None else limit].sort_values("place")
    assert places.tolist() == table["place"].tolist()
    np.testing.assert_array_equal(values["v"], table["v"])


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)])
def test_parts_of_a_piece_go_to_the_places_of_their_groups(axes):
    rng = np.random.default_rng(0)
    shape, region = (4, 5, 7), (slice(1, 4), slice(2, 5), slice(1, 7))
    values = rng.integers(0, 9, shape)
    codes = [rng.integers(0, 3, n) if axis in axes else np.arange(n) for axis, n in enumerate(shape)]
    found, wanted = np.zeros((2, *(code.max() + 1 for code in codes)), int)
    np.add.at(wanted, np.ix_(*(code[run] for code, run in zip(codes, region, strict=True))), values[region])
    for place, part in split(region, values[region], {axis: Groups({}, codes[axis]) for axis in axes}):
        found[place] += part.sum(axes, keepdims=True).squeeze(axes)
    np.testing.assert_array_equal(found, wanted)


def test_more_rows_than_are_allowed_are_refused_unless_a_limit_is_set() -> None:
    question: Any = Question({"v": Cells.held(np.arange(12.0).reshape(3, 4), DIMS)}, 0.0)
    assert len(rows(question, key=None, limit=None, most=12)[0]) == 12
    with pytest.raises(FeatdynError, match="more than 11 rows; select less"):
        rows(question, key=None, limit=None, most=11)
    assert rows(question, key="-v", limit=2, most=1)[0].tolist() == [10, 11]


def test_what_lies_behind_all_that_is_wanted_is_not_read() -> None:
    read: list[tuple[int, ...]] = []

    def one(index: tuple[int, ...]) -> Array:
        read.append(index)
        return np.full((1, 4), float(index[0]))

    cells = Cells(DIMS, (np.arange(50), np.arange(4)), (1, 4), np.dtype(float), one)
    found, _ = rows(Question({"v": cells}, 0.0), key=None, limit=6, most=200)  # type: ignore[arg-type]
    assert found.tolist() == list(range(6))
    assert {index[0] for index in read} == {0, 1}


def test_what_has_no_value_is_a_group_of_its_own() -> None:
    """As severities of probes that are not corrupted: a group, the last one, and in the best of each group too."""
    severity = np.array([2.0, np.nan, 1.0, np.nan, 2.0])
    split = np.array(list("abaab"), object)
    found = Groups.of({"severity": severity, "split": split})
    told = [(None if pd.isna(s) else float(s), k) for s, k in zip(*found.columns.values(), strict=True)]
    assert told == [(1.0, "a"), (2.0, "a"), (2.0, "b"), (None, "a"), (None, "b")]
    assert found.codes.tolist() == [1, 4, 0, 3, 2]
    best = Answer(
        {"sample": {"severity": severity}}, {"x": (("sample",), np.array([5.0, 1, 4, 2, 6]))}, {}, sort=("-x",)
    )
    table = replace(best, within=("severity",), most=1).frame()
    assert table["x"].tolist() == [6, 2, 4]
