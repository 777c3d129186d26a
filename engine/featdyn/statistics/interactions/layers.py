"""Interactions of an intermediate layer beside those of the output (arXiv 2409.08712).

A linear probe on frozen features gives the layer's log-odds, whose interactions are compared with the network's own.
Where a subset's signs agree the smaller size is shared; what the layer has beyond that is forgotten later, what the
output has beyond it is new. Signs and orders are kept; strengths are shares of the mean ``|v(N) - v(0)|`` of each
(featdyn's reading).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from featdyn.statistics.interactions.extraction import AndOr
from featdyn.statistics.interactions.strength import Chosen, salient, threshold_of_largest
from featdyn.statistics.interactions.subsets import Values, alike, by_order, divided


@dataclass(frozen=True)
class LayerComparison:
    """A layer's interactions beside the output's: strengths ``(..., sample, n)`` by order, ratios of sums over samples.

    Attributes
    ----------
    overlap, forget, new : (..., sample, n)
        Shared by both; of the layer, beyond what is shared; of the output, beyond what is shared.
    layer, output : (..., sample, n)
        All salient strength of each.
    completeness, redundancy : (..., n)
        ``overlap / output`` and ``forget / layer``; NaN where an order has nothing.
    """

    overlap: Values
    forget: Values
    new: Values
    layer: Values
    output: Values

    @property
    def completeness(self) -> Values:
        """How much of the output's interactions the layer has."""
        return _ratio(self.overlap, self.output)

    @property
    def redundancy(self) -> Values:
        """How much of the layer's interactions the output has not."""
        return _ratio(self.forget, self.layer)


def compare_layer(layer: AndOr, output: AndOr, *, threshold_share: float = 0.05) -> LayerComparison:
    """Return overlap, forgotten and new strength of a layer's interactions against the output's.

    Parameters
    ----------
    layer, output : AndOr, (..., sample, 2**n)
        Of the same samples and players; the paper takes a slack of 0.04 for both.
    threshold_share
        Salient are those of at least this share of a sample's largest.
    """
    alike(layer.i_and, output.i_and, "layer and output")
    inner, outer = _in_units(layer), _in_units(output)
    in_layer = salient(layer, threshold_of_largest(layer, threshold_share))
    in_output = salient(output, threshold_of_largest(output, threshold_share))
    agree = np.sign(inner) == np.sign(outer)
    shared = np.where(agree, np.sign(inner) * np.minimum(np.abs(inner), np.abs(outer)), 0.0)

    def summed(values: Values, kept: Chosen) -> Values:
        return by_order(np.where(kept, np.abs(values), 0.0).sum(-2))

    return LayerComparison(
        overlap=summed(shared, in_layer & in_output),
        forget=summed(inner - shared, in_layer),
        new=summed(outer - shared, in_output),
        layer=summed(inner, in_layer),
        output=summed(outer, in_output),
    )


def stability(draws: ArrayLike, chosen: ArrayLike | None = None) -> Values:
    """Return ``E |mean I| / sqrt(var I)`` over the interactions of each order, under noise on the input: ``(..., n)``.

    Parameters
    ----------
    draws : (draw, ..., 2, 2**n)
        Interactions under at least two draws of noise.
    chosen : (..., 2, 2**n), optional
        Which count; all by default. Those that never vary are left out; NaN where none is left.
    """
    found = np.asarray(draws, np.float64)
    if found.ndim < 3 or len(found) < 2:
        raise ValueError(f"draws must have shape (draw, ..., 2, 2**n) with at least 2 draws, got {found.shape}")
    spread = found.std(0, ddof=1)
    kept = (spread > 0) & (True if chosen is None else np.asarray(chosen, bool))
    each = np.divide(np.abs(found.mean(0)), spread, out=np.zeros_like(spread), where=kept)
    number, total = by_order(kept.sum(-2).astype(np.float64)), by_order(each.sum(-2))
    return divided(total, number)


def _in_units(model: AndOr) -> Values:
    """Return the interactions in units of the mean ``|v(N) - v(0)|`` over samples, which must not be 0."""
    unit = np.abs(model.span).mean(-1)
    if not (unit > 0).all():
        raise ValueError("v(N) - v(0) is 0 for all samples: there is no unit to compare interactions in")
    return np.asarray(model.both / unit[..., None, None, None])


def _ratio(part: Values, whole: Values) -> Values:
    return divided(part.sum(-2), whole.sum(-2))
