"""Memory and forgetting: what the last network still does with older shallow halves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xarray as xr

from featdyn.report.figure import Axis, Lines
from featdyn.report.figures import chart, curves, time_axis
from featdyn.report.findings import NOTHING, across, halfway, probes
from featdyn.report.section import Finding, Section, choices_of, judged, panel, preset_set

MEASURES = {
    "retention": "Retention",
    "forgetting": "Forgetting",
    "particle_forgetting": "Particle forgetting",
    "transferability": "Transferability",
    "probability": "Probability of the label",
    "divergence": "Divergence from t2’s own network (nats)",
}
SHARES = ("forgetting", "particle_forgetting", "probability")

TEXT = (
    "The deep half is that of the last checkpoint throughout; each line is a cut. Retention: accuracy of the composite "
    "over that of t1’s own network, so above 1 where the later deep half does better. Forgetting: what accuracy lost "
    "against it; particle forgetting: the share of "
    "probes that t1’s own network had right and the composite has wrong. Transferability: accuracy over that on the "
    "training probes. Memory horizon: how many checkpoints back all shallow halves still give the right answer with "
    "the deep half of t2, a mean over the probes that t2’s own network has right.",
)
CAVEAT = "All of these are our own working definitions: those of arXiv 2509.20334 were not found."


def memory(result: xr.Dataset) -> Iterator[Section]:
    """Yield the section."""
    measures = {name: title for name, title in MEASURES.items() if name in result}
    if not measures:
        return
    choices = choices_of(result, "set") | {"memory": measures}

    def of_pair(set: str, memory: str) -> Lines:
        each = curves(result.isel(set=int(set), t2=-1), memory, "t1", "cut")
        y = Axis(measures[memory], "auto" if memory == "divergence" else "linear", share=memory in SHARES)
        return chart(each, y, time_axis(result, "1"))

    def horizon(set: str) -> Lines:
        return chart(curves(result.isel(set=int(set)), "horizon", "t2", "cut"), "checkpoints", time_axis(result, "2"))

    panels = [panel("Shallow half of t1, deep half of the last checkpoint", choices, of_pair, "memory")]
    if "horizon" in result:
        panels.append(panel("Memory horizon of t2", {"set": choices["set"]}, horizon, "horizon"))
    more: dict[str, Any] = {"finding": _finding(judged(result)), "caveat": CAVEAT}
    yield Section("Memory and forgetting", TEXT, panels, choices, preset_set(result), **more)


def _finding(result: xr.Dataset) -> Finding | None:
    if "retention" not in result:
        return None
    half = result.isel(t1=halfway(result["step1"]), t2=-1)
    said = across(half, "retention", "cut", "{:.2f}".format)
    words = f"With the shallow half of step {int(half['step1']):,}, retention {probes(half)} is {said}."
    return Finding(words if said else NOTHING)
