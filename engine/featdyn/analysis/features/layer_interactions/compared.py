"""What tables of layers and of the output show: how much of their interactions they share."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.features.interactions import NO_SPREAD, NONE_SALIENT
from featdyn.analysis.features.interactions.compute import TOO_FEW
from featdyn.analysis.features.layer_interactions import CELLS, OF_SETS, LayerInteractionsOptions
from featdyn.analysis.status import NOT_FINITE, Status
from featdyn.statistics.interactions import and_or, compare_layer
from featdyn.statistics.interactions.ratio_of_sums import drawn, ratio_of_sums

SUMS = ("overlap", "forget", "new")
RATIOS = {"completeness": ("overlap", "output"), "redundancy": ("forget", "layer")}


@dataclass(frozen=True)
class Tables:
    """Log-odds of layers ``(cut, t, probe, subset)`` and of the output ``(t, probe, subset)``.

    ``why (cut, t, probe)`` is the reason where a layer has none, ``few (probe,)`` where there are too few players.
    """

    v: NDArray[np.float32]
    output: NDArray[np.float32]
    why: NDArray[np.object_]
    few: NDArray[np.bool_]


def compared(
    tables: Tables, members: list[NDArray[np.intp]], origins: NDArray[np.int64], options: LayerInteractionsOptions
) -> dict[str, Any]:
    """Return what tables show of each layer, checkpoint and set; ``members`` are places among the tables' probes."""
    v, output, few = tables.v, tables.output, tables.few
    cuts, steps = v.shape[:2]
    finite, of_output = (np.asarray(np.isfinite(values).all(-1), bool) for values in (v, output))
    status = Status(CELLS.split(), finite.shape).mark(TOO_FEW, np.broadcast_to(few, finite.shape))
    for reason in np.unique(tables.why[tables.why != ""]):
        status.mark(reason, tables.why == reason)
    status.mark(NOT_FINITE, ~finite)
    output_status = Status(("t", "probe"), of_output.shape).mark(TOO_FEW, np.broadcast_to(few, of_output.shape))
    output_status.mark(NOT_FINITE, ~of_output)
    shape = cuts, len(members), steps
    sums = {name: np.full((*shape, options.players), np.nan) for name in SUMS}
    shares = {f"{name}{end}": np.full(shape, np.nan) for name in RATIOS for end in ("", "_low", "_high")}
    loss = np.full(shape, np.nan)
    set_status, share_status = (Status(OF_SETS.split(), shape) for _ in range(2))
    for t in range(steps):
        whole = and_or(output[t, of_output[t]].astype(np.float64), slack=options.slack)
        for c, (s, member) in product(range(cuts), enumerate(members)):
            known = np.isin(np.arange(len(few)), member) & finite[c, t] & of_output[t]
            cell = c, s, t
            if not known.any():
                why = status.reason((c, t, member)) or NOT_FINITE
                set_status.mark(why, cell)
                share_status.mark(why, cell)
                continue
            layer = and_or(v[c, t, known].astype(np.float64), slack=options.slack)
            of_same = whole.of(known[of_output[t]])
            loss[cell] = np.logaddexp(0, -v[c, t, known, -1].astype(np.float64)).mean()
            if not (np.any(layer.span) and np.any(of_same.span)):
                set_status.mark(NONE_SALIENT, cell)
                share_status.mark(NONE_SALIENT, cell)
                continue
            found = compare_layer(layer, of_same)
            for name in SUMS:
                sums[name][cell] = getattr(found, name).mean(0)
            counts = drawn(int(known.sum()), origins[known], options.seed)
            for name, (part, all_of) in RATIOS.items():
                shared, of = (getattr(found, which).sum(-1, keepdims=True) for which in (part, all_of))
                ratio = ratio_of_sums(shared, of, counts)
                for end, value in zip(("", "_low", "_high"), (ratio.estimate, ratio.low, ratio.high), strict=True):
                    shares[f"{name}{end}"][cell] = value[0]
            if np.isnan([shares[name][cell] for name in RATIOS]).any():
                share_status.mark(NONE_SALIENT, cell)
            elif np.isnan([shares[f"{name}_low"][cell] for name in RATIOS]).any():
                share_status.mark(NO_SPREAD, cell)
    dims = OF_SETS.split()
    return {
        "status": status.variable(),
        "output_status": output_status.variable(),
        "set_status": set_status.variable(),
        "share_status": share_status.variable(),
        "loss": (dims, loss),
        **{name: ((*dims, "order"), values) for name, values in sums.items()},
        **{name: (dims, values) for name, values in shares.items()},
    }
