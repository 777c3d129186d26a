"""What a recorded checkpoint costs beside its floor and a training step; of a JSON file, what it costs at cadences.

The floor is a bare forward and backward pass of the same probes in the same batches, down to the recorded layers, with
hooks that keep nothing. Recording includes the durable write and the commit. Images of CIFAR's size are random.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.harness import Case, sized
from featdyn.capture import Probes, Recorder
from featdyn.capture.cadence import Cadence
from featdyn.data import Dataset
from featdyn.data.images import Images
from featdyn.store import Run
from featdyn.training import load
from featdyn.training.loop import Loop
from featdyn.training.stage import _probes

FLOOR, STEP = "the floor", "a training step"
CADENCES = ("1%", "0.1%", "doubling")
SIZES = (  # recipe, changes, probes that it asks for
    ("digits", (), 600),
    ("cifar10", ("probes.train=256", "probes.test=256", "probes.corrupted=0", "training.precision=float32"), 5000),
)
TINY = ((*SIZES[0][:1], ("network.options.width=2", "probes.train=4", "probes.test=4", "probes.corrupted=0"), 8),)


def cases(device: str) -> Iterator[Case]:
    for name, changes, _ in sized(SIZES, TINY):
        folder = Path(tempfile.mkdtemp(prefix="featdyn-bench-"))
        try:
            yield _case(folder / "run.zarr", name, (*changes, f"training.device={device}"))
        finally:
            shutil.rmtree(folder)


def images(split: str, count: int) -> Images:
    """Return random images of CIFAR's size."""
    draw = np.random.default_rng(count)
    pixels = draw.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return Images(pixels, np.arange(count) % 10, "random", split)


def _case(store: Path, name: str, changes: tuple[str, ...]) -> Case:
    recipe = load(name, changes)
    data = None if name == "digits" else Dataset("random", images("train", 1280), images("test", 512), ("",) * 10)
    loop = Loop(recipe, data)
    probes: Probes = _probes(recipe, loop)
    options = recipe.capture
    shutil.rmtree(store, ignore_errors=True)
    recorder = Recorder(loop.model, probes, store, **options.model_dump())
    recorder.meter.quiet = True  # what runs here is no training
    steps = itertools.count()
    modules = [loop.model.get_submodule(layer) for layer in recorder.layers]
    inputs, labels = probes.inputs, probes.labels

    def ours() -> Callable[[], Tensor]:
        recorder.record(step=next(steps))
        recorder.wait()
        return stored

    def stored() -> Tensor:
        """Return what was recorded last; to read it is no part of what recording costs."""
        run = Run(store)
        blocks = [run.block("outputs/logits", run.checkpoints - 1, block) for block in range(run.schema.blocks)]
        return torch.from_numpy(np.concatenate(blocks))

    def floor() -> Tensor:
        kept: list[Tensor] = []
        hooks = [module.register_forward_hook(lambda m, a, out: kept.append(out)) for module in modules]
        loop.model.eval()
        found = []
        for start in range(0, len(probes), options.batch):
            x, y = (t[start : start + options.batch].to(loop.device) for t in (inputs, labels))
            logits = loop.model(x.clone().requires_grad_(options.gradients))
            if options.gradients:
                losses = torch.nn.functional.cross_entropy(logits, y, reduction="none")
                torch.autograd.grad(losses.sum(), kept)
            kept.clear()
            found.append(logits.detach().cpu())
        for hook in hooks:
            hook.remove()
        return torch.cat(found)

    def step() -> None:
        """Train, without a step of the optimizer: the network must stay what it was."""
        before = {key: value.clone() for key, value in loop.model.state_dict().items()}
        loop.step(0)
        loop.model.load_state_dict(before)

    expected = floor()

    def check(found: Tensor | Callable[[], Tensor] | None) -> None:
        if found is not None:
            torch.testing.assert_close(found() if callable(found) else found, expected, rtol=1e-4, atol=1e-4)

    target = {FLOOR: round(1 / (1.6 if name == "digits" else 1.2), 3)}
    said = f"{name} recipe, {len(probes)} probes, {len(recorder.layers)} layers with gradients, {options.dtype}"
    return Case(said, ours, {FLOOR: floor, STEP: step}, check, target=target, repeats=5)


def prices(result: dict[str, Any], kind: str = "processor_ratios") -> dict[str, dict[str, float]]:
    """Return what recording and its floor cost over training alone, by cadence: shares of its time.

    By the ratios of one checkpoint, its floor and a step to each other; a checkpoint of as many probes as the recipe
    asks for costs in proportion. Doubling is over the recipe's own number of steps.
    """
    name = result["case"].split()[0]
    recipe = load(name)
    measured = int(result["case"].split(", ")[1].split()[0])
    asked = next(count for size, _, count in SIZES if size == name)
    images = {"digits": 1437, "cifar10": 50_000}[name]
    total = recipe.training.epochs * (images // recipe.training.batch_size)
    checkpoint = asked / measured / result[kind][STEP]  # in training steps
    found = {}
    for every in CADENCES:
        share = (
            sum(map(Cadence(every).due, range(1, total + 1))) / total
            if every == "doubling"
            else float(every[:-1]) / 100
        )
        found[every] = {"recording": share * checkpoint, "floor": share * checkpoint * result[kind][FLOOR]}
    return found


def main() -> None:
    document = json.loads(Path(sys.argv[1]).read_text())
    print(f"{'recipe':<10} {'cadence':<10} {'recording':>10} {'its floor':>10}  (of the time of training alone)")
    for result in document["results"]["recording"]:
        for every, price in prices(result).items():
            print(f"{result['case'].split()[0]:<10} {every:<10} {price['recording']:>10.2%} {price['floor']:>10.2%}")


if __name__ == "__main__":
    main()
