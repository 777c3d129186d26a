"""What the repository says of a study is what its files of results say, row by row."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from featdyn.errors import FeatdynError
from featdyn.reproduce.markdown import bring_up_to_date, marks, replaced, table
from featdyn.reproduce.page import render
from featdyn.reproduce.rules import FAILS, HOLDS, NO_POWER, UNDECIDED

ROOT = Path(__file__).parents[3]
RESULTS = sorted((ROOT / "bench/results/reproduce").glob("*.json"))


def row(value: float | None, verdict: str, cut: str, **more: Any) -> dict[str, Any]:
    ends = {"low": None, "high": None} if value is None else {"low": value - 0.1, "high": value + 0.1}
    said = {"cell": {"cut": cut}, "value": value, **ends, "seeds": 3, "pvalue": 0.01, "least_seen": 0.07}
    return said | {"verdict": verdict, "reason": "", "values": {"clean": [value]}} | more


@pytest.fixture
def said() -> dict[str, Any]:
    claim = {
        "claim": "1", "data": "digits", "statement": "a <b> is | more", "source": "here", "experiment": "e",
        "quantity": "q", "groups": ["clean"], "at_least": 0.2, "at_most": None, "effect": 0.1, "published": "0.6",
        "own_choice": "", "verdict": "holds", "reason": "", "counts": {"holds": 2, "no power": 1},
        "rows": [row(0.9, "holds", "s1"), row(0.5, "holds", "s2"), row(None, "no power", "s3")],
    }  # fmt: skip
    informs = claim | {"claim": "2", "at_least": None, "effect": None, "verdict": "informs", "counts": {"informs": 1}}
    informs["rows"] = [row(x, "informs", s, pvalue=None, least_seen=None) for x, s in ((0.3, "s1"), (0.1, "s2"))]
    return {
        "study": "s", "title": "T", "source": "x", "about": ["Why."], "scale": "quick", "scale_about": "small",
        "rules": {
            "checksum": "c", "written": "2026-11-30", "made_under": {"c of 2026-11-30": 3}, "level": 0.05, "power": 0.8,
        },
        "runs": {"asked": 4, "made": 3}, "not_at_this_scale": ["9"], "versions": [], "verdicts": [claim, informs],
        "experiments": [], "quantities": {"q": "a number"},
    }  # fmt: skip


def test_a_row_is_the_cell_that_speaks_most_against_its_claim(said: dict[str, Any]) -> None:
    header, _, first, blank, informs, _, second = table(said).splitlines()
    assert header == "| claim | data | verdict | cells | measured | rule | seen | study |"
    measured = "0.5 [0.4, 0.6] (s2) | at least 0.2 | 0.07 | 0.6"
    assert first == f"| a <b> is \\| more | digits | holds | 2 holds, 1 no power | {measured} |"
    assert (blank, informs) == ("", "| what informs, without a verdict | data | measured |")
    assert second == "| a <b> is \\| more | digits | 0.1 [0, 0.2] (s2) to 0.3 [0.2, 0.4] (s1), of 2 cells |"
    said["verdicts"][0]["published"] = ""
    assert table(said).splitlines()[0] == "| claim | data | verdict | cells | measured | rule | seen |"
    said["verdicts"][0] |= {"at_least": None, "at_most": 1.0}
    assert "0.9 [0.8, 1] (s1) | at most 1 |" in table(said).splitlines()[2]


def test_a_document_takes_the_table_between_its_marks(said: dict[str, Any], tmp_path: Path) -> None:
    start, end = marks(said)
    document, results = tmp_path / "d.md", tmp_path / "r.json"
    document.write_text(f"Before.\n\n{start}\nold\n{end}\n\nAfter.\n")
    results.write_text(json.dumps(said))
    bring_up_to_date(document, results)
    assert document.read_text() == f"Before.\n\n{start}\n{table(said)}\n{end}\n\nAfter.\n"
    assert replaced(document.read_text(), said) == document.read_text()
    for without in ("Nothing.", f"{start} only", f"only {end}", f"{end} before {start}"):
        with pytest.raises(FeatdynError, match="no place for the table: write the lines"):
            replaced(without, said)


def test_the_page_says_what_is_lacking_and_escapes_words(said: dict[str, Any]) -> None:
    page = render(said)
    assert "3 of 4 runs are made" in page
    assert "Not run at this scale, or on these data: 9." in page
    assert "a &lt;b&gt; is | more" in page
    assert "<b>" not in page
    assert "rules were changed" not in page
    said["rules"]["made_under"] = {"c of 2026-11-30": 2, "other of 2026-11-01": 1}
    assert "1 under other of 2026-11-01" in render(said)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_documents_say_what_the_results_say(path: Path) -> None:
    said = json.loads(path.read_text())
    found = (ROOT / "docs/found.md").read_text()
    assert replaced(found, said) == found
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    body = render(said).partition("<body>")[2]  # without the style, which other pages share
    assert page.partition("<body>")[2] == body
    count = Counter(verdict["verdict"] for verdict in said["verdicts"])
    words = ((HOLDS, "{} hold"), (FAILS, "{} do not"), (UNDECIDED, "{} are undecided"), (NO_POWER, "{} have no power"))
    counts = ", ".join(word.format(count[verdict]) for verdict, word in words if count[verdict])
    readme = (ROOT / "README.md").read_text().replace(" claims hold", " hold")
    assert f"{path.stem}.html): {counts}" in readme
