"""What a study comes to, from records that are written by hand: which runs count, and where each number stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featdyn.errors import FeatdynError
from featdyn.reproduce import document, page, records
from featdyn.reproduce.jobs import Job, jobs
from featdyn.reproduce.measured import Measured
from featdyn.reproduce.study import Study
from tests.engine.reproduce.study_file import TEXT, study

PLACE = TEXT[TEXT.index("[experiments.fit.at.quick.digits]") : TEXT.index("[times]")]
IDLE = """
[experiments.idle]
about = "not run at this scale"
groups = { clean = [] }
at = {}

[[claims]]
id = "idle"
statement = "nobody knows"
source = "here"
experiment = "idle"
quantity = "fitted"
groups = ["clean"]
"""
GAIN = {"cut": ["hidden1"], "set": ["train", "test"], "t1": ["half"], "batchnorm": ["travel"]}
FITTED = {"digits": 1.0, "more": 0.5}
"""Only on digits is the network fitted, as claim "stable" needs."""


def record(job: Job, group: str, **more: Any) -> records.Record:
    made = 100 * (job.data == "more") + 10 * (group == "random") + job.seed
    fitted = FITTED[job.data] - (group == "random") * 0.25 + 0.01 * job.seed
    said = {
        "digest": job.digest(group), "rules": job.study.checksum, "written": str(job.study.written),
        "recipe": {"data": {"name": "imagefolder:/home/me/images", "seed": job.seed}, "group": group},
        "asked": {}, "versions": {"python": "3", "system": "x", "versions": {}},
        "history": {name: [0.0, made] for name in ("step", *document.FINAL)},
        "quantities": {
            "gain": Measured.of(GAIN, 0.001 * job.seed, np.nan), "fitted": Measured.of({}, fitted, np.nan)
        },
    }  # fmt: skip
    return records.Record(**said | more)


@pytest.fixture
def two(tmp_path: Path) -> Study:
    """A study on two sets of data, an experiment of which runs at no scale."""
    second = PLACE.replace("quick.digits", "quick.more").replace("train_size=100", "train_size=90")
    return study(tmp_path / "s.toml", ("[times]", f"{second}[times]"), text=TEXT + IDLE)


def test_records_of_the_same_questions_count_each_on_its_data(two: Study, tmp_path: Path) -> None:
    found = jobs(two, "quick")
    assert [(job.data, job.seed) for job in found] == [("digits", 0), ("more", 0), ("digits", 1), ("more", 1)]
    others = {  # seed and group of what is not as the rest, on "more"
        (0, "random"): {
            "rules": "old",
            "written": "2020-01-01",
            "versions": {"versions": {}, "system": "x", "python": "3"},
        },
        (1, "random"): {"digest": "of another recipe", "versions": {"python": "2"}},
    }
    for job in found:
        for group in ("clean", "random"):
            if (job.data, job.seed, group) != ("more", 1, "clean"):  # which was not run
                more = others.get((job.seed, group), {}) if job.data == "more" else {}
                records.write(record(job, group, **more), records.place(job, group, tmp_path))
    said = document.document(two, "quick", found, tmp_path)
    assert said["runs"] == {"asked": 8, "made": 6}
    now = f"{two.checksum} of {two.written}"
    assert said["rules"]["made_under"] == {now: 5, "old of 2020-01-01": 1}
    assert said["versions"] == [{"python": "3", "system": "x", "versions": {}}]
    assert said["not_at_this_scale"] == ["idle"]
    verdicts = {(each["claim"], each["data"]): each for each in said["verdicts"]}
    assert list(verdicts) == [("stable", "digits"), ("fit", "digits"), ("stable", "more"), ("fit", "more")]
    assert verdicts["stable", "digits"]["verdict"] == "holds"
    (row,) = {row["reason"] for row in verdicts["stable", "more"]["rows"]}
    assert row == "the network is not fitted"
    (row,) = verdicts["fit", "digits"]["rows"]
    assert row["values"] == {"clean": [1.0, 1.01], "random": [0.75, 0.76]}
    (row,) = verdicts["fit", "more"]["rows"]
    assert (row["values"], row["seeds"], row["low"]) == ({"clean": [0.5], "random": [0.25]}, 1, None)
    digits, more = said["experiments"]
    assert (digits["experiment"], digits["data"], more["data"]) == ("fit", "digits", "more")
    clean, random = (digits["groups"][group] for group in ("clean", "random"))
    for group, ends in ((clean, [0, 1]), (random, [10, 11])):
        assert [group[name] for name in ("seeds", "steps", *document.FINAL)] == [[0, 1], ends, ends, ends]
    assert clean["recipe"] == {"data": {"name": "imagefolder", "seed": 0}, "group": "clean"}
    assert more["groups"]["random"]["steps"] == [110]
    for end, write in (("json", document.write), ("html", page.write)):
        write(said, tmp_path / "deep" / "er" / f"s.{end}")
    text = (tmp_path / "deep/er/s.json").read_text()
    assert json.loads(text) == said
    assert text.startswith('{\n "study": ')
    assert text.endswith("}\n")
    assert text.count("\n") > 100  # a line for each value, so that two files can be compared
    assert (tmp_path / "deep/er/s.html").read_text(encoding="utf-8") == page.render(said)


def test_without_records_nothing_is_known(two: Study, tmp_path: Path) -> None:
    said = document.document(two, "quick", jobs(two, "quick", ["more"]), tmp_path)
    assert said["runs"] == {"asked": 4, "made": 0}
    assert [(each["data"], each["verdict"], each["reason"]) for each in said["verdicts"]] == [
        ("more", "no power", "not run at this scale")
    ] * 2
    (only,) = said["experiments"]
    assert only["groups"]["clean"] == {"seeds": [], "steps": [], **{end: [] for end in document.FINAL}, "recipe": None}
    assert said["versions"] == []


def test_a_record_is_read_as_it_was_written_or_refused(two: Study, tmp_path: Path) -> None:
    job = jobs(two, "quick")[0]
    path = records.place(job, "clean", tmp_path)
    assert records.read(path) is None
    records.write(record(job, "clean"), path)
    text = path.read_text()
    assert text.startswith('{\n "digest": ')
    assert text.endswith("}\n")
    found = records.current(job, "clean", tmp_path)
    assert found is not None
    assert found.quantities["gain"].value.tolist() == [[[[0.0]], [[0.0]]]]
    records.write(found, path)
    assert path.read_text() == text
    with pytest.raises(ValueError, match="JSON compliant"):
        records.write(record(job, "clean", history={"step": [np.inf]}), path)
    assert path.read_text() == text  # whole or not at all
    for wrong in ("", "[]", '{"quantities": {}}', text.replace('"digest"', '"digets"'), text.replace('"value"', '"v"')):
        path.write_text(wrong)
        with pytest.raises(FeatdynError, match=r"0\.json: is no record of a run; remove it, and its run is made again"):
            records.read(path)
