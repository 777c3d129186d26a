"""``generalization``: how much of what a network uses others use too, and where phases begin."""

from __future__ import annotations

import numpy as np
import xarray as xr

from featdyn.report.figure import Axis, Lines, Mark
from featdyn.report.figures import chart, curve, curves, line, lines, time_axis
from featdyn.report.findings import NOTHING, probes
from featdyn.report.rounding import percent
from featdyn.report.section import (
    Finding,
    Grid,
    Section,
    bounded_word,
    cells,
    choices_of,
    judged,
    name_of,
    panel,
    preset_set,
)

TEXT = (
    "An interaction generalizes if a baseline network uses it too, on the same probe and with the same sign. H is the "
    "share of the salient strength that does. Decay plus spindle tells a share from strength by order alone, without "
    "another network.",
    "H against other images' interactions (chance) is what dense sets have in common anyway. Phase 2 begins where H is "
    "largest, phase 3 where the loss gap begins to rise for good; 'cannot tell' means that the probes do not decide. "
    "Dashed lines are the starts of phases by the first criterion that tells them, shaded their 95 % intervals.",
)
CAVEAT = (
    "The study (arXiv 2505.06993) was known by abstract and reviews only: these definitions, and the criteria of "
    "phases, are our own reading. Everything speaks of the probes given."
)
PHASES = {"second_phase": "phase 2", "third_phase": "phase 3"}
HEADER = ("Cut after", "Probes", "Criterion", "Phase 2 from step", "Phase 3 from step", "Because")


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.load()
    choices = choices_of(result, "set", "cut")
    time, order = time_axis(result), Axis("order: players of an interaction", whole=True)
    references = result["reference"].values.tolist() if "reference" in result.coords else []

    def shares(set: str, cut: str) -> Lines:
        of = result.isel(set=int(set), cut=int(cut))
        each = [curve(of, "decay_share", "t", "decay plus spindle")]
        if references:
            each += curves(of, "power", "t", "reference", deep=False)
            each += curves(of, "chance", "t", "reference", deep=False, dash="dot", words="{}, chance".format)
        return chart(each, Axis("Share of strength", share=True), time, marks=_marks(of))

    def by_order(set: str, cut: str) -> Lines:
        of = result.isel(set=int(set), cut=int(cut), t=-1)
        x = result["order"].values.tolist()
        each = [line("all", (of["strength_positive"] - of["strength_negative"]).values, x=x)]
        if references:
            part = (of["generalizable_positive"] - of["generalizable_negative"]).transpose("reference", "order").values
            each += lines([f"generalizable: {name}" for name in references], part, x=x)
        return chart(each, "Strength at the last checkpoint", order)

    def gaps(cut: str) -> Lines:
        of = result.isel(cut=int(cut))
        each = [curve(of, "gap", "t", "as it is")]
        if references:
            each += curves(of, "gap_without", "t", "reference", deep=False, words="without what {} does not use".format)
        return chart(each, "Test less train loss (nat)", time, marks=_marks(judged(of)))

    panels = [
        panel("Share of strength that generalizes", choices, shares, "shares"),
        panel("Strength by order", choices, by_order, "orders"),
        panel("Loss gap", {"cut": choices["cut"]}, gaps, "loss_gap"),
    ]
    rows = []
    for cell in cells(result, "cut", "set", "criterion"):
        names = name_of(cell, "cut"), name_of(cell, "set"), name_of(cell, "criterion")
        found = [_boundary(cell, phase) for phase in ("second_phase", "third_phase")]
        rows.append((*names, *found, str(cell["second_phase_reason"].item())))
    note = _agreement(result) if "compared" in result.coords else ""
    return Section(
        "Generalization of interactions",
        TEXT,
        panels,
        choices,
        preset_set(result),
        Grid(HEADER, rows),
        note,
        finding=_finding(judged(result)),
        caveat=CAVEAT,
    )


def _marks(of: xr.Dataset) -> tuple[Mark, ...]:
    """Return where phases begin, in places along the axis of checkpoints."""
    found, steps = [], of["step"].values.astype(float)
    for phase, name in PHASES.items():
        told = [c for c in cells(of, "criterion") if str(c[f"{phase}_verdict"].item()) == "yes"]
        told = [cell for cell in told if np.isfinite(float(cell[phase]))]
        if told:
            ends = [float(told[0][f"{phase}{end}"]) for end in ("", "_low", "_high")]
            at, low, high = np.interp(ends, steps, np.arange(len(steps))).tolist()
            found.append(Mark(at, name, low, high))
    return tuple(found)


def _finding(result: xr.Dataset) -> Finding:
    each = []
    for cell in cells(result.isel(t=-1), "cut"):
        where = f"at {name_of(cell, 'cut')}"
        if "power" in cell:
            each += [
                f"{bounded_word(of, 'power', percent)} with {name_of(of, 'reference')} {where}"
                for of in cells(cell, "reference")
                if np.isfinite(float(of["power"]))
            ]
        if not each and np.isfinite(float(cell["decay_share"])):
            each.append(f"{bounded_word(cell, 'decay_share', percent)} by decay plus spindle {where}")
    if not each:
        return Finding(NOTHING)
    verdicts = {
        name: sum(str(v) == "yes" for v in result[f"{phase}_verdict"].values.flat) for phase, name in PHASES.items()
    }
    asked = result["second_phase_verdict"].size
    verdict = ", ".join(f"{name} told in {count} of {asked}" for name, count in verdicts.items())
    said = "; ".join(each[:4])
    return Finding(f"Share of strength {probes(result)} that generalizes at the last checkpoint: {said}.", verdict)


def _boundary(cell: xr.Dataset, phase: str) -> str:
    verdict = str(cell[f"{phase}_verdict"].item())
    return bounded_word(cell, phase, "{:g}".format) if verdict == "yes" else verdict or "–"


def _agreement(result: xr.Dataset) -> str:
    last = result.isel(t=-1)
    said = [
        f"{name_of(cell, 'compared')}: {bounded_word(cell, 'kappa', '{:.2f}'.format)} ({name_of(cell, 'set')}, "
        f"{name_of(cell, 'cut')})"
        for cell in cells(last, "cut", "set", "compared")
        if np.isfinite(float(cell["kappa"]))
    ]
    return f"Cohen's kappa of labels at the last checkpoint: {'; '.join(said)}." if said else ""
