"""Sections and figures look as they were approved."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from featdyn.analysis import analyses
from featdyn.report.plotly import to_plotly
from tests.engine import approved_looks
from tests.engine.approved_looks import COMMANDS, FIGURES, asked_run, of_section, on_paper, said


@pytest.fixture(scope="module")
def approved() -> dict[str, Any]:
    page: dict[str, Any] = json.loads(approved_looks.PAGE.read_text())
    return page


@pytest.mark.parametrize("name", [name for name, analysis in analyses().items() if analysis.section])
def test_a_section_is_what_was_approved(approved: dict[str, Any], name: str) -> None:
    assert of_section(analyses()[name]) == approved[f"section of {name}"], approved_looks.__doc__


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_of_the_page_is_what_was_approved(approved: dict[str, Any], name: str) -> None:
    assert json.loads(json.dumps(to_plotly(FIGURES[name]))) == approved[f"page: {name}"], approved_looks.__doc__


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asked_run(tmp_path_factory.mktemp("asked") / "run.zarr")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_was_approved(approved: dict[str, Any], store: Path, command: str) -> None:
    assert said(command, store) == approved["commands"][command], approved_looks.__doc__


def agree(found: Any, wanted: Any) -> bool:
    """Whether lists, words and numbers are alike, numbers to a fiftieth."""
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(agree, found, wanted))
    if isinstance(found, float) and isinstance(wanted, (float, int)):
        return found == pytest.approx(wanted, rel=0.02, abs=1e-9)
    return bool(found == wanted)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_on_paper_is_what_was_approved(approved: dict[str, Any], name: str) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    found, wanted = (json.loads(json.dumps(each)) for each in (on_paper(FIGURES[name]), approved[f"paper: {name}"]))
    assert found.keys() == wanted.keys()
    for part, value in wanted.items():
        if isinstance(value, dict):
            assert found[part].keys() == value.keys()
            assert [k for k, v in value.items() if not agree(found[part][k], v)] == [], approved_looks.__doc__
        else:
            assert agree(found[part], value), (part, found[part], value)


def test_a_picture_has_three_hundred_points_an_inch(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    from featdyn.report.paper import save

    path = save([("", FIGURES["many values"])], tmp_path / "a.png", width="column", source="s")
    assert struct.unpack(">I", path.read_bytes()[16:20]) == (round(3.3 * 300),)
