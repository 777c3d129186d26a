"""The page and the table that are made of a declaration: all that was declared stands there, and nothing else."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from pydantic import Field

from featdyn.analysis import analyses
from featdyn.analysis.__main__ import main
from featdyn.analysis.declaration import Analysis, Variable, bounded
from featdyn.analysis.options import FeatureSource, Seed, samples
from featdyn.analysis.page import page, reading, table
from featdyn.analysis.table import BEGIN, END, AnalysisTable, markdown, replaced
from featdyn.reproduce.markdown import marks
from featdyn.validation import Options


class Chosen(FeatureSource, Seed):
    samples: int = samples(12_345)
    some_names: tuple[str, ...] = Field(("a", "b"), description="names | or patterns")
    none_yet: tuple[str, ...] = Field((), description="nothing")
    limit: float | None = Field(None, description="no limit")


def declared(**said: Any) -> Analysis:
    base: dict[str, Any] = {"name": "mine", "question": "what is it?", "source": "A paper.", "options": Options}
    return Analysis(**base | {"variables": {"x": Variable("t", "an x")}, "compute": lambda _: xr.Dataset()} | said)


def sections(text: str) -> dict[str, str]:
    """The parts of a page by their titles, "" for what stands above the first."""
    first, *others = text.split("\n\n## ")
    return {"": first} | dict(part.partition("\n\n")[::2] for part in others)


def test_a_page_has_all_that_was_declared() -> None:
    variables = bounded("x", "cut t", "a share", valid_range=(0.0, 1.5), status="why")
    variables["y"] = Variable("other", "a length", "m", missing="padding", status="why")
    needs = frozenset(["network", "labels"])
    found = page(declared(options=Chosen, variables=variables, needs=needs, results=("drift", "noise")))
    assert found.endswith("|\n")
    parts = sections(found)
    assert parts[""].startswith("# `mine`\n\nWhat is it?\n\n```\nfeatdyn analyze run.zarr mine\n```\n\n```python\n")
    assert parts[""].endswith(
        "It needs, of the run or given with it: labels, network. It reads the newest result of [`drift`](drift.md), "
        "[`noise`](noise.md)."
    )
    assert parts["Where definitions come from, and what is our own choice"] == "A paper."
    assert len(parts["Pitfalls"].splitlines()) == 5
    assert "- At most 12,345 probes of each set" in parts["Pitfalls"]
    assert parts["Options"].splitlines()[2:] == [
        *(line for line in parts["Options"].splitlines()[2:] if line.startswith(("| `--features`", "| `--seed`"))),
        "| `--samples` | `12345` | at most this many probes of each set: a seeded choice, every class and corruption |",
        "| `--some-names` | `a,b` | names \\| or patterns |",
        "| `--none-yet` |  | nothing |",
        "| `--limit` |  | no limit |",
    ]
    assert "| `--seed` | `0` | " in parts["Options"]
    assert parts["Variables"].splitlines()[4:] == [
        "| `x` | cut t | 1 | 0 to 1.5 | a share | `why` |",
        "| `x_low` | cut t | 1 | 0 to 1.5 | a share, lower 95 % limit | `why` |",
        "| `x_high` | cut t | 1 | 0 to 1.5 | a share, upper 95 % limit | `why` |",
        "| `y` | other | m |  | a length | padding; `why` |",
    ]
    assert [line.split(" | ")[0] for line in parts["Axes"].splitlines()[2:]] == ["| `cut`", "| `t`"]  # known by name


def test_what_was_not_declared_has_no_place_on_a_page() -> None:
    parts = sections(page(declared(variables={"x": Variable("here", "an x")})))
    assert set(parts) == {"", "Where definitions come from, and what is our own choice", "Variables"}
    assert "It needs" not in parts[""]
    assert "It reads" not in parts[""]
    assert parts["Variables"].splitlines()[-1] == "| `x` | here | 1 |  | an x |  |"
    assert table(("a", "b"), []) == ""
    assert table(("a", "b"), [("1", "x|y")]) == "| a | b |\n|---|---|\n| 1 | x\\|y |"
    assert reading(declared()) == []
    assert reading(analyses()["drift"])


def test_the_table_of_analyses_stands_between_its_marks_or_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["featdyn.analysis"])
    main()
    assert capsys.readouterr().out == markdown(analyses().values()) + "\n"
    document = tmp_path / "d.md"
    document.write_text(f"before {BEGIN} old {END} after", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["featdyn.analysis", str(document)])
    main()
    own = [one for one in analyses().values() if one.module.startswith("featdyn.")]
    assert document.read_text(encoding="utf-8") == f"before {BEGIN}\n{markdown(own)}\n{END} after"
    for without in (f"only {BEGIN}", f"only {END}"):
        with pytest.raises(ValueError, match="no place for the table"):
            replaced(without, "")
    assert repr(AnalysisTable(a=declared(), longer=declared(question="why?"))) == "a       what is it?\nlonger  why?"
    assert repr(AnalysisTable()) == ""


def test_the_command_for_a_study_s_table_takes_a_document_and_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"study": "s", "scale": "quick", "verdicts": [], "quantities": {}}
    document, results = tmp_path / "d.md", tmp_path / "r.json"
    document.write_text("\n".join(marks(said)), encoding="utf-8")
    results.write_text(json.dumps(said), encoding="utf-8")
    for arguments in ([], [str(document)], [str(document), str(results), "more"]):
        monkeypatch.setattr(sys, "argv", ["featdyn.reproduce", *arguments])
        with pytest.raises(SystemExit) as caught:
            runpy.run_module("featdyn.reproduce", run_name="__main__")
        assert str(caught.value).startswith("give a document and a file of results")
    monkeypatch.setattr(sys, "argv", ["featdyn.reproduce", str(document), str(results)])
    runpy.run_module("featdyn.reproduce", run_name="__main__")
    start, end = marks(said)
    assert document.read_text(encoding="utf-8").startswith(f"{start}\n")
    assert document.read_text(encoding="utf-8").endswith(f"\n{end}")
