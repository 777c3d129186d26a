"""AND and OR interactions of a masked network's outputs: exact for any split, sparse for the best one.

With b the constant of the empty set and S over the nonempty subsets,

    v(T) + q(T) = b + sum_{S in T} I_and(S) + sum_{S meets T} I_or(S)        for all 2**n subsets T

(arXiv 2407.19198, theorem 2, with the slack ``|q| <= slack |v(N) - v(0)|`` of its equation 11). The paper leaves open
how OR interactions of one variable are told from AND interactions, which they equal: they are counted as AND here, as
its code does, and ``fold=0`` leaves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from featdyn.statistics.interactions.published_sgd import published_sgd
from featdyn.statistics.interactions.subsets import Values, orders, table, variables
from featdyn_kernels import moebius

Method: TypeAlias = Literal["primal-dual", "sgd", "linear-program"]

_LARGEST_PROGRAM = 10
"""Variables of the linear program, which takes a second there: our own choice."""


@dataclass(frozen=True)
class AndOr:
    """AND and OR interactions of tables ``v (..., 2**n)``, float64.

    Attributes
    ----------
    i_and, i_or : (..., 2**n)
        0 for the empty set, whose part is the bias.
    bias : (...)
        The constant b: v of the fully masked sample, up to the slack.
    q : (..., 2**n)
        The slack that was used: the model gives ``v + q``.
    span : (...)
        ``v(N) - v(0)``, which thresholds are shares of.
    l1, gap : (...)
        ``|bias| + sum |I_and| + sum |I_or|``, and how far above the optimum it may be: ``l1 - gap <= optimum <= l1``.
    method : how the split was found
    """

    i_and: Values
    i_or: Values
    bias: Values
    q: Values
    span: Values
    l1: Values
    gap: Values
    method: Method

    @property
    def both(self) -> Values:
        """AND and OR interactions as one array ``(..., 2, 2**n)``."""
        return np.stack([self.i_and, self.i_or], axis=-2)

    @property
    def full(self) -> Values:
        """The unmasked output v(N), ``(...)``."""
        return np.asarray(self.bias - self.q[..., 0] + self.span)

    def of(self, samples: ArrayLike) -> AndOr:
        """Return the interactions of some tables: an index or a mask of the first axis."""
        held = {name: value for name, value in vars(self).items() if name != "method"}
        return AndOr(**{name: value[np.asarray(samples)] for name, value in held.items()}, method=self.method)

    def outputs(self, keep: ArrayLike | None = None) -> Values:
        """Return what the interactions make of each masked sample, ``(..., 2**n)``: exactly ``v + q``.

        With ``keep (..., 2, 2**n)``, booleans over AND and OR, only those add to the bias.
        """
        kept = self.both if keep is None else np.where(np.asarray(keep, bool), self.both, 0.0)
        return np.asarray(self.bias[..., None] + and_or_outputs(kept))


def and_or_outputs(both: ArrayLike) -> Values:
    """Return ``sum_{S in T} I_and(S) + sum_{S meets T} I_or(S)`` of ``both (..., 2, 2**n)``, for all T: ``(...,
    2**n)``.
    """
    found = table(both, "both")
    i_and, i_or = found[..., 0, :], found[..., 1, :]
    touched = i_or.sum(-1, keepdims=True) - np.asarray(moebius.zeta(i_or))[..., ::-1]
    return np.asarray(moebius.zeta(i_and) + touched)


def and_or(
    v: ArrayLike,
    *,
    slack: float = 0.02,
    fold: int = 1,
    method: Method = "primal-dual",
    tolerance: float = 0.01,
    **recipe: Any,
) -> AndOr:
    """Return the AND and OR interactions under the split of least L1.

    Parameters
    ----------
    v : (..., 2**n)
        One output for each subset of present variables, n from 1 to 13; leading axes are samples, checkpoints,
        networks.
    slack
        Largest ``|q|`` as a share of ``|v(N) - v(0)|``: 0.02 in arXiv 2407.19198, 0.04 in 2409.08712; 0 keeps v
        exactly.
    fold
        1 counts OR interactions of one variable as AND interactions, 0 leaves them.
    method
        ``"primal-dual"`` solves to ``tolerance``; ``"linear-program"`` is HiGHS, for n up to 10; ``"sgd"`` is the
        published recipe, whose L1 depends on its learning rate and is often far from the optimum, which its gap says.
    tolerance
        Of the primal-dual method: gap over L1 at which it stops.
    recipe
        Of SGD: see :func:`featdyn.statistics.interactions.published_sgd`.

    Raises
    ------
    ValueError
        If the shape does not fit, a value is not finite, or an option is out of range.

    Examples
    --------
    >>> v = np.zeros(8)
    >>> v[0b011] = v[0b111] = 2.0  # players 0 and 1 together add 2
    >>> model = and_or(v)
    >>> round(float(model.i_and[0b011]), 1)
    1.9
    """
    values = table(v, "v")
    n = variables(values.shape[-1])
    if not 0 <= slack < np.inf:
        raise ValueError(f"slack must be finite and not negative, got {slack}")
    if method not in ("primal-dual", "sgd", "linear-program"):
        raise ValueError(f"method must be primal-dual, sgd or linear-program, got {method}")
    if method == "linear-program" and n > _LARGEST_PROGRAM:
        raise ValueError(f"the linear program takes up to {_LARGEST_PROGRAM} variables, got {n}: use primal-dual")
    if recipe and method != "sgd":
        raise ValueError(f"{', '.join(sorted(recipe))} belong to method sgd, got {method}")
    bound = slack * np.abs(values[..., -1] - values[..., 0])
    solved = moebius.sparsify(
        values, bound=bound, tolerance=tolerance, fold=fold,
        backend="reference" if method == "linear-program" else "cpu",
    )  # fmt: skip
    p, q, l1, gap = (np.asarray(part) for part in (solved.p, solved.q, solved.l1, solved.gap))
    if method == "sgd":
        p, q = published_sgd(values, bound, fold=fold, **recipe)
        # SGD proves nothing: what it may still lose is told by the lower bound of the solver that does.
        lower = l1 - gap
        l1 = np.abs(np.stack(moebius.interactions(values, p, q))).sum((0, -1))
        gap = l1 - lower
    return from_split(values, p, q, l1, gap, fold, method)


def from_split(values: Values, p: Values, q: Values, l1: Values, gap: Values, fold: int, method: Method) -> AndOr:
    """Return the interactions of a split ``p`` and a slack ``q``, both (..., 2**n), folded up to order ``fold``."""
    i_and, i_or = (np.asarray(part) for part in moebius.interactions(values, p, q))
    folded = orders(variables(values.shape[-1])) <= fold
    i_and += np.where(folded, i_or, 0.0)  # of a folded split rounding is left, which is no interaction
    i_or[..., folded] = 0.0
    bias = i_and[..., 0].copy()
    i_and[..., 0] = 0.0
    return AndOr(i_and, i_or, bias, q, values[..., -1] - values[..., 0], l1, gap, method)
