"""What to record: the ``[capture]`` table of a recipe."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from featdyn.validation import Options


class CaptureOptions(Options):
    """What is recorded of the probe samples at each checkpoint."""

    layers: tuple[str, ...] = Field(
        ("default",),
        description="module names or patterns (s3*); 'default' for the default cuts, 'all' for every cut; where axes "
        "lie elsewhere or are pooled, attn:sample=1:pool=mean",
    )
    record: Literal["features", "moments"] = Field(
        "features",
        description="what is kept of activations: all, or in place of them the moments of each set of probes with "
        "outputs and classes, float64, positions averaged: smaller where probes are more than four for each feature",
    )
    gradients: bool = Field(True, description="also record the gradient of each sample's loss, in eval mode")
    dtype: Literal["float16", "float32"] = Field(
        "float16", description="of stored activations and gradients; float32 keeps every bit of the forward pass"
    )
    codec: Literal["none", "zstd"] = Field(
        "zstd", description="compression of stored arrays; a store that is continued keeps its own"
    )
    sketch: int = Field(
        64, ge=1, le=4096, description="components of the random projection of each layer's activations"
    )
    batch: int = Field(256, ge=1, description="probe samples per forward pass, the same shape every time")
    pool: Literal["none", "mean", "last", "cls"] = Field(
        "none",
        description="of layers with positions (tokens): record all, or the mean, the last or the first of each sample",
    )
    token_loss: Literal["mean", "sum"] = Field(
        "mean", description="a sample's loss where targets are at positions: the mean or the sum over those that count"
    )

    @model_validator(mode="after")
    def _moments(self) -> Self:
        plain = not self.gradients and self.dtype == "float32" and self.pool in ("none", "mean")
        if self.record == "moments" and not plain:
            raise ValueError(
                "record = moments keeps no gradients, rounds nothing to float16 and averages positions: "
                "give gradients = false and dtype = float32, and leave pool out"
            )
        return self
