"""A sum of AND terms: what it predicts, how surely, and how it is fitted."""

from __future__ import annotations

import numpy as np

from featdyn.statistics.interactions.recovery.queries import Masks
from featdyn.statistics.interactions.subsets import Values

_BY_CHANCE = 6.0
"""Standard deviations that noise may reach in some thousands of queries: our own choice."""
_KNOWN = 4.0
"""Standard errors from 0 that a fitted coefficient must be: our own choice."""


class Terms:
    """``bias + sum_k coefficient_k [term_k in T]``; terms are masks ``(terms, n)``.

    ``noise`` is the standard deviation of one answer; the errors of the coefficients follow from it.
    """

    def __init__(self, bias: float, noise: float, times: int, n: int) -> None:
        self.bias, self.noise = bias, noise
        self._bias_variance = noise**2 / times
        self.masks: Masks = np.empty((0, n), bool)
        self.coefficients: Values = np.empty(0)
        self._variances: Values = np.empty(0)
        self.fits = 0  # how often coefficients that were there changed

    def predicted(self, masks: Masks, since: int = 0) -> tuple[Values, Values]:
        """Return what the terms from number ``since`` on add to the outputs, and to the variances of these."""
        active = contained(self.masks[since:], masks)
        return active @ self.coefficients[since:], active @ self._variances[since:]

    def left(
        self, masks: Masks, values: Values, times: Values, predicted: tuple[Values, Values] | None = None
    ) -> tuple[Values, Values]:
        """Return what the terms leave of values that are means of so many, and up to what size noise explains that.

        ``predicted`` is that of these masks, if it is known.
        """
        outputs, variances = self.predicted(masks) if predicted is None else predicted
        spread = self.noise**2 / times + self._bias_variance + variances
        return values - self.bias - outputs, _BY_CHANCE * np.sqrt(spread)

    def add(self, masks: Masks, values: Values, times: Values, least: float) -> None:
        """Add those of these masks, of one size, that leave more than ``least`` and noise; what they leave is
        theirs.
        """
        left, by_chance = self.left(masks, values, times)
        new = np.abs(left) > np.maximum(least, by_chance)
        self.masks = np.concatenate([self.masks, masks[new]])
        self.coefficients = np.r_[self.coefficients, left[new]]
        self._variances = np.r_[self._variances, (by_chance[new] / _BY_CHANCE) ** 2]

    def fit(self, masks: Masks, values: Values, times: Values) -> None:
        """Set bias and coefficients by least squares over all values, and drop terms that these do not support."""
        self.fits += 1
        for _ in range(2):  # once more without those that were dropped
            design = np.concatenate([np.ones((len(masks), 1)), contained(self.masks, masks)], axis=1)
            inverse = np.linalg.pinv(design.T @ (times[:, None] * design), hermitian=True)
            found, variances = inverse @ (design.T @ (times * values)), self.noise**2 * np.diag(inverse)
            kept = np.abs(found[1:]) >= _KNOWN * np.sqrt(variances[1:])
            self.bias, self._bias_variance = float(found[0]), float(variances[0])
            self.masks, self.coefficients, self._variances = self.masks[kept], found[1:][kept], variances[1:][kept]
            if kept.all():
                return

    def approximate(self, masks: Masks, values: Values) -> None:
        """Keep the terms up to the order, and set coefficients by the ridge, of least generalised cross-validation
        error.

        For a function that the terms do not explain: coefficients that are exact on few variables predict others badly.
        """
        sizes, best = self.masks.sum(1), np.inf
        masked, coefficients, bias = self.masks[:0], self.coefficients[:0], float(values.mean())
        for order in np.unique(sizes):
            kept = self.masks[sizes <= order]
            if len(kept) > len(values) // 2:  # cross-validation says little of a fit with as many terms as values
                break
            error, found, constant = _ridge(contained(kept, masks), values)
            if error < best:
                best, masked, coefficients, bias = error, kept, found, constant
        self.masks, self.coefficients, self.bias = masked, coefficients, bias
        self._variances = np.zeros(len(masked))


def _ridge(active: Values, values: Values) -> tuple[float, Values, float]:
    """Return the least generalised cross-validation error over penalties, and the coefficients and constant there."""
    middle, mean = active.mean(0), float(values.mean())
    u, s, vt = np.linalg.svd(active - middle, full_matrices=False)
    along, s2 = u.T @ (values - mean), s**2
    penalties = max(float(s2[0]), 1e-300) * np.geomspace(1e-8, 1, 33)
    shrunk = s2 / (s2 + penalties[:, None])  # (penalty, direction)
    left = ((values - mean) ** 2).sum() - ((1 - (1 - shrunk) ** 2) * along**2).sum(1)
    errors = left / (len(values) - 1 - shrunk.sum(1)) ** 2
    best = int(errors.argmin())
    coefficients = vt.T @ (along * s / (s2 + penalties[best]))
    return float(errors[best]), coefficients, mean - float(middle @ coefficients)


def contained(terms: Masks, masks: Masks) -> Values:
    """Return whether each mask holds all of each term, ``(masks, terms)``, as 0.0 and 1.0."""
    missing = (~masks).astype(np.float32) @ terms.astype(np.float32).T
    return np.asarray(missing == 0, np.float64)
