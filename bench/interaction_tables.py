"""The outputs of masked maps beside as many plain passes of the same suffix, and all that follows from such tables.

The table is ResNet-20's at its default cuts: what masking adds to the passes that it cannot do without. What follows
(extraction, labels beside three baselines, losses, phases; no network is asked) is of 20 checkpoints, 50 probes and 10
players of a small convolutional network on digits: it has no peer, so its seconds are the result, and depends on the
network only through how sparse its tables are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch.func import functional_call

from bench.harness import Case, sized
from featdyn.analysis import analyses
from featdyn.analysis.driver import analyze
from featdyn.analysis.features.interactions import InteractionsOptions
from featdyn.analysis.features.interactions.tables import ROWS, Asked, MaskedOutputs
from featdyn.analysis.inputs.stitchable import Stitchable, cut_network
from featdyn.capture import Probes, Recorder
from featdyn.networks import build, state_for
from featdyn.store import Run
from featdyn.training import load
from featdyn.training.stage import train

COMMON = (
    "training.batch_size=64", "training.learning_rate=0.05", "training.schedule=constant", "probes.corrupted=0",
    "capture.layers=['fc']", "capture.gradients=false", "checkpoints.first_epoch=4",
)  # fmt: skip


def cases(device: str) -> Iterator[Case]:
    if device != "cpu":
        return
    with tempfile.TemporaryDirectory() as folder:
        yield from _tables(Path(folder) / "resnet20.zarr")
        yield _afterwards(Path(folder))


def _tables(path: Path) -> Iterator[Case]:
    players, side = sized(8, 3), sized(32, 8)
    torch.manual_seed(0)
    model = build("resnet20", classes=10, shape=(3, side, side)).eval()
    with Recorder(model, Probes(torch.randn(2, 3, side, side), torch.arange(2)), path, layers=["pooled"]) as recorder:
        recorder.record(step=0)
    run = Run(path)
    for cut in cut_network(run, model, ["default"], "recomputed").cuts:
        parts = cut_network(run, model, [cut.name], "recomputed")
        options = InteractionsOptions(players=players)
        asked = Asked(np.array([0]), np.array([0, 1]), np.ones(2, bool))
        yield _table(parts, MaskedOutputs(run, parts, asked, options), 2**players)


def _table(parts: Stitchable, state: MaskedOutputs, rows: int) -> Case:
    cut = parts.cuts[0]
    suffix, weights = cut.suffix, state_for(cut.suffix, parts.states[0])
    z = torch.randn(min(ROWS, rows), *cut.shape)
    batch = parts.features.batches[0]

    def plain() -> int:
        """Pass the prefix once, and the suffix as often as masked features do."""
        with torch.inference_mode():
            parts.features(batch, 0)
            return sum(len(functional_call(suffix, weights, (z,))) for _ in range(0, rows, len(z)))

    def check(found: Any) -> None:
        if isinstance(found, int):
            assert found == rows
            return
        table, _ = found
        assert np.isfinite(table).all()
        with torch.inference_mode():
            whole = functional_call(parts.model, parts.states[0], (batch.inputs,)).double()[0]
        expected = whole[0] - whole[1:].logsumexp(-1)
        np.testing.assert_allclose(table[0, 0, -1], float(expected), rtol=1e-3, atol=1e-3)

    return Case(
        name=f"resnet20 cut {cut.name}, {rows} maskings of one probe",
        ours=partial(state.tables, (0, 0)),
        peers={"plain-suffix": plain},
        check=check,
        target={"plain-suffix": 1 / 1.1},
        repeats=5,
    )


def _afterwards(folder: Path) -> Case:
    epochs, samples, players = sized(16, 2), sized(25, 4), sized(10, 4)
    probes = f"probes.train={samples}", f"probes.test={samples}", f"training.epochs={epochs}"
    wide = "network.options.widths=[8, 16]"

    def tables(name: str, which: str, *changes: str) -> Run:
        run = train(load("digits", [*COMMON, *probes, *changes]), folder / f"{name}.zarr")
        shared = {"at": "input", "masked": "mean", "players": players, "samples": samples}
        analyze(run, "interactions", checkpoints=which, **shared)
        return Run(run.path)

    run = tables("run", "all", "network.name=cnn", wide, "labels.noise=0.01")
    test = [
        tables(f"test{seed}", "last", "network.name=cnn", wide, "training.split=test", f"training.seed={seed}")
        for seed in (1, 2)
    ]
    other = tables("other", "last", "network.name=mlp", "labels.noise=0.01")
    baselines = [*(f"test={r.path}" for r in test), f"architecture={other.path}"]

    def check(found: xr.Dataset) -> None:
        assert np.isfinite(found["power"]).all()
        np.testing.assert_allclose(found["gap"] - found["gap_without"], found["explained"], atol=1e-9)

    return Case(
        name=f"after the table: {run.checkpoints} checkpoints, {2 * samples} probes, n={players}, 3 baselines",
        ours=lambda: analyses()["generalization"](run, baselines=baselines),
        peers={},
        check=check,
        repeats=3,
        notes="no peer: under 20 s is wanted",
    )
