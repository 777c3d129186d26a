"""Game-theoretic indices of a table v, all linear in its Moebius transform m: n 2**n additions each.

With sums over T that contain S, and t, s their sizes:

- Shapley value: ``sum m(T) / t``; Banzhaf value: ``sum m(T) 2**(1 - t)``.
- SII (Grabisch and Roubens 1999): ``sum m(T) / (t - s + 1)``; Banzhaf interaction: ``sum m(T) 2**(s - t)``.
- k-SII (Bordt and von Luxburg 2023): SII of order k; below, SII of all supersets of up to k, weighted by Bernoulli
  numbers.
- STII (Sundararajan et al. 2020): m(S) below order k, ``sum m(T) / C(t, k)`` at k.
- FSII (Tsai et al. 2023, theorem 19), the most faithful polynomial of degree k:
  ``m(S) + (-1)**(k - s) s / (k + s) C(k, s) sum_{t > k} C(t - 1, k) / C(t + k - 1, k + s) m(T)``.

Tables are ``(..., 2**n)``, bit i of the index being variable i. Results that are tables hold 0 for the empty set and
above the order asked.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bernoulli

from featdyn.statistics.interactions.subsets import Values, orders, table, variables
from featdyn_kernels import moebius

Weight = Callable[[int, int], float]  # of s and t >= s


def shapley_values(v: ArrayLike) -> Values:
    """Return the Shapley value of each variable, ``(..., n)``; they add up to v(N) - v(0).

    Examples
    --------
    >>> shapley_values([0.0, 1.0, 2.0, 3.0])  # players 0 and 1 add 1 and 2
    array([1., 2.])
    """
    return _singles(shapley_interactions(v, 1))


def banzhaf_values(v: ArrayLike) -> Values:
    """Return the Banzhaf value of each variable, ``(..., n)``: its mean effect over all subsets of the others."""
    return _singles(banzhaf_interactions(v, 1))


def shapley_interactions(v: ArrayLike, order: int) -> Values:
    """Return the Shapley interaction index (SII) of subsets of up to ``order`` variables, ``(..., 2**n)``."""
    return _summed(_dividends(v, order), order, lambda s, t: 1 / (t - s + 1))


def banzhaf_interactions(v: ArrayLike, order: int) -> Values:
    """Return the Banzhaf interaction index of subsets of up to ``order`` variables, ``(..., 2**n)``."""
    return _summed(_dividends(v, order), order, lambda s, t: 2.0 ** (s - t))


def k_shapley_values(v: ArrayLike, order: int) -> Values:
    """Return the k-SII of top order ``order``, ``(..., 2**n)``; they add up to v(N) - v(0)."""
    found = shapley_interactions(v, order)
    weights = bernoulli(variables(found.shape[-1]))  # B_1 = -1/2
    return _summed(found, order, lambda s, t: float(weights[t - s]))  # above the order found is 0


def shapley_taylor_interactions(v: ArrayLike, order: int) -> Values:
    """Return the Shapley-Taylor index (STII) of top order ``order``, ``(..., 2**n)``; they add up to v(N) - v(0)."""
    return _summed(_dividends(v, order), order, lambda s, t: 1 / comb(t, order) if s == order else float(s == t))


def faithful_shapley_interactions(v: ArrayLike, order: int) -> Values:
    """Return the faithful Shapley index (FSII) of top order ``order``, ``(..., 2**n)``; they add up to v(N) - v(0)."""

    def weight(s: int, t: int) -> float:
        if t <= order:
            return float(s == t)
        sign = (-1.0) ** (order - s)
        return sign * s / (order + s) * comb(order, s) * comb(t - 1, order) / comb(t + order - 1, order + s)

    return _summed(_dividends(v, order), order, weight)


def _dividends(v: ArrayLike, order: int) -> Values:
    values = table(v, "v")
    n = variables(values.shape[-1])
    if not 1 <= order <= n:
        raise ValueError(f"order must be between 1 and {n}, the number of variables, got {order}")
    return np.asarray(moebius.moebius(values))


def _summed(m: Values, order: int, weight: Weight) -> Values:
    """Return ``sum_{T contains S} weight(|S|, |T|) m(T)`` for S of order 1 to ``order``, 0 elsewhere."""
    n = variables(m.shape[-1])
    size = orders(n)
    result = np.zeros_like(m)
    for s in range(1, order + 1):
        weights = np.array([weight(s, max(s, t)) for t in range(n + 1)])  # no smaller T contains S
        here = size == s
        result[..., here] = np.asarray(moebius.zeta_adjoint(m * weights[size]))[..., here]
    return result


def _singles(index: Values) -> Values:
    return index[..., 2 ** np.arange(variables(index.shape[-1]))]
