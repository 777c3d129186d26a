"""Trains and asks what a study lacks, and keeps what was measured; the same call again goes on where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from featdyn.analysis.driver import analyze
from featdyn.analysis.registry import analysis
from featdyn.data import Dataset
from featdyn.data import load as load_data
from featdyn.errors import FeatdynError
from featdyn.plain import plain
from featdyn.provenance import provenance
from featdyn.reproduce import records
from featdyn.reproduce.jobs import Data, Job, gigabytes, planned, resolved
from featdyn.reproduce.measured import Measured
from featdyn.reproduce.quantities import measure, options_of
from featdyn.reproduce.study import Ask, references
from featdyn.reproduce.times import Times
from featdyn.store import Run
from featdyn.store.lock import LockedFile
from featdyn.training.stage import Events, train
from featdyn.validation import validate
from featdyn_kernels import set_threads

HISTORY = ("step", "train_accuracy", "test_accuracy", "train_loss", "test_loss")


class Runs:
    """The runs of a study at a scale, in a folder.

    Several processes may share it: each takes seeds that no other is at work on.

    Parameters
    ----------
    found
        What is to be there, as :func:`featdyn.reproduce.jobs.jobs` says.
    folder
        Holds ``stores``, ``measured`` and ``locks``.
    data
        Where data sets are.
    keep
        Leave stores when all groups of a seed have been measured; else they are removed then.
    say
        Called with a line on each run done.
    """

    def __init__(
        self, found: Sequence[Job], folder: Path, data: Data, *, keep: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:  # fmt: skip
        self.jobs, self._folder, self._data, self._keep, self._say = found, folder, data, keep, say

    def lacking(self, job: Job) -> list[str]:
        """Return the groups of a job that are not measured yet, or of another recipe, question or quantity."""
        return [group for group in job.experiment.groups if records.current(job, group, self._folder) is None]

    def plan(self) -> Iterator[str]:
        """Yield lines on what is to be done; raise where a recipe is none."""
        for job in self.jobs:
            for group in job.experiment.groups:
                job.recipe(group)
        yield from planned(self.jobs, [job for job in self.jobs if self.lacking(job)], keep=self._keep)

    def check(self) -> None:
        """Raise before anything is done where data are not named, or the disk is too small."""
        for job in self.jobs:
            for group in self.lacking(job):
                job.recipe(group, self._data)
        for folder, option in ((self._data.folder, "--data-dir"), (self._data.cifar10, "--cifar10")):
            if folder is not None and not folder.is_dir():
                raise FeatdynError(f"{option} {folder}: there is no such folder")
        there = next(parent for parent in (self._folder, *self._folder.absolute().parents) if parent.exists())
        free = shutil.disk_usage(there).free / 1e9
        if any(map(self.lacking, self.jobs)) and (asked := gigabytes(self.jobs, keep=self._keep)) > free:
            raise FeatdynError(f"{self._folder}: {free:.3g} GB are free, and stores take {asked:.3g} GB")

    def go(self, events: Events | None = None) -> bool:
        """Do what is lacking; return whether all is there now, or others are still at work.

        Raises
        ------
        FeatdynError
            Bad data, a full disk, a network that does not train: what was measured stays.
        """
        for job in self.jobs:
            if not self.lacking(job):
                continue
            with self._mine(job) as mine:
                if mine:
                    self._do(job, events)
        return not any(map(self.lacking, self.jobs))

    def _do(self, job: Job, events: Events | None) -> None:
        lacking = self.lacking(job)
        if not lacking:  # another process was here
            return
        needed, stores = job.needed(lacking), {}
        threads = job.study.scales[job.scale].threads
        if threads is not None:  # bits of sums depend on it
            torch.set_num_threads(threads)
            set_threads(threads)
        datasets: Callable[..., Dataset] = cache(lambda options: load_data(**dict(options)))
        for group in needed:
            recipe = job.recipe(group, self._data)
            stores[group] = self._folder / "stores" / job.scale / job.path / f"{group}.zarr"
            stores[group].parent.mkdir(parents=True, exist_ok=True)
            train(recipe, stores[group], events, dataset=datasets(recipe.data))
        skipped = self._ask(job, needed, stores)
        for group in lacking:
            record = self._record(job, group, stores[group], skipped[group])
            records.write(record, records.place(job, group, self._folder))
            last = {name: record.history[name][-1] for name in ("train_accuracy", "test_accuracy")}
            told = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in last.items() if value is not None]
            self._say(f"{job.name} {job.data} {group} seed {job.seed}: {', '.join(told)}")
        if not self._keep:
            shutil.rmtree(self._folder / "stores" / job.scale / job.path)

    def _ask(self, job: Job, needed: Sequence[str], stores: dict[str, Path]) -> dict[str, dict[str, str]]:
        """Ask all runs one question, then the next; return for each group what could not be asked, and why."""
        skipped: dict[str, dict[str, str]] = {group: {} for group in needed}
        for number, each in enumerate(job.experiment.analyses):
            for group in needed:
                if each.groups and group not in each.groups:
                    continue
                ask, run = job.ask(number), Run(stores[group])
                times = Times(run, job.study.times)
                asked = {time: times.at(time) for time, _ in references(ask.options) if time}
                if never := [time for time, at in asked.items() if at is None]:
                    skipped[group][ask.name] = f"no checkpoint is {', '.join(never)}"
                    continue
                known = {time: at for time, at in asked.items() if at is not None}
                options = resolved(ask.options, known, stores)
                if "data_dir" in analysis(ask.name).options.model_fields:  # which no store keeps
                    options["data_dir"] = self._data.folder
                if not _answered(run, ask, options):
                    analyze(run, ask.name, **options)
        return skipped

    def _record(self, job: Job, group: str, store: Path, skipped: dict[str, str]) -> records.Record:
        run, found = Run(store), {}
        for name in job.study.quantities_of(job.name, group):
            quantity = job.study.quantities[name]
            options = options_of(quantity)
            lacking = [reason for other, reason in skipped.items() if other in options.results]
            found[name] = (
                Measured.of(options.axes, float("nan"), float("nan"), lacking[0])
                if lacking
                else measure(run, quantity, job.study.times)
            )
        made = provenance()
        recipe = job.recipe(group).identity
        return records.Record(
            digest=job.digest(group),
            rules=job.study.checksum,
            written=str(job.study.written),
            recipe=recipe,
            asked={ask.name: plain(ask.options) for ask in job.asks(group)},
            versions={name: made[name] for name in ("python", "system", "versions")},
            history=plain({name: run.values(name) for name in HISTORY}, missing=True),
            quantities=found,
        )

    @contextmanager
    def _mine(self, job: Job) -> Iterator[bool]:
        """Yield whether no other process is at work on a job; none is let in until this one is through."""
        path = self._folder / "locks" / job.scale / job.name / job.data / f"{job.seed}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = LockedFile(path)
        mine = lock.lock(create=True)
        try:
            yield mine
        finally:
            if mine:
                lock.unlock()


def _answered(run: Run, ask: Ask, options: dict[str, Any]) -> bool:
    """Return whether a run holds the answer to this question, from the newest of the results that it rests on."""
    declared = analysis(ask.name)
    wanted = validate(declared.options, options, ask.name).model_dump(mode="json")
    asked = [run.result(ask.name, path).attrs for path in run.results(ask.name)]
    since = max((run.result(name).attrs["input_commit"] for name in declared.results if run.results(name)), default=-1)
    return any(each.get("options") == wanted and each["input_commit"] > since for each in asked)
