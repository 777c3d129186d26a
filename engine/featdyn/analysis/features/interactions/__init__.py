"""``interactions``: which combinations of regions of a feature map do outputs rest on?"""

from __future__ import annotations

from pydantic import Field

from featdyn.analysis.declaration import Analysis, Variable, bounded
from featdyn.analysis.options import Cuts, FeatureSource, Seed, Sets, samples

CELLS = "cut t probe"


class InteractionsOptions(FeatureSource, Cuts, Sets, Seed):
    """Options of the masked outputs and their interactions."""

    players: int = Field(10, ge=2, le=13, description="regions that are masked; an output is computed for each subset")
    slack: float = Field(0.02, ge=0, le=1, description="tolerance of the sparse model, of |v(all) - v(none)|")
    samples: int = samples(8)


ANALYSIS = Analysis(
    name="interactions",
    question="which combinations of regions of a feature map do outputs rest on, and of how many regions?",
    source="AND and OR interactions of arXiv 2407.19198 of the log-odds of the true class. Regions are patches of the "
    "map at a cut, of a grid of up to 8 x 8 without its border where that leaves enough, chosen at random for each "
    "probe and the same at all checkpoints; masked are zeros, other regions stay. Of maps with fewer places, and of "
    "plain vectors, regions are equal parts of all entries: our own choice. Salient: at least 0.03 of the mean "
    "|v(all) - v(none)| of the set.",
    options=InteractionsOptions,
    needs=frozenset({"network", "labels"}),
    variables={
        "v": Variable(f"{CELLS} subset", "log-odds of the true class with only these regions, bit i being region i",
                      status="status"),
        "region": Variable("cut probe player", "number of the region, row by row, that is the player"),
        "l1": Variable(CELLS, "sum of the sizes of all interactions and the constant", status="status"),
        "gap": Variable(CELLS, "how far at most that is above the least that any split reaches", status="status"),
        "strength": Variable("cut set t order", "mean over probes of the salient interactions' sizes",
                             status="set_status"),
        **bounded("mean_order", "cut set t", "mean order of salient interactions, weighted by size",
                  status="order_status"),
    },
    compute="featdyn.analysis.features.interactions.compute:interactions",
    section="featdyn.report.sections.interactions:section",
)  # fmt: skip
