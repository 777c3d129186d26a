"""All checkpoint pairs of a recorded run, beside the loops one would write: each pair anew, and shared prefixes.

Digits, and random images of CIFAR's size.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch.func import functional_call

from bench.capture import SMALL
from bench.harness import Case, sized
from bench.recording import images
from featdyn.analysis import analyses
from featdyn.data import Dataset
from featdyn.networks import cuts, features_at, resolve, state_for
from featdyn.training import load
from featdyn.training.loop import Loop
from featdyn.training.stage import train
from featdyn_kernels import get_threads

RECIPES: dict[str, tuple[tuple[str, ...], bool]] = {
    # name: changes, whether each pair anew is timed too; enough checkpoints that pairs dominate
    "digits": (("training.epochs=8",), True),
    "cifar10": (
        (
            "training.epochs=15",
            "checkpoints.first_epoch=0",
            "checkpoints.every=1",
            "training.precision=float32",
            "probes.train=250",
            "probes.test=250",
            "probes.corrupted=0",
        ),
        False,
    ),
}
TINY = ("training.epochs=2", "checkpoints.first_epoch=1", *SMALL)


def cases(device: str) -> Iterator[Case]:
    for name in sized(tuple(RECIPES), ("digits",)):
        folder = Path(tempfile.mkdtemp(prefix="featdyn-bench-"))
        try:
            yield _case(name, folder / "run.zarr", device)
        finally:
            shutil.rmtree(folder)


def _case(name: str, store: Path, device: str) -> Case:
    changes, anew = RECIPES[name]
    recipe = load(name, [*changes, f"training.device={device}", *sized((), TINY)])
    data = None if name == "digits" else Dataset("random", images("train", 256), images("test", 512), ("",) * 10)
    run = train(recipe, store, dataset=data)
    model = Loop(recipe, data).model.eval()
    saved = [{n: v.to(device) for n, v in run.state(t).items()} for t in range(run.checkpoints)]
    inputs = torch.from_numpy(np.asarray(xr.open_datatree(store, engine="zarr")["inputs/input"])).float().to(device)
    batches = inputs.split(run.attributes["capture"]["batch"])
    picked = resolve(cuts(model, inputs[:1]), ["default"])
    steps, samples = run.checkpoints, run.schema.samples
    prefix = features_at(model, picked)

    def through(module: torch.nn.Module, t: int, x: torch.Tensor) -> Any:
        return functional_call(module, state_for(module, saved[t]), (x,))

    def loop(shared: bool) -> np.ndarray:
        found = np.empty((len(picked), steps, steps, samples), np.uint16)
        with torch.inference_mode():
            for start, batch in zip(np.cumsum([0, *map(len, batches)]), batches, strict=False):
                for t1 in range(steps):
                    features = through(prefix, t1, batch) if shared else ()
                    for c, cut in enumerate(picked):
                        for t2 in range(steps):
                            z = features[c] if shared else through(cut.prefix, t1, batch)
                            logits = through(cut.suffix, t2, z)
                            found[c, t1, t2, start : start + len(batch)] = logits.argmax(1).cpu().numpy()
        return found

    expected = loop(shared=not anew)

    def check(result: xr.Dataset | np.ndarray) -> None:
        """A last batch of another length may round otherwise."""
        found = result["prediction"].values if isinstance(result, xr.Dataset) else result
        assert np.mean(found != expected) <= 1e-3

    peers = {"every pair anew": lambda: loop(False)} if anew else {}
    peers["shared prefixes"] = lambda: loop(True)
    sizes = f"{len(picked)} default cuts, T={steps}, N={samples}, float32, {get_threads()} threads"
    target = {"shared prefixes": 1.7 if name == "digits" else 2.0}
    said = f"{name} recipe, resnet20, {sizes}"
    return Case(said, lambda: analyses()["consistency"](run), peers, check, target=target, repeats=3)
