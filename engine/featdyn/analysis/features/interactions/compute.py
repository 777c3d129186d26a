"""Outputs of masked feature maps, and their AND and OR interactions."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from featdyn.analysis.context import Context
from featdyn.analysis.features.interactions import CELLS, InteractionsOptions
from featdyn.analysis.features.interactions.regions import choose, kept, regions
from featdyn.analysis.inputs.class_labels import class_count, class_logits, labelled
from featdyn.analysis.inputs.features_at_cuts import Batch
from featdyn.analysis.inputs.stitchable import BETWEEN, Stitchable
from featdyn.analysis.status import NOT_FINITE, Status
from featdyn.compute import Plan
from featdyn.networks import Cut, state_for
from featdyn.statistics.interactions import and_or, log_odds, salient, strength_by_order
from featdyn.statistics.interactions.ratio_of_sums import drawn, ratio_of_sums
from featdyn.store import Run

ROWS = 256  # masked maps that pass the suffix together
OUTPUTS = 3  # so many times a probe's outputs are held while log-odds are made of them
MODEL = 32  # numbers that finding interactions holds for each entry of a table, at most
TOO_SMALL = "fewer_entries_than_players"
NONE_KNOWN = "no_probe_is_computed"
NONE_SALIENT = "no_interaction_is_salient"
NO_SPREAD = "draws_of_images_tell_no_spread"


def interactions(context: Context[InteractionsOptions]) -> xr.Dataset:
    """Evaluate each suffix on all maskings of each probe's features, then find interactions of these tables."""
    run, options = context.run, context.options
    sets, labels = labelled(run, context.sets)
    parts, chosen = context.stitchable(), sets.choose(run, options.samples, options.seed)
    probes = np.unique(np.concatenate(chosen))
    spans = [np.flatnonzero((probes >= start) & (probes < stop)) for _, start, stop in parts.features.batches.spans]
    items = [(t, b) for t in range(run.checkpoints) for b, mine in enumerate(spans) if len(mine)]
    context.admit(_plan(run, parts, len(items), len(probes), options.players))
    v = np.full((len(parts.cuts), run.checkpoints, len(probes), 2**options.players), np.nan, np.float32)
    rest = probes, labels, options.players, options.seed
    with context.stage(_Masked(run, parts, *rest), parts.around(_Masked, run, *rest)) as stage:
        for (t, b), tables in zip(items, context.each(stage.map(_Masked.tables, items)), strict=True):
            v[:, t, spans[b]] = tables
    region = np.full((len(parts.cuts), len(probes), options.players), -1)
    small = np.ones(len(parts.cuts), bool)
    for c, cut in enumerate(parts.cuts):
        if (whole := regions(cut.shape, options.players)) is not None:
            small[c] = False
            region[c] = [choose(whole[1], options.players, options.seed, int(probe)) for probe in probes]
    found = _found(v, small, [np.searchsorted(probes, mine) for mine in chosen], sets.origins[probes], options)
    coords = parts.coords(run, sets).drop_dims("t2").rename(t1="t")
    coords = coords.rename({f"{name}1": name for name in ("step", "rate") if f"{name}1" in coords})
    coords = coords.assign_coords(
        probe=run.coords["sample"].values[probes],
        label=("probe", labels[probes]),
        order=np.arange(1, options.players + 1),
        subset=np.arange(2**options.players),
        used=("set", [len(mine) for mine in chosen]),
    )
    dims = *CELLS.split(), "subset"
    return coords.assign(v=(dims, v), region=(("cut", "probe", "player"), region), **found)


def _found(
    v: NDArray[np.float32],
    small: NDArray[np.bool_],
    members: list[NDArray[np.intp]],
    origins: NDArray[np.int64],
    options: InteractionsOptions,
) -> dict[str, Any]:
    """Return what tables ``(cut, t, probe, subset)`` show; there are none of ``small`` cuts."""
    cuts, steps, _, size = v.shape
    known = np.asarray(np.isfinite(v).all(-1), bool)
    status = Status(CELLS.split(), known.shape).mark(TOO_SMALL, small).mark(NOT_FINITE, ~known)
    l1, gap = (np.full(known.shape, np.nan) for _ in range(2))
    shape = cuts, len(members), steps
    strength = np.full((*shape, size.bit_length() - 1), np.nan)
    order = np.full((3, *shape), np.nan)
    set_status, order_status = (Status(("cut", "set", "t"), shape).mark(TOO_SMALL, small) for _ in range(2))
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
            ratio = ratio_of_sums((each @ weights)[:, None], whole, counts)
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


