"""The tables ``[network]``, ``[training]`` and ``[checkpoints]`` of a recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class NetworkOptions(BaseModel):
    """Which network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="resnet20, mlp, cnn, resnet18, vgg16, vgg16_bn or vit")
    options: dict[str, Any] = Field(
        default_factory=dict, description="options of this network, such as widths of an mlp"
    )


class TrainingOptions(BaseModel):
    """How it is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(10, ge=1, description="passes over the training set")
    batch_size: int = Field(128, ge=1, description="samples per step; a last, smaller batch of an epoch is left out")
    optimizer: Literal["sgd", "adam"] = Field("sgd", description="SGD (with momentum) or Adam")
    learning_rate: float = Field(0.1, gt=0, description="at its highest")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(1e-4, ge=0, description="L2 penalty on all parameters")
    schedule: Literal["constant", "steps", "cosine"] = Field(
        "steps", description="learning rate over time: constant, divided by ten at each milestone, or half a cosine"
    )
    milestones: tuple[float, ...] = Field(
        (0.5, 0.75), description="of the 'steps' schedule, as fractions of the whole training"
    )
    warmup: int = Field(0, ge=0, description="first steps over which the learning rate rises linearly")
    augment: bool = Field(False, description="random crop after padding by an eighth of the width, and random mirror")
    mirror: bool = Field(True, description="whether augmentation mirrors images (wrong for digits)")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the training step (autocast)")
    channels_last: bool = Field(False, description="memory format; faster for convolutions")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    seed: int = Field(0, ge=0, description="of initialisation, data order, augmentation and dropout")


class CheckpointOptions(BaseModel):
    """When a checkpoint is recorded: at initialisation, within the first epoch, then every so many epochs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_epoch: int = Field(4, ge=0, description="checkpoints at log-spaced steps within the first epoch")
    every: int = Field(1, ge=1, description="epochs between checkpoints after that; the last epoch is always recorded")
