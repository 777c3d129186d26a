"""What the page says of each result: its question, the sections of its analysis, and what could not be computed."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from featdyn.analysis import Analysis, analyses
from featdyn.analysis.status import summary
from featdyn.query.age import checkpoints_then
from featdyn.report.figure import Figure, Map, known, numbers
from featdyn.report.figures import by_layer
from featdyn.report.findings import ONE_CHECKPOINT
from featdyn.report.section import Finding, Grid, Section, word
from featdyn.store import Run

SHOWN = 2**26
"""Bytes of a variable up to which a plain section reads it."""


@dataclass(frozen=True)
class Chapter:
    """The newest result of one analysis."""

    name: str  # of the analysis, and of the anchor
    question: str  # as it was declared; where the analysis is not installed here, as the result holds it
    source: str
    sections: Sequence[Section]  # at least one
    missing: Sequence[tuple[str, str, str]]  # what could not be computed, why, and in how many cells of how many
    checkpoints: int  # of the run when it was computed
    last: int  # the newest checkpoint that it is of, -1 where none has a place of its own
    path: str  # in the store
    attributes: Mapping[str, Any]

    @property
    def finding(self) -> Finding:
        """What the overview says of it."""
        first = next((s.finding for s in self.sections if s.finding), None)
        return first or Finding("Shown as numbers, without a finding in words.")


def chapters(run: Run, known: dict[str, Chapter] | None = None) -> list[Chapter]:
    """Return a chapter for each analysis that has a result, in the order in which they were first asked.

    What is made goes into ``known``, by its path in the store, and what is there already is not made again.
    """
    made = {} if known is None else known
    for name in run.analyses:
        if run.results(name)[-1] not in made:
            one = chapter(run, name)
            made[one.path] = one
    return [dated(made[run.results(name)[-1]], run.checkpoints) for name in run.analyses]


def chapter(run: Run, name: str) -> Chapter:
    """Return the chapter of an analysis that has a result."""
    return _chapter(run, name, analyses().get(name))


def unasked(run: Run) -> list[Analysis]:
    """Return the analyses that have no result yet."""
    return [analysis for name, analysis in analyses().items() if name not in run.analyses]


def _chapter(run: Run, name: str, analysis: Analysis | None) -> Chapter:
    result, path = run.result(name), run.results(name)[-1]
    explained = _explained(result)
    return Chapter(
        name=name,
        question=analysis.question if analysis else str(result.attrs.get("question", "")),
        source=analysis.source if analysis else "",
        sections=[
            _coloured(_comparing(section, result), run.layers)
            for section in _with_way(_sections(name, result, analysis), result.attrs)
        ],
        missing=[
            (", ".join(explained.get(status, [status])), reason, f"{count:,} of {size:,}")
            for status, reason, count, size in summary(result)
        ],
        checkpoints=checkpoints_then(run, path),
        last=max(
            (int(result[dim].values.max()) for dim in ("t", "t2") if dim in result.coords and result[dim].size),
            default=-1,
        ),
        path=path,
        attributes={key: value for key, value in result.attrs.items() if key not in ("analysis", "question")},
    )


def dated(chapter: Chapter, checkpoints: int) -> Chapter:
    """Name the last checkpoint of a result by its number, where it is not the run's: words say "the last" of it."""
    if not 0 <= chapter.last < checkpoints - 1:
        return chapter

    def said(text: str) -> str:
        return text.replace("the last checkpoint", f"checkpoint {chapter.last} (its last)")

    def named(section: Section) -> Section:
        panels = [
            replace(
                panel,
                caption=said(panel.caption),
                figures={key: replace(figure, title=said(figure.title)) for key, figure in panel.figures.items()},
            )
            for panel in section.panels
        ]
        finding = section.finding and replace(section.finding, sentence=said(section.finding.sentence))
        text = [said(paragraph) for paragraph in section.text]
        return replace(section, text=text, panels=panels, finding=finding, note=said(section.note))

    return replace(chapter, sections=[named(section) for section in chapter.sections])


