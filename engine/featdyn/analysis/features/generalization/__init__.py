"""``generalization``: which interactions do other networks use too, and when do phases of generalization begin?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from featdyn.analysis.declaration import SHARE, SIGNED, Analysis, Variable, bounded
from featdyn.analysis.options import Seed, Trained, Unseen

CELLS = "cut set t"
LABELLED = f"{CELLS} reference"
PHASES = "cut set criterion"
SIGNS = ("positive", "negative")
DECAY, ORDER = "decay", "mean_order"
"""Criteria of phases that need no other network."""


class GeneralizationOptions(Trained, Unseen, Seed):
    """Options of labels, losses and phases, all read off stored tables."""

    baselines: tuple[str, ...] = Field(
        (),
        description="other networks, [NAME=]STORE[@CHECKPOINT], of which interactions were analysed with the same "
        "players; those of one NAME label together, as trained on the test images, or of another architecture; by "
        "default their last checkpoint",
    )
    need: Literal["one", "majority", "all"] = Field(
        "one", description="how many baselines of a name have to use an interaction too"
    )
    sign: bool = Field(True, description="whether both must have one sign")
    amount: Literal["whole", "shared"] = Field(
        "whole", description="what is generalizable of an interaction that both use: all, or min(|I|, |I_b|)"
    )
    salient: Literal["span", "common", "largest", "top"] = Field(
        "span",
        description="salient are interactions of at least `share` of the mean |v(all) - v(none)| of the network's own "
        "(span) or of the analysed network's (common), of a sample's largest (largest), or the `top` largest",
    )
    share: float = Field(0.03, ge=0, le=1, description="of span, common and largest; 0.05 is usual for largest")
    top: int = Field(50, ge=1, description="of top: how many of each sample")
    in_a_row: int = Field(3, ge=1, description="how often in a row the loss gap has to rise where phase 3 begins")
    slack: float = Field(0.02, ge=0, le=1, description="tolerance of the sparse model, of |v(all) - v(none)|")


ANALYSIS = Analysis(
    name="generalization",
    version=2,
    question="which interactions do other networks use too, what do the others cost, and when do phases begin?",
    source="After arXiv 2505.06993, which was known by abstract and reviews only: labels, H, what is taken out of the "
    "loss, and the criteria of phases are our own reading. Decay plus spindle, which needs no other network, after "
    "arXiv 2502.10162, whose formulas were not at hand. It speaks of the probes given. Probes whose label or players "
    "differ between stores are left out.",
    options=GeneralizationOptions,
    variables={
        "used": Variable("cut set", "probes of the set that are compared"),
        **{f"strength_{sign}": Variable(f"{CELLS} order", f"mean over probes of the salient {sign} interactions' sum",
                                        status="status") for sign in SIGNS},
        **{f"generalizable_{sign}": Variable(f"{LABELLED} order", f"the same of the {sign} ones that generalize",
                                             status="reference_status") for sign in SIGNS},
        **bounded("power", LABELLED, "H, the share of salient strength that generalizes", valid_range=SHARE,
                  status="reference_status"),
        **bounded("power_by_order", f"{LABELLED} order", "the same of each order", valid_range=SHARE,
                  status="reference_status"),
        **bounded("count_share", LABELLED, "the share of salient interactions that generalize", valid_range=SHARE,
                  status="reference_status"),
        "chance": Variable(LABELLED, "H against the baselines' interactions on other images", valid_range=SHARE,
                           status="chance_status"),
        **bounded("beyond_chance", LABELLED, "H less chance", valid_range=SIGNED, status="chance_status"),
        **bounded("kappa", f"{CELLS} compared", "Cohen's kappa of two kinds of labels of the salient interactions",
                  valid_range=SIGNED, status="pair_status"),
        **bounded("decay_share", CELLS, "share of strength in the decaying part of decay plus spindle",
                  valid_range=SHARE, status="decay_status"),
        "decay_by_order": Variable(f"{CELLS} order", "the same of each order", valid_range=SHARE,
                                   status="decay_status"),
        "decay_r2": Variable(CELLS, "how well decay plus spindle fits strength by order", status="decay_status"),
        "decay_correlation": Variable(LABELLED, "correlation over orders of H and of the decay's share",
                                      valid_range=SIGNED, status="reference_status"),
        "loss": Variable("cut t role", "cross-entropy of train and test probes", "nat", status="gap_status"),
        "loss_without": Variable("cut t reference role", "the same without what does not generalize", "nat",
                                 status="gap_status"),
        **bounded("gap", "cut t", "loss of test probes less that of train probes", units="nat", status="gap_status"),
        **bounded("gap_without", "cut t reference", "the same without what does not generalize", units="nat",
                  status="gap_status"),
        **bounded("explained", "cut t reference", "how far taking it out narrows the gap", units="nat",
                  status="gap_status"),
        **bounded("explained_by_order", "cut t reference order", "the same of one order alone", units="nat",
                  status="gap_status"),
        **bounded("second_phase", PHASES, "step at which phase 2 begins: H, or the decay's share, largest, or the mean "
                  "order smallest", units="step", status="second_phase_status"),
        **bounded("third_phase", PHASES, "step at which phase 3 begins: from there the loss gap rises", units="step",
                  status="third_phase_status"),
        **{f"{phase}_{name}": Variable(PHASES, words, missing="too few checkpoints or probes")
           for phase in ("second_phase", "third_phase")
           for name, words in (("support", "share of draws of the probes in which it exists"),
                               ("verdict", "yes, no, or cannot tell"), ("reason", "why, in words"))},
        **bounded("order_before", PHASES, "change of the mean order from the first checkpoint to phase 2",
                  status="change_status"),
        **bounded("order_after", PHASES, "change of the mean order from phase 2 to the last checkpoint",
                  status="change_status"),
    },
    results=("interactions",),
    compute="featdyn.analysis.features.generalization.compute:generalization",
    section="featdyn.report.sections.generalization:section",
)  # fmt: skip
