"""What a network was trained on, with its loss: of the run's recipe, or of the user."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featdyn.analysis.inputs.weights import network_of
from featdyn.capture.tap import device_of
from featdyn.errors import FeatdynError
from featdyn.networks import class_loss
from featdyn.store import Run
from featdyn.training.loop import Loop
from featdyn.training.recipe import Recipe
from featdyn.validation import validate


@dataclass(frozen=True)
class TrainingData:
    """Training samples, and the network and the loss that they are for; the network may be changed."""

    model: nn.Module
    labels: Tensor  # (sample, ...)
    batch_size: int
    of: Callable[[Tensor, int], tuple[Tensor, Tensor]]
    """Inputs and labels of some samples, augmented by a seed where training did so."""
    loss: Callable[[Tensor, Tensor], Tensor]  # the mean over a batch
    rate: Callable[[int], float]  # learning rate at a checkpoint
    augmented: bool
    nbytes: int
    origin: str  # in words


@dataclass(frozen=True)
class Given:
    """What a user gives: the network, all samples in memory, and the loss of each sample."""

    model: nn.Module
    inputs: Tensor
    labels: Tensor
    batch_size: int
    loss: Callable[[Tensor, Tensor], Tensor] | None

    @classmethod
    def of(cls, model: nn.Module, batches: Iterable[Any], loss: Any) -> Given:
        """Read a loader of (inputs, labels) once: all of it is then in memory.

        Raises :class:`FeatdynError` where it gives something else, or nothing.
        """
        read = list[tuple[Tensor, Tensor]]()
        for batch in batches:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise FeatdynError(f"batches must give pairs (inputs, labels), got {type(batch).__name__}")
            try:
                inputs, labels = (torch.as_tensor(part).detach().cpu() for part in batch)
            except (TypeError, ValueError, RuntimeError) as error:
                kinds = " and ".join(type(part).__name__ for part in batch)
                raise FeatdynError(
                    f"batches must give one tensor of inputs and one of labels, got {kinds}: the noise of networks of "
                    "several inputs is not sampled yet"
                ) from error
            if not inputs.ndim or len(inputs) != len(labels):
                raise FeatdynError(f"a batch has inputs {tuple(inputs.shape)} and labels {tuple(labels.shape)}")
            read.append((inputs, labels))
        if not read:
            raise FeatdynError("batches gives no batch")
        inputs, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
        return cls(model, inputs, labels, max(len(of_batch) for of_batch, _ in read), loss)


def training_data(run: Run, given: Given | None, data_dir: Path | None, rate: float | None) -> TrainingData:
    """Return what the user gives, else what the run's recipe says, whose data are in ``data_dir``.

    ``rate`` is the learning rate, where it is neither the recipe's nor the coordinate ``learning_rate``. Raises
    :class:`FeatdynError` where something is missing.
    """
    return _of_recipe(run, data_dir, rate) if given is None else _of_user(run, given, rate)


def _of_user(run: Run, given: Given, rate: float | None) -> TrainingData:
    if rate is None and "learning_rate" not in run.coords:
        raise FeatdynError(
            f"{run.path}: the learning rate is not known: record the coordinate learning_rate, or give rate="
        )
    rates = None if rate is not None else run.values("learning_rate")
    model = copy.deepcopy(network_of(run, given.model))
    device, each = device_of(model), given.loss or class_loss

    def of(index: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        return given.inputs[index].to(device), given.labels[index].to(device)

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        found = each(outputs, labels)
        if not isinstance(found, Tensor) or found.shape != (len(outputs),):
            raise FeatdynError("loss must return one number for each sample: leave its mean out (reduction='none')")
        return found.mean()

    return TrainingData(
        model, given.labels, given.batch_size, of, loss,
        lambda t: float(rate if rates is None else rates[t]),  # type: ignore[arg-type]
        False, given.inputs.nbytes + given.labels.nbytes, "batches that were given",
    )  # fmt: skip


def _of_recipe(run: Run, data_dir: Path | None, rate: float | None) -> TrainingData:
    stored = run.recipe
    if stored is None:
        raise FeatdynError(f"{run.path}: was not made by 'featdyn train', so its training data are not known")
    values = {**stored, "data": {**stored["data"], "data_dir": data_dir}}
    values["training"] = {**stored["training"], "precision": "float32"}
    with torch.random.fork_rng():  # initial weights, which are not used
        loop = Loop(validate(Recipe, values, f"{run.path}: recipe"))
    steps, data = run.values("step"), loop.dataset
    return TrainingData(
        loop.model, torch.from_numpy(loop.labels), loop.options.batch_size, loop.batches.of,
        lambda outputs, labels: loop.loss(outputs, labels).mean(),
        lambda t: loop.rate(min(int(steps[t]), loop.steps - 1)) if rate is None else rate,
        loop.options.augment, int(data.train.pixels.nbytes + data.test.pixels.nbytes), "the run's recipe",
    )  # fmt: skip
