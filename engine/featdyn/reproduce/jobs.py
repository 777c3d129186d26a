"""What is to be run: one seed of an experiment on one data set, all its groups, with their recipes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featdyn.data.load import FOLDER
from featdyn.data.vision import READERS
from featdyn.errors import FeatdynError, RecipeError
from featdyn.nearest import nearest
from featdyn.reproduce.study import Ask, Experiment, Place, ScaleName, Study, references
from featdyn.sizes import counted
from featdyn.training.recipe import Recipe, load


@dataclass(frozen=True)
class Data:
    """Where this machine keeps data sets."""

    folder: Path | None = None
    """The files of mnist, cifar10, ... as torchvision lays them out."""
    cifar10: Path | None = None
    """Or CIFAR-10 as ``{train,test}/<class>/<images>``."""

    def changes(self, recipe: Recipe) -> list[str]:
        """Return what a recipe needs to find its data here."""
        name = recipe.data.name
        if name == "cifar10" and self.cifar10 is not None:
            return [f"data.name='{FOLDER}{self.cifar10}'"]
        if name in READERS and self.folder is None:
            other = " (or --cifar10 FOLDER with {train,test}/<class>/<images>)" if name == "cifar10" else ""
            raise FeatdynError(f"{name}: say where it is: --data-dir FOLDER, as torchvision lays it out{other}")
        return [f"data.data_dir='{self.folder}'"] if name in READERS else []


@dataclass(frozen=True, eq=False)
class Job:
    """One seed of an experiment, on one data set."""

    study: Study
    scale: ScaleName
    name: str
    """Of the experiment."""
    data: str
    seed: int
    place: Place

    @property
    def experiment(self) -> Experiment:
        """What it is."""
        return self.study.experiments[self.name]

    @property
    def path(self) -> Path:
        """Where its files lie, below the folders of stores and of what was measured."""
        return Path(self.name) / self.data / str(self.seed)

    def recipe(self, group: str, data: Data | None = None) -> Recipe:
        """Return a group's recipe; with ``data`` it says where the data are, else only what decides its bits."""
        scale, place = self.study.scales[self.scale], self.place
        said = f"{self.study.name}, {self.scale}: {self.name}/{self.data}/{group}/{self.seed}"
        changes = [
            *scale.changes, *place.changes, *self.experiment.groups[group], *place.groups.get(group, ()),
            *(f"{field}={self.seed}" for field in self.experiment.seeded),
            f"description='{said}; rules {self.study.checksum} written {self.study.written}'",
        ]  # fmt: skip
        try:
            found = load(place.recipe, changes)
            return found if data is None else load(place.recipe, [*changes, *data.changes(found)])
        except RecipeError as error:
            where = f"experiment {self.name} on {self.data}, group {group}"
            raise RecipeError(f"{self.study.name}: {where}: {error}") from error

    def asks(self, group: str) -> list[Ask]:
        """Return what a group is asked here, with the options of this place."""
        asked = enumerate(self.experiment.analyses)
        return [self.ask(number) for number, ask in asked if not ask.groups or group in ask.groups]

    def ask(self, number: int) -> Ask:
        """Return one of the experiment's questions, with the options of this place."""
        ask = self.experiment.analyses[number]
        return ask.model_copy(update={"options": ask.options | self.place.options.get(ask.name, {})})

    def needed(self, lacking: Sequence[str]) -> list[str]:
        """Return the groups whose stores must be there for these to be measured, in the experiment's order."""
        found = set(lacking)
        while (
            more := {
                group for each in found for ask in self.asks(each) for _, group in references(ask.options) if group
            }
            - found
        ):
            found |= more
        return [group for group in self.experiment.groups if group in found]

    def digest(self, group: str) -> str:
        """Return a checksum of all that decides what is measured of a group's run: recipe, questions, quantities."""
        names = self.study.quantities_of(self.name, group)
        said: dict[str, Any] = {
            "recipe": self.recipe(group).identity | {"description": ""},
            "asked": [ask.model_dump(mode="json", exclude={"groups"}) for ask in self.asks(group)],
            "quantities": {name: self.study.quantities[name].model_dump(mode="json") for name in names},
            "times": {name: time.model_dump(mode="json") for name, time in self.study.times.items()},
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def jobs(study: Study, scale: ScaleName, only: Sequence[str] = ()) -> list[Job]:
    """Return all that a scale asks for, seed by seed, so that a study that is stopped has whole seeds.

    ``only`` keeps these names of data.
    """
    if scale not in study.scales:
        raise FeatdynError(f"{study.name}: no scale {scale!r}: there are {', '.join(study.scales)}")
    places = list(study.places(scale))
    known = list(dict.fromkeys(data for _, data, _ in places))
    for name in only:
        if name not in known:
            raise FeatdynError(f"{study.name}, {scale}: no data {name!r}: {nearest(name, known)}")
    found = [
        Job(study, scale, experiment, data, seed, place)
        for experiment, data, place in places
        for seed in range(place.seeds or study.scales[scale].seeds)
        if not only or data in only
    ]
    return sorted(found, key=lambda job: job.seed)


def resolved(options: Any, times: Mapping[str, int], stores: Mapping[str, Path]) -> Any:
    """Return options with ``"@time"`` and ``"{group}"`` replaced."""
    if isinstance(options, str):
        if options.startswith("@"):
            return times[options[1:]]
        for group, store in stores.items():
            options = options.replace(f"{{{group}}}", str(store))
        return options
    if isinstance(options, dict):
        return {name: resolved(inner, times, stores) for name, inner in options.items()}
    if isinstance(options, (list, tuple)):
        return tuple(resolved(inner, times, stores) for inner in options)
    return options


def planned(found: Sequence[Job], lacking: Sequence[Job], *, keep: bool) -> Iterator[str]:
    """Yield lines on what a scale will take: runs, hours, disk."""
    runs = [sum(len(job.experiment.groups) for job in each) for each in (found, lacking)]
    minutes = sum(job.place.minutes * len(job.experiment.groups) for job in lacking)
    device = found[0].study.scales[found[0].scale].device if found else ""
    yield (
        f"{runs[0]} runs, of which {runs[1]} are to be made: about {minutes / 60:.3g} hours of {device}, "
        f"{gigabytes(found, keep=keep):.3g} GB of disk{'' if keep else ' at a time'}"
    )
    for name, data in dict.fromkeys((job.name, job.data) for job in found):
        mine = [job for job in found if (job.name, job.data) == (name, data)]
        groups = ", ".join(mine[0].experiment.groups)
        yield f"  {name} on {data}: {counted(len(mine), 'seed')} of {groups}; {mine[0].place.minutes:g} minutes a run"


def gigabytes(found: Sequence[Job], *, keep: bool) -> float:
    """Return the disk that stores take: of all seeds where they are kept, else of the largest alone."""
    each = [job.place.gigabytes for job in found]
    return sum(each) if keep else max(each, default=0.0)
