"""Linear centred kernel alignment between many sets of features of the same samples, from their Gram matrices.

Kornblith, Norouzi, Lee, Hinton, "Similarity of neural network representations revisited" (2019):
``CKA(K, L) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`` with ``K = X X^T``. The biased HSIC is that of Gretton et al.
(2005), ``tr(K H L H) / (n - 1)^2``; the debiased CKA takes the unbiased HSIC of Song et al. (2012), equation 5,
instead. Intervals of the debiased CKA by the jackknife over samples are our own choice. Samples must be
independent: of several that are copies of one image all but one are to be left out, as each pair of copies is alike.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics.blas import one_thread
from featdyn.statistics.resampling import Z95

HELD = 2**30  # bytes of Gram matrices in memory; more go to a scratch file

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Alignment:
    """CKA between all pairs of m sets of features, ``(m, m)`` each."""

    biased: Values
    debiased: Values
    low: Values
    """95 % bounds of the debiased CKA."""
    high: Values


class Grams:
    """The centred Gram matrices of m sets of features of n samples.

    They take ``4 m n^2`` bytes: in memory up to :data:`HELD`, beyond that in a scratch file that ends with the object.
    """

    def __init__(self, matrices: int, samples: int) -> None:
        # [i, k, j]: what leaving out sample i needs lies together. Diagonals apart: their terms would drown the others.
        self._outside = _zeros((samples, matrices, samples))
        self._diagonal = np.zeros((matrices, samples))

    def put(self, index: int, gram: NDArray[np.float32] | Values) -> None:
        """Keep the Gram matrix ``(n, n)`` of one set of features, which need not be centred."""
        k = gram.astype(np.float64)
        mean = k.mean(0)
        k = k - mean - mean[:, None] + mean.mean()
        size = np.sqrt((k**2).sum())
        k = k / size if size > 0 else k  # CKA does not see scales, float32 does
        self._diagonal[index] = k.diagonal()
        np.fill_diagonal(k, 0)
        self._outside[:, index] = k

    def alignment(self, *, bounds: bool = True) -> Alignment:
        """Return the CKA between all pairs; ``bounds`` cost as much again, and are NaN where they are not asked for.

        NaN for features that do not vary, or, debiased, where fewer than four samples are there; bounds, where fewer
        than four would be left by the jackknife.
        """
        n, matrices, _ = self._outside.shape
        rows = np.stack([part.sum(1, dtype=np.float64) for part in self._outside])  # (n, m): of K without its diagonal
        products = np.zeros((matrices, matrices))
        for part in self._outside:
            products += _gram(part)
        biased = np.clip(_normalised(products + self._diagonal @ self._diagonal.T), 0, 1)  # but for rounding it is
        squares, sums = rows.T @ rows, rows.sum(0)
        if n < 4:
            nothing = np.full_like(biased, np.nan)
            return Alignment(biased, nothing, nothing, nothing)
        debiased = _normalised(_unbiased_hsic(n, products, squares, sums))
        error = np.full_like(debiased, np.nan)
        if bounds:
            error = self._jackknife(debiased, products, rows)
        return Alignment(biased, debiased, debiased - Z95 * error, debiased + Z95 * error)

    def _jackknife(self, full: Values, products: Values, rows: Values) -> Values:
        """Return the standard error of the debiased CKA, leaving out one sample after the other."""
        n = len(rows)
        if n < 5:
            return np.full_like(full, np.nan)
        first, second = np.zeros_like(full), np.zeros_like(full)
        for i, part in enumerate(self._outside):
            others = np.arange(n) != i
            left = rows[others] - part[:, others].T
            single = np.ascontiguousarray(left.T, np.float32)
            off = _normalised(_unbiased_hsic(n - 1, products - 2 * _gram(part), _gram(single), left.sum(0))) - full
            first += off
            second += off**2
        error: Values = np.sqrt(np.maximum((n - 1) / n * (second - first**2 / n), 0))
        return error


def _zeros(shape: tuple[int, ...]) -> NDArray[np.float32]:
    if 4 * math.prod(shape) <= HELD:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile() as file:  # it has no name, and lives for as long as it is mapped
        return np.memmap(file, np.float32, "w+", shape=shape)


def _gram(part: NDArray[np.float32]) -> Values:
    with one_thread(len(part)):
        return (part @ part.T).astype(np.float64)


def _unbiased_hsic(n: int, products: Values, squares: Values, sums: Values) -> Values:
    """Return Song et al.'s estimator, from matrices K, L without their diagonals.

    ``products`` and ``squares`` are ``(m, m)``, ``sum_ij K_ij L_ij`` and ``sum_i (K 1)_i (L 1)_i``, ``sums`` ``(m,)``,
    ``1^T K 1``.
    """
    inside = products + np.outer(sums, sums) / ((n - 1) * (n - 2)) - 2 / (n - 2) * squares
    return inside / (n * (n - 3))


def _normalised(hsic: Values) -> Values:
    own = hsic.diagonal()
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.sqrt(np.where(own > 0, own, np.nan))
        scaled: Values = hsic / size / size[:, None]
    return scaled
