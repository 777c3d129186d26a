"""A study as data: what is trained, what is measured of each run, and the rules by which claims are judged.

A study is a TOML file; fields that are not declared here are refused. Its tables, from the outside in::

    title, source, written, about       written is the date on which the rules were fixed, before any of the runs

    [scales.quick]                      quick, small or full: how many seeds, on what
    [experiments.stitching]             runs of one kind
    groups.clean = []                   changes of the recipe, as ``--set`` takes them; a run is (group, seed)
    [[experiments.stitching.analyses]]  what each run is asked, in this order
    [experiments.stitching.at.small.mnist]   where it runs: scale, then a name for the data; claims are judged for each
    [times.t2]                          a checkpoint by what its network can do
    [quantities.gain]                   what is computed from the stored results of a run: a number, or one of each cell
    [[claims]]                          a rule

A run of seed s has every field of ``seeded`` set to s, so that seeds redraw data, probes and initialisation.
In options of analyses ``"@t2"`` is the number of that checkpoint, and ``"{clean}"`` the store of another group of the
same seed, such as a baseline. Each question is put to all its groups before the next one.

What a claim means: the quantity of ``groups`` (of one, or the first minus the second, seed by seed) lies within
``at_least`` and ``at_most``. Each cell of the quantity is tested; what is tested is one family (see ``family``).
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from featdyn.validation import Options

Changes: TypeAlias = tuple[str, ...]
Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
ScaleName: TypeAlias = Literal["quick", "small", "full"]
SCALES: tuple[ScaleName, ...] = ("quick", "small", "full")
FIRST, LAST = "first", "last"


class Scale(Options):
    """How large the runs of a study are; where an experiment has no place at a scale its claims are not judged."""

    about: str = Field(description="one line: on what data and sizes")
    seeds: int = Field(ge=1, description="seeds 0, 1, ... of each group, where the place does not say otherwise")
    changes: Changes = Field((), description="changes of every recipe")
    threads: int | None = Field(1, ge=1, description="of a process, as bits depend on it; none: as many as there are")
    device: str = Field("one core", description="what 'minutes' are counted in, such as 'one H100'")


class Place(Options):
    """Where an experiment runs at a scale."""

    recipe: str = Field(description="a recipe that comes with featdyn")
    changes: Changes = Field((), description="of this recipe, after those of the scale")
    groups: dict[Name, Changes] = Field(default_factory=dict, description="further changes of some groups here")
    seeds: int | None = Field(None, ge=1, description="instead of the scale's")
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="of analyses, by name, in place of those that the experiment has"
    )
    minutes: float = Field(ge=0, description="of the scale's device, for one run and its analyses, on average")
    gigabytes: float = Field(ge=0, description="disk that the stores of one seed take while they are there")


class Ask(Options):
    """An analysis that runs are asked."""

    name: str = Field(description="as featdyn.analyses() has it")
    groups: tuple[Name, ...] = Field((), description="only these; all by default")
    options: dict[str, Any] = Field(default_factory=dict, description="with '@time' and '{group}' as said above")


class Experiment(Options):
    """Runs of one kind, in groups that differ by what is compared."""

    about: str = Field(description="one line")
    groups: dict[Name, Changes] = Field(min_length=1, description="name to changes of the recipe")
    analyses: tuple[Ask, ...] = ()
    seeded: tuple[str, ...] = Field(
        ("training.seed", "labels.seed", "probes.seed", "data.seed"),
        description="fields of a recipe that take the seed",
    )
    at: dict[ScaleName, dict[Name, Place]] = Field(description="scale, then name of the data, to where it runs")


class Time(Options):
    """A checkpoint of a run, by what its network can do; 'first' and 'last' are always there."""

    set: str = Field("train", description="probes of this set (their labels in use) ...")
    reaches: float | None = Field(None, ge=0, le=1, description="... the first checkpoint that has this share right")
    before: bool = Field(False, description="the checkpoint before that one")
    steps: float | None = Field(None, gt=0, le=1, description="or: the last one up to this share of the steps ...")
    of: str | None = Field(None, description="... of this other time")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.reaches is None) == (self.steps is None) or (self.steps is None) != (self.of is None):
            raise ValueError("give reaches, or steps and of")
        return self


class Quantity(Options):
    """What is computed from the stored results of a run."""

    about: str = Field(description="one line: what is shown beside the number")
    kind: str = Field(description="one of featdyn.reproduce.quantities, which explains its options")
    options: dict[str, Any] = Field(default_factory=dict)
    possible: tuple[float, float] | None = Field(
        None, description="values that there are, such as [0, 1] of a share: intervals that are shown stay within"
    )


class Need(Options):
    """What must be so for a verdict; where it is not there is no power."""

    quantity: Name = Field(description="one number, or cells along axes that the claim's quantity has too")
    groups: tuple[Name, ...] = Field(min_length=1, description="of each of these")
    at_least: float | None = None
    at_most: float | None = None
    of: Literal["every run", "mean"] = Field("every run", description="what must lie within: each, or the seeds' mean")
    why: str = Field(description="shown where it fails, such as 'the network is not fitted'")


class Claim(Options):
    """A rule, written before the runs."""

    id: Name
    statement: str = Field(description="what the study says, in a sentence")
    source: str = Field(description="where it says so")
    experiment: Name
    quantity: Name
    where: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="only cells of these labels, by axis; all by default"
    )
    groups: tuple[Name, ...] = Field(min_length=1, max_length=2, description="one, or two: first minus second")
    paired: bool = Field(True, description="of two groups: whether one seed is one draw of data for both")
    unit: Literal["seed", "seed and image"] = Field(
        "seed and image",
        description="what is resampled: the seed (Student's), or never less than images within seeds tell (two levels)",
    )
    at_least: float | None = Field(None, description="margin; without both the row informs and has no verdict")
    at_most: float | None = None
    effect: float | None = Field(
        None, gt=0, description="smallest distance beyond the margin that must be seen with a power of 0.8"
    )
    family: str = Field("", description="claims of one family are corrected together; by default a claim by itself")
    needs: tuple[Need, ...] = ()
    published: str = Field("", description="the study's own number, in its words; empty where none was found")
    own_choice: str = Field("", description="what of the rule is ours and not the study's")

    @model_validator(mode="after")
    def _margins(self) -> Self:
        if self.informs:
            if self.effect is not None:
                raise ValueError("effect is the least that a test must see: give at_least or at_most too")
        elif self.effect is None:
            raise ValueError("a margin needs an effect, the least that its test must see")
        if self.at_least is not None and self.at_most is not None and self.at_least >= self.at_most:
            raise ValueError("at_least must be below at_most")
        return self

    @property
    def informs(self) -> bool:
        """Whether it has no margin, and so no verdict."""
        return self.at_least is None and self.at_most is None


class Study(Options):
    """A study; see the module."""

    name: str
    title: str
    source: str
    written: datetime.date = Field(description="on which the rules were fixed")
    about: tuple[str, ...] = Field((), description="paragraphs for the page: what is ours, what was not found")
    scales: dict[ScaleName, Scale] = Field(min_length=1)
    experiments: dict[Name, Experiment]
    times: dict[Name, Time] = Field(default_factory=dict)
    quantities: dict[Name, Quantity]
    claims: tuple[Claim, ...]

    @property
    def checksum(self) -> str:
        """SHA-256 of all that decides a verdict, first 16 digits: it stands in the recipe of each run."""
        rules = self.model_dump(mode="json", include={"times", "quantities", "claims"})
        for claim in rules["claims"]:
            if not claim["where"]:  # which a rule of all cells does not say: its checksum is what it was before
                del claim["where"]
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]

    def places(self, scale: ScaleName) -> Iterator[tuple[str, str, Place]]:
        """Yield (experiment, data, place) of a scale."""
        for name, experiment in self.experiments.items():
            for data, place in experiment.at.get(scale, {}).items():
                yield name, data, place

    def quantities_of(self, experiment: str, group: str) -> list[str]:
        """Return the names of what claims ask of a group, in the order of the claims."""
        asked: dict[str, None] = {}
        for claim in self.claims:
            if claim.experiment == experiment:
                for quantity, groups in [
                    (claim.quantity, claim.groups),
                    *((n.quantity, n.groups) for n in claim.needs),
                ]:
                    if group in groups:
                        asked[quantity] = None
        return list(asked)


def references(options: Any) -> Iterator[tuple[str, str]]:
    """Yield what options refer to, as (time, "") or ("", group)."""
    if isinstance(options, str):
        if options.startswith("@"):
            yield options[1:], ""
        for part in options.split("{")[1:]:
            yield "", part.partition("}")[0]
    elif isinstance(options, dict):
        for inner in options.values():
            yield from references(inner)
    elif isinstance(options, (list, tuple)):
        for inner in options:
            yield from references(inner)
