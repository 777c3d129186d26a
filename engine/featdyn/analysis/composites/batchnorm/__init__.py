"""``batchnorm``: how much do conclusions on composites depend on what is done with BatchNorm?"""

from __future__ import annotations

from featdyn.analysis.declaration import SHARE, SIGNED, Analysis, Variable, bounded
from featdyn.analysis.options import Cuts, Seed, Sets, Suffixes, Trained, samples

POLICIES = ("travel", "reestimated", "batch")
"""Statistics travel with their layers; are estimated anew on the composite's features of the training probes; are those
of the batch."""
CELLS = "policy cut set t1 t2"


class BatchNormOptions(Trained, Cuts, Sets, Suffixes, Seed):
    """Options of the comparison of BatchNorm policies."""

    samples: int = samples(1000)


ANALYSIS = Analysis(
    name="batchnorm",
    question="how much do conclusions on composites depend on what is done with BatchNorm?",
    source='arXiv 2509.20334 does not say. Three policies are our own choice: statistics "travel" with their layers; '
    'are "reestimated" on the composite\'s features of the training probes, each value counted once; or are those of '
    'the "batch" (feature dynamics, section 6.2 item 5).',
    options=BatchNormOptions,
    needs=frozenset({"network", "labels"}),
    variables={
        "without_prediction": Variable(
            CELLS, "probes without a prediction, as a logit is NaN: left out of accuracy, agreement and change"
        ),
        **bounded("accuracy", CELLS, "share of right probes", valid_range=SHARE, status="status"),
        "agreement": Variable(
            CELLS,
            "share of probes predicted as by t2's own network under the same policy",
            valid_range=SHARE,
            status="agreement_status",
        ),
        **bounded(
            "change", CELLS, 'accuracy minus that of the policy "travel"', valid_range=SIGNED, status="change_status"
        ),
        "diagonal_differences": Variable(
            "policy cut",
            "predictions at t1 = t2 that differ from the recorded network's: 0 where statistics travel, and where no "
            "BatchNorm follows the cut",
            status="diagonal_status",
        ),
    },
    compute="featdyn.analysis.composites.batchnorm.compute:batchnorm",
    section="featdyn.report.sections.batchnorm:section",
    version=4,
)
