"""A plan at scale: ``python -m bench.paper [--json FILE]``.

100 checkpoints of a model of 7 billion parameters, 32 layers, 10,000 samples, analysed by 8 GPUs. Bytes, shards, files
and tasks come from featdyn's own code (schema, root, plans), nothing is written at that size. What code and scheduler
cost is measured here, on the same numbers of tasks, doing nothing, and on a store of the same shapes that is small
enough to write, whose size and time the plan has to predict. What composites ask piece by piece is read off the model
itself, made without weights. Rates of the 8 GPUs are assumptions, and named so.
"""

from __future__ import annotations

import argparse
import functools
import json
import operator
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from bench import harness
from featdyn.analysis import analyses
from featdyn.analysis.composites.order import Sizes, cheapest
from featdyn.analysis.inputs.suffix_banks import BANK
from featdyn.compute import Limits, Plan, Workers, same, workers
from featdyn.networks import cuts, segments, skeleton
from featdyn.store import ArraySpec, Run, RunWriter, Schema
from featdyn.store.commit import Commit
from featdyn.store.commit_list import LISTED
from featdyn.store.files import FileRecord
from featdyn.store.root import Root

CHECKPOINTS, LAYERS, SAMPLES, WIDTH, PARAMETERS, VOCABULARY = 100, 32, 10_000, 4096, 7e9, 32_000
HIDDEN, BATCH = 11_008, 16  # units of a block's second half; samples that pass together
TOKENS = 128  # of a sample's context: what a stitched pass has to run, though one token's features are stored
ASSUMED = {
    "GPUs": 8,
    "bfloat16 multiply-adds per second and GPU": 2e14,  # 40 % of an H100's dense peak
    "float32 multiply-adds per second and GPU": 1.5e13,  # half of its peak
    "float64 multiply-adds of eigendecompositions per second and GPU": 5e11,  # 1.5 % of its peak
    "bytes read per second": 1e10,  # of the node, from local NVMe
    "bytes of memory per GPU": 80e9,
}


def schema(layers: int, samples: int) -> Schema:
    """Return what is recorded: one token's float16 activations of each layer, and the loss."""
    specs = [ArraySpec("step", (), (), "int64"), ArraySpec("outputs/loss", ("sample",), (samples,), "float32")]
    specs += [
        ArraySpec(f"layers/h{i:02d}/activation", ("sample", "feature"), (samples, WIDTH), "float16")
        for i in range(layers)
    ]
    return Schema.build(specs, samples)


def size_of_root(found: Schema, checkpoints: int) -> tuple[int, float]:
    """Return the bytes of the root after so many commits, and the seconds that a reader takes to understand it.

    It lists no more than the last of them, so it is largest where these are.
    """
    root = Root({}, found, {spec.path: {} for spec in found.arrays})
    record = FileRecord("commits/000001.json", 100_000, 2**32 - 1)
    for i in range(min(checkpoints, LISTED)):
        root = root.after(Commit(i + 1, "checkpoint", str(i), record), {})
    content = root.encode()
    start = time.perf_counter()
    Root.decode(content, Path("store"))
    return len(content), time.perf_counter() - start


def nothing(state: None, item: int) -> int:
    return item


def last(state: None, value: int) -> int:
    return value


def overhead(where: Workers, groups: int, leaves: int) -> float:
    """Return the seconds that so many groups of tasks take which do nothing, folded as spectra folds them."""
    items = [range(leaves)] * groups
    with where.stage(None, functools.partial(same, None)) as stage:
        start = time.perf_counter()
        for _ in stage.fold(nothing, items, operator.add, last):
            pass
        return time.perf_counter() - start


@contextmanager
def written(layers: int, samples: int, checkpoints: int) -> Iterator[Run]:
    """Write a store of the same shapes."""
    with tempfile.TemporaryDirectory() as folder:
        path, found = Path(folder) / "run.zarr", schema(layers, samples)
        rng = np.random.default_rng(0)
        static = {
            "": xr.Dataset(coords={"sample": [f"s{i}" for i in range(samples)]}),
            "cube": xr.Dataset(coords={"layer": np.array([f"h{i:02d}" for i in range(layers)], dtype=object)}),
        }
        with RunWriter.create(path, found, static=static, attributes={}) as writer:
            for t in range(checkpoints):
                with writer.checkpoint() as checkpoint:
                    for spec in found.arrays:
                        if spec.sample_axis is None:
                            checkpoint.write(spec.path, np.array(t, spec.dtype))
                            continue
                        for block in range(found.blocks):
                            rows = found.block_slice(block)
                            shape = (rows.stop - rows.start, *spec.shape[1:])
                            checkpoint.write(
                                spec.path, rng.standard_normal(shape, np.float32).astype(spec.dtype), block
                            )
        yield Run(path)


def simulated(layers: int, samples: int, checkpoints: int) -> dict[str, Any]:
    """Write a small store of the same shapes and decompose it; compare bytes and shards with what was planned."""
    with written(layers, samples, checkpoints) as run:
        planned = schema(layers, samples)
        shards = sorted(run.path.glob("layers/*/activation/c.*"))
        start = time.perf_counter()
        analyses()["spectra"](run)
        seconds = time.perf_counter() - start
        return {
            "planned bytes": checkpoints * sum(s.nbytes for s in planned.arrays if s.path.startswith("layers")),
            "bytes": sum(p.stat().st_size for p in shards),
            "planned shards": checkpoints * layers * planned.blocks,
            "shards": len(shards),
            "seconds": seconds,
        }


class Block(nn.Module):
    """One of the blocks of such a model, as far as its weights go: gated units, attention without its positions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up = nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, position, width) to the same shape."""
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))
        y = self.norm2(x)
        z: Tensor = x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))
        return z


