"""A small language model, recorded by token and asked by commands: ``python -m bench.language_model FOLDER``.

A transformer of a million parameters learns to write the characters of Python's own manual (``pydoc_data.topics``,
which every Python ships). Windows of its text, seen and unseen in training, are the probes; every position of every
block is recorded. All that is asked afterwards is a command; a figure and the numbers in it are kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import harness

CONTEXT, WIDTH, HEADS, DEPTH = 64, 144, 4, 4
BATCH, RATE, WARM = 32, 1e-3, 50
PROBES = 32
"""Windows of each set."""
NAMED = "bench.language_model:network"
CUTS = "blocks.0,blocks.1,blocks.2,blocks.3"
ASKED: dict[str, list[str]] = {
    "consistency": ["--model", NAMED, "--cuts", CUTS],
    "drift": ["--model", NAMED, "--cuts", CUTS],
    "spectra": [],
}


class Block(nn.Module):
    """Attention to what came before, and a layer of units."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.units = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(sample, position, feature)``."""
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.units(self.between(x))


class Embedding(nn.Module):
    """Characters and where they stand."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.character, self.place = nn.Embedding(characters, WIDTH), nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))

    def forward(self, ids: Tensor) -> Tensor:
        """Return ``(sample, position, feature)``."""
        return self.character(ids) + self.place


class LanguageModel(nn.Module):
    """``(sample, position)`` characters to logits of the next at each, ``(sample, position, character)``."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embed = Embedding(characters)
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, characters, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.norm(self.blocks(self.embed(ids))))


def text() -> Tensor:
    """Return the manual as numbers of characters, in the order of its topics."""
    from pydoc_data.topics import topics

    written = "".join(topics[name] for name in sorted(topics))
    known = {character: i for i, character in enumerate(sorted(set(written)))}
    return torch.tensor([known[character] for character in written])


def network() -> LanguageModel:
    """Return the network that is trained; ``--model`` finds it by this name."""
    torch.manual_seed(0)
    return LanguageModel(int(text().max()) + 1)


def windows(data: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return characters from some places on, and those that follow each."""
    found = data[starts[:, None] + torch.arange(CONTEXT + 1)]
    return found[:, :-1], found[:, 1:]


def halves() -> tuple[Tensor, Tensor]:
    """Return the text to learn from, and the last tenth, which is never seen."""
    data = text()
    learned = len(data) * 9 // 10
    return data[:learned], data[learned:]


def probes() -> Any:
    """Return windows that do not overlap, of both parts of the text."""
    from featdyn import Probes

    each = []
    for data in halves():
        starts = torch.arange(PROBES) * (len(data) // PROBES)
        each.append(windows(data, starts))
    inputs, targets = (torch.cat(parts) for parts in zip(*each, strict=True))
    return Probes(inputs, targets, {"split": np.repeat(np.array(["train", "test"], dtype=object), PROBES)})


def train(store: Path, steps: int) -> float:
    """Train and record at steps that double; return the seconds."""
    from featdyn import Recorder

    model, (learned, unseen) = network(), halves()
    due = {0, steps, *(2**i for i in range(2, 30))}
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.1, betas=(0.9, 0.95))
    random, start = torch.Generator().manual_seed(1), time.perf_counter()
    coords = ("train_loss", "test_loss", "learning_rate")
    with Recorder(model, probes(), store, layers=["embed", "blocks.*"], coords=coords) as recorder:
        for step in range(steps + 1):
            starts = torch.randint(len(learned) - CONTEXT - 1, (BATCH,), generator=random)
            inputs, targets = windows(learned, starts)
            rate = RATE * min(1.0, (step + 1) / WARM)
            loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
            if step in due:
                with torch.no_grad():
                    seen, follows = windows(unseen, torch.arange(256) * (len(unseen) // 257))
                    other = F.cross_entropy(model(seen).flatten(0, 1), follows.flatten())
                recorder.record(step=step, train_loss=loss.item(), test_loss=other.item(), learning_rate=rate)
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
    return time.perf_counter() - start


def command(*words: str | Path) -> float:
    """Run a command of featdyn as from the shell; return the seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "cli.py", *map(str, words)], check=True)
    return time.perf_counter() - start


def found(store: Path) -> dict[str, Any]:
    """Return the numbers that the commands left in the store: test windows, by block (cut), t1 and t2."""
    from featdyn import open_run

    run = open_run(store)
    consistency, drift, spectra = (run.result(name) for name in ("consistency", "drift", "spectra"))
    own = np.arange(drift.sizes["cut"])
    numbers = {
        "accuracy (cut, t1, t2)": consistency["accuracy"].sel(set="test").values,
        "loss (cut, t1, t2), nat a character": consistency["loss"].sel(set="test").values,
        "cka (cut, t1, t2)": drift["cka"].values[own, own],
        "effective rank (layer, t)": spectra["effective_rank"].sel(set="test").values,
    }
    held = {"step": run.values("step").tolist(), "cut": consistency["cut"].values.tolist(), "layer": run.layers}
    held["test loss of training, nat a character"] = np.round(run.values("test_loss"), 4).tolist()
    held["predictions a set"] = consistency["set_size"].sel(set="test").item()
    return held | {name: np.round(values, 4).tolist() for name, values in numbers.items()}


def main() -> None:
    """Train, ask and keep what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--found", action="store_true", help="keep the numbers of a run that is there, and end")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    store = options.folder / "language-model.zarr"
    if options.found:
        kept = json.loads(options.json.read_text())
        options.json.write_text(json.dumps(kept | found(store)))
        return
    seconds = {"training": train(store, options.steps)}
    for name, more in ASKED.items():
        seconds[name] = command("analyze", store, name, *more)
    seconds["report"] = command("report", store, "-o", options.folder / "language-model.html")
    if options.json:
        kept = {"environment": harness.environment("cpu"), "seconds": seconds, "steps": options.steps}
        options.json.write_text(json.dumps(kept | found(store)))


if __name__ == "__main__":
    main()
