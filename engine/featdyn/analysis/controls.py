"""Is it the direction of the drift that keeps predictions, or only its small size?

Each control replaces the features z(t1) of the prefix by z(t2) + e with ``|e| = |z(t1) - z(t2)|`` for each probe, and
hands them to the suffix of t2. Which controls, and that drift counts as structured where it keeps accuracy better than
isotropic noise and than other probes' drift, are our own choice (feature dynamics, section 2.2 item 9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn.analysis.dissect import dissect
from featdyn.analysis.options import ControlOptions, suffixes
from featdyn.analysis.sets import Sets, spread
from featdyn.statistics.resampling import bootstrap_bounds, bootstrap_weights
from featdyn.store import Run
from featdyn.validation import validate
from featdyn_kernels.stitch import SuffixBank

KINDS = ("drift", "isotropic", "gaussian", "same_class", "other_class")
"""The drift itself; noise of no direction; noise of the drift's covariance; another probe's drift, of the same class
and of another one."""
STRICT = ("isotropic", "same_class", "other_class")
"""What drift has to beat to count as structured."""
DIMS = ("kind", "cut", "set", "t1", "t2")


def controls(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Compare the drift of features with perturbations of the same norm.

    Features are not clipped, so those behind a ReLU may become negative under a control: clipping would change norms.

    Parameters
    ----------
    run, model, progress
        As for :func:`featdyn.analysis.consistency.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.ControlOptions`.

    Returns
    -------
    xarray.Dataset
        ``accuracy`` and ``agreement`` (with t2's own network) ``(kind, cut, set, t1, t2)``; ``advantage`` of the drift
        over each kind in accuracy, with ``advantage_low`` and ``_high``, 95 % bounds over resampled probes;
        ``structured (cut, set, t1, t2)``: the lower bound is above 0 for isotropic noise and for other probes' drift;
        ``motion (cut, set, t1, t2)``, the mean of ``|z(t1) - z(t2)| / |z(t2)|``; ``norm_error (kind, cut, set, t1,
        t2)``, the largest relative difference between the norm that was wanted and the one measured after rounding.
    """
    chosen = validate(ControlOptions, options, "controls")
    parts, sets = dissect(run, model, chosen.cuts), Sets.of(run)
    kept = spread(run, sets, chosen.samples)
    labels = run.coords["label"].values
    t2s, t1s = suffixes(run, chosen.t2), range(run.checkpoints)
    shape = len(parts.cuts), len(sets.names), len(t1s), len(t2s)
    found = {name: np.full((len(KINDS), *shape), np.nan) for name in ("accuracy", "agreement", "norm_error")}
    found |= {name: np.full((len(KINDS), *shape), np.nan) for name in ("advantage", "advantage_low", "advantage_high")}
    motion = np.full(shape, np.nan)
    for j, t2 in enumerate(t2s):
        banks = [SuffixBank.from_states(cut.suffix, [parts.states[t2]]) for cut in parts.cuts]
        for s, mine in enumerate(kept):
            target = torch.from_numpy(labels[mine])
            weights = bootstrap_weights(len(mine), chosen.draws, chosen.seed)
            new = parts.features.whole(t2, mine)
            own = [bank.run(z).predictions[0] for bank, z in zip(banks, new, strict=True)]
            for t1 in t1s:
                for c, (old, z) in enumerate(zip(parts.features.whole(t1, mine), new, strict=True)):
                    size = torch.linalg.vector_norm((old - z).flatten(1), dim=1)
                    motion[c, s, t1, j] = float((size / torch.linalg.vector_norm(z.flatten(1), dim=1)).mean())
                    drift_right = None
                    seed = np.random.SeedSequence([chosen.seed, t1, t2, c, s]).generate_state(1)[0]
                    for k, moved in enumerate(perturbed(old, z, labels[mine], int(seed))):
                        cell = k, c, s, t1, j
                        predicted = banks[c].run(moved).predictions[0]
                        right = (predicted.cpu() == target).numpy()
                        drift_right = right if drift_right is None else drift_right
                        found["accuracy"][cell] = right.mean()
                        found["agreement"][cell] = float((predicted == own[c]).double().mean())
                        found["norm_error"][cell] = _norm_error(moved - z, size)
                        better = drift_right.astype(np.int8) - right
                        found["advantage"][cell] = better.mean()
                        low, high = bootstrap_bounds(better, weights)
                        found["advantage_low"][cell], found["advantage_high"][cell] = low, high
                if progress:
                    progress((j * len(kept) + s) * len(t1s) + t1 + 1, len(t2s) * len(kept) * len(t1s))
    coords = parts.coords(run, sets).isel(t2=t2s).assign_coords(kind=np.array(KINDS, dtype=object))
    coords["set_size"] = "set", [len(mine) for mine in kept]
    strict = [KINDS.index(kind) for kind in STRICT]
    return coords.assign(
        {name: (DIMS, values) for name, values in found.items()}
        | {"motion": (DIMS[1:], motion), "structured": (DIMS[1:], (found["advantage_low"][strict] > 0).all(0))}
    ).assign_attrs(options=chosen.model_dump(mode="json"))


def perturbed(old: Tensor, new: Tensor, labels: NDArray[np.integer[Any]], seed: int) -> Iterator[Tensor]:
    """Yield the features ``(n, ...)`` of each of :data:`KINDS`: the old ones, then new ones plus e.

    Parameters
    ----------
    old, new
        Features at t1 and t2, ``(n, ...)``.
    labels
        ``(n,)``. A probe without another of its class (or of another class) is left as it is at t2.
    seed
        Of the noise and of the choice of other probes.

    Notes
    -----
    The Gaussian's covariance is that of the drift over the other probes: a random combination of their centred drifts.
    """
    flat = (old - new).flatten(1)
    size = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    random = torch.Generator().manual_seed(seed)
    n = len(flat)

    def placed(direction: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        e = torch.where(length > 0, direction * (size / length), 0.0)
        return new + e.view_as(new)

    yield old
    yield placed(torch.randn(flat.shape, generator=random).to(flat))
    mixture = torch.randn(n, n, generator=random).fill_diagonal_(0).to(flat)
    yield placed(mixture @ (flat - flat.mean(0)))
    same = torch.from_numpy(labels[:, None] == labels).fill_diagonal_(False)
    for candidates in (same, torch.from_numpy(labels[:, None] != labels)):
        weights = candidates.float() + 1e-30 * torch.eye(n)  # oneself, where there is nobody else
        other = torch.multinomial(weights, 1, generator=random)[:, 0]
        alone = (other == torch.arange(n)).to(flat.device)
        yield placed(torch.where(alone[:, None], 0.0, flat[other.to(flat.device)]))


def _norm_error(e: Tensor, size: Tensor) -> float:
    measured = torch.linalg.vector_norm(e.flatten(1).double(), dim=1)
    error = torch.where((size > 0) & (measured > 0), (measured / size.double() - 1).abs(), 0.0)
    return float(error.max())
