"""Outputs of masked features, and their AND and OR interactions."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.context import Context
from featdyn.analysis.features.interactions import CELLS, NO_SPREAD, NONE_SALIENT, InteractionsOptions
from featdyn.analysis.features.interactions.tables import ROWS, Asked, MaskedOutputs, of_batches
from featdyn.analysis.inputs.at_input import whole_network
from featdyn.analysis.inputs.class_labels import class_count, labelled
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.stitchable import BETWEEN, Stitchable
from featdyn.analysis.inputs.suffix_banks import bank_bytes
from featdyn.analysis.status import NOT_FINITE, Status
from featdyn.compute import Plan
from featdyn.statistics.interactions import and_or, salient, strength_by_order
from featdyn.statistics.interactions.ratio_of_sums import drawn, ratio_of_sums
from featdyn.store import Run

OUTPUTS = 5  # so many times a probe's outputs are held while log-odds are made of them
MODEL = 32  # numbers that finding interactions holds for each entry of a table, at most
TOO_FEW = "fewer_entries_than_players"
NONE_KNOWN = "no_probe_is_computed"


def interactions(context: Context[InteractionsOptions]) -> xr.Dataset:
    """Evaluate each suffix on all maskings of each probe's features, then find interactions of these tables.

    Tables that an earlier result holds are kept: after another checkpoint only its own are computed.
    """
    run, options = context.run, context.options
    sets, labels = labelled(run, context.sets)
    parts = whole_network(run, context.model, context.call) if options.at == "input" else context.stitchable()
    chosen = sets.choose(run, options.samples, options.seed)
    probes = np.unique(np.concatenate(chosen))
    steps = np.arange(run.checkpoints)[-1:] if options.checkpoints == "last" else np.arange(run.checkpoints)
    v = np.full((len(parts.cuts), len(steps), len(probes), 2**options.players), np.nan, np.float32)
    region = np.full((len(parts.cuts), len(probes), options.players), -1)
    known = 0
    if (earlier := context.known) is not None and np.isin(earlier["t"].values, steps).all():
        known = earlier.sizes["t"]
        v[:, :known] = earlier["v"].transpose(*CELLS.split(), "subset").values
        region[:] = earlier["region"].transpose("cut", "probe", "player").values
    spans = of_batches(run, parts, probes)
    items = [(int(t), b) for t in steps[known:] for b, mine in enumerate(spans) if len(mine)]
    asked = Asked(probes, labels, np.any(sets.members, axis=0))
    context.admit(_plan(run, parts, len(items), len(steps) - known, asked, options))
    state, rebuild = MaskedOutputs(run, parts, asked, options), parts.around(MaskedOutputs, run, asked, options)

    def first(count: int) -> xr.Dataset:
        """Return the result of so many of the checkpoints."""
        places = [np.searchsorted(probes, mine) for mine in chosen]
        found = _found(v[:, :count], region, places, sets.origins[probes], options)
        coords = of_probes(run, parts, sets, labels, probes, chosen, steps[:count], options.players)
        dims = *CELLS.split(), "subset"
        return coords.assign(v=(dims, v[:, :count]), region=(("cut", "probe", "player"), region), **found)

    with context.stage(state, rebuild) as stage:
        for (t, b), (tables, players) in zip(items, context.each(stage.map(MaskedOutputs.tables, items)), strict=True):
            place = t - steps[0]
            v[:, place, spans[b]], region[:, spans[b]] = tables, players
            if b == items[-1][1] and options.checkpoints == "all":
                context.keep(partial(first, int(place) + 1))
    return first(len(steps))


def of_probes(
    run: Run,
    parts: Stitchable,
    sets: ProbeSets,
    labels: NDArray[np.int64],
    probes: NDArray[np.intp],
    chosen: list[NDArray[np.intp]],
    steps: NDArray[np.intp],
    players: int,
) -> xr.Dataset:
    """Return the coordinates of tables of ``probes``, of which each set has ``chosen`` some, at checkpoints."""
    coords = parts.coords(run, sets).drop_dims("t2").rename(t1="t").isel(t=steps)
    coords = coords.rename({f"{name}1": name for name in ("step", "rate") if f"{name}1" in coords})
    return coords.assign_coords(
        probe=run.coords["sample"].values[probes],
        label=("probe", labels[probes]),
        origin=("probe", sets.origins[probes]),
        order=np.arange(1, players + 1),
        subset=np.arange(2**players),
        used=("set", [len(mine) for mine in chosen]),
        split=("probe", _of_set(sets.names, chosen, probes)),
    )


def _of_set(names: list[str], chosen: list[NDArray[np.intp]], probes: NDArray[np.intp]) -> NDArray[np.object_]:
    """Return the name of each probe's set."""
    found = np.empty(len(probes), object)
    for name, mine in zip(names, chosen, strict=True):
        found[np.isin(probes, mine)] = name
    return found


