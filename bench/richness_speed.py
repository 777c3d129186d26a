"""What moments and CKA of many checkpoints cost: ``python -m bench.richness_speed [--only moments] [--json FILE]``.

Moments of 512 features, 100 outputs and 100 classes of 2,048 samples, beside reading them from a store, and beside the
forward passes that make them (ResNet-18 on 32 x 32 images). CKA of all pairs of 18 layers at 20 checkpoints, beside
calls of pytorch-cka on the same features: for every two checkpoints, all layers at once, and for every two layers at
any two checkpoints. Of the pass over moments its parts stand beside: blocks made float32, the moments of arrays in
memory, and the products that these need in any case, of 612 columns, as NumPy's BLAS makes them (not centred, float32
and float64); and how fast a pass could be if these products ran at the rate of a large one. What is too long is timed
in part and scaled, which is said. Times are the processor's, of one thread, so that other work on the machine counts
little; each is the median of repeats that take turns.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from bench import harness
from featdyn.networks import build
from featdyn.statistics.cka import Grams
from featdyn.store import ArraySpec, Run, RunWriter, Schema
from featdyn_kernels import moments

SAMPLES, FEATURES, CLASSES, CHECKPOINTS, SHARD = 2048, 512, 100, 200, 2048
WRITTEN, PASSED = 10, 16
"""So many of the checkpoints are written and read, and so many of the samples pass the network."""
LAYERS, TIMES, OF_CKA, WIDTH, CALLS = 18, 20, 256, 256, (4, 60)
REPEATS = 5
SIDE = 1536
"""Of the square matrices by whose product the processor's rate is told."""


