"""Questions about a run: one file each, every one a function from a :class:`featdyn.store.Run` to an ``xr.Dataset``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import xarray as xr
    from pydantic import BaseModel

    from featdyn.compute import Workers
    from featdyn.store import Run


PLACES = {
    n: f"featdyn.analysis.{room}.{n}.compute"
    for room, names in {
        "composites": "consistency controls batchnorm rewind averaging",
        "gradient_noise": "noise isotropy",
        "features": "drift density spectra layer_isotropy",
    }.items()
    for n in names.split()
}


@dataclass(frozen=True)
class Analysis:
    """One analysis: its name, its options and a line about it; its code is imported only when it runs."""

    name: str
    text: str
    options: type[BaseModel]

    def __call__(
        self,
        run: Run,
        progress: Callable[[int, int], None] | None = None,
        workers: Workers | None = None,
        **options: Any,
    ) -> xr.Dataset:
        """Run it; ``options`` are the fields of :attr:`options`."""
        module = importlib.import_module(PLACES[self.name])
        where = {} if workers is None else {"workers": workers}
        return cast("xr.Dataset", getattr(module, self.name)(run, progress=progress, **where, **options))


def analyses() -> dict[str, Analysis]:
    """Return all analyses by name."""
    from featdyn.analysis import options

    found = (
        Analysis(
            "consistency",
            "accuracy and agreement of prefix t1 with suffix t2, for all pairs of checkpoints",
            options.ConsistencyOptions,
        ),
        Analysis("controls", "the drift of features beside perturbations of the same norm", options.ControlOptions),
        Analysis("batchnorm", "composites under three ways to treat BatchNorm", options.BatchNormOptions),
        Analysis("rewind", "one layer at a time put back to an earlier checkpoint", options.RewindOptions),
        Analysis("noise", "samples mini-batch gradients at fixed weights, for isotropy", options.NoiseOptions),
        Analysis("isotropy", "is that noise isotropic, and does drift follow its directions", options.IsotropyOptions),
        Analysis(
            "layer_isotropy",
            "are recorded gradients or features isotropic over the probes, layer by layer",
            options.LayerIsotropyOptions,
        ),
        Analysis("density", "how far distributions of features have moved", options.DensityOptions),
        Analysis("spectra", "how many directions features use: spectra of their covariance", options.SpectraOptions),
        Analysis("drift", "how far features and weights move, and what stays readable in them", options.DriftOptions),
        Analysis(
            "averaging",
            "averaged weights and averaged predictions of the last checkpoints, beside the last one",
            options.AveragingOptions,
        ),
    )
    return {analysis.name: analysis for analysis in found}