def _sections(name: str, result: xr.Dataset, analysis: Analysis | None) -> list[Section]:
    if analysis is None:
        return [plain_section(name, result, "The analysis is not installed here, so that only its numbers are shown.")]
    if not analysis.section:
        return [plain_section(name, result)]
    try:
        found = pkgutil.resolve_name(analysis.section)(result)
    except Exception as error:  # of any kind: another package's code, or a result that it does not know
        reason = f"Its own section cannot show this result ({type(error).__name__}: {error})."
        return [plain_section(name, result, reason)]
    return [found] if isinstance(found, Section) else list(found)


def _comparing(section: Section, result: xr.Dataset) -> Section:
    """Leave out what compares checkpoints where there is one: its change would be none because it is compared with
    itself.
    """
    if not {"t1", "t2"} <= set(result.coords) or np.unique([*result["t1"].values, *result["t2"].values]).size > 1:
        return section
    kept = [panel for panel in section.panels if panel.figures and not _over_time(next(iter(panel.figures.values())))]
    choices = {name: held for name, held in section.choices.items() if any(name in panel.choices for panel in kept)}
    finding = section.finding and Finding(ONE_CHECKPOINT)
    preset = {name: value for name, value in section.preset.items() if name in choices}
    return replace(section, panels=kept, choices=choices, preset=preset, pair_maps=None, finding=finding)


def _over_time(figure: Figure) -> bool:
    values = numbers(figure.z) if isinstance(figure, Map) else known(figure.series)
    return bool(figure.x.checkpoints or figure.y.checkpoints or not np.isfinite(values).any())


def _coloured(section: Section, layers: Sequence[str]) -> Section:
    """Give a layer one colour on all of the page, wherever a line is of it or of the cut behind it."""
    panels = [
        replace(panel, figures={key: by_layer(figure, layers) for key, figure in panel.figures.items()})
        for panel in section.panels
    ]
    return replace(section, panels=panels)


def _with_way(sections: list[Section], attributes: Mapping[str, Any]) -> list[Section]:
    """Say in the first section how the network was taken apart, unless it was as most are."""
    way, apart = str(attributes.get("cut_method", "")), attributes.get("cut_difference")
    said = f"How the network was taken apart: {way}." if way and way != "torch.fx" else ""
    said += f" Its halves differ from the network by up to {apart:.1e} of the largest output." if apart else ""
    return [replace(sections[0], text=(*sections[0].text, said.strip())), *sections[1:]] if said else sections


def plain_section(name: str, result: xr.Dataset, text: str = "") -> Section:
    """Return a section that any result can have: a line for each of its variables."""
    rows = []
    for variable in map(str, result.data_vars):
        values = result[variable]
        if "flag_meanings" in values.attrs:
            continue
        shown = values.dtype.kind in "iufb" and values.nbytes <= SHOWN
        numbers = np.asarray(values.values, float) if shown else np.array([])
        finite = numbers[np.isfinite(numbers)]
        span = [word(v) for v in (finite.min(), np.median(finite), finite.max())] if finite.size else ["–"] * 3
        where = " x ".join(f"{dim} {size}" for dim, size in values.sizes.items())
        said = (str(values.attrs.get(name, "")) for name in ("long_name", "units"))
        rows.append((variable, *said, where, *span))
    header = ("Variable", "What it is", "Unit", "Shape", "Smallest", "Median", "Largest")
    return Section(name.replace("_", " ").capitalize(), (text,) if text else (), grid=Grid(header, rows))


def _explained(result: xr.Dataset) -> dict[str, list[str]]:
    """Return the variables whose missing cells each status explains."""
    found: dict[str, list[str]] = {}
    for name, variable in result.variables.items():
        for status in str(variable.attrs.get("ancillary_variables", "")).split():
            found.setdefault(status, []).append(str(name).replace("_", " "))
    return found
