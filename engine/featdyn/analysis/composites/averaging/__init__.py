"""``averaging``: would an average over the last checkpoints predict better than the last one?"""

from __future__ import annotations

from pydantic import Field

from featdyn.analysis.declaration import SHARE, SIGNED, Analysis, Variable, bounded
from featdyn.analysis.options import Sets, Trained

AVERAGES = ("weights", "predictions")
CELLS = "average set window"


class AveragingOptions(Trained, Sets):
    """Options of averaging over checkpoints."""

    window: int = Field(10, ge=1, description="average the last checkpoints, up to so many; every number is shown")


ANALYSIS = Analysis(
    name="averaging",
    question="would averaging over the last checkpoints predict better than the last one: their weights, or their "
    "predictions?",
    source='"weights" are those of Izmailov et al., "Averaging weights leads to wider optima and better '
    'generalization" (2018), here a plain mean over recorded checkpoints; that BatchNorm statistics are then estimated '
    'on the training probes, and not on the whole training set, is our own choice. "predictions" are the mean of the '
    'recorded softmax outputs: at window 1 the last network itself, and "weights" that network with statistics '
    "estimated anew, so that what a larger window gains beyond it comes from averaging. What is no floating-point "
    "number is that of the last checkpoint. Probes whose label is no class of the network are in no set.",
    options=AveragingOptions,
    needs=frozenset({"network", "labels"}),
    variables={
        **bounded("accuracy", CELLS, "share of right probes", valid_range=SHARE, status="status"),
        "loss": Variable(CELLS, "mean cross-entropy", "nat", status="loss_status"),
        **bounded(
            "change", CELLS, "accuracy minus that of the last network", valid_range=SIGNED, status="change_status"
        ),
        "prediction": Variable("average window probe", "predicted class", status="prediction_status"),
        "without_prediction": Variable(
            CELLS, "probes without a prediction, as a logit is NaN: left out of accuracy and change", status="status"
        ),
    },
    compute="featdyn.analysis.composites.averaging.compute:averaging",
    section="featdyn.report.sections.averaging:section",
    version=4,
)
