"""Interactions of 20 to 200 variables from queries, in place of the table of all subsets.

The function is asked for masks of its own choosing by adaptive group testing (:mod:`search`). For a function that is a
sum of few AND terms of low order every term and its exact coefficient are found, from a few hundred queries. Whatever
the function, the result is compared with it on fresh random masks, and says how far it may be trusted. The scheme, its
thresholds and the rule of trust are **featdyn's own choice**, after the exact sparse transforms of arXiv 2602.06246.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

import numpy as np

from featdyn.statistics.interactions.ratio_of_sums import DRAWS
from featdyn.statistics.interactions.recovery.model import Terms
from featdyn.statistics.interactions.recovery.queries import Function, Masks, Queries, Spent
from featdyn.statistics.interactions.recovery.result import SparseInteractions
from featdyn.statistics.interactions.recovery.search import Search, random_masks
from featdyn.statistics.interactions.subsets import Values
from featdyn.statistics.randomness import Rng, generator
from featdyn.statistics.resampling import bootstrap_counts, bootstrap_limits

_FRESH = 256
"""Masks that the result is compared on: our own choice."""
_TWICE = 32
"""Masks that are asked twice to see noise: our own choice."""
_ROUNDING = 1e-5
"""Of the function's range, where float32 leaves about 1e-7, times the terms that add up: our own choice."""
_NOISE = 6.0
"""Standard deviations of noise that a term must have to be seen: our own choice."""
_TRUSTED = 0.95
"""Least lower limit of R2: our own choice."""
_LEAST = 1e-300  # threshold of a function that is constant
_FITTED = 1024
"""Random masks for the fit where no exact model was found: our own choice."""
_LOCAL = 4
"""Times as often a mask of few variables is asked, where there is noise: our own choice."""
_ROUNDS = 4
"""Of search and fit: our own choice."""


def sparse_interactions(
    f: Function,
    n: int,
    *,
    max_order: int = 4,
    basis: Literal["and", "or"] = "and",
    threshold: float | None = None,
    max_queries: int = 20_000,
    rng: Rng = None,
) -> SparseInteractions:
    """Find the AND (or OR) terms of a function of masks.

    Parameters
    ----------
    f : callable
        From masks ``(queries, n)`` of booleans, True where a variable is present, to ``(queries,)`` finite numbers. It
        is called with up to some hundred masks at once.
    n
        Number of variables; the table of all subsets is the better way up to 12.
    max_order
        Most variables of a term, 1 to 8.
    basis
        ``"or"`` finds terms that are active where any of their variables is present: AND terms of the swapped mask.
    threshold
        Size from which on terms are wanted. By default 1e-5 of the function's range, or six standard deviations of its
        noise, if it has any: for less than that, each mask is asked as often as the threshold takes.
    max_queries
        After how many evaluations to stop with what is found; 1,312 at least, those of the comparison and the fit
        included.
    rng
        A generator or a seed; 0 by default.

    Raises
    ------
    ValueError, TypeError
        If an option is out of range, or ``f`` returns another shape, values that are not finite or no real numbers.

    Examples
    --------
    >>> def f(masks):  # (queries, player) of bool: players 3 and 7 together add 2
    ...     return 2.0 * (masks[:, 3] & masks[:, 7])
    >>> found = sparse_interactions(f, 20)
    >>> dict(found.terms), found.trusted
    ({(3, 7): 2.0}, True)
    """
    if n < 1 or not 1 <= max_order <= 8:
        raise ValueError(f"n must be at least 1 and max_order between 1 and 8, got {n} and {max_order}")
    if basis not in ("and", "or"):
        raise ValueError(f"basis must be and or or, got {basis}")
    if threshold is not None and not 0 < threshold < np.inf:
        raise ValueError(f"threshold must be positive and finite, got {threshold}")
    if max_queries < _FRESH + _TWICE + _FITTED:
        raise ValueError(f"max_queries must be at least {_FRESH + _TWICE + _FITTED}, got {max_queries}")
    random = generator(rng)
    queries = Queries(f, n, swapped=basis == "or", most=max_queries - _FRESH - _FITTED)
    noise, size = _noise(queries, n, random)
    floor = max(_ROUNDING * size, _NOISE * noise if threshold is None else threshold, _LEAST)
    times = max(1, int(np.ceil((_NOISE * noise / floor) ** 2)))
    local = times * _LOCAL if noise else 1
    terms, clear = Terms(0.0, noise, 1, n), False
    try:
        bias = queries.ask(np.zeros((1, n), bool), local * _LOCAL if noise else 1)[0][0]
        terms = Terms(float(bias), noise, local * _LOCAL, n)
        clear = _found(Search(queries, terms, floor, max_order, times, local, random))
    except Spent:
        pass
    if not clear:
        queries.allow(_FITTED)
        masks = random_masks(_FITTED, n, random)
        terms.approximate(masks, queries.fresh(masks))
    fresh = random_masks(_FRESH, n, random)
    queries.allow(_FRESH)
    values = queries.fresh(fresh)
    left, by_chance = terms.left(fresh, values, np.ones(_FRESH))
    agrees = clear and bool((np.abs(left) <= np.maximum(floor, by_chance)).all())
    r2, r2_low = _explained(values, left, random)
    worst = float(np.abs(left).max())
    # Beside noise everything may agree with nothing.
    trusted = (agrees and not noise) or r2_low >= _TRUSTED
    named, bias_value = _named(terms, basis)
    reason = _reason(trusted, agrees, clear, noise, r2, r2_low, worst, max_order)
    return SparseInteractions(
        terms=MappingProxyType(named), bias=bias_value, basis=basis, r2=r2, r2_low=r2_low, worst=worst, noise=noise,
        threshold=floor, exact=clear, complete=agrees, trusted=trusted, reason=reason, queries=queries.count,
        calls=queries.calls,
    )  # fmt: skip


