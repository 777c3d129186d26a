"""``spectra``: how many directions do features use?"""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field

from featdyn.analysis.declaration import Analysis, Variable
from featdyn.analysis.options import Layers, Sets

CELLS = "layer set t"
_cell = partial(Variable, CELLS, status="status")


class SpectraOptions(Layers, Sets):
    """Options of the spectra of features."""

    of: Literal["activation", "gradient"] = Field("activation", description="which of a layer's arrays")


ANALYSIS = Analysis(
    name="spectra",
    question="how many directions do features use? The spectrum of the covariance of every layer",
    source="The variables are a layer's channels or features; positions and tokens count as observations like probes "
    "do, so that a covariance has a size that fits memory. This is our own choice.",
    options=SpectraOptions,
    variables={
        "eigenvalue": Variable(
            f"{CELLS} rank",
            "variance along each principal direction, largest first",
            missing="beyond a layer's width",
            status="status",
        ),
        "variance": _cell("sum of the eigenvalues"),
        "mean_norm": _cell("length of the mean"),
        "effective_rank": _cell("exponential of the entropy of the variances, positions as observations"),
        "participation_ratio": _cell(
            "squared sum of the variances over their sum of squares, positions as observations"
        ),
        "stable_rank": _cell("sum of the variances over the largest, positions as observations"),
    },
    compute="featdyn.analysis.features.spectra.compute:spectra",
    version=3,
    section="featdyn.report.sections.spectra:section",
)