def _found(
    v: NDArray[np.float32],
    region: NDArray[np.intp],
    members: list[NDArray[np.intp]],
    origins: NDArray[np.int64],
    options: InteractionsOptions,
) -> dict[str, Any]:
    """Return what tables ``(cut, t, probe, subset)`` show; ``region`` is -1 where there are too few players."""
    cuts, steps, _, size = v.shape
    known = np.asarray(np.isfinite(v).all(-1), bool)
    few = np.asarray((region < 0).any(-1), bool)  # (cut, probe)
    small = np.stack([few[:, member].all(1) for member in members], axis=1)  # (cut, set)
    status = Status(CELLS.split(), known.shape)
    status.mark(TOO_FEW, np.broadcast_to(few[:, None], known.shape)).mark(NOT_FINITE, ~known)
    l1, gap = (np.full(known.shape, np.nan) for _ in range(2))
    shape = cuts, len(members), steps
    strength = np.full((*shape, size.bit_length() - 1), np.nan)
    order = np.full((3, *shape), np.nan)
    set_status, order_status = (Status(("cut", "set", "t"), shape).mark(TOO_FEW, small) for _ in range(2))
    weights = np.arange(1, strength.shape[-1] + 1)
    for c, t in np.ndindex(cuts, steps):
        some = np.flatnonzero(known[c, t])
        if len(some):
            model = and_or(v[c, t, some].astype(np.float64), slack=options.slack)
            l1[c, t, some], gap[c, t, some] = model.l1, model.gap
        for s, member in enumerate(members):
            mine = np.isin(some, member)
            if not mine.any():
                set_status.mark(NONE_KNOWN, (c, s, t))
                order_status.mark(NONE_KNOWN, (c, s, t))
                continue
            part = model.of(mine)
            each = strength_by_order(part, salient(part))
            strength[c, s, t] = each.mean(0)
            whole = each.sum(-1, keepdims=True)
            counts = drawn(len(each), origins[some[mine]], options.seed)
            ratio = ratio_of_sums((each @ weights)[:, None], whole, counts, bounds=(1, len(weights)))
            order[:, c, s, t] = ratio.estimate[0], ratio.low[0], ratio.high[0]
            if np.isnan(ratio.estimate[0]):
                order_status.mark(NONE_SALIENT, (c, s, t))
            elif np.isnan(ratio.low[0]):
                order_status.mark(NO_SPREAD, (c, s, t))
    dims = CELLS.split()
    ends = {
        f"mean_order{end}": (("cut", "set", "t"), values)
        for end, values in zip(("", "_low", "_high"), order, strict=True)
    }
    return {
        "status": status.variable(),
        "l1": (dims, l1),
        "gap": (dims, gap),
        "strength": (("cut", "set", "t", "order"), strength),
        "set_status": set_status.variable(),
        "order_status": order_status.variable(),
        **ends,
    }


def _plan(run: Run, parts: Stitchable, tasks: int, steps: int, asked: Asked, options: InteractionsOptions) -> Plan:
    """Return what the tables of so many checkpoints will need."""
    suffix, probes = sum(cut.suffix_macs for cut in parts.cuts), len(asked.probes)
    rows = 2**options.players
    widest = max(prod(cut.shape) for cut in parts.cuts)
    wide = max((cut.shape[0] if len(cut.shape) == 3 else cut.shape[-1]) for cut in parts.cuts)
    moments = {}
    if options.kind == "components" or options.masked != "zero":
        moments = {"moments": 8 * len(parts.cuts) * (2 * widest + (3 * wide**2 if options.kind == "components" else 0))}
    return Plan(
        f"{len(parts.cuts)} cuts x {steps} checkpoints x {probes:,} probes x {rows:,} maskings, "
        f"{steps * probes * rows * suffix / 1e12:.3g} T multiply-adds",
        tasks=tasks,
        reads=steps * parts.features.stored_bytes,
        task={
            "features": parts.pass_bytes,
            "masks": 3 * min(ROWS, rows) * widest,
            "masked": min(ROWS, rows) * 4 * widest * BETWEEN,
            "outputs": OUTPUTS * 8 * rows * class_count(run),
            **moments,
        },
        state=parts.held | {"suffixes": bank_bytes(parts)},
        result={
            "tables": 4 * len(parts.cuts) * run.checkpoints * probes * rows,
            "models": MODEL * 8 * rows * probes,
        },
    )
