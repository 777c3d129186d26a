"""Which layers can be put back to an earlier checkpoint while all others stay?

Composites of three segments: everything from checkpoint t2, one piece between two neighbouring cuts from t1. Zhang,
Bengio, Singer, "Are all layers created equal?", JMLR 2022, do this with one layer of the final network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn
from torch.func import functional_call

from featdyn.analysis.dissect import dissect
from featdyn.analysis.options import RewindOptions, suffixes
from featdyn.analysis.sets import Sets
from featdyn.networks import segments, state_for
from featdyn.statistics.resampling import wilson
from featdyn.store import Run
from featdyn.validation import validate
from featdyn_kernels.stitch import SuffixBank

HEAD = "head"
"""The last segment, behind the last cut; every other is named by the cut where it ends."""
DIMS = ("segment", "set", "t1", "t2")


def rewind(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Put each segment of the network of t2 back to what it was at t1.

    Parameters
    ----------
    run, model, progress
        As for :func:`featdyn.analysis.consistency.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.RewindOptions`.

    Returns
    -------
    xarray.Dataset
        ``accuracy (segment, set, t1, t2)`` with 95 % Wilson intervals ``accuracy_low`` and ``_high``, ``agreement``
        with the network of t2, and ``drop``, the accuracy of t2's network minus that of the composite.
    """
    chosen = validate(RewindOptions, options, "rewind")
    parts, sets = dissect(run, model, chosen.cuts, "recomputed"), Sets.of(run)
    t2s, t1s = suffixes(run, chosen.t2), range(run.checkpoints)
    pieces = segments(parts.cuts)
    states = [[state_for(piece, state) for state in parts.states] for piece in pieces]
    labels = run.coords["label"].values
    prediction = np.empty((len(pieces), len(t1s), len(t2s), len(labels)), np.int64)
    blocks = parts.features.batches
    for j, t2 in enumerate(t2s):
        banks = [SuffixBank.from_states(cut.suffix, [parts.states[t2]]) for cut in parts.cuts]
        for b, batch in enumerate(blocks):
            rows, span = batch.stop - batch.start, slice(batch.start, batch.stop)
            with torch.inference_mode():
                inputs = [batch.inputs, *parts.features(batch, t2)]
                for k, piece in enumerate(pieces):
                    for t1 in t1s:
                        z = functional_call(piece, states[k][t1], (inputs[k].clone(),))
                        found = banks[k].run(z).predictions[0] if k < len(banks) else z.argmax(1)
                        prediction[k, t1, j, span] = found[:rows].cpu().numpy()
            if progress:
                progress(j * len(blocks) + b + 1, len(t2s) * len(blocks))
    own = np.stack([prediction[0, t2, j] for j, t2 in enumerate(t2s)])  # nothing is rewound at t1 = t2
    right, same = prediction == labels, prediction == own
    accuracy = np.stack([right[..., m].mean(-1) for m in sets.members], 1)
    plain = np.stack([(own == labels)[:, m].mean(-1) for m in sets.members])
    bounds = [wilson(accuracy[:, s], size) for s, size in enumerate(sets.sizes)]
    values = {
        "accuracy": accuracy,
        "accuracy_low": np.stack([low for low, _ in bounds], 1),
        "accuracy_high": np.stack([high for _, high in bounds], 1),
        "agreement": np.stack([same[..., m].mean(-1) for m in sets.members], 1),
        "drop": plain[:, None] - accuracy,
    }
    coords = parts.coords(run, sets).isel(t2=t2s).drop_dims("cut")
    names = np.array([*(cut.name for cut in parts.cuts), HEAD], dtype=object)
    return (
        coords.assign_coords(segment=names)
        .assign({name: (DIMS, array) for name, array in values.items()})
        .assign_attrs(options=chosen.model_dump(mode="json"))
    )
