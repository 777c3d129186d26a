"""CKA between all pairs of checkpoints, beside torch as one would write it: biased and debiased, without bounds.

Ours gives jackknife bounds too. Feature motion is timed in ``bench/paths.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from bench.harness import Case, sized
from featdyn.statistics.cka import Alignment, Grams

SHAPES = ((20, 400, 1_024), (60, 400, 1_024))  # sets of features (checkpoints x cuts), samples, width

Pair = tuple[np.ndarray, np.ndarray]


def cases(device: str) -> Iterator[Case]:
    for matrices, n, width in sized(SHAPES, ((3, 12, 20),)):
        draw = torch.Generator().manual_seed(0)
        start = torch.randn(n, width, generator=draw)
        walk = 0.3 * torch.randn(matrices, n, width, generator=draw).cumsum(0)
        features = (start + walk).to(device)
        expected = _pair_by_pair(features.double())

        def ours(features: Tensor = features) -> Pair:
            grams = Grams(len(features), features.shape[1])
            for index, z in enumerate(features):
                centred = z - z.mean(0)
                grams.put(index, (centred @ centred.T).cpu().numpy())
            found: Alignment = grams.alignment()
            return found.biased, found.debiased

        def check(found: Pair, expected: Pair = expected) -> None:
            for got, wanted in zip(found, expected, strict=True):
                np.testing.assert_allclose(got, wanted, atol=1e-4)

        peers = {
            "torch, Gram matrices once, pair by pair": lambda f=features: _pair_by_pair(f),
            "torch, Gram matrices anew for each pair": lambda f=features: _anew(f),
        }
        if matrices > 20:
            peers.pop("torch, Gram matrices anew for each pair")
        yield Case(f"m={matrices} n={n} F={width} float32", ours, peers, check, repeats=5)


def _centred_gram(x: Tensor) -> Tensor:
    x = x - x.mean(0)
    return x @ x.T


def _hsic(k: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    n = len(k)
    a, b = k - torch.diag(k.diagonal()), g - torch.diag(g.diagonal())
    rows = a.sum(1), b.sum(1)
    unbiased = (a * b).sum() + rows[0].sum() * rows[1].sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows[0] @ rows[1])
    return (k * g).sum(), unbiased


def _filled(hsic: Tensor) -> Pair:
    own = hsic.diagonal(dim1=1, dim2=2).sqrt()
    biased, debiased = (hsic / own[:, :, None] / own[:, None]).cpu().double().numpy()
    return biased, debiased


def _pair_by_pair(features: Tensor) -> Pair:
    grams = [_centred_gram(x) for x in features]
    hsic = torch.zeros(2, len(grams), len(grams), dtype=features.dtype)
    for i, k in enumerate(grams):
        for j, g in enumerate(grams[: i + 1]):
            hsic[:, i, j] = hsic[:, j, i] = torch.stack(_hsic(k, g))
    return _filled(hsic)


def _anew(features: Tensor) -> Pair:
    hsic = torch.zeros(2, len(features), len(features), dtype=features.dtype)
    for i, x in enumerate(features):
        for j, y in enumerate(features[: i + 1]):
            hsic[:, i, j] = hsic[:, j, i] = torch.stack(_hsic(_centred_gram(x), _centred_gram(y)))
    return _filled(hsic)
