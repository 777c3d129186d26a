"""Networks larger than memory: ``python -m bench.streaming [FOLDER] [--json FILE] [--of consistency,density]``.

A transformer of random weights, by default 1.6 GB of them, is recorded at four checkpoints; then the command line asks
``consistency`` and ``density`` under ``--limit``, and captures checkpoints again from safetensors files. Predictions
are compared with those of halves joined by hand in plain torch, what is captured with hooks on the whole network; with
``--whole`` all has to have the bits of the same command with so much memory. Told are the largest size of the process
(VmHWM), processor time and the plan. The store and the files, of eight times the weights, are removed at the end unless
a folder is named. ``STREAMING_WIDTH=1024`` and the like make another network.
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
CUTS = "blocks.5,blocks.7" if BLOCKS > 7 else "blocks.0,blocks.1"
OF = ("consistency", "density", "capture")


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


def probes() -> Any:
    """Return words, each with the next as its label, in two sets."""
    from featdyn.capture import Probes

    words = torch.randint(WORDS, (PROBES, LENGTH), generator=torch.Generator().manual_seed(1))
    split = np.array(["train", "test"], dtype=object)[np.arange(PROBES) % 2]
    return Probes(words, words.roll(-1, 1), {"split": split})


def record(path: str) -> None:
    """Record checkpoints that differ by a few percent of each weight, and no layer, and save them beside the store."""
    from safetensors.torch import save_model

    from featdyn.capture import Recorder

    torch.manual_seed(0)
    model = Words()
    options: dict[str, Any] = {"layers": ["norm"], "batch": BATCH, "gradients": False, "pool": "last"}
    with Recorder(model, probes(), path, **options) as recorder:
        for step in range(CHECKPOINTS):
            recorder.record(step=step)
            save_model(model, str(Path(path).parent / f"step{step}.safetensors"))
            with torch.no_grad():
                for tensor in model.parameters():
                    tensor.add_(torch.randn_like(tensor), alpha=0.2 * float(tensor.std().nan_to_num()))


def asked(path: str, limit: str, of: str) -> dict[str, Any]:
    """Ask by the command line in a process of its own; return its largest size, times and plan."""
    command = [sys.executable, "-m", "bench.streaming", "--child", path, limit, of]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    plan = next((line for line in done.stderr.splitlines() if "of memory" in line), "in memory")
    return {"limit": limit, "plan": plan, "seconds": time.perf_counter() - start, **found}


def measured(path: Path, limit: str, whole: str | None, of: list[str]) -> dict[str, Any]:
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
    }
    for name in of:
        result: dict[str, Any] = {"piece by piece": asked(str(path), limit, name)}
        one = values_of(path, name)
        if name == "consistency":
            result["mean accuracy, agreement of composites"] = [float(one[n].mean()) for n in ("accuracy", "agreement")]
            result["predictions that differ from plain torch's"] = against_plain(path, Run(path).result(name).load())
        if name == "capture":
            result["features that differ from those of hooks"] = against_hooks(path, one)
        if whole:
            result["whole"] = asked(str(path), whole, name)
            other = values_of(path, name)
            same = [np.array_equal(v, other[n], equal_nan=v.dtype.kind == "f") for n, v in one.items()]
            result["same bits as whole"] = one.keys() == other.keys() and all(same)
        found[name] = result
    return found


def values_of(path: Path, of: str) -> dict[str, Any]:
    """Return the numbers of a result, or of what was captured, by name."""
    from featdyn.store import Run

    if of == "capture":
        run = Run(captured(path))
        return {spec.path: run.array(spec.path).values for spec in run.schema.arrays}
    result = Run(path).result(of).load()
    return {str(name): v.values for name, v in result.data_vars.items() if v.dtype.kind in "fiub"}


def captured(path: Path | str) -> Path:
    """Return where checkpoints are captured again."""
    return Path(path).parent / "captured.zarr"


def against_hooks(path: Path, found: dict[str, Any]) -> int:
    """Run the last checkpoint with hooks on the whole network; return how many features are others."""
    from safetensors.torch import load_model

    model, kept, different = Words().eval(), dict[str, list[Tensor]](), 0
    load_model(model, str(path.parent / f"step{CHECKPOINTS - 1}.safetensors"))
    for cut in CUTS.split(","):
        kept[cut] = []
        model.get_submodule(cut).register_forward_hook(lambda m, a, z, cut=cut: kept[cut].append(z))
    with torch.inference_mode():
        for start in range(0, PROBES, BATCH):
            model(probes().inputs[start : start + BATCH])
    for cut, each in kept.items():
        wanted = torch.cat(each).numpy()
        different += int((found[f"layers/{cut}/activation"][CHECKPOINTS - 1] != wanted).sum())
    return different


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


def child(path: str, limit: str, of: str) -> None:
    """Run the command line here; what libraries take is told apart, which a limit counts too."""
    from featdyn.cli import main

    given = {
        "consistency": ["analyze", path, of, "--cuts", CUTS, "--features", "recomputed", "--fresh"],
        "density": ["analyze", path, of, "--cuts", CUTS, "--permutations", "19", "--fresh"],
        "capture": [
            "capture", "--probes", "bench.streaming:probes", "--store", str(captured(path)), "--layers", CUTS,
            "--checkpoints", str(Path(path).parent / "step*.safetensors"), "--batch", str(BATCH), "--no-gradients",
            "--dtype", "float32",
        ],
    }  # fmt: skip
    if of == "capture":
        shutil.rmtree(captured(path), ignore_errors=True)
    sys.argv[1:] = [*given[of], "--model", "bench.streaming:Words", "--memory-limit", limit]
    main()
    status = Path("/proc/self/status").read_text()
    peak = 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status)[0])
    used = os.times()
    print(json.dumps({"peak bytes": peak, "processor seconds": used.user + used.system}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.streaming", description=__doc__)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--limit", default="1.4GB", help="of the process, in which torch with CUDA alone takes 0.5 GB")
    parser.add_argument("--whole", metavar="LIMIT", help="ask again with so much memory, which the whole fits into")
    parser.add_argument("--of", default=",".join(OF), help=f"some of {', '.join(OF)}")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
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
        found = measured(folder / "run.zarr", given.limit, given.whole, given.of.split(","))
    finally:
        if not given.folder:
            shutil.rmtree(folder)
    print(json.dumps(found, indent=1))
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
