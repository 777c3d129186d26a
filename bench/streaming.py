"""Composites of a network larger than their memory: ``python -m bench.streaming [FOLDER] [--json FILE]``.

A transformer of random weights, by default 1.6 GB of them, is recorded at four checkpoints; then the command line asks
``consistency`` under ``--limit``. Predictions are compared with those of halves joined by hand in plain torch; with
``--whole`` all has to have the bits of whole suffixes in memory. Told are the largest size of the process (VmHWM),
processor time and the plan. The store, of four times the weights, is removed at the end unless a folder is named.
``STREAMING_WIDTH=1024`` and the like make another network.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import harness

WIDTH, BLOCKS, HEADS, WORDS, LENGTH = (
    int(os.environ.get(f"STREAMING_{name}", default))
    for name, default in {"WIDTH": 2048, "BLOCKS": 8, "HEADS": 16, "WORDS": 1000, "LENGTH": 8}.items()
)
PROBES, BATCH, CHECKPOINTS = 96, 16, 4
CUTS = "blocks.5,blocks.7"


class Block(nn.Module):
    """Causal attention and a layer of units, each behind a normalisation and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, position, width) to the same shape."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        y: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + y


class Words(nn.Module):
    """A language model."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.register_buffer("places", 0.1 * torch.randn(LENGTH, WIDTH, generator=torch.Generator().manual_seed(0)))
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        """Map (N, position) to logits (N, position, word)."""
        found: Tensor = self.head(self.norm(self.blocks(self.embed(words) + self.places)))
        return found


def record(path: str) -> None:
    """Record checkpoints that differ by a few percent of each weight, and no layer."""
    from featdyn.capture import Probes, Recorder

    torch.manual_seed(0)
    model, words = Words(), torch.randint(WORDS, (PROBES, LENGTH))
    split = np.array(["train", "test"], dtype=object)[np.arange(PROBES) % 2]
    options: dict[str, Any] = {"layers": ["norm"], "batch": BATCH, "gradients": False, "pool": "last"}
    with Recorder(model, Probes(words, words.roll(-1, 1), {"split": split}), path, **options) as recorder:
        for step in range(CHECKPOINTS):
            recorder.record(step=step)
            with torch.no_grad():
                for tensor in model.parameters():
                    tensor.add_(torch.randn_like(tensor), alpha=0.2 * float(tensor.std().nan_to_num()))


def asked(path: str, limit: str) -> dict[str, Any]:
    """Ask by the command line in a process of its own; return its largest size, times and plan."""
    command = [sys.executable, "-m", "bench.streaming", "--child", path, limit]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    plan = next(line for line in done.stderr.splitlines() if "multiply-adds" in line)
    return {"limit": limit, "plan": plan, "seconds": time.perf_counter() - start, **found}


def measured(path: Path, limit: str, whole: str | None) -> dict[str, Any]:
    """Ask the store, which is recorded where there is none yet."""
    from featdyn.store import Run

    if not path.exists():
        subprocess.run([sys.executable, "-m", "bench.streaming", "--record", str(path)], check=True)
    weights = [p.stat().st_size for p in path.glob("checkpoints/*/*.safetensors")]
    found = {
        "environment": harness.environment("cpu"),
        "network": f"{BLOCKS} blocks of width {WIDTH}, {WORDS} words, {LENGTH} positions",
        "bytes of weights of a checkpoint": weights[0],
        "checkpoints": len(weights),
        "probes": PROBES,
        "piece by piece": asked(str(path), limit),
    }
    one = Run(path).result("consistency").load()
    found["mean accuracy, agreement of composites"] = [float(one[n].mean()) for n in ("accuracy", "agreement")]
    found["predictions that differ from plain torch's"] = against_plain(path, one)
    if whole:
        found["whole suffixes"] = asked(str(path), whole)
        other = Run(path).result("consistency").load()
        names = [name for name in one.data_vars if one[name].dtype.kind in "fiub"]
        same = [np.array_equal(one[n].values, other[n].values, equal_nan=one[n].dtype.kind == "f") for n in names]
        found["same bits as whole suffixes"] = all(same)
    return found


def against_plain(path: Path, found: Any) -> int:
    """Join the halves of the first and the last checkpoint by hand; return how many predictions differ."""
    from featdyn.store import Run

    run, model, last = Run(path), Words().eval(), CHECKPOINTS - 1
    inputs, kept, different = torch.from_numpy(run.values("inputs/input")), dict[str, list[Tensor]](), 0
    with torch.inference_mode():
        model.load_state_dict(run.state(0))
        for cut in CUTS.split(","):
            with model.get_submodule(cut).register_forward_hook(lambda m, a, z: kept[cut].append(z)):  # noqa: B023
                kept[cut] = []
                for start in range(0, PROBES, BATCH):
                    model(inputs[start : start + BATCH])
        model.load_state_dict(run.state(last))
        for c, cut in enumerate(CUTS.split(",")):
            behind = nn.Sequential(*model.blocks[int(cut[-1]) + 1 :], model.norm, model.head)
            mine = torch.cat([behind(z).argmax(-1).flatten() for z in kept[cut]]).numpy()
            different += int((found["prediction"].isel(cut=c, t1=0, t2=last).values != mine).sum())
    return different


def child(path: str, limit: str) -> None:
    """Run the command line here; what libraries take is told apart, which a limit counts too."""
    from featdyn.cli import main

    given = ["analyze", path, "consistency", "--cuts", CUTS, "--features", "recomputed", "--fresh"]
    sys.argv[1:] = [*given, "--model", "bench.streaming:Words", "--memory-limit", limit]
    main()
    status = Path("/proc/self/status").read_text()
    peak = 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status)[0])
    used = os.times()
    print(json.dumps({"peak bytes": peak, "processor seconds": used.user + used.system}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.streaming", description=__doc__)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--limit", default="1.4GB", help="of the process, in which torch with CUDA alone takes 0.5 GB")
    parser.add_argument("--whole", metavar="LIMIT", help="ask again with so much memory, which whole suffixes fit into")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--record", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return
    if given.record:
        record(given.record)
        return
    folder = Path(given.folder or tempfile.mkdtemp())
    try:
        found = measured(folder / "run.zarr", given.limit, given.whole)
    finally:
        if not given.folder:
            shutil.rmtree(folder)
    print(json.dumps(found, indent=1))
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
