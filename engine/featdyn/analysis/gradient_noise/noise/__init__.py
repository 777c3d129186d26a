"""``noise``: what do mini-batches add to the gradient, and what does that do to features in one step?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from featdyn.analysis.declaration import Analysis, Variable
from featdyn.analysis.options import Cuts, Seed, Sets, Unseen

MOST = 10
"""So many checkpoints are sampled by default, at most: our own choice, as one of the smallest
ResNet-20 takes a core five seconds."""
NO_LATER = "none at the last checkpoint: there is no later one"


class NoiseOptions(Unseen, Cuts, Sets, Seed):
    """Options of the noise sampler."""

    draws: int = Field(64, ge=4, description="mini-batch gradients at each checkpoint")
    batch_size: int | None = Field(
        None, ge=1, description="samples of a mini-batch; by default the recipe's, or as the batches given have"
    )
    replacement: bool = Field(
        True, description="draw the samples of a batch independently, or as parts of a random order as training does"
    )
    every: int | None = Field(
        None,
        ge=1,
        description="sample at every so many checkpoints, counted back from the last; by default so that there are at "
        f"most {MOST}",
    )
    probes: int = Field(16, ge=0, description="probes whose features are moved by one step, test probes first")
    permuted: bool = Field(
        True, description="gradients of the same batches with labels permuted, too: the drift is held against them"
    )
    keep: Literal["gram", "raw"] = Field(
        "gram", description="inner products and leading directions of the draws, or the draws themselves too"
    )
    directions: int = Field(10, ge=0, description="leading directions of the parameter noise to keep")
    curvature: int = Field(
        0, ge=0, description="training samples on which the Hessian is applied to the draws; 0 leaves curvature out"
    )
    statistics: Literal["batch", "stored"] = Field(
        "batch",
        description="BatchNorm's: of each batch, as in training, or those of the checkpoint, so that the gradient of "
        "a sample does not depend on others (needed for single samples: --batch-size 1)",
    )
    rate: float | None = Field(
        None, gt=0, description="learning rate of the step; by default the recipe's, or the coordinate learning_rate"
    )
    data_dir: Path | None = Field(None, description="folder of downloaded data sets, as in training")

    def sampled(self, checkpoints: int) -> list[int]:
        """Return which of so many checkpoints are sampled, ascending; the last one always is."""
        return list(range(checkpoints - 1, -1, -(self.every or -(-checkpoints // MOST))))[::-1]


def _inner_products(prefix: str, cell: str, of: str) -> dict[str, Variable]:
    """Return the fields of a Gram matrix, as :mod:`featdyn.analysis.gradient_noise.gram_arrays` stores them."""
    status = "feature_status" if "probe" in cell else "parameter_status"
    fields = {
        "centred": (f"{cell} draw draw2", f"products of {of}, each minus the mean draw"),
        "along_mean": (f"{cell} draw", f"products of {of}, centred, with their mean"),
        "mean_square": (cell, f"squared length of the mean of {of}"),
        "fourth_centred": (cell, f"sum of fourth powers of {of}, centred"),
        "fourth": (cell, f"sum of fourth powers of {of}"),
    }
    found = {f"{prefix}_p": Variable(cell, f"coordinates of {of}")}
    return found | {f"{prefix}_{name}": Variable(*said, status=status) for name, said in fields.items()}


def _drift(prefix: str, cell: str, of: str) -> dict[str, Variable]:
    return {f"{prefix}drift_dot": Variable(f"{cell} draw", f"products of {of} with the drift", missing=NO_LATER)}


PER_PROBE = "cut t probe"
XI = "the noise of the parameters before a cut"
MOVES = "the moves of a probe's features"
_curvature = partial(Variable, "cut t draw", status="curvature_status")

ANALYSIS = Analysis(
    name="noise",
    question="what do mini-batches add to the gradient, at fixed weights, and how do features answer to it?",
    source="Noise of the parameters before each cut: xi_k = g_k - g, the gradient of the mean loss of a mini-batch "
    "minus that of the whole training set, in float32 (rounding says how much of it is that). Of features: the linear "
    "response dz_k = -r J xi_k to one step of plain SGD, J the Jacobian in eval mode at theta - r g and r the "
    "learning rate: to first order z(theta - r g_k) - z(theta - r g), exact as r falls, in float64 but for what "
    "convolutions add to it on a CPU, rounded to float32 (feature_nonlinear says how far the step itself is from it); "
    "where an operation has no forward derivative, by central differences in "
    "float64 along each step (the attribute feature_moves says so). The control: the same with isotropic Gaussian "
    "noise in place of xi_k, of its length; a draw has one random direction for all cuts, of which each takes the part "
    "before it. Permuted: gradients of the same batches with the labels of the training set permuted. What is "
    "sampled is our own choice: that of arXiv 2509.20334 was not found. Parameters of the model given that are frozen "
    "(requires_grad) take no part. Gradients of small batches are computed side by side on a CPU, each by one thread, "
    "with the same bits however many there are. Of large ones it sums those of convolutions in an order that depends "
    "on how many threads a process has: results of as many threads have the same bits, others those of float32 within "
    "rounding.",
    options=NoiseOptions,
    needs=frozenset({"network", "training data"}),
    variables={
        **_inner_products("parameter", "cut t", XI),
        **_inner_products("permuted", "cut t", "gradients with permuted labels"),
        **_inner_products("feature", PER_PROBE, MOVES),
        **_inner_products("control", PER_PROBE, "the moves of a probe's features by isotropic noise"),
        **_inner_products("permuted_feature", PER_PROBE, "the moves of a probe's features by permuted gradients"),
        **_drift("", "cut t", XI),
        **_drift("permuted_", "cut t", "gradients with permuted labels"),
        **_drift("feature_", PER_PROBE, MOVES),
        **_drift("permuted_feature_", PER_PROBE, "the moves by permuted gradients"),
        "gradient_norm": Variable("cut t", "length of the gradient over the whole training set"),
        "rounding": Variable(
            "cut t", "share of rounding in the noise: the first draw beside itself in float64", status="rounding_status"
        ),
        "feature_rounding": Variable(
            PER_PROBE, "share of rounding in the moves of features, likewise", status="feature_rounding_status"
        ),
        "feature_nonlinear": Variable(
            PER_PROBE,
            "length of the first draw's move by a whole step minus its linear response, over the former",
            status="feature_nonlinear_status",
        ),
        "drift_square": Variable(
            "cut t", "squared way of the parameters to the next sampled checkpoint", missing=NO_LATER
        ),
        "feature_drift_square": Variable(
            PER_PROBE, "squared way of features to the next sampled checkpoint", missing=NO_LATER
        ),
        "directions_*": Variable("*", "orthonormal main directions of the noise, largest variance first"),
        "draws_*": Variable("*", "noise of the parameters"),
        "noise_curvature": _curvature("curvature of the loss along the noise, a Rayleigh quotient"),
        "isotropic_curvature": _curvature("curvature of the loss along random directions"),
    },
    compute="featdyn.analysis.gradient_noise.noise.compute:noise",
    version=5,
)
