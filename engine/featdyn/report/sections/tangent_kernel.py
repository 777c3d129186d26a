"""``tangent_kernel``: how far the kernel that training follows has turned, and how near it is to the labels."""

from __future__ import annotations

from typing import Any

import xarray as xr

from featdyn.report.figure import Axis, Lines
from featdyn.report.figures import chart, curve, time_axis
from featdyn.report.findings import NOTHING, ONE_CHECKPOINT, probes
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
    word,
)

CURVES = {
    "deviation": "from the first checkpoint",
    "change": "from the checkpoint before",
    "alignment": "alignment with targets",
    "alignment_shuffled": "with targets dealt at random",
}
TEXT = (
    "With infinitely small steps, a network’s outputs follow its tangent kernel: products of the gradients of its "
    "outputs at two probes. Where the kernel stays, training is lazy, that of a linear model; 1 less the cosine with "
    "the kernel of the first checkpoint says how far it has turned. The second curve is what each checkpoint adds.",
    "Alignment is high where probes of the same target have similar gradients; beside it stands what targets dealt at "
    "random show. The table is of the last checkpoint, with 95 % intervals over images.",
)
CAVEAT = "Few probes of each set are looked at; a kernel of few probes says little of others."


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.load()
    header = ("Probes", "Turned since the start", "Since the checkpoint before", "Alignment with targets")
    rows = [
        (
            name_of(cell, "set"),
            *(bounded_word(cell, name, "{:.3f}".format) for name in ("deviation", "change", "alignment")),
            word(cell["alignment_shuffled"], "{:.3f}".format),
        )
        for cell in cells(result.isel(t=-1), "set")
    ]
    choices, axis = choices_of(result, "set"), time_axis(result)

    def draw(set: str) -> Lines:
        of_set = result.isel(set=int(set))
        each = [curve(of_set, name, "t", words, order) for order, (name, words) in enumerate(CURVES.items())]
        return chart(each, Axis(share=True, scale="auto"), axis)

    panels = [panel("How far the tangent kernel has turned, and its alignment", choices, draw, "alignment")]
    table = Grid((*header, "Targets dealt at random"), rows)
    last = judged(result.isel(t=-1))
    said = bounded_word(last, "deviation", percent)
    words = f"Since the first checkpoint the kernel has turned by {said} {probes(last)}; its alignment with targets is "
    words += f"{bounded_word(last, 'alignment', '{:.2f}'.format)} ({word(last['alignment_shuffled'])} at random)."
    if result.sizes["t"] == 1:
        words = ONE_CHECKPOINT
    more: dict[str, Any] = {"finding": Finding(NOTHING if said == "–" else words), "caveat": CAVEAT}
    return Section("Tangent kernel", TEXT, panels, choices, preset_set(result), table, **more)
