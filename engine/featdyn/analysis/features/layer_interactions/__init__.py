"""``layer_interactions``: how much of what the output rests on does each layer already hold?"""

from __future__ import annotations

from pydantic import Field

from featdyn.analysis.declaration import SHARE, Analysis, Variable, bounded
from featdyn.analysis.features.interactions import Players
from featdyn.analysis.options import Cuts, Sets, Trained, samples

CELLS, OF_SETS = "cut t probe", "cut set t"


class LayerInteractionsOptions(Cuts, Sets, Trained, Players):
    """Options of the interactions of layers."""

    fitted: int = Field(1000, ge=2, description="at most this many training probes, to fit linear probes on")
    slack: float = Field(0.04, ge=0, le=1, description="tolerance of the sparse model, of |v(all) - v(none)|")
    samples: int = samples(8)


ANALYSIS = Analysis(
    name="layer_interactions",
    question="how much of the interactions that the output rests on does each layer hold, and how much besides?",
    source="interactions of arXiv 2409.08712: a linear probe on a layer's features gives its log-odds of the true "
    "class, whose AND and OR interactions are set beside the output's; where signs agree the smaller is shared. "
    "Salient: at least 0.05 of a probe's largest. Strengths are in units of the mean |v(all) - v(none)| of "
    "layer and output each. The input is masked; its entries become 0 by default, where the source takes their mean "
    "(masked = mean). Linear probes with a penalty are our own choice.",
    options=LayerInteractionsOptions,
    needs=frozenset({"network", "labels", "training probes"}),
    variables={
        "v": Variable(f"{CELLS} subset", "log-odds of the true class by the layer's linear probe with only these "
                      "players, bit i being player i", status="status"),
        "v_output": Variable("t probe subset", "log-odds of the true class by the network", status="output_status"),
        "region": Variable("probe player", "number of the patch (row by row), word, ... that is the player"),
        "loss": Variable(OF_SETS, "mean cross-entropy of the linear probe, of probes that are not masked (images that "
                         "it is fitted to, and copies of them in any set, are not held out)",
                         status="set_status"),
        "overlap": Variable(f"{OF_SETS} order", "strength that layer and output share", status="set_status"),
        "forget": Variable(f"{OF_SETS} order", "strength that only the layer has", status="set_status"),
        "new": Variable(f"{OF_SETS} order", "strength that only the output has", status="set_status"),
        **bounded("completeness", OF_SETS, "share of the output's strength that the layer shares",
                  status="share_status", valid_range=SHARE),
        **bounded("redundancy", OF_SETS, "share of the layer's strength that the output has not",
                  status="share_status"),
    },
    compute="featdyn.analysis.features.layer_interactions.compute:layer_interactions",
    section="featdyn.report.sections.layer_interactions:section",
    incidental=("slack",),
    version=4,
)  # fmt: skip
