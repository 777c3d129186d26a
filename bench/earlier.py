"""Analyses of this tree beside those of an earlier commit, in one process, in turn: ``python -m bench.earlier COMMIT``.

Both versions of the two packages are loaded, and each call sees its own. Both read the same store, which the earlier
version recorded; results that both hold must agree before any time counts. Beside the time on the clock stands the
processor's, which another job on the machine hardly moves.

The store is a run of the digits recipe, ``--store``'s, or with ``--made 8,4000,512`` one of so many checkpoints, probes
and features in each of four layers: a large one with numbers like those of a network that learns, in seconds. Where
only recorded arrays are asked, which of the analyses here are :data:`RECORDED`.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import xarray as xr

from bench import harness

ROOT = Path(__file__).parent.parent
PACKAGES = ("featdyn", "featdyn_kernels")
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "consistency": ({}, ("prediction", "accuracy", "loss")),
    "spectra": ({}, ("eigenvalue", "effective_rank")),
    "density": ({"permutations": 50}, ("explained",)),
    "layer_isotropy": ({}, ()),
    "isotropy": ({}, ("parameter_effective_rank",)),
    "drift": ({}, ("motion", "cka")),
}
"""Options, and the variables that must agree: others were changed on purpose, or draw other probes."""
RECORDED = ("spectra", "layer_isotropy")
"""What asks no network, so that a run that no recipe made answers."""
NOISE = {"draws": 8, "every": 8, "probes": 2}


class Version:
    """One version of the packages, whose modules are in ``sys.modules`` only while it runs."""

    def __init__(self, root: Path) -> None:
        self._paths, self._modules = [str(root / "engine"), str(root / "kernels")], dict[str, ModuleType]()

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Make this version the one that is imported."""
        others = {n: sys.modules.pop(n) for n in list(sys.modules) if n.partition(".")[0] in PACKAGES}
        sys.modules.update(self._modules)
        sys.path[:0] = self._paths
        importlib.invalidate_caches()
        try:
            yield
        finally:
            self._modules = {n: sys.modules.pop(n) for n in list(sys.modules) if n.partition(".")[0] in PACKAGES}
            sys.modules.update(others)
            del sys.path[: len(self._paths)]

    def analyze(self, store: Path, name: str, options: dict[str, Any]) -> xr.Dataset:
        """Compute an analysis on a store, opened anew, and keep nothing."""
        with self.loaded():
            analysis = importlib.import_module("featdyn.analysis").analyses()[name]
            run = importlib.import_module("featdyn.store").Run(store)
            found: xr.Dataset = analysis(run, **options)
            return found.load()


def earlier_tree(commit: str, folder: Path) -> Path:
    """Return a copy of the tree at a commit."""
    archive = subprocess.run(["git", "archive", commit, "engine", "kernels"], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def record(version: Version, store: Path, settings: list[str], noise: bool) -> None:
    """Train and record a recipe, and sample its noise where an analysis reads it."""
    with version.loaded():
        training = importlib.import_module("featdyn.training")
        importlib.import_module("featdyn.training.stage").train(training.load("digits", settings), store)
        if not noise:
            return
        analysis = importlib.import_module("featdyn.analysis").analyses()["noise"]
        found = analysis(importlib.import_module("featdyn.store").Run(store), **NOISE)
        with importlib.import_module("featdyn.store").RunWriter.open(store) as writer:
            writer.result("noise", found)


def make(version: Version, store: Path, checkpoints: int, probes: int, width: int) -> None:
    """Record a network of four layers whose weights move a little from one checkpoint to the next."""
    random = torch.Generator().manual_seed(0)
    wide = [layer for _ in range(3) for layer in (torch.nn.Linear(width, width), torch.nn.ReLU())]
    model = torch.nn.Sequential(*wide, torch.nn.Linear(width, 10))
    with version.loaded(), torch.no_grad():
        capture = importlib.import_module("featdyn.capture")
        inputs, labels = torch.randn(probes, width, generator=random), torch.arange(probes) % 10
        coords = {"split": np.array(["train", "test"], dtype=object)[np.arange(probes) * 2 // probes]}
        with capture.Recorder(model, capture.Probes(inputs, labels, coords), store, layers=["*"]) as recorder:
            for step in range(checkpoints):
                recorder.record(step=step)
                for tensor in model.parameters():
                    tensor += 0.1 * tensor.std() * torch.randn(tensor.shape, generator=random)


def agree(one: xr.Dataset, two: xr.Dataset, names: tuple[str, ...]) -> None:
    """Check that the variables of these names are the same."""
    for name in names:
        a, b = one[name], two[name].transpose(*one[name].dims)
        np.testing.assert_allclose(a.values, b.values, rtol=1e-4, atol=1e-5, err_msg=name)


def interleaved(before: Callable[[], Any], now: Callable[[], Any], repeats: int) -> dict[str, dict[str, list[float]]]:
    """Time two calls in turn, in seconds of the clock and of the processor."""
    calls = {"before": before, "now": now}
    times: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "cpu_seconds": []} for name in calls}
    for repeat in range(repeats):
        for name in sorted(calls, reverse=repeat % 2 == 1):
            start, cpu = time.perf_counter(), time.process_time()
            calls[name]()
            times[name]["seconds"].append(time.perf_counter() - start)
            times[name]["cpu_seconds"].append(time.process_time() - cpu)
    return times


def made(text: str) -> tuple[int, int, int]:
    """Return checkpoints, probes and features from a text."""
    checkpoints, probes, width = map(int, text.split(","))
    return checkpoints, probes, width


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("names", nargs="*", help="analyses; by default all that the store answers")
    parser.add_argument("--store", type=Path, help="a store that both versions read; the digits recipe by default")
    parser.add_argument("--set", action="append", default=[], help="fields of the digits recipe")
    parser.add_argument("--made", type=made, metavar="CHECKPOINTS,PROBES,FEATURES", help="a store of this size instead")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = options.names or list(RECORDED if options.made else CASES)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        before, now = Version(earlier_tree(options.commit, Path(folder) / "tree")), Version(ROOT)
        store = options.store or Path(folder) / "run.zarr"
        if options.made:
            make(before, store, *options.made)
        elif options.store is None:
            record(before, store, options.set, "isotropy" in names)
        for name in names:
            chosen, same = CASES[name]
            agree(before.analyze(store, name, chosen), now.analyze(store, name, chosen), same)
            times = interleaved(
                lambda name=name, chosen=chosen: before.analyze(store, name, chosen),
                lambda name=name, chosen=chosen: now.analyze(store, name, chosen),
                options.repeats,
            )
            rows.append({"analysis": name, "options": chosen, **times})
            said = [name.ljust(16)]
            for unit in ("seconds", "cpu_seconds"):
                one, two = (float(np.median(times[version][unit])) for version in ("before", "now"))
                said.append(f"{unit} {one:8.3f} before {two:8.3f} now, before / now {one / two:.2f}")
            print("; ".join(said), flush=True)
            if options.json:  # after each, so that a long run that is stopped has not been for nothing
                head = {"commit": options.commit, "store": options.store and options.store.name, "set": options.set}
                head |= {"made": options.made}
                found = {**head, "environment": harness.environment("cpu"), "rows": rows}
                options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
