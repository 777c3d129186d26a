"""A tiny transformer over padded tokens, in several layouts, and a run of it; and what a plain float64 loop finds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featdyn.capture import Probes, Recorder
from featdyn.store import Run

VOCABULARY, WIDTH, LENGTH, N = 11, 6, 5, 13
LAYERS = ("embed", "mix", "up")


class Attending(nn.Module):
    """Single-head attention that heeds the mask, a linear layer, and logits of tokens, or of classes of the mean.

    Written without modules of torch that switch their arithmetic with the batch; ``first`` runs tokens first.
    """

    def __init__(self, outputs: int = VOCABULARY, *, by_token: bool = True, first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.place = nn.Embedding(VOCABULARY, WIDTH), nn.Parameter(torch.randn(LENGTH, WIDTH) / 2)
        self.mix, self.up, self.head = (
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, 2 * WIDTH),
            nn.Linear(2 * WIDTH, outputs),
        )
        self.by_token, self.first, self.gain = by_token, first, 1.0

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask.bool()
        x = self.embed(ids) + self.place
        scores = (x @ x.transpose(1, 2)).masked_fill(~real[:, None, :], -torch.inf)
        y = scores.softmax(-1) @ x
        y = (self.mix(y.transpose(0, 1)).transpose(0, 1) if self.first else self.mix(y)) + x
        z = F.relu(self.up(self.gain * y))
        if self.by_token:
            return self.head(z)
        weights = real[:, :, None].to(z.dtype)
        return self.head((z * weights).sum(1) / weights.sum(1))


def inputs(n: int = N, *, left: bool = False, other: bool = False) -> tuple[dict[str, Tensor], Tensor]:
    """Return ids and their mask, and targets ``(n, LENGTH)``; with ``other`` something else stands at padding."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCABULARY, (n, LENGTH), generator=generator)
    targets = torch.randint(0, VOCABULARY, (n, LENGTH), generator=generator)
    length = 1 + torch.arange(n) % LENGTH
    mask = torch.arange(LENGTH) < length[:, None]
    mask = mask.flip(1) if left else mask
    if other:
        ids = ids.where(mask, (ids + 3) % VOCABULARY)
        targets = targets.where(mask, (targets + 5) % VOCABULARY)
    return {"ids": ids, "attention_mask": mask.long()}, targets


def record(
    path: Path, network: nn.Module, probes: Probes, *, checkpoints: int = 3, change: float = 0.05, **options: Any
) -> Run:
    """Record a network at a few checkpoints, between which its weights move."""
    network = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(2)
    with Recorder(network, probes, path, **{"layers": LAYERS, "dtype": "float32", **options}) as recorder:
        for step in range(checkpoints):
            recorder.record(step=step)
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter += change * torch.randn(parameter.shape, generator=generator)
    return Run(path)


def exact(run: Run, network: nn.Module, t: int, given: dict[str, Tensor], layer: str) -> tuple[Tensor, Tensor]:
    """Return a layer's output (sample first) in float64 with a checkpoint's weights, by a hook, and the outputs."""
    twin = copy.deepcopy(network).double()
    twin.load_state_dict({name: value.double() for name, value in run.state(t).items()})
    kept: list[Tensor] = []
    handle = dict(twin.named_modules())[layer].register_forward_hook(lambda m, a, out: kept.append(out))
    outputs = twin(given["ids"], given["attention_mask"])
    handle.remove()
    return kept[0], outputs
