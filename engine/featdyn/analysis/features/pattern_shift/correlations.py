"""Does the shift go with the loss, over probes and over checkpoints? Limits by a bootstrap over images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from featdyn.analysis.status import ALIKE, FEW
from featdyn.statistics.resampling import bootstrap_counts

DRAWS = 200
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
    counts = bootstrap_counts(len(shift), DRAWS, seed, origins).astype(np.float64)
    low, high = _percentiles(_weighted(shift, loss, counts))
    values = {
        "loss_correlation": float(_weighted(shift, loss, np.ones((1, len(shift))))[0]),
        "loss_spearman": float(np.corrcoef(rankdata(shift), rankdata(loss))[0, 1]),
        "loss_correlation_low": low,
        "loss_correlation_high": high,
    }
    return values, {"loss_interval_status": "" if np.isfinite(low) else ALIKE}


def over_classes(
    shift: Values, loss: Values, labels: NDArray[np.int64], of_training: dict[int, float] | None, seed: int
) -> Found:
    """Return the correlation over classes of mean shift and the loss beyond that of training probes of the class.

    ``of_training`` are the mean losses of training probes by class, None for the training probes themselves. Limits are
    by a bootstrap over classes.
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
    found = _weighted(mean, gap, np.ones((1, len(classes))))
    low, high = _percentiles(_weighted(mean, gap, bootstrap_counts(len(classes), DRAWS, seed).astype(np.float64)))
    values = {"class_correlation": float(found[0]), "class_correlation_low": low, "class_correlation_high": high}
    return values, {"class_interval_status": "" if np.isfinite(low) else ALIKE}


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

    ``shift`` and ``loss`` are ``(t, probe)``; checkpoints at which either is not known are left out.
    """
    names = ("gap_status", "gap_interval_status")
    if same:
        return {}, dict.fromkeys(names, NO_GAP)
    defined = np.isfinite(shift[:, mine])
    some = defined.any(1)
    if not np.isfinite(loss[:, mine | trained]).all():
        return {}, dict.fromkeys(names, NO_LOSS)
    if some.sum() < LEAST:
        return {}, dict.fromkeys(names, FEW_CHECKPOINTS)
    counts = bootstrap_counts(len(mine), DRAWS, seed, origins).astype(np.float64)
    weights = np.vstack([np.ones(len(mine)), counts])  # the first is the sample itself
    held = np.where(defined, shift[:, mine], 0.0)[some]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights[:, mine] @ held.T) / (weights[:, mine] @ defined[some].T.astype(np.float64))
        beyond = [
            weights[:, part] @ loss[some][:, part].T / weights[:, part].sum(1, keepdims=True)
            for part in (mine, trained)
        ]
    gap = beyond[0] - beyond[1]
    if min(_spread(means[0]), _spread(gap[0])) == 0:
        return {}, dict.fromkeys(names, ALIKE)
    each = np.array([_weighted(x, y, np.ones((1, len(x))))[0] for x, y in zip(means, gap, strict=True)])
    low, high = _percentiles(each[1:])
    values = {"gap_correlation": float(each[0]), "gap_correlation_low": low, "gap_correlation_high": high}
    return values, {"gap_interval_status": "" if np.isfinite(low) else ALIKE}


def _weighted(x: Values, y: Values, counts: Values) -> Values:
    """Return Pearson's correlation of ``(n,)`` and ``(n,)`` in each draw ``(draws, n)``; NaN where one is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = counts / counts.sum(1, keepdims=True)
        a, b = x - (share @ x)[:, None], y - (share @ y)[:, None]
        size = np.sqrt((share * a**2).sum(1) * (share * b**2).sum(1))
        found = np.where(size > 1e-12 * _spread(x) * _spread(y), (share * a * b).sum(1) / size, np.nan)
    return np.asarray(np.clip(found, -1, 1))


def _percentiles(found: Values) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % points of draws that have a value; NaN where fewer than half have one."""
    kept = found[np.isfinite(found)]
    if len(kept) < len(found) / 2:
        return np.nan, np.nan
    low, high = np.quantile(kept, [0.025, 0.975])
    return float(low), float(high)


def _spread(x: Values) -> float:
    spread = float(np.ptp(x))
    return spread if spread > 1e-12 * float(np.abs(x).max()) else 0.0
