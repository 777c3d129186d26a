"""Sums modulo a prime, on which small transformers learn by heart first and much later by rule.

Power et al., "Grokking: generalization beyond overfitting on small algorithmic datasets" (arXiv 2201.02177).
"""

from __future__ import annotations

import numpy as np

from featdyn.data.images import Dataset, Images
from featdyn.data.order import key, random_order

PRIME = 97


def load_modular() -> Dataset:
    """Return all pairs a, b below 97 with the label (a + b) mod 97; a random half, always the same, trains.

    An image (1, 3, 98) has a row for each of the symbols ``a b =``, one-hot: a linear layer over rows is an embedding.
    """
    a, b = np.divmod(np.arange(PRIME**2), PRIME)
    symbols = np.stack([a, b, np.full_like(a, PRIME)], 1)
    pixels = np.uint8(255) * (symbols[:, None, :, None] == np.arange(PRIME + 1)).astype(np.uint8)
    labels = (a + b) % PRIME
    order = random_order(len(labels), key("mod97"))
    train, test = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    return Dataset(
        "mod97",
        Images(pixels[train], labels[train], "mod97", "train"),
        Images(pixels[test], labels[test], "mod97", "test"),
        tuple(str(label) for label in range(PRIME)),
        symbols=True,
    )
