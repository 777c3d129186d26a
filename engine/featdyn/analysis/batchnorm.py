"""How much do conclusions on composites depend on what is done with BatchNorm?

arXiv 2509.20334 does not say; the three policies are our own choice (feature dynamics, section 6.2 item 5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from featdyn.analysis.dissect import dissect
from featdyn.analysis.options import BatchNormOptions, suffixes
from featdyn.analysis.sets import Sets, spread
from featdyn.errors import FeatdynError
from featdyn.networks import state_for
from featdyn.statistics.resampling import bootstrap_bounds, bootstrap_weights
from featdyn.store import Run
from featdyn.validation import validate

POLICIES = ("travel", "reestimated", "batch")
"""Statistics travel with their layers; are estimated anew on the composite's features of the training probes; are those
of the batch."""
DIMS = ("policy", "cut", "set", "t1", "t2")


def batchnorm(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Evaluate composites under each BatchNorm policy.

    Parameters
    ----------
    run, model, progress
        As for :func:`featdyn.analysis.consistency.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.BatchNormOptions`.

    Returns
    -------
    xarray.Dataset
        ``accuracy (policy, cut, set, t1, t2)``; ``change`` of it against the policy "travel", with ``change_low`` and
        ``change_high``, 95 % bounds over resampled probes; ``agreement``: with what t2's own network predicts under the
        same policy; ``diagonal_differences (policy, cut)``: predictions at t1 = t2 that differ from the recorded
        network's, which must be 0 for "travel", and for all policies where no BatchNorm follows the cut; coordinate
        ``norms (cut)``, the number of BatchNorm layers behind the cut.

    Raises
    ------
    FeatdynError
        There are no training probes to estimate statistics on.
    """
    chosen = validate(BatchNormOptions, options, "batchnorm")
    parts, sets = dissect(run, model, chosen.cuts), Sets.of(run)
    if "train" not in sets.names:
        raise FeatdynError(f"{run.path}: holds no training probes, on which to estimate BatchNorm statistics anew")
    kept = spread(run, sets, chosen.samples)
    ends = np.cumsum([len(mine) for mine in kept])[:-1]
    labels = np.split(run.coords["label"].values[np.concatenate(kept)], ends)
    plain = run.values("outputs/logits").argmax(-1)[:, np.concatenate(kept)]
    t2s, t1s = suffixes(run, chosen.t2), range(run.checkpoints)
    weights = [bootstrap_weights(len(mine), chosen.draws, chosen.seed) for mine in kept]
    shape = len(POLICIES), len(parts.cuts), len(sets.names), len(t1s), len(t2s)
    names = ("accuracy", "agreement", "change", "change_low", "change_high")
    found = {name: np.full(shape, np.nan) for name in names}
    differences = np.zeros(shape[:2], np.int64)
    size = min(run.attributes["capture"]["batch"], run.schema.shard_samples)
    order = [(t2, t1) for t2 in t2s for t1 in (t2, *(t for t in t1s if t != t2))]  # its own network first
    own: dict[tuple[int, int], list[np.ndarray[Any, Any]]] = {}
    for done, (t2, t1) in enumerate(order, 1):
        features = parts.features.whole(t1, np.concatenate(kept))
        for c, (cut, z) in enumerate(zip(parts.cuts, features, strict=True)):
            blocks = [torch.split(block, size) for block in torch.split(z, [len(mine) for mine in kept])]
            train, base = blocks[sets.names.index("train")], []
            for p, predicted in enumerate(_predictions(cut.suffix, parts.states[t2], blocks, train)):
                if t1 == t2:
                    own[p, c] = predicted
                    differences[p, c] += int((np.concatenate(predicted) != plain[t2]).sum())
                for s, mine in enumerate(predicted):
                    cell = p, c, s, t1, t2s.index(t2)
                    right = mine == labels[s]
                    base.append(right)
                    change = right.astype(np.int8) - base[s]
                    found["accuracy"][cell], found["change"][cell] = right.mean(), change.mean()
                    found["agreement"][cell] = (mine == own[p, c][s]).mean()
                    found["change_low"][cell], found["change_high"][cell] = bootstrap_bounds(change, weights[s])
        if progress:
            progress(done, len(order))
    coords = parts.coords(run, sets).isel(t2=t2s).assign_coords(policy=np.array(POLICIES, dtype=object))
    coords["set_size"] = "set", [len(mine) for mine in kept]
    norms = [sum(isinstance(m, _BatchNorm) for m in cut.suffix.modules()) for cut in parts.cuts]
    return (
        coords.assign_coords(norms=("cut", norms))
        .assign(
            {name: (DIMS, values) for name, values in found.items()}
            | {"diagonal_differences": (("policy", "cut"), differences)}
        )
        .assign_attrs(options=chosen.model_dump(mode="json"))
    )


def _predictions(
    suffix: nn.Module, state: dict[str, Tensor], sets: list[tuple[Tensor, ...]], train: tuple[Tensor, ...]
) -> Any:
    """Yield, for each of :data:`POLICIES`, the predictions of each set."""
    norms = [module for module in suffix.modules() if isinstance(module, _BatchNorm)]
    state = {name: tensor.clone() for name, tensor in state_for(suffix, state).items()}  # statistics change in place
    momenta = [module.momentum for module in norms]

    def run(blocks: tuple[Tensor, ...]) -> np.ndarray[Any, Any]:
        with torch.inference_mode():
            return torch.cat([functional_call(suffix, state, (z,)).argmax(1) for z in blocks]).cpu().numpy()

    yield [run(blocks) for blocks in sets]
    try:
        for module in norms:
            module.train()
            module.momentum = None  # a plain average over the batches
        for name, tensor in state.items():
            if name.endswith(("running_mean", "num_batches_tracked")):
                tensor.zero_()
            elif name.endswith("running_var"):
                tensor.fill_(1)
        run(train)
        for module in norms:
            module.eval()
        yield [run(blocks) for blocks in sets]
        for module in norms:
            module.train()
        yield [run(blocks) for blocks in sets]
    finally:
        for module, momentum in zip(norms, momenta, strict=True):
            module.eval()
            module.momentum = momentum
