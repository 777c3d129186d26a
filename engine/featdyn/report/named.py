"""Figures by name: ``consistency.grid`` is the same description on the page, in a notebook and in a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from featdyn.errors import FeatdynError
from featdyn.nearest import nearest
from featdyn.query.age import behind, warning
from featdyn.query.selection import IN_RESULTS
from featdyn.query.where import places
from featdyn.report.chapters import chapter, dated
from featdyn.report.figure import Figure
from featdyn.report.layer_summaries import layers
from featdyn.report.section import Panel, Section
from featdyn.report.training_curves import panels
from featdyn.store import Run


@dataclass(frozen=True)
class NamedFigure:
    """A figure of a run, with what can be chosen of it.

    Attributes
    ----------
    name : as in ``consistency.grid``
    caption : what it shows
    panels : one, or one for each place of an axis, such as each cut
    choices : name of a choice to what it may be, in words
    source : of which commit it is
    warning : that its result is behind the run, where it is
    """

    name: str
    caption: str
    panels: tuple[Panel, ...]
    section: Section
    source: str
    warning: str = ""

    @property
    def choices(self) -> dict[str, list[str]]:
        """What may be chosen, and each choice's values; the first stands where nothing is chosen."""
        found = {}
        for name in self.panels[0].choices:
            options = self.section.choices[name]
            first = self.section.preset.get(name, next(iter(options)))
            keys = sorted(options, key=lambda key: key != first)
            found[name] = [_plain(options[key]) if key.isdigit() and name != "t" else key for key in keys]
        return found | {name: [panel.at[name] for panel in self.panels] for name in self.panels[0].at}

    def figures(self, where: Mapping[str, Any] | None = None) -> list[tuple[str, Figure]]:
        """Return what was chosen: of each panel its place in words, empty where there is one, and its figure.

        As in queries, ``checkpoint`` is ``t`` where there is but one, and values are chosen by place too: ``t=-1`` or
        ``t=last`` is the last one, ``cut=-1`` too.

        Raises
        ------
        FeatdynError
            There is no such choice, or no such value of it.
        """
        left: dict[str, str] = {}
        for given, value in (where or {}).items():
            name = next((of for of in IN_RESULTS.get(given, ()) if of in self.choices), given)
            if name not in self.choices:
                known = nearest(name, self.choices) if self.choices else "nothing can be chosen"
                raise FeatdynError(f"{self.name}: no choice {name!r}: {known}")
            if name in left:
                raise FeatdynError(f"{self.name}: {given} is {name} here: give one of them")
            left[name] = self._named(name, str(value))
        for name, value in left.items():
            if name in self.panels[0].at and str(value) not in self.choices[name]:
                raise FeatdynError(f"{self.name}: no {name} {value!r}: {nearest(str(value), self.choices[name])}")
        shown = [p for p in self.panels if all(p.at[name] == str(left.get(name, p.at[name])) for name in p.at)]
        key = "|".join(self._value(name, left.get(name)) for name in self.panels[0].choices)
        return [(panel.caption if panel.at else "", panel.figures[key]) for panel in shown]

    def _named(self, name: str, value: str) -> str:
        """Return the value that stands at a place, where this is how it was given; any other is itself."""
        options = list(self.section.choices[name]) if name in self.section.choices else self.choices[name]
        if value in (*options, *self.choices[name]):
            return value
        if name == "t":  # numbers of checkpoints: places are told from them by their sign
            value = {"first": f"-{len(options)}", "last": "-1"}.get(value, value)
            found = places(len(options), value) if value.startswith("-") else None
        else:
            found = places(len(options), value)
        return options[found[0]] if found is not None and len(found) == 1 else value

    def _value(self, name: str, wanted: Any) -> str:
        """Return the key of a choice's value, which may be given in words, with or without a count, or as the key."""
        options = self.section.choices[name]
        if wanted is None:
            return self.section.preset.get(name, next(iter(options)))
        for words in (lambda key: options[key], lambda key: _plain(options[key]), str):
            for key in options:
                if words(key) == str(wanted):
                    return key
        raise FeatdynError(f"{self.name}: no {name} {wanted!r}: {nearest(str(wanted), self.choices[name])}")


def groups(run: Run) -> list[str]:
    """Return what has figures: analyses with results, and what every recording has."""
    return ["training", "layers", *run.analyses]


def figures_of(run: Run, group: str) -> dict[str, NamedFigure]:
    """Return the figures of one of :func:`groups`, by name."""
    found: dict[str, NamedFigure] = {}
    for section, source, said in _sections(run, group):
        for panel in section.panels:
            if not panel.figures:
                continue
            name = f"{group}.{panel.name or _slug(panel.caption)}"
            same, number = found.get(name), 1
            if same and panel.at and same.section is section:
                found[name] = replace(same, panels=(*same.panels, panel))
                continue
            while same and name in found:  # of another package, whose captions may be alike
                number += 1
                name = f"{group}.{panel.name or _slug(panel.caption)}_{number}"
            caption = f"{section.title}, one of each {' and '.join(panel.at)}" if panel.at else panel.caption
            found[name] = NamedFigure(name, caption, (panel,), section, source, said)
    return found


def all_figures(run: Run) -> list[NamedFigure]:
    """Return all figures of a run, those of training and of layers first."""
    return [figure for group in groups(run) for figure in figures_of(run, group).values()]


def find(run: Run, name: str) -> NamedFigure:
    """Return the figure of a name; that of a group alone is its first.

    Raises
    ------
    FeatdynError
        There is none, with the nearest name.
    """
    group, _, rest = name.partition(".")
    if group not in groups(run):
        raise FeatdynError(f"no figure {name!r}: {nearest(group, groups(run))}")
    found = figures_of(run, group)
    if not found:
        raise FeatdynError(f"no figure {name!r}: {run.path} holds none of {group}")
    if rest and name not in found:
        raise FeatdynError(f"no figure {name!r}: {nearest(name, found)}")
    return found[name] if rest else next(iter(found.values()))


def _sections(run: Run, group: str) -> Iterator[tuple[Section, str, str]]:
    at = f"{run.name}, commit {run.commits[-1].number}"
    if group == "training":
        yield Section("Training", panels=panels(run)), at, ""
    elif group == "layers":
        if held := layers(run):
            yield held[0], at, ""
    else:
        held_by = dated(chapter(run, group), run.checkpoints)
        for section in held_by.sections:
            said = behind(run, held_by.path)
            yield section, ", ".join(filter(None, [at, held_by.path, said])), warning(run, held_by.path)


def _slug(caption: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", caption.lower()).strip("_") or "figure"


def _plain(words: str) -> str:
    """Return a choice in words without the count behind it: "test" of "test (7)"."""
    return re.sub(r" \([\d,]+\)$", "", words)
