"""Does the shift go with the loss, over probes, classes and checkpoints? Limits by leaving out images, or classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from featdyn.analysis.status import ALIKE, FEW
from featdyn.statistics.jackknife import folds, jackknife_interval
from featdyn.statistics.resampling import effective_number

FOLDS = 32
"""Parts that are left out in turn, at most: our own choice."""
LEAST = 5
"""Images, classes or checkpoints that a correlation needs: our own choice."""
NO_LOSS = "loss_is_not_recorded_or_not_finite"
NO_GAP = "training_probes_have_no_gap"
FEW_CHECKPOINTS, FEW_CLASSES = "too_few_checkpoints", "too_few_classes"

Values = NDArray[np.float64]
Found = tuple[dict[str, Any], dict[str, str]]


def with_loss(shift: Values, loss: Values, origins: NDArray[np.int64], seed: int) -> Found:
    """Return the correlations of shift and loss over probes ``(n,)``, and why some are missing."""
    reason = NO_LOSS if not np.isfinite(loss).all() else FEW if len(np.unique(origins)) < LEAST else ""
    if not reason and min(_spread(shift), _spread(loss)) == 0:
        reason = ALIKE
    if reason:
        return {}, {"loss_status": reason, "loss_interval_status": reason}
    rest = list(_left_out(len(shift), seed, origins))
    others, sizes = [_pearson(shift[kept], loss[kept]) for kept in rest], [float((~kept).sum()) for kept in rest]
    values, why = _limited("loss_correlation", _pearson(shift, loss), others, sizes)
    return values | {"loss_spearman": _pearson(scipy.stats.rankdata(shift), scipy.stats.rankdata(loss))}, {
        "loss_interval_status": why
    }


def over_classes(
    shift: Values, loss: Values, labels: NDArray[np.int64], of_training: dict[int, float] | None, seed: int
) -> Found:
    """Return the correlation over classes of mean shift and the loss beyond that of training probes of the class.

    ``of_training`` are the mean losses of training probes by class, None for the training probes themselves. Limits are
    by leaving out classes.
    """
    names = ("class_status", "class_interval_status")
    if of_training is None:
        return {}, dict.fromkeys(names, NO_GAP)
    classes = [label for label in np.unique(labels[labels >= 0]).tolist() if label in of_training]
    if not np.isfinite(loss).all() or not np.isfinite([of_training[label] for label in classes]).all():
        return {}, dict.fromkeys(names, NO_LOSS)
    if len(classes) < LEAST:
        return {}, dict.fromkeys(names, FEW_CLASSES)
    mean = np.array([shift[labels == label].mean() for label in classes])
    gap = np.array([loss[labels == label].mean() - of_training[label] for label in classes])
    if min(_spread(mean), _spread(gap)) == 0:
        return {}, dict.fromkeys(names, ALIKE)
    rest = list(_left_out(len(classes), seed, None))
    others, sizes = [_pearson(mean[kept], gap[kept]) for kept in rest], [float((~kept).sum()) for kept in rest]
    values, why = _limited("class_correlation", _pearson(mean, gap), others, sizes)
    return values, {"class_interval_status": why}


def over_checkpoints(
    shift: Values,
    loss: Values,
    mine: NDArray[np.bool_],
    trained: NDArray[np.bool_],
    origins: NDArray[np.int64],
    seed: int,
    *,
    same: bool,
) -> Found:
    """Return the correlation over checkpoints of a set's mean shift and its loss beyond that of training probes.

    ``shift`` and ``loss`` are ``(t, probe)``, ``mine`` and ``trained`` the probes with a label; checkpoints at which
    either is not known are left out.
    """
    names = ("gap_status", "gap_interval_status")
    if same:
        return {}, dict.fromkeys(names, NO_GAP)
    known = np.isfinite(loss[:, mine | trained]).all(1)
    some = np.isfinite(shift[:, mine]).any(1) & known
    if not known.any():
        return {}, dict.fromkeys(names, NO_LOSS)
    if some.sum() < LEAST or not trained.any():
        return {}, dict.fromkeys(names, FEW_CHECKPOINTS)
    shift, loss = shift[some], loss[some]

    def curves(kept: NDArray[np.bool_]) -> tuple[Values, Values]:
        """Return mean shift and gap ``(t,)`` of those probes; NaN where none has a shift."""
        of_set = shift[:, mine & kept]
        defined = np.isfinite(of_set)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(defined, of_set, 0.0).sum(1) / defined.sum(1)
            return mean, loss[:, mine & kept].sum(1) / (mine & kept).sum() - loss[:, trained & kept].sum(1) / (
                trained & kept
            ).sum()

    whole = curves(np.ones(len(mine), bool))
    if min(_spread(part) for part in whole) == 0:
        return {}, dict.fromkeys(names, ALIKE)
    rest = list(_left_out(len(mine), seed, origins))
    others = [_pearson(*curves(kept)) for kept in rest]
    # Of what a fold is a share: of the set as much as of the training probes (our own choice).
    sizes = [float((mine & ~kept).sum() / mine.sum() + (trained & ~kept).sum() / trained.sum()) for kept in rest]
    values, why = _limited("gap_correlation", _pearson(*whole), others, sizes)
    return values, {"gap_interval_status": why}


def _left_out(size: int, seed: int, groups: NDArray[np.int64] | None) -> Iterator[NDArray[np.bool_]]:
    """Yield ``(size,)``, who is left without each fold of whole groups."""
    fold = folds(size, FOLDS, seed, groups)
    for g in range(int(fold.max()) + 1):
        yield fold != g


def _limited(name: str, found: float, others: list[float], sizes: list[float]) -> tuple[dict[str, float], str]:
    """Return a correlation with its 95 % limits, and why there are none or "".

    By the jackknife on Fisher's scale: percentiles of a bootstrap of few probes are too narrow.
    """
    limits = jackknife_interval(_fisher(found), [_fisher(other) for other in others], sizes=sizes)
    low, high = np.tanh([limits.low, limits.high]).tolist()
    one = effective_number(sizes) <= 1
    reason = "" if np.isfinite(low) else FEW if one or not np.isfinite(others).all() else ALIKE
    return {name: found, f"{name}_low": low, f"{name}_high": high}, reason


def _fisher(correlation: float) -> float:
    return float(np.arctanh(np.clip(correlation, -1 + 1e-12, 1 - 1e-12)))


def _pearson(x: Values, y: Values) -> float:
    """Return Pearson's correlation, NaN where either is constant or not known."""
    if not _spread(x) > 0 or not _spread(y) > 0:
        return float("nan")
    a, b = x - x.mean(), y - y.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def _spread(x: Values) -> float:
    """Return the range of values, 0 where it is rounding, NaN where one is not known."""
    spread = float(np.ptp(x))
    return 0.0 if spread <= 1e-12 * float(np.abs(x).max()) else spread
