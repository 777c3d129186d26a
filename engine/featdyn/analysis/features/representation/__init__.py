"""``representation``: how many directions, dimensions and classes does each layer tell apart?"""

from __future__ import annotations

from typing import TypeAlias

from pydantic import Field, field_validator

from featdyn.analysis.declaration import SHARE, Analysis, Variable, bounded
from featdyn.analysis.options import Layers, Seed, Sets, Trained, samples

CELLS = "layer set t"
Measures: TypeAlias = dict[str, tuple[str, tuple[float, float] | None]]  # in words, and the possible range
SPECTRUM: Measures = {
    "effective_rank": ("exponential of the entropy of the singular values, positions averaged", None),
    "effective_rank_variance": ("exponential of the entropy of the variances, positions averaged", None),
    "participation_ratio": ("squared sum of the variances over their sum of squares, positions averaged", None),
    "stable_rank": ("sum of the variances over the largest, positions averaged", None),
    "proportional_effective_rank": ("effective rank of the singular values over min(probes, width)", SHARE),
    "rank": ("singular values above 1e-6 of the largest, and above what rounding to the stored type leaves", None),
    "condition_number": ("largest singular value over the smallest that counts for the rank", None),
}
POWER: Measures = {
    "power_law_exponent": ("by what power of their rank the variances fall, all that count for the rank", None),
    "power_law_fit": ("share of the variance of the log variances that a line explains", (-1e-6, 1.0)),
}
SPARSITY: Measures = {
    "gini": ("Gini index of the magnitudes of a probe's features, mean over probes that have any", SHARE),
    "hoyer": ("Hoyer's sparsity of a probe's features, mean over probes that have any", SHARE),
}
DIMENSION: Measures = {
    "two_nn": ("intrinsic dimension by two nearest neighbours", None),
    "two_nn_half": ("the same of half of the probes", None),
    "two_nn_quarter": ("the same of a quarter of the probes", None),
    "local_dimension": ("median number of components of 95 % of the variance among 30 neighbours", None),
}
MANIFOLDS: Measures = {
    "manifold_radius": ("radius of a class over the distance of its mean from the centre, mean over classes", None),
    "centre_correlation": ("mean |cosine| between centred class means", SHARE),
    "signal_to_noise": ("of telling two classes apart by means of 5 samples, mean over pairs", None),
}
OF_DIMENSION: Measures = {
    "manifold_dimension": ("participation ratio of a class's covariance, mean over classes", None),
    "manifold_capacity": ("capacity estimated from radius and dimension, mean over classes", (0.0, 2.0)),
}
GROUPS: dict[str, Measures] = {
    "spectrum_status": SPECTRUM,
    "power_status": POWER,
    "sparsity_status": SPARSITY,
    "manifold_status": MANIFOLDS,
    "manifold_dimension_status": OF_DIMENSION,
    **{f"{name}_status": {name: held} for name, held in DIMENSION.items()},
}
"""Which variables each status explains."""


MARGIN = "margin of a linear probe on held-out probes"
MEAN_FIELD = "mean field capacity of the classes together: how many for each dimension a plane tells apart"


class RepresentationOptions(Trained, Layers, Sets, Seed):
    """Options of the measures of representations."""

    samples: int = samples(512, least=4)
    power_first: int = Field(1, ge=1, description="the power law is of the variances from this rank on")
    capacity_draws: int = Field(
        0,
        ge=0,
        description="random directions of the mean field capacity, such as 100; about a millisecond for each class of "
        "50 probes and six times that with its interval; 0 leaves it out",
    )

    @field_validator("capacity_draws")
    @classmethod
    def _two(cls, draws: int) -> int:
        if draws == 1:
            raise ValueError("one draw says nothing of its error: give 0 or at least 2")
        return draws


ANALYSIS = Analysis(
    name="representation",
    version=4,
    question="how many directions, dimensions and classes does each layer tell apart, and by what margin?",
    source="Effective rank: Roy and Vetterli 2007, of singular values and, as other papers do, of variances. Gini: "
    "Hurley and Rickard 2009. Hoyer 2004. TwoNN: Facco et al. 2017, by maximum likelihood. Manifolds: Chung et al. "
    "2018, Sorscher et al. 2022; mean field capacity as in the former, with margin 0 and classes taken as "
    "uncorrelated. Margin: a linear probe is fitted to the training probes; f_y less the largest other, over the "
    "length of the difference of the two rows (after arXiv 2606.09658). Our own choice: that length, ridge "
    "regression as the linear probe, the range of the power law, 30 neighbours and 95 %, that positions of maps and "
    "tokens are averaged, means over classes. The dimension of a manifold is from unbiased estimates of the "
    "traces of its covariance and of the square of that, so that it does not grow with the number of probes. The "
    "intrinsic dimension depends on the number of probes, so that it is given for fewer too.",
    options=RepresentationOptions,
    variables={
        **{
            name: Variable(CELLS, words, valid_range=valid, status=status)
            for status, held in GROUPS.items()
            for name, (words, valid) in held.items()
        },
        "duplicates": Variable(CELLS, "copies of other probes, left out of two_nn", status="two_nn_status"),
        **bounded("margin", CELLS, f"{MARGIN}, mean", status="margin_interval_status"),
        "margin": Variable(CELLS, f"{MARGIN}, mean", status="margin_status"),
        **bounded("mean_field_capacity", CELLS, MEAN_FIELD, status="mean_field_interval_status"),
        "mean_field_capacity": Variable(CELLS, MEAN_FIELD, status="mean_field_status"),
        "mean_field_error": Variable(
            CELLS, "standard error of mean_field_capacity over the random directions", status="mean_field_status"
        ),
        "margin_positive": Variable(
            CELLS, "share of held-out probes with a positive margin", valid_range=SHARE, status="margin_status"
        ),
    },
    needs=frozenset({"activations"}),
    compute="featdyn.analysis.features.representation.compute:representation",
    section="featdyn.report.sections.representation:section",
)
