"""All checkpoint pairs of a recorded run, beside the loops one would write: each pair anew, and shared prefixes."""

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
from featdyn.analysis import analyses
from featdyn.networks import cuts, features_at, resolve, state_for
from featdyn.training import load
from featdyn.training.loop import Loop
from featdyn.training.stage import train

EPOCHS = 8  # of the digits recipe: enough checkpoints that pairs dominate
TINY = ("checkpoints.first_epoch=1", *SMALL)


def cases(device: str) -> Iterator[Case]:
    folder = Path(tempfile.mkdtemp(prefix="featdyn-bench-"))
    try:
        yield _case(folder / "run.zarr", device)
    finally:
        shutil.rmtree(folder)


def _case(store: Path, device: str) -> Case:
    changes = [f"training.epochs={sized(EPOCHS, 2)}", f"training.device={device}", *sized((), TINY)]
    recipe = load("digits", changes)
    run = train(recipe, store)
    model = Loop(recipe).model.eval()
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

    expected = loop(shared=False)

    def check(result: xr.Dataset | np.ndarray) -> None:
        """A last batch of another length may round otherwise."""
        found = result["prediction"].values if isinstance(result, xr.Dataset) else result
        assert np.mean(found != expected) <= 1e-3

    peers = {"every pair anew": lambda: loop(False), "shared prefixes": lambda: loop(True)}
    name = f"digits recipe, resnet20, {len(picked)} default cuts, T={steps}, N={samples}, float32"
    return Case(name, lambda: analyses()["consistency"](run), peers, check, repeats=3)
