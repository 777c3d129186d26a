"""The training stage: a recipe in, a recorded run out; the same call again continues it."""

from __future__ import annotations

import contextlib
import math
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from featdyn.capture import Probes, Recorder, layers
from featdyn.data import Dataset, probe_set
from featdyn.errors import DataError, RecipeError, TrainingError
from featdyn.sizes import counted
from featdyn.store import Run, exists
from featdyn.training import precision
from featdyn.training.loop import Loop, device_of
from featdyn.training.recipe import Recipe, differences
from featdyn.training.schedule import checkpoint_steps
from featdyn.training.state import optimizer_tensors, restore_optimizer
from featdyn.validation import validate

_OTHER = {"train": "test", "test": "train"}
COORDS = ("epoch", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


@dataclass
class Events:
    """What a caller may follow: the plan before the first step, and each step done."""

    plan: Callable[[str], None] = field(default=lambda text: None)
    step: Callable[[int, int, float], None] = field(default=lambda step, steps, loss: None)


def train(
    recipe: Recipe,
    store: str | Path,
    events: Events | None = None,
    *,
    dataset: Dataset | None = None,
    accept_changes: bool = False,
) -> Run:
    """Train as the recipe says and record into ``store``; continue after the last commit when it is there already.

    Exact: data order, augmentation, dropout and learning rate follow from the recipe and the step alone, and
    parameters, buffers and optimizer are restored, so a run that was stopped ends with the bits of one that was not (on
    the same machine, with the same number of threads). ``dataset`` is the recipe's, where it is in memory already;
    ``accept_changes`` is as for :class:`featdyn.capture.Recorder`.

    Raises
    ------
    FeatdynError
        Bad data, network, layers or recipe, a store of another recipe, a full disk, or a loss that is not finite.
    """
    _one_process()
    events = events or Events()
    same_recipe(store, recipe)
    recipe = _as_begun(recipe, store)
    loop = Loop(recipe, dataset)
    due = checkpoint_steps(loop.batches.per_epoch, recipe.training.epochs, recipe.checkpoints)
    data = loop.dataset
    attributes: dict[str, Any] = {
        "recipe": recipe.identity,
        "dataset": {
            "name": data.name,
            "classes": list(data.classes),
            "shape": list(data.shape),
            "crc32": _crc32(data.train.pixels),
            "test_crc32": _crc32(data.test.pixels),
            "labels_crc32": _crc32(np.concatenate([data.train.labels, data.test.labels])),
        },
        "checkpoint_steps": due,
    }
    _same_data(store, attributes["dataset"])
    with Recorder(
        loop.model, _probes(recipe, loop), store, resume=True, accept_changes=accept_changes, coords=COORDS,
        attributes=attributes, loss=loop.loss if recipe.training.loss != "cross_entropy" else None,
        **recipe.capture.model_dump(),
    ) as recorder:  # fmt: skip
        moments = 1 if recipe.training.optimizer == "sgd" else 2
        plan = recorder.plan(len(due), moments * sum(p.nbytes for p in loop.model.parameters()))
        said = (plan, loop.intervention, precision.slow(loop.precision, loop.device))
        events.plan("\n".join(str(line) for line in said if line))
        plan.check(store)
        run = Run(store) if recorder.checkpoints else None
        if run is None or not finished(run):
            _go(loop, recorder, set(due), 0 if run is None else _restore(run, loop), events)
    return Run(store)


def _crc32(values: np.ndarray[Any, Any]) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(values).data):08x}"


def same_recipe(store: str | Path, recipe: Recipe) -> None:
    """Raise :class:`RecipeError` if there is a store of another recipe, or of none.

    Fields that came after the store was made count with their defaults.
    """
    if not exists(store):
        return
    stored = Run(store).recipe
    if stored is None:
        raise RecipeError(f"{store}: was not made by 'featdyn train'; choose another path")
    with contextlib.suppress(RecipeError):
        stored = validate(Recipe, stored, "recipe").identity
    asked = {**recipe.identity, "description": stored.get("description")}  # which decides nothing
    if recipe.training.precision == "auto":  # what it was when the run began
        asked["training"]["precision"] = stored["training"]["precision"]
    first, *others = [*differences(stored, asked)] or [""]
    if first:
        also = f", and {counted(len(others), 'more field')}" if others else ""
        raise RecipeError(f"{store}: was made by another recipe ({first}{also}); choose another path")


