"""What recording costs: a whole training run with it, beside the same run without."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.harness import Case, sized
from featdyn.store import Run
from featdyn.training import load
from featdyn.training.loop import Loop
from featdyn.training.schedule import checkpoint_steps
from featdyn.training.stage import train

RECIPES = {
    "digits recipe, 3 epochs": ("training.epochs=3",),
    "digits recipe, 3 epochs, default cuts, no gradients": (
        "training.epochs=3",
        "capture.layers=['default']",
        "capture.gradients=false",
    ),
}
SMALL = ("data.train_size=64", "network.options.width=2", "probes.train=8", "probes.test=8", "probes.corrupted=4")
TINY = (("tiny", ("training.epochs=1", "checkpoints.first_epoch=1", "capture.layers=['default']", *SMALL)),)


def cases(device: str) -> Iterator[Case]:
    for name, changes in sized(tuple(RECIPES.items()), TINY):
        folder = Path(tempfile.mkdtemp(prefix="featdyn-bench-"))
        try:
            yield _case(name, folder / "run.zarr", (*changes, f"training.device={device}"))
        finally:
            shutil.rmtree(folder)


def _case(name: str, store: Path, changes: tuple[str, ...]) -> Case:
    recipe = load("digits", changes)
    accuracies: set[float] = set()

    def recorded() -> float:
        shutil.rmtree(store, ignore_errors=True)
        run: Run = train(recipe, store)
        return float(run.values("test_accuracy")[-1])

    def unrecorded() -> float:
        loop = Loop(recipe)
        due = checkpoint_steps(loop.batches.per_epoch, recipe.training.epochs, recipe.checkpoints)
        loop.evaluate(whole=False)
        for step in range(loop.steps):
            loop.step(step)
            if step + 1 in due:  # both evaluate the test split there: what differs is the recording alone
                accuracy = loop.evaluate(whole=step + 1 == loop.steps)[1]
        return accuracy

    def check(accuracy: float) -> None:
        accuracies.add(accuracy)
        assert len(accuracies) == 1, "recording changed the training"

    return Case(name, recorded, {"the same training, not recorded": unrecorded}, check, repeats=5)
