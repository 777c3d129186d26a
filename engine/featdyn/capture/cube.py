"""Per-sample summaries of one layer at one checkpoint: what lands in ``/cube``.

They are computed from the values as they are stored (after rounding to the storage dtype), so anybody can compute them
again from the store, and a resumed run gives the same bits as one that never stopped. Padding takes no part.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from featdyn.names import NAMES
from featdyn_kernels.summaries import Summaries

ACTIVATION = ("activation_norm", "activation_mean", "activation_sparsity", "activation_cosine")
GRADIENT = ("gradient_norm",)

MEANING = {name: NAMES[name][0] for name in (*ACTIVATION, *GRADIENT, "sketch")}


def summaries(found: Summaries, count: int | Tensor) -> dict[str, Tensor]:
    """Return each of :data:`ACTIVATION` and the sketch, float32, of the sums of a block of samples.

    ``count``, or ``count (rows,)``, says how many features of each sample are no padding.
    """
    norm = torch.as_tensor(found.squares).sqrt()
    if found.product is None or found.before_squares is None:
        cosine = torch.full_like(norm, torch.nan)
    else:
        # A sample whose activation is zero has no direction: 0 / 0 stays NaN.
        cosine = torch.as_tensor(found.product) / (norm * torch.as_tensor(found.before_squares).sqrt())
    values = (norm, torch.as_tensor(found.total) / count, 1 - torch.as_tensor(found.nonzero) / count, cosine)
    columns = {name: value.float() for name, value in zip(ACTIVATION, values, strict=True)}
    return columns | ({} if found.sketch is None else {"sketch": torch.as_tensor(found.sketch).float()})


class Sketch:
    """A fixed random projection of one layer to ``width`` components.

    Features are shuffled, given random signs and summed in ``width`` equal groups (a balanced count sketch, our own
    choice): ``E[sketch(x) . sketch(y)] = x . y``, in one pass and without a matrix of features x width. ``slots`` says
    of each feature which component it adds to or, ``width`` larger, subtracts from.
    """

    def __init__(self, layer: str, features: int, width: int) -> None:
        # The same layer, the same projection.
        generator = torch.Generator("cpu").manual_seed(zlib.crc32(layer.encode()))
        self.width = width
        order = torch.randperm(features, generator=generator, device="cpu")
        negative = torch.randint(0, 2, (features,), generator=generator, device="cpu") == 0
        self.slots = np.empty(features, np.int64)
        self.slots[order.numpy()] = (torch.arange(features, device="cpu") % width + width * negative).numpy()