def _as_begun(recipe: Recipe, store: str | Path) -> Recipe:
    """Return a recipe with what is settled when a run begins: ``auto``, and how it is tested in an older store."""
    stored = Run(store).recipe if exists(store) else None
    training, checkpoints = recipe.training, recipe.checkpoints
    if stored is None:
        found = precision.settled(training.precision, device_of(training))
    else:
        found = stored["training"]["precision"]
        if "test_samples" not in stored["checkpoints"]:
            checkpoints = checkpoints.model_copy(update={"test_samples": 0})
    training = training.model_copy(update={"precision": found})
    return recipe.model_copy(update={"training": training, "checkpoints": checkpoints})


def _same_data(store: str | Path, dataset: Mapping[str, Any]) -> None:
    """Raise :class:`DataError` if there is a store of other training data; what an older one leaves out counts not."""
    stored = Run(store).described("dataset") if exists(store) else {}
    for key, value in dataset.items():
        if stored.get(key, value) != value:
            raise DataError(
                f"{store}: was trained on other data ({key} {stored[key]}, now {value}): choose another path"
            )


def check(recipe: Recipe, dataset: Dataset | None = None) -> None:
    """Raise what :func:`train` would of data, network, intervention, probes or layers, without training."""
    _one_process()
    loop = Loop(recipe, dataset)
    layers.select(loop.model, *_probes(recipe, loop).few(loop.device), recipe.capture.layers)


def finished(run: Run) -> bool:
    """Return whether a run has all the checkpoints that its recipe asks for."""
    until = run.attributes["recipe"]["training"].get("until")
    fits = until is not None and bool(run.values("train_accuracy")[-1] >= until)
    return fits or run.checkpoints == len(run.attributes["checkpoint_steps"])


def _go(loop: Loop, recorder: Recorder, due: set[int], start: int, events: Events) -> None:
    """Train from a step to the end, recording each checkpoint that is due."""
    losses: list[float] = []  # since the last checkpoint, over the batches as they were seen
    correct: list[int] = []

    def record(step: int) -> bool:
        """Record a checkpoint; return whether the run ends with it."""
        train_accuracy = sum(correct) / (len(correct) * loop.options.batch_size) if correct else math.nan
        ends = loop.options.until is not None and train_accuracy >= loop.options.until
        test_loss, test_accuracy = loop.evaluate(whole=ends or step == loop.steps)
        recorder.record(
            step=step,
            state=optimizer_tensors(loop.model, loop.optimizer),
            epoch=step / loop.batches.per_epoch,
            learning_rate=loop.rate(max(0, step - 1)),
            train_loss=math.fsum(losses) / len(losses) if losses else math.nan,
            train_accuracy=train_accuracy,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
        )
        return ends

    if not recorder.checkpoints:
        record(0)
    for step in range(start, loop.steps):
        loss, right = loop.step(step)
        if not math.isfinite(loss):
            recorder.wait()
            kept = f"{recorder.checkpoints} checkpoints are kept"
            raise TrainingError(f"the training loss is {loss} at step {step + 1}: try a smaller learning rate; {kept}")
        losses.append(loss)
        correct.append(right)
        events.step(step + 1, loop.steps, loss)
        if step + 1 in due:
            if record(step + 1):
                return
            losses.clear()
            correct.clear()


def _one_process() -> None:
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    if several or int(os.environ.get("WORLD_SIZE") or 1) > 1:  # as torchrun sets it
        raise TrainingError(
            "recipes train in one process, here are several: start without torchrun, "
            "or record a distributed loop of your own with featdyn.capture.Recorder"
        )


def _probes(recipe: Recipe, loop: Loop) -> Probes:
    swapped = recipe.training.split == "test"
    found = probe_set(
        loop.dataset,
        train_labels=None if swapped else loop.labels,
        data_dir=recipe.data.data_dir,
        download=recipe.data.download,
        **dict(recipe.probes),
    )
    inputs = loop.dataset.inputs(found.pixels)
    coords = dict(found.coords)
    if swapped:  # the same probes under the same ids; what this network is trained on are its training probes
        coords["split"] = np.array([_OTHER.get(name, name) for name in coords["split"].tolist()], np.str_)
    return Probes(inputs, torch.from_numpy(coords["label"]), coords)


def _restore(run: Run, loop: Loop) -> int:
    """Put model and optimizer back to the last commit; return its step."""
    last = run.checkpoints - 1
    loop.model.load_state_dict(run.state(last))
    restore_optimizer(loop.model, loop.optimizer, run.state(last, "optimizer"))
    return int(run.values("step")[last])
