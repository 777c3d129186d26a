"""The options of the analyses; each field is also a flag of ``featdyn analyze``."""

from __future__ import annotations

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
