"""The options of the analyses; each field is also a flag of ``featdyn analyze``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ConsistencyOptions(BaseModel):
    """Options of the temporal-consistency analysis."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cuts: tuple[str, ...] = Field(("default",), description="cut names or patterns (s3*), 'default' or 'all'")
    features: Literal["auto", "stored", "recomputed"] = Field(
        "auto",
        description="where features come from: auto takes the cheaper of reading and computing, and reads only where "
        "every bit was kept (float32); stored reads float16 too",
    )
    window: float = Field(
        0.5, gt=0, le=1, description="gap curves average over this last part of the checkpoints as t2 (our own choice)"
    )
    draws: int = Field(400, ge=2, description="bootstrap draws over probes, for the intervals")
    seed: int = Field(0, ge=0, description="of these draws")
