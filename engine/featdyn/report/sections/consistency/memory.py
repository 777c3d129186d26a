"""Memory and forgetting: what the last network still does with older shallow halves."""

from __future__ import annotations

from collections.abc import Iterator

import xarray as xr

from featdyn.report.figures import Figure, checkpoint_axis, depth_colours, figure, lines
from featdyn.report.section import Section, choices_of, panel, preset_set

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
    "All of these are our own working definitions: those of arXiv 2509.20334 were not found.",
)


def memory(result: xr.Dataset) -> Iterator[Section]:
    """Yield the section."""
    measures = {name: title for name, title in MEASURES.items() if name in result}
    if not measures:
        return
    choices = choices_of(result, "set") | {"memory": measures}
    axis = {end: checkpoint_axis(result[f"t{end}"].values, result[f"step{end}"].values) for end in "12"}
    colours = depth_colours(result.sizes["cut"])

    def of_pair(set: str, memory: str) -> Figure:
        values = result[memory].isel(set=int(set), t2=-1).transpose("cut", "t1").values
        each, log = lines(result["cut"].values, values, colours), None if memory == "divergence" else False
        return figure(each, measures[memory], xaxis=axis["1"], share=memory in SHARES, log=log)

    def horizon(set: str) -> Figure:
        values = result["horizon"].isel(set=int(set)).transpose("cut", "t2").values
        return figure(lines(result["cut"].values, values, colours), "checkpoints", xaxis=axis["2"], log=False)

    panels = [panel("Shallow half of t1, deep half of the last checkpoint", choices, of_pair)]
    if "horizon" in result:
        panels.append(panel("Memory horizon of t2", {"set": choices["set"]}, horizon))
    yield Section("Memory and forgetting", TEXT, panels, choices, preset_set(result))
