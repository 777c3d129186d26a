"""``drift``: do features and weights still move while predictions hold?"""

from __future__ import annotations

from functools import partial

from featdyn.analysis.declaration import SHARE, Analysis, Variable, bounded
from featdyn.analysis.options import Cuts, FeatureSource, Seed, Sets, Trained, Unseen, samples

PAIRS = "cut set t1 t2"
ACROSS = "cut cut2 t1 t2"
WEIGHTS = "|w(t2) - w(t1)| / |w(t1)| of the trained parameters"
_path = partial(Variable, "cut probe", status="path_status")


class DriftOptions(Unseen, Trained, FeatureSource, Cuts, Sets, Seed):
    """Options of the drift of features and weights."""

    samples: int = samples(1024)


def _mean(name: str, long_name: str, valid_range: tuple[float, float] | None = None) -> dict[str, Variable]:
    """Return a mean over probes, whose interval may be missing where it is not."""
    found = bounded(name, PAIRS, long_name, status=f"{name}_interval_status", valid_range=valid_range)
    return found | {name: Variable(PAIRS, long_name, valid_range=valid_range, status=f"{name}_status")}


ANALYSIS = Analysis(
    name="drift",
    question="do features and weights still move while predictions hold?",
    source="That consistency is no artefact of convergence needs features that move (arXiv 2509.20334); which measures "
    "show it is our own choice. CKA: Kornblith et al. 2019, debiased by Song et al. 2012. Linear probes: ridge "
    "regression on labels, its penalty by exact left-out residuals (Allen 1974). Images are left out, or vary, as a "
    "whole in every interval.",
    options=DriftOptions,
    variables={
        **_mean("motion", "mean of |z(t2) - z(t1)| / |z(t1)| over probes with z(t1) other than zero"),
        **_mean("cosine", "mean cosine between z(t1) and z(t2) over probes that have both other than zero", (-1, 1)),
        "undefined": Variable(
            "cut set t", "probes whose features are all zero or not finite: left out of motion and cosine"
        ),
        "step_length": Variable(
            "cut t probe",
            "distance from the features at the checkpoint before",
            missing="the first checkpoint",
            status="path_status",
        ),
        "path_length": _path("sum of the step lengths"),
        "displacement": _path("distance of the last checkpoint's features from the first's"),
        "straightness": _path("displacement over path length", valid_range=SHARE, status="straightness_status"),
        **{
            f"{half}_distance": Variable("cut t1 t2", f"{WEIGHTS} {where} the cut", status=f"{half}_status")
            for half, where in (("prefix", "up to"), ("suffix", "behind"))
        },
        "cka": Variable(ACROSS, "linear CKA of cut at t1 with cut2 at t2", valid_range=SHARE, status="cka_status"),
        **bounded("cka_debiased", ACROSS, "debiased linear CKA", status="cka_interval_status"),
        "cka_debiased": Variable(ACROSS, "debiased linear CKA", status="cka_debiased_status"),
        **bounded(
            "linear_accuracy",
            "cut set t",
            "share of probes whose label (the true one, where labels in use are noisy: attribute linear_labels) a "
            "linear probe, fitted to training probes, has right; of training probes, each image left out in turn",
            valid_range=SHARE,
            status="linear_status",
        ),
        "linear_penalty": Variable(
            "cut t", "its ridge penalty over the mean squared norm of centred features", status="penalty_status"
        ),
    },
    streams=True,
    compute="featdyn.analysis.features.drift.compute:drift",
    section="featdyn.report.sections.drift:section",
    version=4,
)
