"""Do predictions hold when the shallow half of one checkpoint meets the deep half of another?"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.composites import grid
from featdyn.analysis.composites.consistency import PAIRS, ConsistencyOptions
from featdyn.analysis.composites.consistency.per_set import measures
from featdyn.analysis.composites.grid import Composites
from featdyn.analysis.composites.halves import NOT_HALVES
from featdyn.analysis.composites.order import Sizes, admitted
from featdyn.analysis.composites.predictions import NO_COMMON_PREDICTION, NO_PREDICTION, dtype_of, outputs_bytes, share
from featdyn.analysis.composites.tally import SOFT
from featdyn.analysis.context import Context
from featdyn.analysis.inputs.class_labels import output_positions, predictions_labelled, recorded_classes
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.stitchable import BETWEEN, Stitchable
from featdyn.analysis.inputs.suffix_banks import bank_bytes
from featdyn.analysis.status import NOT_FINITE, Status
from featdyn.compute import Plan
from featdyn.store import Run

BATCHNORM = "buffers travel with their layers: a suffix keeps the BatchNorm statistics of its own checkpoint"
CELLS = tuple(PAIRS.split())
INTERVALS = 3
"""So many float64 numbers of each prediction of one cut and set are held by its intervals."""


def consistency(context: Context[ConsistencyOptions]) -> xr.Dataset:
    """Evaluate the composites of all pairs of checkpoints on all probes.

    What an earlier result holds is kept: after another checkpoint only a row and a column are new.
    """
    run = context.run
    sets, labels = predictions_labelled(run, context.sets)
    parts = context.stitchable()
    known = _kept(context.known)
    old = 0 if known is None else known.prediction.shape[1]
    order = admitted(context, parts, plan(run, parts, old), partial(Sizes.of, run, parts), old)
    found = grid.evaluate(context, parts, sets.weights, labels, known, order)
    result = _summary(run, found, sets, labels, context.options, parts.coords(run, sets))
    path = {"path": ("cut", np.array(found.paths, dtype=object))}
    return result.assign_coords(path).assign_attrs(batchnorm=BATCHNORM)


def plan(run: Run, parts: Stitchable, known: int) -> Plan:
    """Return what the pairs beyond those of the first ``known`` checkpoints will need."""
    steps, probes, cuts = run.checkpoints, run.schema.samples, parts.cuts
    predictions = probes * output_positions(run)
    new, batches = steps**2 - known**2, parts.features.batches
    macs = probes * (steps * cuts[-1].prefix_macs + new * sum(cut.suffix_macs for cut in cuts))
    widths, groups = [prod(cut.shape) for cut in cuts], grid.suffix_groups(parts, known) if new else []
    return Plan(
        f"{len(cuts)} cuts x {new:,} pairs of checkpoints x all {probes:,} probes, {macs / 1e12:.3g} T multiply-adds",
        tasks=run.schema.blocks * steps * len(groups),
        reads=parts.features.stored_bytes * steps * len(groups) + (new + steps) * run.schema["outputs/logits"].nbytes,
        task={
            "features": parts.pass_bytes + 4 * batches.size * BETWEEN * max(widths),
            "logits": steps * outputs_bytes(run, run.schema.shard_samples),
        },
        state=parts.held | {"suffixes": max(map(len, groups), default=0) * bank_bytes(parts)},
        result={
            "predictions": (6 + dtype_of(run).itemsize) * len(cuts) * steps**2 * predictions,
            "intervals": INTERVALS * 8 * steps**2 * predictions,
        },
    )


def _kept(known: xr.Dataset | None) -> Composites | None:
    """Return what an earlier result says of the first checkpoints."""
    if known is None:
        return None
    soft = np.stack([known[name].transpose(*CELLS).values for name in SOFT])
    return Composites(known["prediction"].transpose("cut", "t1", "t2", "probe").values, soft, [], known["apart"].values)


def _summary(
    run: Run,
    found: Composites,
    sets: ProbeSets,
    labels: NDArray[np.int64],
    options: ConsistencyOptions,
    coords: xr.Dataset,
) -> xr.Dataset:
    """Return the result from per-probe predictions; ``coords`` are those of (cut, set, t1, t2)."""
    probes, prediction = run.coords, found.prediction
    diagonal = np.einsum("cttn->ctn", prediction)
    known = prediction >= 0
    plain = np.stack([recorded_classes(run, t) for t in range(run.checkpoints)])
    finite = np.isfinite(found.soft)
    unknown = np.repeat(found.unknown[:, None], len(sets.names), 1)  # (cut, set, t1, t2)
    soft_status = Status(CELLS, unknown.shape).mark(NOT_HALVES, unknown).mark(NOT_FINITE, ~finite.all(0))
    values: dict[str, Any] = {
        "prediction": (("cut", "t1", "t2", "probe"), prediction),
        "without_prediction": (CELLS, np.stack([(~known[..., m]).sum(-1) for m in sets.members], axis=1)),
        "agreement": (CELLS, _agreement(prediction, diagonal[:, None], sets)),
        "agreement_prefix": (CELLS, _agreement(prediction, diagonal[:, :, None], sets)),
        **{name: (CELLS, array) for name, array in zip(SOFT, np.where(finite, found.soft, np.nan), strict=True)},
        "soft_status": soft_status.variable(),
        "plain_accuracy": (("set", "t1"), np.stack([(plain == labels)[:, m].mean(-1) for m in sets.members])),
        "apart": (("cut", "t1"), found.apart),
        "diagonal_differences": ("cut", ((diagonal != plain) & (found.apart == 0)[..., None]).sum((1, 2))),
    }
    names, positions = probes["sample"].values, output_positions(run)
    if positions > 1:
        names = np.array([f"{name}@{i}" for name in names for i in range(positions)], dtype=object)
    elif "true_label" in probes and (probes["true_label"].values != probes["label"].values).any():
        # A network trained on wrong labels may still see the right ones.
        values["accuracy_true"] = CELLS, _shares(prediction == probes["true_label"].values, known, sets)
    values["probe"] = "probe", names
    every, _ = predictions_labelled(run, ProbeSets.of(run))  # whatever the option sets says
    train = every.member(options.train)
    per_pair = measures(
        prediction == labels, known, labels, probes["step"].values, sets, options, _constant(probes, len(plain)),
        train if train.any() else None, found.unknown,
    )  # fmt: skip
    result = coords.assign(values).set_coords("probe").merge(per_pair)
    statuses: dict[str, Status] = {}
    for status, reason, of in (
        ("status", NO_PREDICTION, ("accuracy",)),
        ("paired_status", NO_COMMON_PREDICTION, ("agreement", "agreement_prefix")),
    ):
        missing = np.any([result[name].isnull().values for name in of], axis=0)
        statuses[status] = Status(CELLS, missing.shape).mark(NOT_HALVES, unknown).mark(reason, missing)
    return result.assign({name: status.variable() for name, status in statuses.items()})


def _constant(probes: xr.Dataset, checkpoints: int) -> int:
    """Return how many checkpoints came before the learning rate first fell; all where it was not recorded."""
    if "learning_rate" not in probes:
        return checkpoints
    fell = np.flatnonzero(np.diff(probes["learning_rate"].values) < 0)
    return int(fell[0]) + 1 if len(fell) else checkpoints


def _agreement(
    prediction: NDArray[np.signedinteger], own: NDArray[np.signedinteger], sets: ProbeSets
) -> NDArray[np.float64]:
    return _shares(prediction == own, (prediction >= 0) & (own >= 0), sets)


def _shares(values: NDArray[np.bool_], known: NDArray[np.bool_], sets: ProbeSets) -> NDArray[np.float64]:
    return np.stack([share(values[..., m], known[..., m]) for m in sets.members], axis=1)
