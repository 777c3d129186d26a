"""The tables ``[network]``, ``[training]``, ``[intervention]`` and ``[checkpoints]`` of a recipe."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from featdyn.validation import Fraction, Options


class NetworkOptions(Options):
    """Which network."""

    name: str = Field(description="resnet20, mlp, cnn, resnet18, vgg16, vgg16_bn, vit, or words of texts")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="options of this network: widths of mlp and cnn, width of resnet20; alpha of mlp and cnn "
        "trains alpha (f - f_0), whose learning rate is divided by alpha^2, for the lazy control",
    )


class TrainingOptions(Options):
    """How it is trained."""

    epochs: int = Field(10, ge=1, le=10**6, description="passes over the training set")
    split: Literal["train", "test"] = Field(
        "train",
        description="the images it is trained on; 'test' makes a baseline network, beside which the interactions of "
        "others are judged: its probes and inputs are those of a network trained on 'train'",
    )
    batch_size: int = Field(128, ge=1, description="samples per step; a last, smaller batch of an epoch is left out")
    optimizer: Literal["sgd", "adam"] = Field("sgd", description="SGD (with momentum) or Adam")
    learning_rate: float = Field(0.1, gt=0, le=1e30, description="at its highest")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(1e-4, ge=0, le=1e30, description="L2 penalty on all parameters")
    until: float | None = Field(
        None,
        gt=0,
        le=1,
        description="end at the first checkpoint with this accuracy on the training batches since the one before",
    )
    suppress: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="weight, against the loss, of interactions between random parts of an image, which generalize "
        "less (arXiv 2505.06993; what exactly is weighed is our own reading); a step costs five passes then",
    )
    schedule: Literal["constant", "steps", "cosine"] = Field(
        "steps", description="learning rate over time: constant, divided by ten at each milestone, or half a cosine"
    )
    milestones: tuple[Fraction, ...] = Field(
        (0.5, 0.75), description="of the 'steps' schedule, as fractions of the whole training"
    )
    warmup: int = Field(0, ge=0, description="first steps over which the learning rate rises linearly")
    augment: bool = Field(False, description="random crop after padding by an eighth of the width, and random mirror")
    mirror: bool = Field(True, description="whether augmentation mirrors images (wrong for digits)")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the training step (autocast)")
    channels_last: bool = Field(False, description="memory format; faster for convolutions")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    seed: int = Field(0, ge=0, description="of initialisation, data order, augmentation and dropout")


class InterventionOptions(Options):
    """Freeze the network up to a cut while it trains; by default nothing is frozen.

    Times are in epochs, rounded to whole steps; one at or beyond the end of training is never. What is frozen keeps
    every bit (no weight decay either); what is frozen or reinitialised loses its momentum, and starts from none.
    """

    cut: str = Field("", description="freeze the part before this cut, such as s2b3; '' freezes nothing")
    freeze_at: float | None = Field(None, ge=0, description="epoch from which it is frozen; fractions will do")
    thaw_at: float | None = Field(None, ge=0, description="epoch from which it trains again; never by default")
    batchnorm: Literal["frozen", "running"] = Field(
        "frozen",
        description="of the frozen part: frozen, it runs as in evaluation and its statistics stay; running, it "
        "normalises by each batch and its statistics go on",
    )
    reinitialise: bool = Field(False, description="give the part behind the cut fresh weights at freeze_at")
    stored: float = Field(
        4.0,
        ge=0,
        description="GiB up to which the features at the cut are computed once, into a temporary file (in TMPDIR), and "
        "read at each step; only without augmentation and with batchnorm frozen; 0 computes them at each step",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.cut) != (self.freeze_at is not None):
            raise ValueError("cut and freeze_at go together: give both, or neither")
        if self.freeze_at is None and (self.thaw_at is not None or self.reinitialise):
            raise ValueError("thaw_at and reinitialise need cut and freeze_at")
        if self.thaw_at is not None and self.freeze_at is not None and self.thaw_at <= self.freeze_at:
            raise ValueError("thaw_at must be later than freeze_at")
        return self


class CheckpointOptions(Options):
    """When a checkpoint is recorded: at initialisation, within the first epoch, then every so many epochs."""

    first_epoch: int = Field(4, ge=0, description="checkpoints at log-spaced steps within the first epoch")
    every: int = Field(1, ge=1, description="epochs between checkpoints after that; the last epoch is always recorded")
