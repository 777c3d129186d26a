"""``similarity``: how alike are any two layers at any two checkpoints?"""

from __future__ import annotations

from pydantic import Field

from featdyn.analysis.declaration import SHARE, SIGNED, Analysis, Variable
from featdyn.analysis.options import Layers, Seed, Unseen, samples

ACROSS = "layer layer2 t1 t2"
CCA = {
    "cca": "mean canonical correlation",
    "svcca": "SVCCA, mean canonical correlation of the directions with 99 % of the variance",
    "pwcca": "PWCCA, canonical correlations weighted by what they say of the first",
}
MEASURES = {
    **{name: (words, SHARE) for name, words in CCA.items()},
    "procrustes": ("squared orthogonal Procrustes distance of features scaled to length 1", (0.0, 2.0)),
    "angular": ("angular shape metric, in radians", (0.0, 1.5707964)),
    "rsa": ("Spearman's correlation of the dissimilarities (1 - Pearson) of all pairs of probes", SIGNED),
    "jaccard": ("common over united 10 nearest neighbours by cosine, mean over probes", SHARE),
    "imbalance": ("information imbalance: how little the first tells of who is near in the second", None),
}


class SimilarityOptions(Unseen, Layers, Seed):
    """Options of the similarity of representations."""

    samples: int = samples(256, least=4)
    block: int = Field(8, ge=1, description="pairs are computed in blocks of so many by so many representations")


def _variables() -> dict[str, Variable]:
    found = {
        name: Variable(
            ACROSS, words, units="rad" if name == "angular" else "1", valid_range=valid, status=f"{name}_status"
        )
        for name, (words, valid) in MEASURES.items()
    }
    for name, words in CCA.items():
        found[f"{name}_shuffled"] = Variable(
            ACROSS, f"{words}, of probes in another order", valid_range=SHARE, status=f"{name}_status"
        )
    return found


ANALYSIS = Analysis(
    name="similarity",
    version=3,
    question="how alike are any two layers at any two checkpoints, by measures other than CKA?",
    source="SVCCA: Raghu et al. 2017. PWCCA: Morcos et al. 2018. Shapes: Williams et al. 2021. RSA: Kriegeskorte et "
    "al. 2008. Neighbours: as in ReSi. Information imbalance: Glielmo et al. 2022. Of the set of unseen probes, or "
    "the first (attribute similarity_set). Our own choice: positions of maps and tokens are averaged, directions "
    "below 1e-6 of the largest, or that rounding to the stored type may leave, do not count, distances that are equal "
    "but for rounding are ties, and canonical correlations stand beside those of probes in another order, as they rise "
    "with the number of variables. CKA is in drift.",
    options=SimilarityOptions,
    variables=_variables(),
    needs=frozenset({"activations"}),
    compute="featdyn.analysis.features.similarity.compute:similarity",
    section="featdyn.report.sections.similarity:section",
)
