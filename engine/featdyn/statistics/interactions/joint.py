"""AND and OR interactions of several networks on the same samples, extracted together so that shared ones are found as
such.

After arXiv 2401.16318, equations 5 and 6, with the weights of its code: over nonempty subsets S and networks i the sum
of ``(1 - share) max_i |I_i(S)| + share sum_i |I_i(S)|``, AND and OR, is least, so that an interaction which one
network has costs the others little. Each network has its slack, and its split stays within half of the mean ``|v(N) -
v(0)|`` of a common one; after that OR interactions of one variable are counted as AND interactions, which they equal.

The solver is that of :func:`featdyn_kernels.moebius.sparsify`, whose steps are joined by the norm over networks. The
box on splits is left out of it, and splits are put into it at the end: the lower bound holds, and what this costs is
in the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from featdyn.statistics.interactions.extraction import AndOr, from_split
from featdyn.statistics.interactions.subsets import Values, table, variables
from featdyn_kernels import moebius
from featdyn_kernels.moebius.sparse import settings
from featdyn_kernels.moebius.sparse.blocks import blocks
from featdyn_kernels.moebius.sparse.certificate import fold_shift

_LARGEST = 13
_LEAST = 1e-12
"""Of a table's range, steps of one that is constant: our own choice."""


@dataclass(frozen=True)
class Joint:
    """What :func:`joint_and_or` found.

    Attributes
    ----------
    models : AndOr
        ``(network, ..., 2**n)``; its ``gap`` is NaN, as no network alone is solved for.
    objective, gap : (...)
        The joint sum, and how far above the optimum it may be.
    """

    models: AndOr
    objective: Values
    gap: Values


def joint_and_or(
    v: ArrayLike, *, share: float = 0.1, slack: float = 0.02, tolerance: float = 0.01, iterations: int = 3000
) -> Joint:
    """Return the interactions of several networks under splits that favour shared ones.

    Parameters
    ----------
    v : (network, sample, 2**n)
        Outputs on the same samples and players, at least two networks, n up to 13.
    share
        Weight of the sum against the largest, 0.1 in the code; 1 extracts each network alone.
    slack
        Largest ``|q|`` as a share of each network's ``|v(N) - v(0)|``.
    tolerance, iterations
        Gap over objective at which to stop, or after how many iterations; the gap says what was reached.
    """
    values = table(v, "v")
    if values.ndim != 3 or len(values) < 2 or values.shape[-1] > 2**_LARGEST:
        raise ValueError(
            f"v must have shape (network, sample, 2**n), at least 2 networks and n to 13, got {values.shape}"
        )
    if not (0 <= share <= 1 and 0 <= slack < np.inf and iterations >= 1 and tolerance >= 0):
        raise ValueError("share must lie between 0 and 1, slack and tolerance not be negative, iterations at least 1")
    span = np.abs(values[..., -1] - values[..., 0])
    bound, room = slack * span, 0.5 * span.mean(1)
    best = _Best(values, bound, room, share)
    for x, z, q, y in _steps(values, bound, share, iterations):
        best.offer(x, z, q, y)
        if (best.objective - best.lower <= tolerance * best.objective).all():
            break
    models = _found(values, best.p, best.q)
    l1 = np.abs(models.both).sum((-2, -1)) + np.abs(models.bias)
    return Joint(replace(models, l1=l1), best.objective, np.maximum(best.objective - best.lower, 0.0))


def _found(v: Values, p: Values, q: Values) -> AndOr:
    """Return the interactions of these splits; no network alone has an l1 or a gap."""
    unknown = np.full(v.shape[:-1], np.nan)
    return from_split(v, p, q, unknown, unknown, 1, "primal-dual")


class _Best:
    """The best splits and the best lower bound so far, of each sample."""

    def __init__(self, v: Values, bound: Values, room: Values, share: float) -> None:
        self._v, self._bound, self._room, self._share = v, bound, room[:, None, None], share
        self.p, self.q = np.zeros_like(v), np.zeros_like(v)
        self.objective = np.full(v.shape[1], np.inf)
        self.lower = np.full(v.shape[1], -np.inf)

    def offer(self, x: Values, z: Values, q: Values, y: Values) -> None:
        p = (_zeta(x) + _zeta_adjoint(z)) / 2
        v_rows, p_rows, q_rows = (part.reshape(-1, part.shape[-1]) for part in (self._v, p, q))
        p = p + fold_shift(np, v_rows, p_rows, q_rows, 1).reshape(p.shape)
        middle = ((p - self._room).max(0) + (p + self._room).min(0)) / 2
        p = np.clip(p, middle - self._room, middle + self._room)
        size = np.abs(_found(self._v, p, q).both)
        objective = ((1 - self._share) * size.max(0) + self._share * size.sum(0)).sum((-2, -1))
        better = objective < self.objective
        self.objective = np.where(better, objective, self.objective)
        self.p[:, better], self.q[:, better] = p[:, better], q[:, better]
        self.lower = np.maximum(self.lower, self._worth(y))

    def _worth(self, y: Values) -> Values:
        """Return the lower bound that prices prove, once they are made small enough."""
        y = y.copy()
        y[..., 0] -= y.sum(-1)
        reduced = np.concatenate([_zeta_adjoint(y)[..., 1:], _zeta(y)[..., :-1]], axis=-1)
        most = np.cumsum(-np.sort(-np.abs(reduced), axis=0), axis=0)  # of the k largest, over networks
        weights = 1 - self._share + self._share * np.arange(1, len(y) + 1)
        y /= np.maximum((most / weights[:, None, None]).max((0, -1)), 1.0)[:, None]
        return np.asarray(((y * self._v).sum(-1) - self._bound * np.abs(y).sum(-1)).sum(0))


