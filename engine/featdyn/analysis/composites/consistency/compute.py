"""Do predictions hold when the shallow half of one checkpoint meets the deep half of another?

Definitions of accuracy and agreement of composites are our own choice of what to measure; the composites themselves are
those of arXiv 2509.20334.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from featdyn.analysis.composites import grid as composites
from featdyn.analysis.composites.consistency.per_set import measures
from featdyn.analysis.composites.grid import SOFT, Composites
from featdyn.analysis.inputs.probe_sets import Sets
from featdyn.analysis.inputs.recorded_arrays import recorded_classes
from featdyn.analysis.inputs.stitchable import BETWEEN, Dissected, dissect
from featdyn.analysis.options import ConsistencyOptions
from featdyn.compute import SERIAL, Plan, Workers
from featdyn.networks import Cut
from featdyn.store import Run
from featdyn.validation import validate

BATCHNORM = "buffers travel with their layers: a suffix keeps the BatchNorm statistics of its own checkpoint"
PAIRS = ("cut", "set", "t1", "t2")


def consistency(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = SERIAL,
    **options: Any,
) -> xr.Dataset:
    """Evaluate the composites of all pairs of checkpoints on all probes.

    What an earlier result of the same options holds is kept: after another checkpoint only a row and a column are new.

    Parameters
    ----------
    run
        A recorded run.
    model
        The network, where it is not one of featdyn's.
    progress
        Called with (done, total).
    workers
        Where the work is done, as :func:`featdyn.compute.workers` gives them; in this process by default.
    **options
        Fields of :class:`featdyn.analysis.options.ConsistencyOptions`.

    Returns
    -------
    xarray.Dataset
        With t1 the checkpoint of the prefix (shallow half) and t2 of the suffix (deep half):
        ``prediction (cut, t1, t2, probe)`` predicted class;
        ``accuracy``, ``agreement`` (with t2's own network), ``agreement_prefix`` (with t1's own network), the means
        ``loss``, ``margin`` (logits), ``probability`` (of the label) and ``divergence`` (KL in nats, from t2's own
        network), each ``(cut, set, t1, t2)``; ``plain_accuracy (set, t1)`` of the recorded networks;
        ``diagonal_differences (cut)``: predictions on the diagonal that differ from the recorded network's, 0 where
        features kept every bit; and memory, forgetting, horizons, transferability and gap curves as in
        :mod:`featdyn.analysis.composites.consistency.per_set`.

    Raises
    ------
    NetworkError
        The network cannot be cut, or there is no such cut.
    """
    chosen = validate(ConsistencyOptions, options, "consistency")
    parts = dissect(run, model, chosen.cuts, chosen.features)
    sets = Sets.of(run)
    known = _known(run, parts.cuts, chosen)
    workers.admit(plan(run, parts, 0 if known is None else known.prediction.shape[1]))
    found = composites.evaluate(run, parts, sets.weights, known=known, progress=progress, workers=workers)
    result = summarise(run, found, sets, chosen, parts.coords(run, sets))
    path = {"path": ("cut", np.array(found.paths, dtype=object))}
    return result.assign_coords(path).assign_attrs(options=chosen.model_dump(mode="json"), batchnorm=BATCHNORM)


def plan(run: Run, parts: Dissected, known: int) -> Plan:
    """Return what the pairs beyond those of the first ``known`` checkpoints will need."""
    steps, probes, cuts = run.checkpoints, run.schema.samples, parts.cuts
    new, batches = steps**2 - known**2, parts.features.batches
    macs = probes * (steps * cuts[-1].prefix_macs + new * sum(cut.suffix_macs for cut in cuts))
    widths, groups = [prod(cut.shape) for cut in cuts], composites.suffix_groups(parts, known) if new else []
    logits = run.schema["outputs/logits"].sample_bytes
    return Plan(
        f"{len(cuts)} cuts x {new:,} pairs of checkpoints x {probes:,} probes, {macs / 1e12:.3g} T multiply-adds",
        tasks=run.schema.blocks * steps * len(groups),
        reads=parts.features.stored_bytes * steps * len(groups),
        task={
            "features": parts.pass_bytes + 4 * batches.size * BETWEEN * max(widths),
            "logits": steps * run.schema.shard_samples * logits,
        },
        state=parts.held | {"suffixes": max(map(len, groups), default=0) * composites.bank_bytes(parts)},
        result={"predictions": 4 * len(cuts) * steps**2 * probes},
    )


def _known(run: Run, picked: Sequence[Cut], options: ConsistencyOptions) -> Composites | None:
    """Return what the newest result says of the first checkpoints, if it was made with the same options.

    Probes never change, and checkpoints are only ever added.
    """
    if not run.results("consistency"):
        return None
    last = run.result("consistency")
    given, summary = (
        options.model_dump(mode="json"),
        {"window": 0, "draws": 0, "seed": 0, "phase": ""},
    )  # which leave pairs alone
    same = last.attrs.get("options", {}) | summary == given | summary
    names = [cut.name for cut in picked]
    if not same or not {*SOFT} <= {*last.data_vars} or last["cut"].values.tolist() != names:
        return None
    soft = np.stack([last[name].transpose(*PAIRS).values for name in SOFT])
    return Composites(last["prediction"].transpose("cut", "t1", "t2", "probe").values, soft, [])


def summarise(run: Run, found: Composites, sets: Sets, options: ConsistencyOptions, coords: xr.Dataset) -> xr.Dataset:
    """Return the result from per-probe predictions; ``coords`` are those of (cut, set, t1, t2)."""
    probes, prediction = run.coords, found.prediction
    diagonal = np.einsum("cttn->ctn", prediction)
    plain = np.stack([recorded_classes(run, t) for t in range(run.checkpoints)])
    labels = probes["label"].values
    values: dict[str, Any] = {
        "prediction": (("cut", "t1", "t2", "probe"), prediction),
        "agreement": (PAIRS, _shares(prediction == diagonal[:, None], sets)),
        "agreement_prefix": (PAIRS, _shares(prediction == diagonal[:, :, None], sets)),
        **{name: (PAIRS, array) for name, array in zip(SOFT, found.soft, strict=True)},
        "plain_accuracy": (("set", "t1"), np.stack([(plain == labels)[:, m].mean(-1) for m in sets.members])),
        "diagonal_differences": ("cut", (diagonal != plain).sum((1, 2))),
    }
    if "true_label" in probes and (probes["true_label"].values != labels).any():
        # A network trained on wrong labels may still see the right ones.
        values["accuracy_true"] = PAIRS, _shares(prediction == probes["true_label"].values, sets)
    values["probe"] = "probe", probes["sample"].values
    constant = _constant(probes, prediction.shape[1])
    per_pair = measures(prediction == labels, labels, probes["step"].values, sets, options, constant)
    return coords.assign(values).set_coords("probe").merge(per_pair)


def _constant(probes: xr.Dataset, checkpoints: int) -> int:
    """Return how many checkpoints came before the learning rate first fell; all where it was not recorded."""
    if "learning_rate" not in probes:
        return checkpoints
    fell = np.flatnonzero(np.diff(probes["learning_rate"].values) < 0)
    return int(fell[0]) + 1 if len(fell) else checkpoints


def _shares(values: NDArray[np.bool_], sets: Sets) -> NDArray[np.float64]:
    return np.stack([values[..., m].mean(-1, dtype=np.float64) for m in sets.members], axis=1)
