"""``controls``: is it the direction of the drift that keeps predictions, or only its small size?"""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field

from featdyn.analysis.declaration import SHARE, SIGNED, Analysis, Variable, bounded
from featdyn.analysis.options import Cuts, Seed, Sets, Suffixes, samples

KINDS = ("drift", "isotropic", "gaussian", "same_class", "other_class")
"""The drift itself; noise of no direction; noise of the drift's covariance; the drift of another image's probe, of the
same class and of another one."""
STRICT = ("isotropic", "same_class", "other_class")
"""What drift has to beat to count as structured."""
CELLS = "cut set t1 t2"
OF_KINDS = f"kind {CELLS}"
_of_kind = partial(Variable, OF_KINDS, status="status")


class ControlOptions(Cuts, Sets, Suffixes, Seed):
    """Options of the norm-matched controls."""

    samples: int = samples(1000)
    batchnorm: Literal["travel", "reestimated"] = Field(
        "travel",
        description="statistics of the suffix: those of t2, or estimated anew on the features that it is handed, those "
        "of the drift too, so that no perturbation is told apart by its mean and variance alone",
    )


ANALYSIS = Analysis(
    name="controls",
    question="is it the direction of the drift that keeps predictions, or only its small size?",
    source="Each control replaces the features z(t1) of the prefix by z(t2) + e with |e| = |z(t1) - z(t2)| for each "
    "probe, and hands them to the suffix of t2. Features are not clipped, so those behind a ReLU may become negative: "
    "clipping would change norms. Which controls, that BatchNorm may be estimated anew on the set itself, and that "
    "drift counts as structured where it keeps accuracy better than isotropic noise and than other images' drift, are "
    "our own choice (feature dynamics, section 2.2 item 9).",
    options=ControlOptions,
    needs=frozenset({"network", "labels"}),
    variables={
        "accuracy": _of_kind("share of right probes", valid_range=SHARE),
        "agreement": _of_kind(
            "share of probes predicted as by t2's own network", valid_range=SHARE, status="agreement_status"
        ),
        **bounded(
            "advantage",
            OF_KINDS,
            "accuracy of the drift minus that of the control",
            valid_range=SIGNED,
            status="advantage_status",
        ),
        "norm_error": _of_kind(
            "largest relative difference between the norm wanted and that after rounding", status="norm_status"
        ),
        "without_control": Variable(
            OF_KINDS,
            "probes that have no such control, as no other image of the class moves or their own move is not finite: "
            "left out of its numbers",
        ),
        "without_prediction": Variable(
            OF_KINDS, "probes that have the control and no prediction, as a logit is NaN: left out of shares of probes"
        ),
        "structured": Variable(
            CELLS,
            "the drift keeps accuracy better than isotropic noise and than other images' drift",
            status="structured_status",
        ),
        "motion": Variable(CELLS, "mean of |z(t1) - z(t2)| / |z(t2)|", status="motion_status"),
        "zero_features": Variable(CELLS, "probes whose features at t2 are all zero: left out of the motion"),
        "undefined": Variable(
            CELLS, "probes left out of the motion: features at t2 all zero, or at t1 or t2 not finite"
        ),
    },
    compute="featdyn.analysis.composites.controls.compute:controls",
    section="featdyn.report.sections.controls:section",
    version=5,
)
