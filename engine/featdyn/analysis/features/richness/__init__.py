"""``richness``: do features carry the learned function alone, or much that it does not use?"""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field

from featdyn.analysis.declaration import SHARE, Analysis, Variable, bounded
from featdyn.analysis.options import Layers, Seed, Sets

CELLS = "layer set t"
LEADING = ("intensity", "utilisation", "cumulative_utilisation", "quality", "cumulative_quality")
_leading = partial(
    Variable,
    f"{CELLS} k",
    valid_range=SHARE,
    missing="beyond the features' rank, or as the status says",
    status="status",
)


class RichnessOptions(Layers, Sets, Seed):
    """Options of the measures of richness."""

    leading: int = Field(64, ge=1, description="so many eigenfunctions of each layer are kept, strongest first")
    folds: int = Field(8, ge=2, le=64, description="parts of the probes that intervals leave out in turn; each is held")
    centring: Literal["outputs", "projector"] = Field(
        "outputs", description="centre the outputs before they are projected on, or the projection"
    )
    tolerance: float = Field(
        1e-6, gt=0, lt=1, description="directions of the outputs below this share of the largest do not count"
    )


def _bounded(name: str, long_name: str, valid_range: tuple[float, float] | None = SHARE) -> dict[str, Variable]:
    """Return a variable whose interval may be missing where it is not."""
    found = bounded(name, CELLS, long_name, valid_range=valid_range, status=f"{name}_interval_status")
    status = "status" if name != "kernel_deviation" else "kernel_status"
    return found | {name: Variable(CELLS, long_name, valid_range=valid_range, status=status)}


ANALYSIS = Analysis(
    name="richness",
    version=3,
    question="do features carry the learned function alone, or much that it does not use?",
    source="Low-rank measure and feature metrics: Nam et al., arXiv 2410.04264, whose full text was not at hand. Our "
    "own choice: outputs are centred before projecting, directions below 1e-6 of the largest do not count, explicit "
    "formulas of the metrics, the value of isotropic features that stands beside the measure, positions of maps and "
    "tokens are averaged, outputs with several axes count as one vector, intervals leave out whole images in a few "
    "folds, of each class its share where a set has equally many of each, and what ends BatchNorm's names is no "
    "weight. Few probes make the measure smaller: 4 for each feature are advised.",
    options=RichnessOptions,
    variables={
        **_bounded(
            "low_rank", "low-rank measure: 0 rich, features are the learned function's alone; 1 unrelated to it"
        ),
        "low_rank_isotropic": Variable(
            CELLS,
            "the low-rank measure of isotropic features of this width, number of probes and output rank",
            valid_range=SHARE,
            status="isotropic_status",
        ),
        "output_rank": Variable(CELLS, "directions of the outputs", status="status"),
        **_bounded("effective_dimension", "exponential of the entropy of the feature kernel's eigenvalues", None),
        "intensity": _leading("eigenvalue of the feature kernel over the largest"),
        "utilisation": _leading("share of the eigenfunction in the span of the outputs"),
        "cumulative_utilisation": _leading("share of the learned function that the first k eigenfunctions carry"),
        "quality": _leading("share of the eigenfunction in the span of the targets", status="target_status"),
        "cumulative_quality": _leading(
            "share of the targets that the first k eigenfunctions express", status="target_status"
        ),
        **_bounded("kernel_deviation", "1 - linear CKA of the features with those of the first checkpoint"),
        "kernel_similarity": Variable(
            CELLS,
            "linear CKA of the features with those of the first checkpoint",
            valid_range=SHARE,
            status="kernel_status",
        ),
        "kernel_cosine": Variable(
            CELLS,
            "cosine of the kernel, not centred, with that of the first checkpoint",
            valid_range=SHARE,
            status="cosine_status",
        ),
        "parameter_norm": Variable(
            "t", "length of all weights, without BatchNorm's running statistics", status="parameter_status"
        ),
        "parameter_distance": Variable(
            "t", "their distance from those of the first checkpoint", status="parameter_status"
        ),
    },
    needs=frozenset({"moments"}),
    compute="featdyn.analysis.features.richness.compute:richness",
    section="featdyn.report.sections.richness:section",
)
