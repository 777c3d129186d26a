"""Hypothesis strategies that tests share: whole small runs, each with something unusual about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from featdyn.capture import Probes, Recorder
from featdyn.store import Run, schema

CLASSES, WIDTH, SHARD = 3, 5, 8


def sizes(least: int, most: int) -> st.SearchStrategy[int]:
    """Draw a size of a range, its ends as often as all between: what is special is so at the fewest."""
    return st.sampled_from([least, most]) | st.integers(least, most)


@dataclass(frozen=True)
class Recipe:
    """What a small run is like."""

    network: str
    sizes: tuple[int, ...]  # of train, test, corrupted; one set without a name where there is one size
    interleaved: bool
    copies: bool  # two probes of each image
    dead: bool  # the second hidden layer is zero after its ReLU
    checkpoints: int
    labels: str
    moves: bool
    dtype: str
    seed: int

    def model(self) -> nn.Module:
        """Return the network at its first checkpoint."""
        torch.manual_seed(self.seed)
        if self.network == "cnn":
            first = [nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, WIDTH)]
        else:
            first = [nn.Flatten(), nn.Linear(9, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)]
        model = nn.Sequential(*first, nn.ReLU(), nn.Linear(WIDTH, CLASSES))
        if self.dead:
            torch.nn.init.constant_(model[3].bias, -100.0)
        return model.eval()

    def probes(self) -> Probes:
        """Return the probes."""
        random, n = np.random.default_rng(self.seed), sum(self.sizes)
        split = np.repeat(np.array(["train", "test", "corrupted"], dtype=object)[: len(self.sizes)], self.sizes)
        if self.interleaved:
            split = random.permutation(split)
        labels = np.zeros(n, np.int64) if self.labels == "equal" else random.integers(0, CLASSES, n)
        if self.labels == "one class to learn" and len(self.sizes) > 1:
            labels[split == "train"] = 1
        origin = np.arange(n) // 2 if self.copies else np.arange(n)
        inputs = random.standard_normal((n, 1, 3, 3))[origin] + 0.2 * random.standard_normal((n, 1, 3, 3))
        coords = {"origin": origin} | ({"split": split} if len(self.sizes) > 1 else {})
        return Probes(torch.from_numpy(inputs + labels[:, None, None, None]).float(), torch.from_numpy(labels), coords)

    def record(self, path: Path) -> tuple[Run, nn.Module]:
        """Record the run, in shards of eight samples and batches of three."""
        model, random = self.model(), torch.Generator().manual_seed(self.seed)
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr(schema, "SHARD_SAMPLES", SHARD)
            with Recorder(model, self.probes(), path, layers=["*"], batch=3, dtype=self.dtype) as recorder:
                for t in range(self.checkpoints):
                    recorder.record(step=10 * t)
                    for parameter in model.parameters() if self.moves else ():
                        parameter += 0.3 * torch.randn(parameter.shape, generator=random)
        return Run(path), model


def recipes() -> st.SearchStrategy[Recipe]:
    """Return a strategy of small runs: sets of one and two probes too, and last blocks of a single probe."""
    sizes = st.one_of(
        st.sampled_from([(9,), (6, 3), (14, 11), (12, 9, 4), (2, 2), (1, 5), (5, 1), (17, 2, 6)]),
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
    )
    return st.builds(
        Recipe,
        network=st.sampled_from(["mlp", "cnn"]),
        sizes=sizes,
        interleaved=st.booleans(),
        copies=st.booleans(),
        dead=st.booleans(),
        checkpoints=st.sampled_from([3, 2, 1]),
        labels=st.sampled_from(["mixed", "equal", "one class to learn"]),
        moves=st.sampled_from([True, True, False]),
        dtype=st.sampled_from(["float32", "float16"]),
        seed=st.integers(0, 99),
    )
