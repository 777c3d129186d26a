"""``layer_isotropy``: are a layer's gradients, or its features, isotropic over the probes?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from featdyn.analysis.declaration import Analysis, Variable
from featdyn.analysis.isotropy_variables import ASSUMED, isotropy_variables
from featdyn.analysis.options import Layers, Seed, Sets, alpha, samples

CELLS = "layer set t"


class LayerIsotropyOptions(Layers, Sets, Seed):
    """Options of the tests of isotropy on recorded layers."""

    of: Literal["gradient", "activation"] = Field("gradient", description="which of a layer's arrays")
    samples: int = samples(128, least=4)
    alpha: float = alpha()


ANALYSIS = Analysis(
    name="layer_isotropy",
    question="are a layer's gradients, or its features, isotropic over the probes, and along how many directions do "
    "they lie?",
    source="On what was recorded, so that neither training data nor the network are needed. That each probe is a "
    "draw, the gradient of its own loss at the layer's output, is our own choice; of several probes made from one "
    "image one is "
    "taken, as copies are not independent. " + ASSUMED,
    options=LayerIsotropyOptions,
    variables={
        **isotropy_variables("gradient", CELLS),
        **isotropy_variables("activation", CELLS),
        **{
            f"{of}_draws": Variable(CELLS, "probes that were draws: those that rounding has left a direction")
            for of in ("gradient", "activation")
        },
    },
    compute="featdyn.analysis.features.layer_isotropy.compute:layer_isotropy",
    section="featdyn.report.sections.layer_isotropy:section",
    version=4,
)
