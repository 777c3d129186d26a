"""``density``: how far have the distributions of features moved?"""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field

from featdyn.analysis.declaration import SHARE, Analysis, Variable
from featdyn.analysis.options import Cuts, FeatureSource, Seed, Sets, samples

_cell = partial(Variable, "measure cut set pair", status="status")


class DensityOptions(FeatureSource, Cuts, Sets, Seed):
    """Options of the distances between feature distributions."""

    components: Literal[1, 2, 3] = Field(2, description="dimensions of the common principal basis (our own choice)")
    pairs: Literal["last", "consecutive", "all"] = Field(
        "last", description="each checkpoint against the last one, against the one before, or all pairs"
    )
    permutations: int = Field(200, ge=19, le=100_000, description="labellings of the null, paired by image")
    samples: int = samples(2000)


ANALYSIS = Analysis(
    name="density",
    question="how far have the distributions of features moved?",
    source="Dimension reduction, bandwidth and nulls are our own choice: those of arXiv 2509.20334 were not found. All "
    "checkpoints are projected onto one principal basis; total variation is taken in its first components, the other "
    "distances in its first 50. The null swaps the features of an image at the two checkpoints, all its copies "
    "together, and the same images in all cells.",
    options=DensityOptions,
    variables={
        "statistic": _cell("distance between the features at t1 and t2"),
        "excess": _cell("statistic minus its mean under the null"),
        "null_mean": _cell("mean of the statistic under the null"),
        "null_deviation": _cell("standard deviation of the statistic under the null"),
        "pvalue": _cell("share of labellings with a statistic at least as large", valid_range=SHARE),
        "adjusted": _cell(
            "p-value by the maximum over all cuts, sets and pairs of a measure (Westfall and Young, step-down)",
            valid_range=SHARE,
        ),
        "explained": Variable(
            "cut set component",
            "share of the variance of all checkpoints along an axis of the basis",
            valid_range=SHARE,
            missing="beyond the rank of the features",
        ),
    },
    streams=True,
    compute="featdyn.analysis.features.density.compute:density",
    section="featdyn.report.sections.density:section",
    version=4,
)