def piece_by_piece() -> dict[str, Any]:
    """Return what composites of the whole model ask of one GPU, from its pieces, which are made without weights.

    Each GPU takes its share of the probes. Weights are stored as bfloat16, features are float32; at all positions.
    """

    def make() -> nn.Module:
        blocks = [Block() for _ in range(LAYERS)]
        head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        return nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), *blocks, nn.RMSNorm(WIDTH), head)

    model = skeleton(make)
    found = cuts(model, torch.zeros(2, TOKENS, dtype=torch.int64))
    sizes = [sum(p.numel() for p in piece.parameters()) for piece in segments(found)]
    half = next(i for i, cut in enumerate(found) if cut.prefix_macs >= cut.suffix_macs)
    unit, largest = 4 * BATCH * TOKENS * WIDTH, max(p.numel() for p in model.parameters())
    batches = SAMPLES // int(ASSUMED["GPUs"]) // BATCH
    logits = 4 * BATCH * TOKENS * VOCABULARY
    asked = Sizes(
        steps=CHECKPOINTS, cuts=1, blocks=batches, batches=batches, of_block=1, unit=unit, at_cuts=unit,
        prefix=2 * sum(sizes[: half + 1]), suffixes=(2 * sum(sizes[half + 1 :]),), behind=len(sizes) - half - 1,
        piece=4 * max(sizes) + 2 * largest, stored=0, logits=0, outputs=(6 * logits, 0),
    )  # fmt: skip
    rows = {}
    for memory in (ASSUMED["bytes of memory per GPU"], 16e9, 8e9):
        order, plan = cheapest(asked, 0, Limits(int(memory), 0, 1, True), Plan("composites", 0, 0), {}, disk=10**14)
        read = plan.reads * ASSUMED["GPUs"] / ASSUMED["bytes read per second"] / 3600
        rows[f"{memory / 1e9:.0f} GB"] = {
            "bytes planned": plan.peak(),
            "bytes of temporary files": asked.on_disk(order),
            "bytes moved by a GPU": plan.reads,
            "hours of reading, 8 GPUs": read,
            "blocks of 16 samples in a task": order.group,
            "units together": order.chunk,
            "features at cuts on disk": order.disk,
        }
    return {
        "parameters": sum(sizes),
        "pieces": len(sizes),
        "bytes of the largest piece": asked.piece,
        "bytes of a batch's features at one place": unit,
        "with memory of a GPU of": rows,
    }


def on_paper() -> dict[str, Any]:
    """Return bytes, shards, tasks and hours at full size."""
    found = schema(LAYERS, SAMPLES)
    stored = CHECKPOINTS * LAYERS * SAMPLES * WIDTH
    bfloat16, float32, float64 = (v for name, v in ASSUMED.items() if "multiply-adds" in name)
    cells, pairs = CHECKPOINTS * LAYERS, CHECKPOINTS**2
    work = {  # multiply-adds, their rate, bytes read
        "spectra: moments": (stored * WIDTH / 2, float32, 2 * stored),
        "spectra: eigenvalues": (cells * 4.5 * WIDTH**3, float64, 0),
        "density (each against the last, 2,000 probes)": (cells * 2000 * 2000 * WIDTH, float32, 0.8 * stored),
        "layer_isotropy (128 draws)": (cells * 128**2 * WIDTH, float64, 2 * cells * 128 * WIDTH),
        "consistency (one cut at half depth)": (
            pairs * SAMPLES * TOKENS * PARAMETERS / 2,
            bfloat16,
            2 * stored / LAYERS,
        ),
    }
    seconds = {
        name: max(macs / ASSUMED["GPUs"] / rate, read / ASSUMED["bytes read per second"])
        for name, (macs, rate, read) in work.items()
    }
    root, parse = size_of_root(found, CHECKPOINTS)
    weights = 2 * PARAMETERS
    return {
        "bytes of activations": 2 * stored,
        "bytes of weights (bfloat16)": CHECKPOINTS * weights,
        "samples in a shard": found.shard_samples,
        "bytes of a shard": found.shard_samples * WIDTH * 2,
        "shards": CHECKPOINTS * LAYERS * found.blocks,
        "files in a commit": sum(found.blocks if s.sample_axis is not None else 1 for s in found.arrays) + 2,
        "bytes of the root": root,
        "seconds to understand the root": parse,
        "tasks": {
            "spectra": CHECKPOINTS * LAYERS,  # a task folds all blocks of a layer where there are so many
            "consistency": CHECKPOINTS * found.blocks * CHECKPOINTS,
        },
        "hours": {name: value / 3600 for name, value in seconds.items()},
        "multiply-adds": {name: macs for name, (macs, _, _) in work.items()},
        # Suffixes that are held whole, here of half the network, are planned in float32, several times over.
        "bytes planned for one whole suffix": BANK * 4 * PARAMETERS / 2,
        "consistency piece by piece (one cut at half depth, all positions)": piece_by_piece(),
        "suffixes that would fit a GPU in bfloat16, once": ASSUMED["bytes of memory per GPU"] // (weights / 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.paper", description=__doc__)
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    paper = on_paper()
    blocks = schema(LAYERS, SAMPLES).blocks
    with workers(scheduler="processes", workers=2) as two:
        overhead(two, 20, blocks)
        seconds = overhead(two, CHECKPOINTS * LAYERS, blocks)
    small, large = simulated(2, 2048, 2), simulated(4, 2048, 4)
    found = {
        "environment": harness.environment("cpu"),
        "assumed": ASSUMED,
        "paper": paper,
        "simulated": {
            "seconds of as many empty tasks": seconds,
            "small": small,
            "large": large,
            "seconds of large from small": small["seconds"] * large["bytes"] / small["bytes"],
        },
    }
    print(json.dumps(found, indent=1))
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
