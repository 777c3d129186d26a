"""What a study says that it will take: runs, hours and disk, by counts that can be done by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from featdyn.errors import FeatdynError
from featdyn.reproduce import records
from featdyn.reproduce import runs as module
from featdyn.reproduce.jobs import Data, gigabytes, jobs, planned, resolved
from featdyn.reproduce.measured import Measured
from featdyn.reproduce.runs import Runs
from featdyn.training import load
from tests.engine.reproduce.study_file import study


def job(name: str, groups: int, minutes: float, disk: float) -> Any:
    study = SimpleNamespace(scales={"quick": SimpleNamespace(device="a CPU")})
    return SimpleNamespace(
        name=name, data="digits", scale="quick", study=study,
        experiment=SimpleNamespace(groups=dict.fromkeys("abc"[:groups])),
        place=SimpleNamespace(minutes=minutes, gigabytes=disk),
    )  # fmt: skip


FOUND = [job("one", 2, 45.0, 0.25), job("one", 2, 45.0, 0.25), job("other", 3, 10.0, 1.5)]


@pytest.mark.parametrize(("keep", "disk"), [(True, "2 GB of disk"), (False, "1.5 GB of disk at a time")])
def test_runs_hours_and_disk_are_counted(keep: bool, disk: str) -> None:
    first, *each = planned(FOUND, FOUND[1:], keep=keep)
    # Two groups of 45 minutes and three of ten are lacking: two hours.
    assert first == f"7 runs, of which 5 are to be made: about 2 hours of a CPU, {disk}"
    assert each == [
        "  one on digits: 2 seeds of a, b; 45 minutes a run",
        "  other on digits: 1 seed of a, b, c; 10 minutes a run",
    ]
    assert "0 runs, of which 0 are to be made: about 0 hours" in next(planned([], [], keep=keep))
    assert (gigabytes(FOUND, keep=False), gigabytes([], keep=False)) == (1.5, 0)


def test_times_and_stores_of_a_question_are_filled_in(tmp_path: Any) -> None:
    asked = {"t2": "@end", "from": ["{a}@3", {"x": "{b}"}], "n": 7}
    stores = {"a": tmp_path / "a", "b": tmp_path / "b"}
    found = resolved(asked, {"end": 9}, stores)
    assert found == {"t2": 9, "from": (f"{tmp_path}/a@3", {"x": f"{tmp_path}/b"}), "n": 7}


ELSEWHERE = """[experiments.fit.at.quick.more]
recipe = "digits"
seeds = 3
minutes = 1
gigabytes = 0.5
options = { consistency = { cuts = ["hidden2"], t2 = "last" } }