def _plan(run: Run, parts: Stitchable, tasks: int, probes: int, players: int) -> Plan:
    suffix = sum(cut.suffix_macs for cut in parts.cuts)
    macs = run.checkpoints * probes * 2**players * suffix
    widest = max(prod(cut.shape) for cut in parts.cuts)
    rows, classes = min(ROWS, 2**players), class_count(run)
    entries = rows * max(prod(cut.shape[-2:]) if len(cut.shape) == 3 else prod(cut.shape) for cut in parts.cuts)
    return Plan(
        f"{len(parts.cuts)} cuts x {run.checkpoints} checkpoints x {probes:,} probes x {2**players:,} maskings, "
        f"{macs / 1e12:.3g} T multiply-adds",
        tasks=tasks,
        reads=0,
        task={
            "features": parts.pass_bytes,
            "masks": 3 * entries,
            "masked": rows * 4 * widest * BETWEEN,
            "outputs": OUTPUTS * 8 * 2**players * classes,
        },
        state=parts.held,
        result={
            "tables": 4 * len(parts.cuts) * run.checkpoints * probes * 2**players,
            "models": MODEL * 8 * 2**players * probes,
        },
    )


class _Masked:
    """What tasks need."""

    def __init__(
        self, run: Run, parts: Stitchable, probes: NDArray[np.intp], labels: NDArray[np.int64], players: int, seed: int
    ) -> None:
        self._parts, self._probes, self._labels, self._players, self._seed = parts, probes, labels, players, seed

    def tables(self, item: tuple[int, int]) -> NDArray[np.float32]:
        """Return the log-odds ``(cut, probe, subset)`` of the chosen probes of one batch at one checkpoint."""
        t, b = item
        batch, state = self._parts.features.batches[b], self._parts.states[t]
        mine = self._probes[(self._probes >= batch.start) & (self._probes < batch.stop)]
        found = np.full((len(self._parts.cuts), len(mine), 2**self._players), np.nan, np.float32)
        with torch.inference_mode():
            for c, z in enumerate(self._parts.features(batch, t)):
                whole = regions(self._parts.cuts[c].shape, self._players)
                if whole is None:
                    continue
                of_entry, candidates = whole
                for i, probe in enumerate(mine):
                    players = choose(candidates, self._players, self._seed, int(probe))
                    logits = self._logits(self._parts.cuts[c], state, z, of_entry, players, batch, int(probe))
                    with np.errstate(invalid="ignore"):
                        found[c, i] = log_odds(class_logits(logits), np.int64(self._labels[probe]))
        return found

    def _logits(
        self,
        cut: Cut,
        state: dict[str, Tensor],
        z: Tensor,
        of_entry: NDArray[np.intp],
        players: NDArray[np.intp],
        batch: Batch,
        probe: int,
    ) -> NDArray[np.float64]:
        """Return the outputs ``(subset, class)`` of the suffix on a probe's masked features."""
        suffix, row, outputs = state_for(cut.suffix, state), probe - batch.start, []
        for start in range(0, 2**self._players, ROWS):
            subsets = np.arange(start, min(start + ROWS, 2**self._players))
            rows = torch.from_numpy(kept(of_entry, players, subsets)).to(z.device)
            masked = torch.where(rows, z[row], torch.zeros_like(z[row]))

            def inputs(count: int = len(rows)) -> Tensor:
                return batch.inputs[row : row + 1].expand(count, *batch.inputs.shape[1:])

            outputs.append(functional_call(cut.suffix, suffix, (cut.handed(masked, inputs),)).double().cpu())
        return torch.cat(outputs).numpy()
