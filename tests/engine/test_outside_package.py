"""A package outside of featdyn adds an analysis by an entry point alone: two files of its own, no line elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PathDistribution
from pathlib import Path

import numpy as np
import pytest

from featdyn.errors import FeatdynError
from featdyn.report import write_report
from featdyn.report.chapters import chapters
from featdyn.store import Run
from tests.engine.report_page import Page

PACKAGE = Path(__file__).parents[1] / "outside_package"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("outside") / "run.zarr"
    shutil.copytree(small_store, copy)
    done = with_package("analyze", copy, "margins", "--least", "20")
    assert "results/margins/" in done.stdout, done.stderr
    return copy


def with_package(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line where the package is installed: its folder of metadata lies on the path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), *filter(None, sys.path)])}
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_metadata_are_those_of_its_pyproject() -> None:
    said = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    found = PathDistribution(PACKAGE / "outside_margins-1.0.dist-info")
    assert (found.name, found.version) == (said["name"], said["version"])
    ((group, entries),) = said["entry-points"].items()
    assert {e.name: e.value for e in found.entry_points if e.group == group} == entries


def test_help_lists_it_and_explains_its_options() -> None:
    listed = with_package("analyze", "--help").stdout
    assert re.search(r"^  margins +how far ahead of the second class is the first\?$", listed, re.M)
    assert "--least" in with_package("analyze", "margins", "--help").stdout


def test_its_numbers_are_right_and_what_is_missing_has_a_reason(store: Path) -> None:
    run = Run(store)
    result, logits, split = run.result("margins"), run.array("outputs/logits").values.astype(float), run.values("split")
    assert result["margin"].attrs["long_name"] == "mean of the largest logit minus the second"
    assert result["step"].attrs["units"] == "step"
    assert result.attrs["question"] == "how far ahead of the second class is the first?"
    for s, name in enumerate(result["set"].values):
        top = np.partition(logits[:, split == name], -2, axis=-1)[..., -2:]
        wanted = np.diff(top)[..., 0].mean(1) if (split == name).sum() >= 20 else np.full(run.checkpoints, np.nan)
        np.testing.assert_allclose(result["margin"].values[s], wanted, rtol=1e-12)
    asked = with_package("query", store, "results.margins.margin", "--where", "t=0", "--format", "json")
    rows = {row["set"]: row for row in json.loads(asked.stdout)}
    assert rows["corrupted"]["margin"] is None
    assert rows["corrupted"]["missing"] == "too few samples"
    assert rows["train"]["missing"] == ""
    assert rows["train"]["margin"] == pytest.approx(float(result["margin"].values[0, 0]))


def test_the_report_shows_its_section(store: Path, tmp_path: Path) -> None:
    assert with_package("report", store, "-o", tmp_path / "r.html").returncode == 0
    page = Page(tmp_path / "r.html")
    for words in (
        "Margins of outputs",
        "how far ahead of the second class is the first?",
        "too few samples",
        "5 of 15",
    ):
        assert words in page.text
    assert page.data["figures"]["margins-0-0"][""]["data"][0]["y"][0] is not None


def test_without_the_package_its_result_is_shown_plainly(store: Path, tmp_path: Path) -> None:
    (chapter,) = (c for c in chapters(Run(store)) if c.name == "margins")
    assert chapter.question == "how far ahead of the second class is the first?"
    (section,) = chapter.sections
    assert section.grid is not None
    (row,) = section.grid.rows
    assert row[:4] == ("margin", "mean of the largest logit minus the second", "1", "set 3 x t 5")
    assert "not installed here" in Page(write_report(Run(store), tmp_path / "r.html")).text


def test_a_section_that_fails_takes_nothing_else_along(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import featdyn.report.sections.spectra
    from featdyn import analyze

    analyze(store, "spectra")

    def broken(result: object) -> None:
        raise KeyError("spam")

    monkeypatch.setattr(featdyn.report.sections.spectra, "section", broken)
    found = {chapter.name: chapter for chapter in chapters(Run(store))}
    assert "KeyError" in found["spectra"].sections[0].text[0]
    assert len(found["consistency"].sections) == 3


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("outside_nowhere:ANALYSIS", "the analysis margins .* cannot be loaded: No module named"),
        ("json:dumps", "the entry point margins .* is no Analysis"),
        ("featdyn.analysis.features.spectra:ANALYSIS", "two analyses are called spectra"),
    ],
)
def test_a_package_that_is_broken_is_named(monkeypatch: pytest.MonkeyPatch, entry: str, message: str) -> None:
    from importlib.metadata import EntryPoint

    from featdyn.analysis import registry

    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("margins", entry, group)])
    registry.analyses.cache_clear()
    try:
        with pytest.raises(FeatdynError, match=message):
            registry.analyses()
    finally:
        monkeypatch.undo()
        registry.analyses.cache_clear()