def timed(work: dict[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, float]:
    """Return the median seconds of the processor of each, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for call in work.values():
        call()
    for _ in range(repeats):
        for name, call in work.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    return {name: float(np.median(each)) for name, each in times.items()}


def written(path: Path) -> Run:
    """Write a run of this size, features as a ReLU leaves them."""
    rng = np.random.default_rng(0)
    arrays = [
        ArraySpec("checkpoint", (), (), "int64"),
        ArraySpec("step", (), (), "int64"),
        ArraySpec("layers/pooled/activation", ("sample", "feature"), (SAMPLES, FEATURES), "float16"),
        ArraySpec("outputs/logits", ("sample", "class"), (SAMPLES, CLASSES), "float32"),
    ]
    static = {"": xr.Dataset(coords={"sample": np.array([f"drawn/{i:05d}" for i in range(SAMPLES)], dtype=object)})}
    schema = Schema(tuple(arrays), SAMPLES, SHARD, "zstd")
    with RunWriter.create(path, schema, static=static, attributes={}) as writer:
        for t in range(WRITTEN):
            with writer.checkpoint() as checkpoint:
                for spec in arrays[:2]:
                    checkpoint.write(spec.path, np.array(t))
                for spec in arrays[2:]:
                    values = np.maximum(rng.standard_normal(spec.shape), 0).astype(spec.dtype)
                    for block in range(SAMPLES // SHARD):
                        checkpoint.write(spec.path, values[block * SHARD : (block + 1) * SHARD], block)
    return Run(path)


def pass_over(run: Run, labels: np.ndarray[Any, Any], *, accumulate: bool = True) -> None:
    """Read all checkpoints that were written, and accumulate their moments."""
    for t in range(WRITTEN):
        total: Any = None
        for block in range(run.schema.blocks):
            x = run.block("layers/pooled/activation", t, block)
            f = run.block("outputs/logits", t, block)
            if accumulate:
                part = moments.accumulate(x, f, labels[run.schema.block_slice(block)], classes=CLASSES)
                total = part if total is None else total + part


def of_moments() -> dict[str, Any]:
    """Measure the pass over moments."""
    labels = np.arange(SAMPLES) % CLASSES
    network = build("resnet18", classes=CLASSES, shape=(3, 32, 32)).eval()
    images = torch.randn(PASSED, 3, 32, 32)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        run = written(Path(folder) / "run.zarr")
        x, f = run.block("layers/pooled/activation", 0, 0), run.block("outputs/logits", 0, 0)
        both = np.hstack([x.astype(np.float32), f])
        double, square = both.astype(np.float64), np.ones((SIDE, SIDE), np.float32)
        found = timed(
            {
                "forward": lambda: network(images),
                "read": partial(pass_over, run, labels, accumulate=False),
                "read and moments": partial(pass_over, run, labels),
                "as float32": lambda: [x.astype(np.float32) for _ in range(WRITTEN)],
                "moments": lambda: [moments.accumulate(x, f, labels, classes=CLASSES) for _ in range(WRITTEN)],
                "products, float32": lambda: [both.T @ both for _ in range(WRITTEN)],
                "products, float64": lambda: [double.T @ double for _ in range(WRITTEN)],
                "square": lambda: square @ square,
            }
        )
    forward = found["forward"] * SAMPLES / PASSED * CHECKPOINTS
    read, whole = (found[name] * CHECKPOINTS / WRITTEN for name in ("read", "read and moments"))
    width, rate = both.shape[1], SIDE**3 / found["square"]
    least = CHECKPOINTS * SAMPLES * width * (width + 1) / 2 / rate
    parts = ("read", "read and moments", "as float32", "moments", "products, float32", "products, float64")
    return {
        "sizes": {"samples": SAMPLES, "features": FEATURES, "outputs": CLASSES, "checkpoints": CHECKPOINTS},
        "timed": {"checkpoints": WRITTEN, "samples that pass the network": PASSED},
        "seconds": {"forward passes": forward, "reading": read, "reading and moments": whole},
        "moments over forward passes": (whole - read) / forward,
        "reading and moments over forward passes": whole / forward,
        "speed over that of reading": read / whole,
        "milliseconds a checkpoint": {
            name: 1e3 * found[name] / WRITTEN for name in ("read", "read and moments", *parts)
        },
        "multiply-adds per second of a large float32 product": rate,
        "ceiling of that speed, products at this rate": read / (read + least),
        "ceiling of that speed, products at this rate on a core beside": min(1.0, read / least),
    }


def of_cka() -> dict[str, Any]:
    """Measure CKA of all pairs beside pytorch-cka; its values are checked first."""
    other: Any = importlib.import_module("cka")
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((OF_CKA, 20)).astype(np.float32)
    each = [[shared @ rng.standard_normal((20, WIDTH)).astype(np.float32) for _ in range(LAYERS)] for _ in range(TIMES)]
    tensors = [[torch.from_numpy(x) for x in layers] for layers in each]

    def ours(bounds: bool) -> Any:
        grams = Grams(TIMES * LAYERS, OF_CKA)
        for k, x in enumerate(x for layers in each for x in layers):
            grams.put(k, x @ x.T)
        return grams.alignment(bounds=bounds)

    expected = other.cka_from_features(tensors[0], tensors[1]).numpy()
    np.testing.assert_allclose(ours(False).debiased[:LAYERS, LAYERS : 2 * LAYERS], expected, atol=2e-4)
    found = timed(
        {
            "ours": partial(ours, False),
            "ours, with intervals": partial(ours, True),
            "checkpoints": lambda: [other.cka_from_features(tensors[0], tensors[1]) for _ in range(CALLS[0])],
            "layers": lambda: [other.cka_from_features(tensors[0][0], tensors[1][1]) for _ in range(CALLS[1])],
        },
        3,
    )
    count = TIMES * LAYERS
    by_checkpoints = found["checkpoints"] / CALLS[0] * TIMES * (TIMES + 1) / 2
    by_layers = found["layers"] / CALLS[1] * count * (count + 1) / 2
    return {
        "sizes": {"layers": LAYERS, "checkpoints": TIMES, "samples": OF_CKA, "features": WIDTH},
        "timed": {"calls for two checkpoints": CALLS[0], "calls for two layers": CALLS[1]},
        "seconds": {
            "ours": found["ours"],
            "ours, with intervals": found["ours, with intervals"],
            "pytorch-cka, a call for every two checkpoints": by_checkpoints,
            "pytorch-cka, a call for every two layers at any two checkpoints": by_layers,
        },
        "times as fast": {
            "a call for every two checkpoints": by_checkpoints / found["ours"],
            "a call for every two layers at any two checkpoints": by_layers / found["ours"],
        },
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {"moments": of_moments, "cka": of_cka}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.richness_speed", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), help="measure this; the file keeps the rest")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: {"environment": harness.environment("cpu"), **PARTS[name]()} for name in given.only or PARTS}
    print(json.dumps(found, indent=1))
    if given.json:
        kept = json.loads(Path(given.json).read_text()) if Path(given.json).exists() else {}
        Path(given.json).write_text(json.dumps({**kept, "what": __doc__, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
