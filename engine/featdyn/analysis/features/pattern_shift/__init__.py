"""``pattern_shift``: does a probe use the channels that its class used in training?"""

from __future__ import annotations

from functools import partial

from featdyn.analysis.declaration import SIGNED, Analysis, Variable, bounded
from featdyn.analysis.options import Layers, Seed, Sets, Trained, samples

CELLS, OVER_TIME = "layer set t", "layer set"
APART = (0.0, 2.0)
BY_CLASS = "Pearson's correlation over classes of shift and generalization gap"
_with_loss = partial(Variable, CELLS, valid_range=SIGNED, status="loss_status")


class PatternShiftOptions(Trained, Layers, Sets, Seed):
    """Options of the shift of decision patterns."""

    samples: int = samples(512)


ANALYSIS = Analysis(
    name="pattern_shift",
    version=3,
    question="does a probe use the channels that its class used in training, and does that go with its loss?",
    source="Decision pattern shift after arXiv 2605.13148, whose text was not at hand: 1 less the cosine of a probe's "
    "channel contributions and their mean over the training probes of its class. Our own choice: contributions are "
    "the mean of the gradient over positions times that of the activation, the gradient is of the recorded loss and "
    "not of the class's logit, a probe's own image is left out of the mean, labels of training probes dealt at random "
    "are the null, shifts that rounding to the stored type may leave are 0, and limits of correlations are by leaving "
    "out images, or classes, on Fisher's scale. Too few probes make a correlation over classes or checkpoints smaller "
    "than it is, which no limit tells.",
    options=PatternShiftOptions,
    variables={
        **bounded(
            "shift",
            CELLS,
            "decision pattern shift, mean over probes",
            valid_range=APART,
            status="shift_interval_status",
        ),
        "shift": Variable(CELLS, "decision pattern shift, mean over probes", valid_range=APART, status="shift_status"),
        "shift_shuffled": Variable(
            CELLS,
            "the same with the labels of training probes dealt at random",
            valid_range=APART,
            status="null_status",
        ),
        "undefined": Variable(
            CELLS, "probes left out: nothing contributes, or their class has no other training probe"
        ),
        **bounded(
            "loss_correlation",
            CELLS,
            "Pearson's correlation of shift and loss over probes",
            valid_range=SIGNED,
            status="loss_interval_status",
        ),
        "loss_correlation": _with_loss("Pearson's correlation of shift and loss over probes"),
        "loss_spearman": _with_loss("Spearman's correlation of shift and loss over probes"),
        **bounded("class_correlation", CELLS, BY_CLASS, valid_range=SIGNED, status="class_interval_status"),
        "class_correlation": Variable(CELLS, BY_CLASS, valid_range=SIGNED, status="class_status"),
        **bounded(
            "gap_correlation",
            OVER_TIME,
            "Pearson's correlation over checkpoints of shift and generalization gap",
            valid_range=SIGNED,
            status="gap_interval_status",
        ),
        "gap_correlation": Variable(
            OVER_TIME,
            "Pearson's correlation over checkpoints of shift and generalization gap",
            valid_range=SIGNED,
            status="gap_status",
        ),
    },
    needs=frozenset({"activations", "gradients", "labels"}),
    compute="featdyn.analysis.features.pattern_shift.compute:pattern_shift",
    section="featdyn.report.sections.pattern_shift:section",
)
