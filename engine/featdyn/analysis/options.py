"""The options of the analyses; each field is also a flag of ``featdyn analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from featdyn.store import Run


class _CutOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    cuts: tuple[str, ...] = Field(("default",), description="cut names or patterns (s3*), 'default' or 'all'")


class _SourceOptions(_CutOptions):
    features: Literal["auto", "stored", "recomputed"] = Field(
        "auto",
        description="where features come from: auto takes the cheaper of reading and computing, and reads only where "
        "every bit was kept (float32); stored reads float16 too",
    )


class _Options(_CutOptions):
    draws: int = Field(400, ge=2, description="bootstrap draws over probes, for the intervals")
    seed: int = Field(0, ge=0, description="of these draws, and of everything else that is random")


class ConsistencyOptions(_Options, _SourceOptions):
    """Options of the temporal-consistency analysis."""

    window: float = Field(
        0.5, gt=0, le=1, description="gap curves average over this last part of the checkpoints as t2 (our own choice)"
    )
    phase: Literal["all", "constant"] = Field(
        "all", description="gap curves over all checkpoints, or those before the learning rate first falls"
    )


Suffixes = Literal["last", "all"]


def suffixes(run: Run, t2: Suffixes) -> list[int]:
    """Return the checkpoints whose suffixes are asked for."""
    return [run.checkpoints - 1] if t2 == "last" else list(range(run.checkpoints))


class ControlOptions(_Options):
    """Options of the norm-matched controls."""

    t2: Suffixes = Field("last", description="the suffixes: of the last checkpoint or of all")
    samples: int = Field(1000, ge=2, description="at most this many probes of each set; their features are in memory")


class BatchNormOptions(_Options):
    """Options of the comparison of BatchNorm policies."""

    t2: Suffixes = Field("last", description="the suffixes: of the last checkpoint or of all")
    samples: int = Field(1000, ge=2, description="at most this many probes of each set; their features are in memory")


class RewindOptions(_Options):
    """Options of the composites of three segments."""

    cuts: tuple[str, ...] = Field(("all",), description="where layers end: cut names or patterns, 'default' or 'all'")
    t2: Suffixes = Field("last", description="the networks around the rewound layer: of the last checkpoint or of all")


class DriftOptions(_SourceOptions):
    """Options of the drift of features and weights."""

    samples: int = Field(
        1024,
        ge=2,
        description="at most this many probes of each set for CKA and linear probes; all take part in motion",
    )


class ClaimOptions(BaseModel):
    """Options of the table of claims; all of them are our own choice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fit: float = Field(
        0.99, gt=0, le=1, description="t2 is the first checkpoint that has this share of its training probes right"
    )
    age: float = Field(0.5, ge=0, lt=1, description="t1 is the last checkpoint before this fraction of t2's steps")
    stable: float = Field(0.9, gt=0, le=1, description="predictions are stable where the agreement is at least this")


class AveragingOptions(BaseModel):
    """Options of averaging over checkpoints."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: int = Field(10, ge=1, description="average the last checkpoints, up to so many; every number is shown")
    draws: int = Field(400, ge=2, description="bootstrap draws over probes, for the intervals of changes")
    seed: int = Field(0, ge=0, description="of these draws")


class NoiseOptions(BaseModel):
    """Options of the noise sampler."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cuts: tuple[str, ...] = Field(("default",), description="cut names or patterns (s3*), 'default' or 'all'")
    draws: int = Field(64, ge=4, description="mini-batch gradients at each checkpoint")
    batch_size: int | None = Field(None, ge=1, description="samples of a mini-batch; the recipe's by default")
    replacement: bool = Field(
        True, description="draw the samples of a batch independently, or as parts of a random order as training does"
    )
    every: int = Field(1, ge=1, description="sample at every so many checkpoints, counted back from the last")
    probes: int = Field(16, ge=0, description="probes whose features are moved by one step, test probes first")
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
    data_dir: Path | None = Field(None, description="folder of downloaded data sets, as in training")
    seed: int = Field(0, ge=0, description="of all draws")


class IsotropyOptions(BaseModel):
    """Options of the tests of isotropy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(0.05, gt=0, lt=1, description="level of the verdict")
    seed: int = Field(0, ge=0, description="of exact tests, baselines and the split into halves")


class DensityOptions(_SourceOptions):
    """Options of the distances between feature distributions."""

    components: Literal[1, 2, 3] = Field(2, description="dimensions of the common principal basis (our own choice)")
    pairs: Literal["last", "consecutive", "all"] = Field(
        "last", description="each checkpoint against the last one, against the one before, or all pairs"
    )
    permutations: int = Field(200, ge=19, description="labellings of the null, paired by probe")
    samples: int = Field(2000, ge=12, description="at most this many probes of each set")
    seed: int = Field(0, ge=0, description="of the null, the halves and random directions")


class _LayerOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: tuple[str, ...] = Field(("*",), description="names or patterns (s3*) of recorded layers")


class SpectraOptions(_LayerOptions):
    """Options of the spectra of features."""

    of: Literal["activation", "gradient"] = Field("activation", description="which of a layer's arrays")


class LayerIsotropyOptions(_LayerOptions):
    """Options of the tests of isotropy on recorded layers."""

    of: Literal["gradient", "activation"] = Field("gradient", description="which of a layer's arrays")
    samples: int = Field(128, ge=4, description="at most this many probes of each set are draws")
    alpha: float = Field(0.05, gt=0, lt=1, description="level of the verdict")
    seed: int = Field(0, ge=0, description="of exact tests and baselines")
