"""``collapse``: do the features of a class meet in one point, and these points form a simplex?"""

from __future__ import annotations

from pydantic import Field

from featdyn.analysis.declaration import SHARE, Analysis, Variable
from featdyn.analysis.options import Layers, Seed, Sets

CELLS = "layer set t"
POSITIVE, APART = None, (0.0, 2.0)
MEASURES = {
    "nc1": ("NC1, variability within classes beside that between: tr(S_W S_B^+) / C", POSITIVE),
    "nc2_norms": ("NC2, standard deviation over mean of the lengths of the class means", POSITIVE),
    "nc2_angles": ("NC2, mean of |cosine + 1 / (C - 1)| between class means", APART),
    "nc2": ("NC2, distance of the class means' normalised Gram matrix from a simplex's", APART),
    "nc3": ("NC3, distance of the normalised outputs at the class means from a simplex's", APART),
    "nc4": ("NC4, share of probes whose predicted class is not that of the nearest class mean", SHARE),
}
"""What is measured, each 0 at collapse: in words, and its possible range."""


class CollapseOptions(Layers, Sets, Seed):
    """Options of neural collapse."""

    folds: int = Field(8, ge=2, le=64, description="parts of the probes that intervals leave out in turn; each is held")


def _variables() -> dict[str, Variable]:
    found = {}
    for name, (words, valid) in MEASURES.items():
        found[name] = Variable(CELLS, words, valid_range=valid, status=f"{name}_status")
        for end, which in (("low", "lower"), ("high", "upper")):
            found[f"{name}_{end}"] = Variable(
                CELLS, f"{words}, {which} 95 % limit", valid_range=valid, status=f"{name}_interval_status"
            )
        found[f"{name}_shuffled"] = Variable(
            CELLS,
            f"{words}, of labels dealt to the probes at random",
            valid_range=valid,
            status=f"{name}_shuffled_status",
        )
    return found


ANALYSIS = Analysis(
    name="collapse",
    version=4,
    question="do the features of a class meet in one point, and do these points form a simplex that decides?",
    source="Neural collapse: Papyan, Han and Donoho 2020; NC3 in the form of public code, from the outputs at the "
    "class means, so that no weights are needed. Our own choice: with classes of unequal size the centre is the mean "
    "of the class means and each probe counts once within classes; classes that a set lacks can be chosen by neither "
    "side of NC4; NC1 is missing where a class has one probe, which has no scatter within; the same measures "
    "for shuffled labels stand beside each value; positions of maps and tokens are averaged; intervals leave out whole "
    "images in a few folds, on a log scale where there is no upper end; of NC4 "
    "they are Wilson's.",
    options=CollapseOptions,
    variables=_variables(),
    needs=frozenset({"moments", "labels"}),
    compute="featdyn.analysis.features.collapse.compute:collapse",
    section="featdyn.report.sections.collapse:section",
)
