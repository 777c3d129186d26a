"""Studies from their files, with every name in them checked."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from featdyn.analysis.registry import analyses
from featdyn.errors import RecipeError
from featdyn.nearest import meant
from featdyn.reproduce import quantities
from featdyn.reproduce.study import FIRST, LAST, Experiment, Study, references
from featdyn.validation import parse_toml, validate


def names() -> list[str]:
    """Return the studies that come with featdyn."""
    folder = resources.files("featdyn.reproduce") / "studies"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load(source: str) -> Study:
    """Return a study by the name of one that comes with featdyn, or by the path of a TOML file.

    Raises
    ------
    RecipeError
        No such study, or a file that is no TOML, lacks a field, or names something that is not there.
    """
    shipped = resources.files("featdyn.reproduce") / "studies" / f"{source}.toml"
    named = source in names()
    try:
        text = shipped.read_text() if named else Path(source).read_text()
    except (OSError, UnicodeDecodeError, ValueError) as error:  # ValueError: of a name with a zero byte
        why = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror and Path(source).suffix else ""
        known = f"{meant(source, names())}give a TOML file, or one of {', '.join(names())}"
        raise RecipeError(f"no study {source[:100]!r}{why}: {known}") from None
    values = parse_toml(text, source)
    name = source if named else Path(source).stem
    study = validate(Study, {"name": name} | values, source)
    try:
        _check(study)
    except (ValueError, RecipeError) as error:
        raise RecipeError(f"{source}: {error}") from None
    return study


def _check(study: Study) -> None:
    """Raise a ValueError of one line for a name that is not there, with the nearest that is."""
    for name, time in study.times.items():
        if time.of is not None:
            _one_of(time.of, [FIRST, LAST, *study.times], f"times.{name}.of")
    for name, each in study.quantities.items():
        quantities.check(each, study.times, f"quantities.{name}")
    for name, experiment in study.experiments.items():
        _check_experiment(study, experiment, f"experiments.{name}")
    ids = [claim.id for claim in study.claims]
    for claim in study.claims:
        where = f"claim {claim.id}"
        if ids.count(claim.id) > 1:
            raise ValueError(f"{where} is there twice")
        _one_of(claim.experiment, study.experiments, f"{where}: experiment")
        groups = study.experiments[claim.experiment].groups
        for quantity, asked in [(claim.quantity, claim.groups), *((n.quantity, n.groups) for n in claim.needs)]:
            _one_of(quantity, study.quantities, f"{where}: quantity")
            for group in asked:
                _one_of(group, groups, f"{where}: group")
        axes = quantities.options_of(study.quantities[claim.quantity]).axes
        for axis, chosen in claim.where.items():
            _one_of(axis, axes, f"{where}: where")
            for label in chosen:
                _one_of(label, axes[axis], f"{where}: where {axis}")
        for need in claim.needs:
            for axis, labels in quantities.options_of(study.quantities[need.quantity]).axes.items():
                _one_of(axis, axes, f"{where}: axis of {need.quantity}")
                for label in axes[axis]:
                    _one_of(label, labels, f"{where}: {axis} in {need.quantity}")


def _check_experiment(study: Study, experiment: Experiment, where: str) -> None:
    known, asked = list(analyses()), [ask.name for ask in experiment.analyses]
    for ask in experiment.analyses:
        _one_of(ask.name, known, f"{where}: analysis")
        for group in ask.groups:
            _one_of(group, experiment.groups, f"{where}: {ask.name}: group")
        for time, group in references(ask.options):
            if time:
                _one_of(time, [FIRST, LAST, *study.times], f"{where}: {ask.name}: @")
            else:
                _one_of(group, experiment.groups, f"{where}: {ask.name}: {{}}")
    for scale, places in experiment.at.items():
        _one_of(scale, study.scales, f"{where}.at")
        for data, place in places.items():
            for group in place.groups:
                _one_of(group, experiment.groups, f"{where}.at.{scale}.{data}: group")
            for analysis in place.options:
                _one_of(analysis, asked, f"{where}.at.{scale}.{data}: options of")


def _one_of(word: str, known: Any, where: str) -> None:
    there = list(known)
    if word not in there:
        listed = f"there are {', '.join(there)}" if there else "there are none"
        raise ValueError(f"{where} {word!r} is not there; {meant(word, there)}{listed}")
