"""``generalization``: how much of what a network uses others use too, and where phases begin."""

from __future__ import annotations

import numpy as np
import xarray as xr

from featdyn.report.figures import COLOURS, NEUTRAL, Figure, checkpoint_axis, figure, line, lines
from featdyn.report.section import Grid, Section, bounded_word, cells, choices_of, name_of, panel, preset_set

TEXT = (
    "An interaction generalizes if a baseline network uses it too, on the same probe and with the same sign. H is the "
    "share of the salient strength that does. Decay plus spindle tells a share from strength by order alone, without "
    "another network. The study (arXiv 2505.06993) was known by abstract and reviews only: these definitions, and the "
    "criteria of phases, are our own reading.",
    "H against other probes' interactions (chance) is what dense sets have in common anyway. Phase 2 begins where H is "
    "largest, phase 3 where the loss gap begins to rise for good; 'cannot tell' means that the probes do not decide.",
)
HEADER = ("Cut after", "Probes", "Criterion", "Phase 2 from step", "Phase 3 from step", "Because")


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.load()
    choices = choices_of(result, "set", "cut")
    time = checkpoint_axis(result["t"].values, result["step"].values)
    order = {"title": {"text": "order: players of an interaction"}, "tickformat": "d"}
    references = result["reference"].values.tolist() if "reference" in result.coords else []

    def shares(set: str, cut: str) -> Figure:
        of = result.isel(set=int(set), cut=int(cut))
        each = [line("decay plus spindle", of["decay_share"].transpose("t").values, NEUTRAL)]
        if references:
            each += lines(references, of["power"].transpose("reference", "t").values, COLOURS)
            chance = of["chance"].transpose("reference", "t").values
            each += lines([f"{name}, chance" for name in references], chance, COLOURS, dash="dot")
        return figure(each, "Share of strength", xaxis=time, share=True, log=False)

    def by_order(set: str, cut: str) -> Figure:
        of = result.isel(set=int(set), cut=int(cut), t=-1)
        x = result["order"].values.tolist()
        whole = (of["strength_positive"] - of["strength_negative"]).values
        each = [line("all", whole, NEUTRAL, x=x)]
        if references:
            part = (of["generalizable_positive"] - of["generalizable_negative"]).transpose("reference", "order").values
            each += lines([f"generalizable: {name}" for name in references], part, COLOURS, x=x)
        return figure(each, "Strength at the last checkpoint", xaxis=order, log=False)

    def gaps(cut: str) -> Figure:
        of = result.isel(cut=int(cut))
        each = [line("as it is", of["gap"].transpose("t").values, NEUTRAL)]
        if references:
            without = of["gap_without"].transpose("reference", "t").values
            each += lines([f"without what {name} does not use" for name in references], without, COLOURS)
        return figure(each, "Test less train loss (nat)", xaxis=time, log=False)

    panels = [
        panel("Share of strength that generalizes", choices, shares),
        panel("Strength by order", choices, by_order),
        panel("Loss gap", {"cut": choices["cut"]}, gaps),
    ]
    rows = []
    for cell in cells(result, "cut", "set", "criterion"):
        names = name_of(cell, "cut"), name_of(cell, "set"), name_of(cell, "criterion")
        found = [_boundary(cell, phase) for phase in ("second_phase", "third_phase")]
        rows.append((*names, *found, str(cell["second_phase_reason"].item())))
    note = _agreement(result) if "compared" in result.coords else ""
    return Section(
        "Generalization of interactions", TEXT, panels, choices, preset_set(result), Grid(HEADER, rows), note
    )


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
