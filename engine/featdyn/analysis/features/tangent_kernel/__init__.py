"""``tangent_kernel``: how far has the kernel that training follows turned, and does it turn to the labels?"""

from __future__ import annotations

from pydantic import Field

from featdyn.analysis.declaration import SHARE, Analysis, Variable, bounded
from featdyn.analysis.options import Seed, Sets, samples

CELLS = "set t"
DEVIATION = "1 - cosine of the tangent kernel with that of the first checkpoint"
CHANGE = "1 - cosine of the tangent kernel with that of the checkpoint before"
ALIGNMENT = "centred alignment of the tangent kernel with the targets"


class TangentKernelOptions(Sets, Seed):
    """Options of the empirical tangent kernel."""

    samples: int = samples(24)
    directions: int = Field(
        16,
        ge=1,
        description="up to so many outputs are taken one by one; of more, so many sums of them all with random signs",
    )
    shuffles: int = Field(99, ge=0, description="targets are dealt at random so often, beside which the alignment is")


ANALYSIS = Analysis(
    name="tangent_kernel",
    version=2,
    question="how far has the kernel that training follows turned since the start, and does it turn to the labels?",
    source="Empirical neural tangent kernel: Jacot et al. 2018; 1 less the cosine of kernels: Fort et al. 2020; "
    "centred alignment: Cortes et al. 2012. Gradients are by all parameters that are trained, of the network in "
    "evaluation mode, at few probes. The kernel is the mean over outputs of each output's own, which leaves out "
    "products between outputs; of many outputs it is estimated by sums of all of them with random signs, over the root "
    "of their number, whose kernels have that mean on average (one with equal signs: Mohamadi et al. 2023). Our own "
    "choice: that, kernels that are not centred for the cosine, intervals that leave out one image after the other, a "
    "null that deals targets to probes at random.",
    options=TangentKernelOptions,
    variables={
        **bounded("deviation", CELLS, DEVIATION, valid_range=SHARE, status="deviation_interval_status"),
        "deviation": Variable(CELLS, DEVIATION, valid_range=SHARE, status="deviation_status"),
        **bounded("change", CELLS, CHANGE, valid_range=SHARE, status="change_interval_status"),
        "change": Variable(CELLS, CHANGE, valid_range=SHARE, status="change_status"),
        **bounded("alignment", CELLS, ALIGNMENT, valid_range=SHARE, status="alignment_interval_status"),
        "alignment": Variable(CELLS, ALIGNMENT, valid_range=SHARE, status="alignment_status"),
        "alignment_shuffled": Variable(
            CELLS, "the same with targets dealt at random, mean", valid_range=SHARE, status="shuffled_status"
        ),
        "gradient_square": Variable(
            CELLS, "mean squared length of an output's gradient, the kernel's diagonal", status="status"
        ),
    },
    needs=frozenset({"network"}),
    compute="featdyn.analysis.features.tangent_kernel.compute:tangent_kernel",
    section="featdyn.report.sections.tangent_kernel:section",
)
