"""What to record: the ``[capture]`` table of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from featdyn.validation import Options


class CaptureOptions(Options):
    """What is recorded of the probe samples at each checkpoint."""

    layers: tuple[str, ...] = Field(
        ("default",),
        description="module names or patterns (s3*); 'default' for the default cuts, 'all' for every cut; where axes "
        "lie elsewhere or are pooled, attn:sample=1:pool=mean",
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
