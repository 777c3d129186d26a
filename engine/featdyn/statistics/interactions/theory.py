"""What theory says of strength by order: the spindle of noise, and the filter that learning under noise applies.

arXiv 2407.19198: noise of variance s2 on outputs gives interactions of variance ``2**|T| s2``, so that those of a
random network form a spindle over orders; weights learned under such noise are the final interactions w* through a
filter, ``w = (J'J + 2**n diag(c))^-1 J'J w*`` with ``J[S, T] = (T in S)`` and ``c_T = 2**|T| s2``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from featdyn.statistics.interactions.extraction import AndOr, and_or_outputs
from featdyn.statistics.interactions.strength import normalised, salient
from featdyn.statistics.interactions.subsets import Values, by_order, orders, variables
from featdyn_kernels import moebius

_NOISES = np.geomspace(1e-7, 1e2, 55)
"""The s2 that are tried: our own choice."""
_PRECISION = 1e-10  # of the filter's equations
_STEPS = 5000


def spindle(n: int) -> Values:
    """Return the share ``C(n, k) 2**(k / 2)`` of each order 1 to n in a random network's strength, ``(n,)``, summing
    to 1.
    """
    found = np.array([comb(n, k) * 2.0 ** (k / 2) for k in range(1, _count(n) + 1)])
    return np.asarray(found / found.sum())


def filter_norms(n: int, noise: float) -> Values:
    """Return the norm of the filter's row of an interaction of each order 0 to n, ``(n + 1,)``, for s2 = ``noise``.

    Rows depend on the order alone, and the entries of a row on how many variables a subset has within T and outside it:
    a system of ``(k + 1) (n - k + 1)`` unknowns in place of ``2**n``.
    """
    return np.array(_norms(_count(n), _positive(noise)))


def filter_ratios(n: int, noise: float) -> Values:
    """Return ``r^(k)``, the norm at order k over that at k + 1, for k = 0 to n - 1, ``(n,)``."""
    norms = filter_norms(n, noise)
    return np.asarray(norms[:-1] / norms[1:])


@lru_cache(maxsize=1024)
def _norms(n: int, noise: float) -> tuple[float, ...]:
    return tuple(_row_norm(n, k, noise) for k in range(n + 1))


def _row_norm(n: int, k: int, noise: float) -> float:
    shape = (k + 1, n - k + 1)
    # J'J / 2**n is 2**-|U or U'|, summed over the U' of one size within T and one outside.
    a = np.kron(_overlaps(k), _overlaps(n - k))
    sizes = np.add.outer(np.arange(k + 1), np.arange(n - k + 1)).reshape(-1)
    start = np.zeros(shape)
    start[k, 0] = 1.0
    row = a @ np.linalg.solve(a + np.diag(noise * 2.0**sizes), start.reshape(-1))
    number = np.outer([comb(k, i) for i in range(k + 1)], [comb(n - k, j) for j in range(n - k + 1)]).reshape(-1)
    return float(np.sqrt(number @ row**2))


def _overlaps(m: int) -> Values:
    """Return ``sum 2**-|U or U'|`` over the U' of size b, for U of size a, in m variables: ``(a, b)``."""

    def both(a: int, b: int) -> float:
        return sum(comb(a, j) * comb(m - a, b - j) * 2.0 ** (j - a - b) for j in range(min(a, b) + 1))

    return np.array([[both(a, b) for b in range(m + 1)] for a in range(m + 1)])


def filtered(interactions: ArrayLike, noise: float) -> Values:
    """Return ``w = (J'J + 2**n diag(c))^-1 J'J w*`` of ``w* (..., 2**n)``, by conjugate gradients with fast
    transforms.
    """
    w = np.asarray(interactions, np.float64)
    n = variables(w.shape[-1])
    scale = np.sqrt(1 / (_positive(noise) * 2.0 ** orders(n)))

    def product(x: Values) -> Values:
        return np.asarray(moebius.zeta_adjoint(moebius.zeta(x)) / 2**n)

    # In u = w / scale the system is I + a matrix of quickly falling eigenvalues.
    residual = scale * product(w)
    u, direction = np.zeros_like(w), residual.copy()
    size = (residual**2).sum(-1, keepdims=True)
    wanted = _PRECISION**2 * size
    for _ in range(_STEPS):
        if (size <= wanted).all():
            return np.asarray(u * scale)
        moved = direction + scale * product(scale * direction)
        curvature = (direction * moved).sum(-1, keepdims=True)
        step = np.divide(size, curvature, out=np.zeros_like(size), where=curvature > 0)
        u += step * direction
        residual -= step * moved
        fresh = (residual**2).sum(-1, keepdims=True)
        direction = residual + np.divide(fresh, size, out=np.zeros_like(size), where=size > 0) * direction
        size = fresh
    raise ValueError(f"noise {noise:g} is too small for the filter to be computed")


def theoretical_strength(final: AndOr, noise: float) -> Values:
    """Return the strength by order, ``(..., sample, n)``, that theory gives a network under noise s2.

    w* are the salient interactions of the final network; those of w that reach 0.03 of the mean ``|v(N) - v(0)|`` of
    theory count. OR interactions pass the same filter as AND ones, and v(0) is no interaction: **featdyn's own
    choice**.
    """
    w = filtered(np.where(salient(final), final.both, 0.0), noise)
    w[..., 0] = 0.0
    outputs = and_or_outputs(w)
    tau = 0.03 * np.abs(outputs[..., -1]).mean(-1, keepdims=True)
    return by_order(np.where(np.abs(w) >= tau[..., None, None], np.abs(w), 0.0).sum(-2))


@dataclass(frozen=True)
class NoiseFit:
    """The s2 whose theoretical strength fits best, the error there, and whether s2 is at an end of those tried."""

    noise: float
    error: float  # mean absolute difference of the normalised strengths
    strength: Values  # (n,), of theory, normalised
    at_edge: bool  # then s2 is a limit, not an estimate


def fit_noise(final: AndOr, strength: ArrayLike) -> NoiseFit:
    """Return the s2 that best explains a checkpoint's ``strength (n,)`` from the final network's interactions.

    55 values from 1e-7 to 100 are tried; the theory says that s2 falls through the second phase. By least absolute
    difference of normalised strengths, which the paper leaves open.
    """
    found = normalised(np.asarray(strength, np.float64))
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ValueError(f"strength must have shape (n,) and not be all 0, got shape {found.shape}")
    curves = normalised(np.stack([theoretical_strength(final, float(s)).mean(-2) for s in _NOISES]))
    if curves.shape[1:] != found.shape:
        raise ValueError(f"final must be of {len(found)} variables, (sample, 2**n), got {final.i_and.shape}")
    errors = np.abs(curves - found).mean(-1)
    if not np.isfinite(errors).any():
        raise ValueError("final has no salient interactions, so that theory gives no strength")
    best = int(np.nanargmin(errors))
    known = np.flatnonzero(np.isfinite(errors))
    return NoiseFit(float(_NOISES[best]), float(errors[best]), curves[best], best in (known[0], known[-1]))


def _positive(noise: float) -> float:
    if not 0 < noise < np.inf:
        raise ValueError(f"noise must be positive and finite, got {noise}")
    return float(noise)


def _count(n: int) -> int:
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return n
