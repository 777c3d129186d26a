"""``isotropy``: is the noise of SGD isotropic, along which directions does it lie, and does drift follow them?"""

from __future__ import annotations

from featdyn.analysis.declaration import Analysis, Variable
from featdyn.analysis.isotropy_variables import ASSUMED, DRIFT, TESTED, isotropy_variables
from featdyn.analysis.options import Seed, alpha

PER_PROBE = "cut t probe"


class IsotropyOptions(Seed):
    """Options of the tests of isotropy."""

    alpha: float = alpha()


ANALYSIS = Analysis(
    name="isotropy",
    question="is the noise of SGD isotropic, along which directions does it lie, and does drift follow them?",
    source="Of the newest sample of noise. Which tests decide is our own choice: those of arXiv 2509.20334 were not "
    "found. "
    + ASSUMED
    + " The drift to the next sampled checkpoint is a sum of gradients and lies where gradients do in any case: its "
    "share along the noise stands beside that along gradients of the same batches with permuted labels, and along "
    "halves of the draws; a random subspace is easily beaten.",
    options=IsotropyOptions,
    results=("noise",),
    variables={
        **isotropy_variables("parameter", "cut t", TESTED, DRIFT),
        **isotropy_variables("feature", PER_PROBE, TESTED, DRIFT),
        **isotropy_variables("control", PER_PROBE),
        "curvature_ratio": Variable(
            "cut t", "mean curvature along the noise over that along random directions", status="curvature_ratio_status"
        ),
    },
    compute="featdyn.analysis.gradient_noise.isotropy.compute:noise_isotropy",
    section="featdyn.report.sections.isotropy:section",
    version=4,
)
