"""Label noise."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from featdyn.data.order import key, random_order


class NoisyLabels(NamedTuple):
    """Labels after noise."""

    labels: npt.NDArray[np.int64]  # (N,), to train on
    mask: npt.NDArray[np.bool_]
    """(N,), which samples took part in the permutation; some of them keep their class by chance."""


def noisy_labels(labels: npt.NDArray[np.int64], fraction: float, seed: int, classes: int) -> NoisyLabels:
    """Permute the labels, int64 (N,) in 0..classes-1, of `round(fraction * N)` random samples among themselves.

    Our own choice of noise: one fixed permutation per seed, so each class keeps its number of labels, and about 1 -
    1/classes of the chosen samples (for balanced classes) end up with a wrong label. The samples chosen for a fraction
    are among those chosen for any larger one. Fraction 0 changes nothing, 1 permutes all labels. The true labels are
    left as they are.
    """
    if labels.ndim != 1 or labels.dtype != np.int64:
        raise ValueError(f"labels: needs int64 (N,), got {labels.dtype} {labels.shape}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels: must lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: must lie in 0..1, got {fraction}")
    count = round(fraction * len(labels))
    chosen = random_order(len(labels), seed, key("noisy samples"))[:count]
    noisy = labels.copy()
    noisy[chosen] = labels[chosen[random_order(count, seed, key("noisy labels"))]]
    mask = np.zeros(len(labels), np.bool_)
    mask[chosen] = True
    return NoisyLabels(noisy, mask)
