"""``interactions``: which combinations of players, such as regions of a map, do outputs rest on?"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from featdyn.analysis.declaration import Analysis, Variable, bounded
from featdyn.analysis.options import Cuts, FeatureSource, Seed, Sets, samples

CELLS = "cut t probe"
NONE_SALIENT = "no_interaction_is_salient"
NO_SPREAD = "draws_of_images_tell_no_spread"


class Players(Seed):
    """What is masked, and how."""

    kind: Literal["patches", "superpixels", "words", "channels", "components"] = Field(
        "patches",
        description="what a player is: a patch of a map or image, a superpixel of the input, a word (position), a "
        "channel, or one of the first principal components of the channels at that checkpoint",
    )
    players: int = Field(10, ge=2, le=13, description="how many are masked; an output is computed for each subset")
    masked: Literal["zero", "mean", "channel_mean"] = Field(
        "zero",
        description="what masked entries become: zero, the mean of that entry over the sets' probes, or that of its "
        "channel; components are taken out in either case",
    )
    token: int = Field(0, ge=0, description="what a masked word becomes where inputs are integers, such as [MASK]")


class InteractionsOptions(FeatureSource, Cuts, Sets, Players):
    """Options of the masked outputs and their interactions."""

    at: Literal["cuts", "input"] = Field("cuts", description="what is masked: features at the cuts, or the input")
    checkpoints: Literal["all", "last"] = Field("all", description="last is enough for a baseline network")
    slack: float = Field(0.02, ge=0, le=1, description="tolerance of the sparse model, of |v(all) - v(none)|")
    samples: int = samples(8)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "superpixels" and self.at == "cuts":
            raise ValueError("superpixels are of the input: give at = input")
        return self


ANALYSIS = Analysis(
    name="interactions",
    question="which combinations of regions of a feature map do outputs rest on, and of how many regions?",
    source="AND and OR interactions of arXiv 2407.19198 of the log-odds of the true class. Patches are of a grid of up "
    "to 8 x 8 without its border where that leaves enough, chosen at random for each probe, by its id, and the same at "
    "all checkpoints and in other stores; what is no player stays. Of maps with fewer places, and of plain vectors, "
    "they are equal parts of all entries: our own choice. Salient: at least 0.03 of the mean |v(all) - v(none)| of the "
    "set.",
    options=InteractionsOptions,
    needs=frozenset({"network", "labels"}),
    variables={
        "v": Variable(f"{CELLS} subset", "log-odds of the true class with only these players, bit i being player i",
                      status="status"),
        "region": Variable("cut probe player", "number of the patch (row by row), word, ... that is the player"),
        "l1": Variable(CELLS, "sum of the sizes of all interactions and the constant", status="status"),
        "gap": Variable(CELLS, "how far at most that is above the least that any split reaches", status="status"),
        "strength": Variable("cut set t order", "mean over probes of the salient interactions' sizes",
                             status="set_status"),
        **bounded("mean_order", "cut set t", "mean order of salient interactions, weighted by size",
                  status="order_status"),
    },
    compute="featdyn.analysis.features.interactions.compute:interactions",
    section="featdyn.report.sections.interactions:section",
    incidental=("slack",),
    version=4,
)  # fmt: skip
