"""All checkpoint pairs of a recorded run, beside the loops one would write: each pair anew, and shared prefixes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch.func import functional_call

from bench.harness import Case
from featdyn.analysis.composites.consistency.compute import consistency
from featdyn.analysis.inputs.features_at_cuts import batches as batches_of
from featdyn.analysis.inputs.weights import States, network
from featdyn.networks import cuts, features_at, resolve, state_for
from featdyn.training import load
from featdyn.training.stage import train

EPOCHS = 8  # of the digits recipe: enough checkpoints that pairs dominate


def cases(device: str) -> Iterator[Case]:
    folder = Path(tempfile.mkdtemp(prefix="featdyn-bench-"))
    try:
        yield _case(folder / "run.zarr", device)
    finally:
        shutil.rmtree(folder)


def _case(store: Path, device: str) -> Case:
    run = train(load("digits", [f"training.epochs={EPOCHS}", f"training.device={device}"]), store)
    model = network(run, torch.device(device))
    saved = States(run, model)
    batches = list(batches_of(run, torch.device(device)))
    picked = resolve(cuts(model, batches[0].inputs[:1]), ["default"])
    steps, samples = run.checkpoints, run.schema.samples

    def loop(shared: bool) -> np.ndarray:
        found = np.empty((len(picked), steps, steps, samples), np.uint16)
        prefix = features_at(model, picked)
        with torch.inference_mode():
            for batch in batches:
                for t1 in range(steps):
                    if shared:
                        features = functional_call(prefix, state_for(prefix, saved[t1]), (batch.inputs,))
                    for c, cut in enumerate(picked):
                        for t2 in range(steps):
                            z = (
                                features[c]
                                if shared
                                else functional_call(cut.prefix, state_for(cut.prefix, saved[t1]), (batch.inputs,))
                            )
                            logits = functional_call(cut.suffix, state_for(cut.suffix, saved[t2]), (z,))
                            rows = logits.argmax(1)[: batch.stop - batch.start]
                            found[c, t1, t2, batch.start : batch.stop] = rows.cpu().numpy()
        return found

    expected = loop(shared=False)

    def check(result: xr.Dataset | np.ndarray) -> None:
        found = result["prediction"].values if isinstance(result, xr.Dataset) else result
        assert np.array_equal(found, expected)

    peers = {"every pair anew": lambda: loop(False), "shared prefixes": lambda: loop(True)}
    name = f"digits recipe, resnet20, 3 default cuts, T={steps}, N={samples}, float32"
    return Case(name, lambda: consistency(run), peers, check, repeats=3)