def _steps(v: Values, bound: Values, share: float, iterations: int) -> Iterator[tuple[Values, Values, Values, Values]]:
    """Yield (x, z, q, y) at each look: AND interactions, OR interactions by complements, slacks and prices."""
    x, z = np.asarray(moebius.moebius(v / 2)), -np.asarray(moebius.moebius_adjoint(v / 2))
    q, y = np.zeros_like(v), np.zeros_like(v)
    solve = _inverse(variables(v.shape[-1]))
    reach = np.abs(v - v[..., :1]).max((0, -1))
    first = settings.FIRST_STEP * np.maximum(reach, _LEAST * (1 + np.abs(v).max()))[:, None]
    step, slack_step = first, first

    def shrunk(changed: Values, free: int) -> Values:
        kept = changed[..., free].copy()
        found = _shrunk(changed, step, share)
        found[..., free] = kept
        return np.asarray(found)

    for k in range(1, iterations + 1):
        new_x, new_z = shrunk(x + step * _zeta_adjoint(y), 0), shrunk(z - step * _zeta(y), -1)
        new_q = np.clip(q - slack_step * y, -bound[..., None], bound[..., None])
        residual = _zeta(2 * new_x - x) - _zeta_adjoint(2 * new_z - z) - (2 * new_q - q) - v
        looking = k % settings.CHECK == 0 or k == iterations
        pace = 1.0 if looking else settings.RELAXATION
        y = y - pace * solve(residual, step, slack_step)
        x, z, q = x + pace * (new_x - x), z + pace * (new_z - z), q + pace * (new_q - q)
        if looking:
            yield x, z, q, y
        if looking and k <= settings.ADAPTING:
            primal, dual = _size(x, 1) + _size(z, 0), _size(_zeta_adjoint(y), 1) + _size(_zeta(y), 0)
            step = _moved(step, settings.COEFFICIENT_STEP, primal, dual, first)
            slack_step = _moved(slack_step, settings.SLACK_STEP, _size(q, None), _size(y, None), first)


def _shrunk(values: Values, step: Values, share: float) -> Values:
    """Return the proximal map of ``step`` times the norm over networks, axis 0: thresholds, then the largest cut."""
    found = np.sign(values) * np.maximum(np.abs(values) - step * share, 0.0)
    # The largest is lowered, and those that then are as large, until the sum of what was taken is the step's.
    size = -np.sort(-np.abs(found), axis=0)
    count = np.arange(1, len(values) + 1)[:, None, None]
    level = ((np.cumsum(size, axis=0) - step * (1 - share)) / count).max(0)
    return np.asarray(np.clip(found, -np.maximum(level, 0), np.maximum(level, 0)))


def _inverse(n: int) -> Callable[[Values, Values, Values], Values]:
    """Return the inverse of ``step (Z Z' + Z' Z) + slack_step`` as a function of (values, step, slack_step)."""
    found = blocks(n)
    high, low, vectors, spectrum = found.high, found.low, found.vectors, found.spectrum
    places, size = found.places, 2**n

    def solve(values: Values, step: Values, slack_step: Values) -> Values:
        lead = values.shape[:-1]
        rows = values.reshape(-1, len(high), len(low))
        halves = np.zeros((len(rows), size + 1))  # place -1 of a block that is not full reads zero
        halves[:, :size] = (high.T @ rows @ low).reshape(-1, size)
        inner = np.einsum("kji,rkj->rki", vectors, halves[:, places])
        steps, slacks = (np.broadcast_to(s, (*lead, 1)).reshape(-1, 1, 1) for s in (step, slack_step))
        halves[:, places] = np.einsum("kij,rkj->rki", vectors, inner / (steps * spectrum + slacks))
        return np.asarray((high @ halves[:, :size].reshape(rows.shape) @ low.T).reshape(values.shape))

    return solve


def _moved(step: Values, factor: float, primal: Values, dual: Values, first: Values) -> Values:
    least, most = first / settings.STEP_RANGE, first * settings.STEP_RANGE
    wanted = np.divide(factor * primal, dual, out=most.copy(), where=dual > 0)
    return np.asarray(np.sqrt(step * np.clip(wanted, least, most)))


def _size(values: Values, skip: int | None) -> Values:
    """Return the sum of sizes over networks and subsets, without the free entry: the first (1) or the last (0)."""
    kept = values if skip is None else values[..., 1:] if skip else values[..., :-1]
    return np.asarray(np.abs(kept).sum((0, -1))[:, None])


def _zeta(values: Values) -> Values:
    return np.asarray(moebius.zeta(values))


def _zeta_adjoint(values: Values) -> Values:
    return np.asarray(moebius.zeta_adjoint(values))
