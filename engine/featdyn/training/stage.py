"""The training stage: a recipe in, a recorded run out; the same call again continues it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from featdyn.capture import Probes, Recorder
from featdyn.capture.tap import undisturbed
from featdyn.data import Dataset, Images, load, noisy_labels, normalise, probe_set
from featdyn.errors import RecipeError, TrainingError
from featdyn.networks import build
from featdyn.store import Run
from featdyn.training.batches import Batches, seed_step
from featdyn.training.options import TrainingOptions
from featdyn.training.recipe import Recipe, differences
from featdyn.training.schedule import checkpoint_steps, learning_rate
from featdyn.training.state import optimizer_tensors, restore_optimizer

COORDS = ("epoch", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


@dataclass
class Running:
    """Mean training loss and accuracy since the last checkpoint, over the training batches as they were seen."""

    loss: float = 0.0
    correct: float = 0.0
    samples: int = 0

    def add(self, loss: float, correct: float, samples: int) -> None:
        """Add one batch with its mean loss and number of correct predictions."""
        self.loss, self.correct, self.samples = (
            self.loss + loss * samples,
            self.correct + correct,
            self.samples + samples,
        )

    def means(self) -> tuple[float, float]:
        """Return mean loss and accuracy; NaN before the first step."""
        return (self.loss / self.samples, self.correct / self.samples) if self.samples else (math.nan, math.nan)


@dataclass
class Events:
    """What a caller may follow: the plan before the first step, and each step done."""

    plan: Callable[[str], None] = field(default=lambda text: None)
    step: Callable[[int, int, float], None] = field(default=lambda step, steps, loss: None)


def train(recipe: Recipe, store: str | Path, events: Events | None = None) -> Run:
    """Train as the recipe says and record into ``store``; continue after the last commit when it is there already.

    Exact: data order, augmentation, dropout and learning rate follow from the recipe and the step alone, and
    parameters, buffers and optimizer are restored, so a run that was stopped ends with the bits of one that was not (on
    the same machine, with the same number of threads).

    Raises
    ------
    FeatdynError
        Bad data, network, layers or recipe, a store of another recipe, a full disk, or a loss that is not finite.
    """
    events = events or Events()
    store = Path(store)
    if (store / "zarr.json").exists():
        _same_recipe(Run(store), recipe)
    options = recipe.training
    device = _device(options)
    dataset = load(**dict(recipe.data))
    labels = noisy_labels(dataset.train.labels, recipe.labels.noise, recipe.labels.seed, len(dataset.classes)).labels
    probes = _probes(recipe, dataset, labels)
    torch.manual_seed(options.seed)
    model = build(recipe.network.name, classes=len(dataset.classes), shape=dataset.shape, **recipe.network.options)
    model = model.to(device)
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, options)
    batches = Batches(dataset, labels, options, device)
    total = options.epochs * batches.per_epoch
    due = checkpoint_steps(batches.per_epoch, options.epochs, recipe.checkpoints)
    attributes = {
        "recipe": recipe.identity,
        "dataset": {"name": dataset.name, "classes": list(dataset.classes), "shape": list(dataset.shape)},
        "checkpoint_steps": due,
    }
    with Recorder(
        model, probes, store, coords=COORDS, attributes=attributes, **recipe.capture.model_dump()
    ) as recorder:
        momenta = 1 if options.optimizer == "sgd" else 2
        plan = recorder.plan(len(due), {f"{i}{n}": p for n, p in model.named_parameters() for i in range(momenta)})
        events.plan(str(plan))
        plan.check(store)
        start = 0
        if recorder.checkpoints:
            start = _restore(Run(store), model, optimizer)
        running = Running()

        def record(step: int) -> None:
            loss, accuracy = evaluate(model, dataset.test, dataset, options, device)
            train_loss, train_accuracy = running.means()
            recorder.record(
                step=step,
                state=optimizer_tensors(model, optimizer),
                epoch=step / batches.per_epoch,
                learning_rate=learning_rate(max(0, step - 1), total, options),
                train_loss=train_loss,
                train_accuracy=train_accuracy,
                test_loss=loss,
                test_accuracy=accuracy,
            )

        if not recorder.checkpoints:
            record(0)
        marks = set(due)
        for step in range(start, total):
            loss, correct = _step(model, optimizer, batches, step, total, options)
            if not math.isfinite(loss):
                kept = f"{recorder.checkpoints} checkpoints are kept"
                raise TrainingError(
                    f"the training loss is {loss} at step {step + 1}: try a smaller learning rate; {kept}"
                )
            running.add(loss, correct, options.batch_size)
            events.step(step + 1, total, loss)
            if step + 1 in marks:
                record(step + 1)
                running = Running()
    return Run(store)


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    step: int,
    total: int,
    options: TrainingOptions,
) -> tuple[float, float]:
    inputs, labels = batches[step]
    seed_step(options.seed, step)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, total, options)
    model.train()
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
        logits = model(inputs)
    loss = F.cross_entropy(logits.float(), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach()), float((logits.argmax(1) == labels).sum())


def evaluate(
    model: nn.Module, images: Images, dataset: Dataset, options: TrainingOptions, device: torch.device
) -> tuple[float, float]:
    """Return mean loss and accuracy over all images of a split, in eval mode, leaving the model as it was."""
    loss, correct = 0.0, 0
    with undisturbed(model), torch.inference_mode():
        for start in range(0, len(images), 500):
            pixels = torch.from_numpy(images.pixels[start : start + 500])
            inputs = normalise(pixels, dataset.mean, dataset.std).to(device)
            if options.channels_last:
                inputs = inputs.to(memory_format=torch.channels_last)
            labels = torch.from_numpy(images.labels[start : start + 500]).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
                logits = model(inputs).float()
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            correct += int((logits.argmax(1) == labels).sum())
    return loss / len(images), correct / len(images)


def _optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    if options.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    return torch.optim.SGD(
        model.parameters(), options.learning_rate, momentum=options.momentum, weight_decay=options.weight_decay
    )


def _probes(recipe: Recipe, dataset: Dataset, labels: NDArray[np.int64]) -> Probes:
    found = probe_set(
        dataset,
        **recipe.probes.model_dump(),
        train_labels=labels,
        data_dir=recipe.data.data_dir,
        download=recipe.data.download,
    )
    inputs = normalise(torch.from_numpy(found.pixels), dataset.mean, dataset.std)
    return Probes(inputs, torch.from_numpy(found.coords["label"]), dict(found.coords))


def _device(options: TrainingOptions) -> torch.device:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("training.device: cuda asked for, but no GPU is there; use auto or cpu")
    if options.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(options.device)


def _same_recipe(run: Run, recipe: Recipe) -> None:
    stored = run.attributes.get("recipe")
    if stored is None:
        raise RecipeError(f"{run.path}: was not made by 'featdyn train'; choose another path")
    for difference in differences(stored, recipe.identity):
        raise RecipeError(f"{run.path}: was made by another recipe ({difference}); choose another path")


def _restore(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put model and optimizer back to the last commit; return its step."""
    last = run.checkpoints - 1
    model.load_state_dict(run.state(last))
    restore_optimizer(model, optimizer, run.state(last, "optimizer"))
    return int(run.coords["step"].values[last])
