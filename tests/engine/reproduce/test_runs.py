"""A study's runs: stopped in the middle the same call goes on, to the same bytes."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from featdyn.analysis.driver import analyze
from featdyn.cli.main import featdyn
from featdyn.errors import FeatdynError
from featdyn.reproduce import document, records
from featdyn.reproduce.jobs import Data, Job, jobs
from featdyn.reproduce.page import render
from featdyn.reproduce.runs import Runs, _answered
from featdyn.reproduce.study import Ask, Study
from featdyn.store import Run
from featdyn.store.lock import LockedFile
from featdyn.training import load
from featdyn.training.stage import Events, train
from tests.engine.conftest import SMALL
from tests.engine.reproduce.study_file import study, written


class Stopped(Exception):
    pass


def stopping(after: int) -> Events:
    """Events that end the process, as it were, after so many steps."""
    left = iter(range(after))

    def step(*_: object) -> None:
        if next(left, None) is None:
            raise Stopped

    return Events(step=step)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "measured").rglob("*.json"))}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study(tmp_path_factory.mktemp("study") / "s.toml")


@pytest.fixture(scope="module")
def whole(small: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Job], list[str]]:
    folder, found, said = tmp_path_factory.mktemp("whole"), jobs(small, "quick"), []
    assert Runs(found, folder, Data(), keep=True, say=said.append).go()
    return folder, found, said


def test_all_that_is_lacking_is_run_and_measured(small: Study, whole: tuple[Path, list[Job], list[str]]) -> None:
    folder, found, said = whole
    assert len(said) == 4
    assert len(files(folder)) == 4
    run = Run(folder / "stores/quick/fit/digits/1/random.zarr")
    assert run.recipe is not None
    seeds = [run.recipe[table]["seed"] for table in ("data", "labels", "training", "probes")]
    assert seeds == [1, 1, 1, 1]
    assert f"rules {small.checksum} written 2026-11-30" in run.recipe["description"]
    record = records.current(found[0], "clean", folder)
    assert record is not None
    run = Run(folder / "stores/quick/fit/digits/0/clean.zarr")
    plain = run.result("consistency")["plain_accuracy"].sel(set="train").values
    assert record.quantities["fitted"].value == plain[-1]
    t1, t2 = (int(np.flatnonzero(plain >= level)[0]) for level in (0.2, 0.4))
    accuracy = run.result("consistency")["accuracy"].sel(cut="hidden1", t2=t2)
    own = run.result("consistency")["plain_accuracy"].sel(t1=t1)
    gain = [float(accuracy.sel(set=s, t1=t1)) - float(own.sel(set=s)) for s in ("train", "test")]
    np.testing.assert_allclose(record.quantities["gain"].value[0, :, 0, 0], gain, atol=1e-12)


@pytest.mark.parametrize("after", [70, pytest.param(7, marks=pytest.mark.slow)])
def test_stopped_in_the_middle_it_goes_on_to_the_same_bytes(
    small: Study, whole: tuple[Path, list[Job], list[str]], tmp_path: Path, after: int
) -> None:
    runs = Runs(jobs(small, "quick"), tmp_path, Data())
    with pytest.raises(Stopped):
        runs.go(stopping(after))
    assert len(files(tmp_path)) < 4
    assert runs.go()
    assert torch.get_num_threads() == 1  # as bits depend on it
    assert files(tmp_path) == files(whole[0])
    assert not list((tmp_path / "stores").rglob("*.zarr"))  # they are not kept
    pages = [document.document(small, "quick", whole[1], folder) for folder in (tmp_path, whole[0])]
    assert json.dumps(pages[0]) == json.dumps(pages[1])
    assert render(pages[0]) == render(pages[1])


def test_a_finished_study_is_not_run_again(small: Study, whole: tuple[Path, list[Job], list[str]]) -> None:
    folder, found, _ = whole
    assert Runs(found, folder, Data(), say=pytest.fail).go(Events(step=lambda *_: pytest.fail("trained")))
    assert "of which 0 are to be made: about 0 hours" in next(iter(Runs(found, folder, Data()).plan()))


def test_a_changed_rule_is_said_and_a_changed_quantity_is_measured_anew(
    whole: tuple[Path, list[Job], list[str]], tmp_path: Path
) -> None:
    folder = whole[0]
    rule = study(tmp_path / "s.toml", ("at_least = -0.02", "at_least = -0.5"))
    found = jobs(rule, "quick")
    assert not any(map(Runs(found, folder, Data()).lacking, found))
    said = document.document(rule, "quick", found, folder)
    assert set(said["rules"]["made_under"]) != {f"{rule.checksum} of {rule.written}"}
    assert "The rules were changed after runs were made" in render(said)
    other = jobs(study(tmp_path / "s.toml", ('measure = "gain"', 'measure = "kept"')), "quick")
    assert all(Runs(other, folder, Data()).lacking(job) == ["clean"] for job in other)


def test_two_processes_share_the_work(small: Study, tmp_path: Path) -> None:
    found = jobs(small, "quick")
    path = tmp_path / "locks/quick/fit/digits/0.lock"
    path.parent.mkdir(parents=True)
    other = LockedFile(path)
    assert other.lock(create=True)
    runs = Runs(found, tmp_path, Data())
    assert not runs.go()  # seed 0 is another's
    assert {Path(name).stem for name in files(tmp_path)} == {"1"}
    other.unlock()


def test_the_command_ends_with_a_page(whole: tuple[Path, list[Job], list[str]], tmp_path: Path) -> None:
    path = written(tmp_path / "s.toml")
    done = CliRunner().invoke(featdyn, ["reproduce", str(path), "--out", str(whole[0])], catch_exceptions=False)
    assert done.exit_code == 0
    assert "fit on digits: 2 seeds of clean, random" in done.stdout
    said = json.loads((whole[0] / "s-quick.json").read_text())
    page = html.unescape((whole[0] / "s-quick.html").read_text())
    assert [each["claim"] for each in said["verdicts"]] == ["stable", "fit"]
    assert all(each["statement"] in page and each["verdict"] in page for each in said["verdicts"])
    assert str(tmp_path) not in page
    assert "<svg" in page


def test_what_cannot_run_is_one_line_and_leaves_nothing(small: Study, tmp_path: Path) -> None:
    with pytest.raises(FeatdynError, match=r"no data 'digit': did you mean digits\?"):
        jobs(small, "quick", ["digit"])
    with pytest.raises(FeatdynError, match="no scale 'small': there are quick"):
        jobs(small, "small")
    path = written(tmp_path / "s.toml", ('recipe = "digits"', 'recipe = "mnist"'))
    done = CliRunner().invoke(featdyn, ["reproduce", str(path), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, FeatdynError)
    assert "mnist: say where it is: --data-dir FOLDER" in str(done.exception)
    assert not (tmp_path / "out").exists()
    (tmp_path / "measured/quick/fit/digits/clean").mkdir(parents=True)
    (tmp_path / "measured/quick/fit/digits/clean/0.json").write_text("[]")
    with pytest.raises(FeatdynError, match=r"0\.json: is no record of a run"):
        Runs(jobs(small, "quick"), tmp_path, Data()).go()


def test_an_answer_stands_as_long_as_what_it_rests_on(tmp_path: Path) -> None:
    run = train(load("digits", [*SMALL, "training.epochs=1", "checkpoints.first_epoch=0"]), tmp_path / "r.zarr")
    noise = {"draws": 8, "probes": 0, "cuts": ("s2b3",)}
    analyze(run, "noise", **noise)
    assert _answered(Run(run.path), Ask(name="noise"), noise)
    assert not _answered(Run(run.path), Ask(name="noise"), noise | {"draws": 9})
    assert not _answered(Run(run.path), Ask(name="isotropy"), {})
    analyze(run.path, "isotropy")
    assert _answered(Run(run.path), Ask(name="isotropy"), {})
    analyze(run.path, "noise", **noise | {"draws": 9})
    assert not _answered(Run(run.path), Ask(name="isotropy"), {})