[times]"""


def test_seeds_go_through_all_data_before_the_next_and_a_place_may_have_its_own(tmp_path: Path) -> None:
    asked = study(tmp_path / "s.toml", ("[times]", ELSEWHERE))
    found = jobs(asked, "quick")
    assert [(job.data, job.seed) for job in found] == [
        ("digits", 0), ("more", 0), ("digits", 1), ("more", 1), ("more", 2),
    ]  # fmt: skip
    assert [job.data for job in jobs(asked, "quick", ["more"])] == ["more"] * 3
    options = [job.asks("clean")[0].options for job in found[:2]]
    assert options == [{"cuts": ["hidden1"]}, {"cuts": ["hidden2"], "t2": "last"}]
    assert str(found[3].path) == "fit/more/1"


def test_stores_that_questions_name_are_needed_too(tmp_path: Path) -> None:
    groups = ('random = ["labels.noise=1.0"] }', 'random = ["labels.noise=1.0"], third = [], fourth = [] }')
    asks = (
        'options = { cuts = ["hidden1"] } }',
        'groups = ["clean"], options = { of = "{third}@3" } }, { name = "drift", groups = ["third"], options = '
        '{ of = ["{random}"] } }',
    )
    (job, _) = jobs(study(tmp_path / "s.toml", groups, asks), "quick")
    assert job.needed(["clean"]) == ["clean", "random", "third"]
    assert job.needed(["third"]) == ["random", "third"]
    assert job.needed(["fourth"]) == ["fourth"]
    assert [[ask.name for ask in job.asks(group)] for group in ("clean", "random", "third")] == [
        ["consistency"], [], ["drift"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "data", "said"),
    [
        ("digits", Data(), []),
        ("digits", Data(Path("/d"), Path("/c")), []),
        ("mnist", Data(Path("/d"), Path("/c")), ["data.data_dir='/d'"]),
        ("mnist", Data(None, Path("/c")), "mnist: say where it is: --data-dir FOLDER, as torchvision lays it out"),
        ("cifar10", Data(Path("/d"), Path("/c")), ["data.name='imagefolder:/c'"]),
        ("cifar10", Data(Path("/d")), ["data.data_dir='/d'"]),
        ("cifar10", Data(), "cifar10: say where it is: --data-dir FOLDER, as torchvision lays it out (or --cifar10 "),
    ],
)
def test_data_are_where_this_machine_has_them(recipe: str, data: Data, said: Any) -> None:
    asked = load("digits", [f"data.name={recipe}"] if recipe != "digits" else [])
    if isinstance(said, list):
        assert data.changes(asked) == said
    else:
        with pytest.raises(FeatdynError) as caught:
            data.changes(asked)
        assert str(caught.value).startswith(said)
        assert ("--cifar10" in str(caught.value)) == (recipe == "cifar10")


def test_a_disk_that_is_too_small_and_folders_that_are_not_there_are_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = jobs(study(tmp_path / "s.toml"), "quick")  # two seeds of 0.01 GB
    for keep, needed in ((False, 10**7), (True, 2 * 10**7)):
        for free in (needed, needed - 1):
            usage = SimpleNamespace(disk_usage=lambda folder, free=free: SimpleNamespace(free=free))
            monkeypatch.setattr(module, "shutil", usage)
            runs = Runs(found, tmp_path / "not" / "yet", Data(), keep=keep)
            if free == needed:
                runs.check()
            else:
                with pytest.raises(FeatdynError, match=r"yet: 0\.0\d* GB are free, and stores take 0\.0[12] GB"):
                    runs.check()
                with monkeypatch.context() as nothing:  # is to be done
                    nothing.setattr(Runs, "lacking", lambda *_: [])
                    runs.check()
    for data, option in ((Data(tmp_path / "no"), "--data-dir"), (Data(None, tmp_path / "no"), "--cifar10")):
        with pytest.raises(FeatdynError, match=f"{option} .*no: there is no such folder"):
            Runs(found, tmp_path, data).check()
    assert not (tmp_path / "not").exists()


ASKED = (
    'analyses = [{ name = "consistency", options = { cuts = ["hidden1"] } }]',
    'analyses = [{ name = "consistency", options = { t2 = "@t2", cuts = ["hidden1"] } }, '
    '{ name = "interactions", groups = ["clean"], options = { seed = "@never" } }, '
    '{ name = "noise", groups = ["random"] }]',
)


@pytest.mark.parametrize("keep", [True, False])
def test_a_job_trains_asks_each_question_of_all_and_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    """Nothing is trained here: what is called, in which order, with what."""
    never = ("half = { reaches = 0.2 }", "half = { reaches = 0.2 }\nnever = { reaches = 1.0 }")
    path = ('path = "results.consistency.plain_accuracy"', 'path = "results.interactions.mean_order"')
    found = jobs(study(tmp_path / "s.toml", ASKED, never, path), "quick")[:1]
    done, said = list[Any](), list[str]()
    history = {"step": [0, 10], "train_accuracy": [0.25, np.nan], "test_accuracy": [0.5, 0.75]}

    def trained(recipe: Any, store: Path, events: Any, *, dataset: Any) -> None:
        done.append(("train", store.name, recipe.labels.noise, dataset))
        store.mkdir(exist_ok=True)

    monkeypatch.setattr(module, "train", trained)
    monkeypatch.setattr(module, "load_data", lambda **options: f"data of {options['name']}, seed {options['seed']}")
    monkeypatch.setattr(module, "analyze", lambda run, name, **options: done.append((name, run.path.name, options)))
    monkeypatch.setattr(
        module,
        "Run",
        lambda store: SimpleNamespace(path=store, values=lambda name: np.array(history.get(name, [np.nan]))),
    )
    monkeypatch.setattr(module, "Times", lambda run, times: SimpleNamespace(at={"t2": 7, "never": None}.__getitem__))
    monkeypatch.setattr(
        module, "_answered", lambda run, ask, options: (ask.name, run.path.name) == ("consistency", "random.zarr")
    )
    monkeypatch.setattr(module, "measure", lambda run, quantity, times: Measured.of({}, 1.0, 0.0))
    before = torch.get_num_threads()
    runs = Runs(found, tmp_path / "out", Data(Path("/data")), keep=keep, say=said.append)
    assert runs.go()
    torch.set_num_threads(before)
    assert done == [
        ("train", "clean.zarr", 0.0, "data of digits, seed 0"),
        ("train", "random.zarr", 1.0, "data of digits, seed 0"),
        ("consistency", "clean.zarr", {"t2": 7, "cuts": ("hidden1",)}),  # the other has its answer
        ("noise", "random.zarr", {"data_dir": Path("/data")}),  # of what is not answered the times are never reached
    ]
    assert said == [f"fit digits {group} seed 0: test accuracy 0.750" for group in ("clean", "random")]
    assert (tmp_path / "out/stores/quick/fit/digits/0").exists() == keep
    clean, random = (records.current(found[0], group, tmp_path / "out") for group in ("clean", "random"))
    assert clean is not None
    assert random is not None
    assert clean.quantities["gain"].value == 1
    lost = clean.quantities["fitted"]  # of interactions, which were asked at no time
    assert (lost.missing, bool(np.isnan(lost.value))) == ("no checkpoint is never", True)
    assert random.quantities["fitted"].value == 1
    assert clean.history["train_accuracy"] == [0.25, None]
    assert list(clean.asked) == ["consistency", "interactions"]
    assert set(clean.versions) == {"python", "system", "versions"}
    done.clear()
    assert runs.go()
    assert done == []
    records.place(found[0], "random", tmp_path / "out").unlink()
    assert runs.go()
    torch.set_num_threads(before)
    assert [each[:2] for each in done] == [("train", "random.zarr"), ("noise", "random.zarr")]
