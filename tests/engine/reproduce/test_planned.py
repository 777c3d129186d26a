"""What a study says that it will take: runs, hours and disk, by counts that can be done by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from featdyn.reproduce.jobs import gigabytes, planned, resolved


def job(name: str, groups: int, minutes: float, disk: float) -> Any:
    study = SimpleNamespace(scales={"quick": SimpleNamespace(device="a CPU")})
    return SimpleNamespace(
        name=name, data="digits", scale="quick", study=study,
        experiment=SimpleNamespace(groups=dict.fromkeys("abc"[:groups])),
        place=SimpleNamespace(minutes=minutes, gigabytes=disk),
    )  # fmt: skip


FOUND = [job("one", 2, 45.0, 0.25), job("one", 2, 45.0, 0.25), job("other", 3, 10.0, 1.5)]


@pytest.mark.parametrize(
    ("keep", "processes", "disk"), [(True, 4, "2 GB of disk"), (False, 4, "6 GB of disk at a time")]
)
def test_runs_hours_and_disk_are_counted(keep: bool, processes: int, disk: str) -> None:
    first, *each = planned(FOUND, FOUND[1:], keep=keep, processes=processes)
    # Two groups of 45 minutes and three of ten are lacking: two hours.
    assert first == f"7 runs, of which 5 are to be made: about 2 hours of a CPU, {disk}"
    assert each == [
        "  one on digits: 2 seeds of a, b; 45 minutes a run",
        "  other on digits: 1 seeds of a, b, c; 10 minutes a run",
    ]
    assert "0 runs, of which 0 are to be made: about 0 hours" in next(planned([], [], keep=keep))
    assert gigabytes(FOUND, keep=False) == 1.5


def test_times_and_stores_of_a_question_are_filled_in(tmp_path: Any) -> None:
    asked = {"t2": "@end", "from": ["{a}@3", {"x": "{b}"}], "n": 7}
    stores = {"a": tmp_path / "a", "b": tmp_path / "b"}
    found = resolved(asked, {"end": 9}, stores)
    assert found == {"t2": 9, "from": (f"{tmp_path}/a@3", {"x": f"{tmp_path}/b"}), "n": 7}
