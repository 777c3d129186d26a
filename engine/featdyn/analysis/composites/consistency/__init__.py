"""``consistency``: do predictions hold when the shallow half of one checkpoint meets the deep half of another?"""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field

from featdyn.analysis.declaration import SHARE, Analysis, Variable, bounded
from featdyn.analysis.options import Cuts, FeatureSource, Sets, Trained

PAIRS = "cut set t1 t2"
_pair, _soft = partial(Variable, PAIRS), partial(Variable, PAIRS, status="soft_status")
_both = partial(Variable, PAIRS, valid_range=SHARE, status="paired_status")


class ConsistencyOptions(Trained, FeatureSource, Cuts, Sets):
    """Options of the temporal-consistency analysis."""

    window: float = Field(
        0.5, gt=0, le=1, description="gap curves average over this last part of the checkpoints as t2 (our own choice)"
    )
    phase: Literal["all", "constant"] = Field(
        "all", description="gap curves over all checkpoints, or those before the learning rate first falls"
    )


ANALYSIS = Analysis(
    name="consistency",
    question="do predictions hold when the shallow half of one checkpoint meets the deep half of another?",
    source="Composites are those of arXiv 2509.20334. How accuracy, agreement, memory, forgetting, transfer and gap "
    "curves are measured is our own choice: the exact definitions were not found. BatchNorm buffers travel with their "
    "layers. One logit is that of class 1 against class 0. Probes whose label is no class of the network are in no "
    "set; where the recorded loss counts them, or one output has no binary cross-entropy, nothing is a class. The loss "
    "is the plain cross-entropy, whatever was trained with. Of outputs by position each position counts as a probe, "
    "named probe@position, padding and ignored targets left out: our own choice. Intervals resample the image or "
    "document that probes were made from.",
    options=ConsistencyOptions,
    needs=frozenset({"network", "targets"}),
    incidental=("window", "phase"),
    streams=True,
    variables={
        "prediction": Variable("cut t1 t2 probe", "predicted class, -1 where a logit is NaN or halves are none"),
        "without_prediction": Variable(
            PAIRS,
            "probes without a prediction, as a logit is NaN: left out of accuracy, agreement and all of their kind",
        ),
        **bounded("accuracy", PAIRS, "share of right probes", valid_range=SHARE, status="status"),
        "accuracy_true": _pair("share of probes whose true label is predicted", valid_range=SHARE, status="status"),
        "agreement": _both("share of probes predicted as by t2's own network"),
        "agreement_prefix": _both("share of probes predicted as by t1's own network"),
        "loss": _soft("mean cross-entropy", "nat"),
        "margin": _soft("mean logit of the label minus the largest other one"),
        "probability": _soft("mean probability of the label", valid_range=SHARE),
        "divergence": _soft("mean KL divergence from t2's own network", "nat"),
        "plain_accuracy": Variable("set t1", "share of right probes of the recorded network", valid_range=SHARE),
        "apart": Variable(
            "cut t1", "probes for which t1's halves, joined, are not t1's network: what it joins at this cut is missing"
        ),
        "diagonal_differences": Variable("cut", "predictions at t1 = t2 that differ from the recorded network's"),
        **bounded("retention", PAIRS, "accuracy over that of t1's own network", status="retention_status"),
        "forgetting": _both("accuracy lost against t1's own network"),
        "particle_forgetting": _both("share of probes that t1's own network has right and the composite wrong"),
        "transferability": _pair("accuracy over that on training probes", status="transferability_status"),
        "horizon": Variable(
            "cut set t2", "how many checkpoints back all prefixes are right, mean over probes", status="horizon_status"
        ),
        "horizon_steps": Variable("cut set t2", "horizon in training steps", "step", status="horizon_status"),
        "probe_horizon": Variable(
            "cut t2 probe", "horizon of each probe in checkpoints, -1 where t2 is wrong or halves are none"
        ),
        "class_accuracy": Variable(
            "cut set class t1 t2", "share of right probes of a class", valid_range=SHARE, status="class_status"
        ),
        **bounded(
            "gap_accuracy",
            "cut set lag",
            "mean accuracy of (t2 - lag, t2) over the window of t2",
            valid_range=SHARE,
            status="gap_status",
        ),
    },
    compute="featdyn.analysis.composites.consistency.compute:consistency",
    section="featdyn.report.sections.consistency:section",
    version=5,
    demo=True,
)
