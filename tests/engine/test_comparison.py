"""What the page of runs side by side says: where groups differ most, whose intervals overlap, over what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featdyn.report.comparison import sections, write
from featdyn.report.figure import Lines
from featdyn.report.section import Finding, Section

NAN = float("nan")


def row(group: str, value: float, half: float = NAN, *, runs: int = 3, quantity: str = "r.x", **place: str) -> Any:
    """A row of a table of runs compared: its interval over runs, and one of twice the width over probes."""
    ends = {"low": value - half, "high": value + half, "probes_low": value - 2 * half, "probes_high": value + 2 * half}
    return {"quantity": quantity, **({"cut": ""} | place), "group": group, "value": value, "runs": runs, **ends}


def section(*rows: Any) -> Section:
    (found,) = sections(pd.DataFrame(rows))
    return found


AB = [row("a", 1.0, 0.25, cut="p"), row("b", 2.0, 0.5, cut="p")]


@pytest.mark.parametrize(
    ("rows", "sentence", "verdict"),
    [
        (
            AB,
            "Groups differ most at p: 1 (0.75 to 1.25) for a and 2 (1.5 to 2.5) for b.",
            "intervals apart in 1 of 1 places",
        ),
        (
            [row("a", 1.0, 0.5), row("b", 2.0, 0.5)],  # which touch
            "Groups differ most: 1 (0.5 to 1.5) for a and 2 (1.5 to 2.5) for b.",
            "intervals apart in 0 of 1 places",
        ),
        (
            [*AB, row("a", 5.0, 0.5, cut="q"), row("b", 4.0, 0.25, cut="q"), row("c", 9.0, cut="q")],
            "Groups differ most at q: 4 (3.75 to 4.25) for b and 9 for c.",
            "intervals apart in 1 of 1 places",
        ),
        (
            [*AB, row("a", 9.0, 0.5, cut="q"), row("b", NAN, cut="q")],  # one alone is not compared
            "Groups differ most at p: 1 (0.75 to 1.25) for a and 2 (1.5 to 2.5) for b.",
            "intervals apart in 1 of 1 places",
        ),
        (
            [row("a", 1.0, 0.5, runs=1), row("b", 2.0, 0.25, runs=2)],  # over probes, and over runs
            "Groups differ most: 1 (0 to 2) for a and 2 (1.75 to 2.25) for b.",
            "intervals apart in 0 of 1 places",
        ),
        ([row("a", 1.0), row("b", 1.0)], "Groups do not differ anywhere.", ""),
        (  # as far apart at both: the first is named
            [row(group, value, cut=place) for place in "qp" for group, value in (("a", 1.0), ("b", 2.0))],
            "Groups differ most at q: 1 for a and 2 for b.",
            "",
        ),
        ([row("a", 1.0), row("b", 1.0 + 1e-9)], "Groups differ most: 1 for a and 1 for b.", ""),
        ([row("a", NAN), row("b", NAN)], "Nothing is known here.", ""),
        ([row("a", float(i), cut=f"c{i}") for i in range(4)], "0 at c0; 1 at c1; 2 at c2; 3 at c3.", ""),
        ([row("a", float(i), cut=f"c{i}") for i in range(5)], "0 at c0; 1 at c1; 2 at c2; 3 at c3; ….", ""),
        ([row("a", 0.5, 0.125, quantity="r.accuracy")], "50.0 % (37.5 to 62.5 %).", ""),
    ],
)
def test_groups_differ_most_where_their_values_are_furthest_apart(rows: Any, sentence: str, verdict: str) -> None:
    assert section(*rows).finding == Finding(sentence, verdict)


def test_the_table_says_over_what_an_interval_is() -> None:
    one, two = row("a", 1.0, 0.5, runs=1, cut="p"), row("a", 3.0, 0.5, runs=2, cut="q", set="s")
    found = section(
        {**one, "set": ""}, two, {**row("b", 12345.678, cut="p"), "set": ""}, row("b", NAN, cut="q", set="")
    )
    assert found.grid is not None
    assert tuple(found.grid.header) == ("cut", "set", "Group", "Value", "95 % interval", "Over", "Runs")
    assert [tuple(each) for each in found.grid.rows] == [
        ("p", "", "a", "1", "0 to 2", "probes", "1"),
        ("q", "s", "a", "3", "2.5 to 3.5", "runs", "2"),
        ("p", "", "b", "1.235e+04", "–", "–", "3"),
        ("q", "", "b", "–", "–", "–", "3"),
    ]
    (figure,) = found.panels[0].figures.values()
    assert isinstance(figure, Lines)
    assert (figure.x.title, figure.x.scale, figure.y.title, figure.y.share) == ("cut · set", "category", "X (r)", False)
    assert [(one.name, one.x, one.joined, one.order) for one in figure.series] == [
        ("a", ["p", "q · s"], False, 0),
        ("b", ["p", "q"], False, 1),
    ]
    np.testing.assert_array_equal(figure.series[0].low, [0.0, 2.5])
    bare = section(row("a", 0.5, quantity="plain_accuracy"))
    assert bare.grid is not None
    assert next(iter(bare.grid.header)) == "Group"  # no label says anything
    assert bare.title == "Plain accuracy"
    (figure,) = bare.panels[0].figures.values()
    assert figure.y.share


def test_quantities_and_groups_keep_their_order_and_the_most_runs_of_a_group_are_said(tmp_path: Path) -> None:
    table = pd.DataFrame([
        row("z", 1.0, quantity="r.z", runs=1), row("a", 1.0, quantity="r.z", runs=2),
        row("z", 1.0, quantity="r.a", runs=3), row("a", 1.0, quantity="r.a", runs=1),
    ])  # fmt: skip
    assert [each.title for each in sections(table)] == ["Z (r)", "A (r)"]
    text = write(table, tmp_path / "a.html").read_text(encoding="utf-8")
    assert "z (3 runs), a (2 runs)" in text
    assert text.index(">Z (r)<") < text.index(">A (r)<")
