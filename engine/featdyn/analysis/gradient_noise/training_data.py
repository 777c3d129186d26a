"""What a network was trained on, with its loss: of the run's recipe, or of the user."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featdyn.analysis.inputs.weights import network_of
from featdyn.capture.call import Call, Loss
from featdyn.capture.nest import Nest, leaves, mapped, nest, restored, structure
from featdyn.capture.tap import device_of
from featdyn.errors import FeatdynError
from featdyn.networks.packed import with_forward
from featdyn.store import Run
from featdyn.training.loop import Loop
from featdyn.training.recipe import Recipe
from featdyn.validation import validate

_PLAIN = Call()


@dataclass(frozen=True)
class TrainingData:
    """Training samples, and the network and the loss that they are for; the network may be changed."""

    model: nn.Module  # takes all inputs of some samples as one argument
    labels: Nest  # (sample, ...)
    samples: int
    batch_size: int
    of: Callable[[Tensor, int], tuple[Nest, Nest]]
    """Inputs and labels of some samples, augmented by a seed where training did so."""
    loss: Callable[[Any, Any], Tensor]  # the mean over a batch, float64, of what the network returns
    rate: Callable[[int], float]  # learning rate at a checkpoint
    augmented: bool
    nbytes: int
    origin: str  # in words


@dataclass(frozen=True)
class Given:
    """What a user gives: the network, all samples in memory, and the loss of each sample."""

    model: nn.Module
    inputs: Nest
    labels: Nest
    samples: int
    batch_size: int
    loss: Loss

    @classmethod
    def of(cls, model: nn.Module, batches: Iterable[Any], loss: Any) -> Given:
        """Read a loader of (inputs, labels) once, each a tensor or several of them: all of it is then in memory.

        Raises :class:`FeatdynError` where it gives something else, or nothing.
        """
        read = list[dict[str, Tensor]]()
        whole: Nest = None
        for batch in batches:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise FeatdynError(f"batches must give pairs (inputs, labels), got {type(batch).__name__}")
            try:
                whole = (nest("inputs", batch[0]), nest("labels", batch[1]))
            except TypeError as error:
                raise FeatdynError(f"batches: {error}") from error
            read.append(dict(leaves(whole, "batch")))
            shapes = {path: tuple(tensor.shape[1:]) for path, tensor in read[0].items()}
            for path, tensor in read[-1].items():
                name = path.replace("batch.0", "inputs").replace("batch.1", "labels")
                if not tensor.ndim or len(tensor) != len(next(iter(read[-1].values()))):
                    first = tuple(next(iter(read[-1].values())).shape)
                    raise FeatdynError(f"a batch has inputs {first} and {name} {tuple(tensor.shape)}")
                if shapes.get(path) != tensor.shape[1:]:
                    raise FeatdynError(
                        f"batches hold {name} of shapes {shapes.get(path)} and {tuple(tensor.shape[1:])} for a sample: "
                        "give all of one shape, padded where they differ"
                    )
            if read[-1].keys() != shapes.keys():
                raise FeatdynError("each batch must hold the same inputs and labels as the first")
            if len({path[:7] for path in shapes}) < 2:
                raise FeatdynError("batches must give inputs and labels: for a loss of neither, give the inputs twice")
        if not read:
            raise FeatdynError("batches gives no batch")
        together = {path: torch.cat([one[path] for one in read]) for path in read[0]}
        inputs, labels = restored(structure(whole, "batch"), together.__getitem__)
        sizes = [len(next(iter(one.values()))) for one in read]
        return cls(model, inputs, labels, sum(sizes), max(sizes), loss)


def training_data(
    run: Run, given: Given | None, data_dir: Path | None, rate: float | None, call: Call = _PLAIN
) -> TrainingData:
    """Return what the user gives, else what the run's recipe says, whose data are in ``data_dir``.

    ``rate`` is the learning rate, where it is neither the recipe's nor the coordinate ``learning_rate``; ``call`` says
    how the user's network is asked. Raises :class:`FeatdynError` where something is missing.
    """
    return _of_recipe(run, data_dir, rate) if given is None else _of_user(run, given, rate, call)


def _of_user(run: Run, given: Given, rate: float | None, call: Call) -> TrainingData:
    if rate is None and "learning_rate" not in run.coords:
        raise FeatdynError(
            f"{run.path}: the learning rate is not known: record the coordinate learning_rate, or give rate="
        )
    rates = None if rate is not None else run.values("learning_rate")
    model = with_forward(copy.deepcopy(network_of(run, given.model)), call)
    device, asked = device_of(model), replace(call, loss=given.loss)

    def of(index: Tensor, seed: int) -> tuple[Nest, Nest]:
        return tuple(mapped(lambda t: t[index].to(device), values) for values in (given.inputs, given.labels))

    def loss(outputs: Any, labels: Any) -> Tensor:
        if isinstance(outputs, Tensor):  # what is left of the loss of a learnt sample is rounding in float32
            outputs = outputs.double()
        count = len(next(tensor for _, tensor in leaves(labels, "")))
        try:
            logits = torch.empty(0) if asked.loss is not None else asked.logits(outputs).double()
            return asked.losses(outputs, logits, labels, count).double().mean()
        except ValueError as error:
            raise FeatdynError(str(error)) from error

    held = sum(tensor.nbytes for _, tensor in leaves((given.inputs, given.labels), ""))
    return TrainingData(
        model, given.labels, given.samples, given.batch_size, of, loss,
        lambda t: float(rate if rates is None else rates[t]),  # type: ignore[arg-type]
        False, held, "batches that were given",
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
    labels = torch.from_numpy(loop.labels).long()
    return TrainingData(
        loop.model, labels, len(labels), loop.options.batch_size, loop.batches.of,
        lambda outputs, labels: loop.loss(outputs.double(), labels).mean(),
        lambda t: loop.rate(min(int(steps[t]), loop.steps - 1)) if rate is None else rate,
        loop.options.augment, int(data.train.pixels.nbytes + data.test.pixels.nbytes), "the run's recipe",
    )  # fmt: skip