def _found(search: Search) -> bool:
    """Search; with noise, fit and search again in what the fit leaves. Return whether nothing was left."""
    search.single_variables()
    clear, terms, queries = search.run(), search.terms, search.queries
    for _ in range(_ROUNDS if terms.noise else 0):
        if not clear:
            break
        before = terms.masks
        terms.fit(queries.masks, queries.values, queries.times)
        clear = search.run()
        if clear and np.array_equal(before, terms.masks):
            break
    return clear


def _noise(queries: Queries, n: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the standard deviation of answers to one mask, and the largest distance of answers from their median."""
    masks = np.concatenate([random_masks(_TWICE // 2 - 2, n, rng), np.zeros((1, n), bool), np.ones((1, n), bool)])
    first, second = queries.fresh(masks), queries.fresh(masks)
    values = np.r_[first, second]
    size = max(np.abs(values - np.median(values)).max(), _ROUNDING**2 * np.abs(values).max())
    return float(np.sqrt(np.mean((first - second) ** 2) / 2)), float(size)


def _explained(values: Values, left: Values, rng: np.random.Generator) -> tuple[float, float]:
    """Return R2 and its lower limit."""
    counts = bootstrap_counts(len(values), DRAWS, int(rng.integers(2**31))).astype(np.float64)
    spread = counts @ values**2 - (counts @ values) ** 2 / len(values)
    total = float(((values - values.mean()) ** 2).sum())
    if total <= 1e-20 * float((values**2).sum()) or (spread <= 0).any():
        return float("nan"), float("nan")
    r2 = 1 - float((left**2).sum()) / total
    return r2, float(bootstrap_limits(1 - counts @ left**2 / spread, r2, len(values))[0])


def _named(terms: Terms, basis: str) -> tuple[dict[tuple[int, ...], float], float]:
    """Return coefficients by variables, and the value of the empty mask."""
    rows = {tuple(np.flatnonzero(m).tolist()): float(c) for m, c in zip(terms.masks, terms.coefficients, strict=True)}
    if basis == "or":  # I_or is minus the AND term of the swapped mask, whose constants the bias takes up
        return {s: -c for s, c in rows.items()}, terms.bias + float(terms.coefficients.sum())
    return rows, terms.bias


def _reason(
    trusted: bool, agrees: bool, clear: bool, noise: float, r2: float, r2_low: float, worst: float, max_order: int
) -> str:
    if agrees and not noise:
        return f"all {_FRESH} fresh masks agree within the threshold"
    if np.isnan(r2):
        return "not to be trusted: the function is constant on fresh masks, the model is not"
    share = f"R2 is {r2:.3g} on {_FRESH} fresh masks, at least {r2_low:.3g}"
    rest = "" if clear else f"; terms are left that are of order above {max_order} or too many for max_queries"
    if agrees:
        rest = f"; what is left is within the noise, of standard deviation {noise:.3g}"
    return f"{share}, errors up to {worst:.3g}{rest}" if trusted else f"not to be trusted: {share}{rest}"


__all__ = ["Function", "Masks", "SparseInteractions", "sparse_interactions"]
