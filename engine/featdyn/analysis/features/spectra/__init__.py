"""``spectra``: how many directions do features use?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from featdyn.analysis.declaration import Analysis, Variable
from featdyn.analysis.options import Layers, Sets

CELLS = "layer set t"


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
        "variance": Variable(CELLS, "sum of the eigenvalues", status="status"),
        "mean_norm": Variable(CELLS, "length of the mean", status="status"),
        "effective_rank": Variable(CELLS, "exponential of the entropy of the spectrum", status="status"),
        "participation_ratio": Variable(
            CELLS, "squared sum of the eigenvalues over their sum of squares", status="status"
        ),
        "stable_rank": Variable(CELLS, "sum of the eigenvalues over the largest", status="status"),
    },
    compute="featdyn.analysis.features.spectra.compute:spectra",
    section="featdyn.report.sections.spectra:section",
)
