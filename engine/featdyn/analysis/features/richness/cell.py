"""One layer at one checkpoint: its measures for each set, and why some are missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.features.folded_moments import bounds, flaw, folded, left_out, rounded, whole
from featdyn.analysis.features.richness import RichnessOptions
from featdyn.analysis.inputs.lacking import keeps_moments
from featdyn.analysis.inputs.layer_vectors import LOGITS, outputs, vectors
from featdyn.analysis.inputs.recorded_moments import NOT_KEPT, kept_moments
from featdyn.analysis.inputs.targets import NO_TARGETS, Targets
from featdyn.analysis.status import FEW, NOT_FINITE
from featdyn.statistics.alignment.spectrum import entropy_rank
from featdyn.statistics.richness import (
    LowRank,
    feature_metrics_of_moments,
    isotropic_reference,
    kernel_deviation_of_moments,
    low_rank_of_moments,
)
from featdyn.statistics.rounding import roundoff
from featdyn.store import ArraySpec, Run
from featdyn_kernels.eigh import eigvalsh
from featdyn_kernels.moments import Moments

BOUNDED = ("low_rank", "effective_dimension", "kernel_deviation")
NUMBERS = (
    *(name + end for name in BOUNDED for end in ("", "_low", "_high")),
    "low_rank_isotropic", "output_rank", "kernel_similarity", "kernel_cosine",
)  # fmt: skip
STATUSES = (
    "status", "isotropic_status", "target_status", "kernel_status", "cosine_status",
    *(f"{name}_interval_status" for name in BOUNDED),
)  # fmt: skip
OUTPUTS_STILL = "outputs_do_not_vary"
ALL_ZERO = "targets_are_zero"
FIRST = "features_of_the_first_checkpoint_do_not_vary"
BEYOND = "output_rank_is_beyond_the_formula"
Found: TypeAlias = tuple[dict[str, Any], dict[str, str]]
"""Values by variable, and reasons of what is missing by status variable."""


@dataclass(frozen=True, eq=False)
class State:
    """What every cell needs."""

    run: Run
    specs: list[ArraySpec]
    names: list[str]  # of the sets
    members: list[NDArray[np.bool_]]  # (probe,) for each set
    images: list[int]  # of each set
    folds: list[NDArray[np.intp]]  # (probe,) for each set
    targets: Targets
    options: RichnessOptions
    first: FirstVectors


class FirstVectors:
    """The vectors of the first checkpoint, which all others are compared with: those of a layer's blocks are kept."""

    def __init__(self, run: Run, kept: bool) -> None:
        self._run, self._kept = run, kept
        # One attribute, as threads may be at two layers: blocks and what they are of are read together.
        self._held: tuple[tuple[str, int], dict[int, NDArray[np.float64]]] = ("", 0), {}

    def __call__(self, path: str, group: int, block: int, mine: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the probes ``mine`` of a block, ``(n, p)``; of a group of sets these are the same each time."""
        if not self._kept:
            return vectors(self._run, path, 0, block, mine)
        of, blocks = self._held
        if of != (path, group):
            blocks = {}
            self._held = (path, group), blocks
        if block not in blocks:
            blocks[block] = vectors(self._run, path, 0, block, mine)
        return blocks[block]


def cells(state: State, item: tuple[int, range, int]) -> list[Found]:
    """Return what is found of one layer for each of some sets at one checkpoint.

    Outputs, targets and the first checkpoint's features are accumulated beside the features, so that a block is read
    once for all of these sets. Moments that were kept in place of features have neither folds nor the first
    checkpoint's features.
    """
    (c, together, t), run = item, state.run
    if keeps_moments(run):
        spec, names = state.specs[c], state.names
        kept = [kept_moments(run, spec, t, names[s], state.members[s]) for s in together]
        return [_cell(state, (c, s), total, []) for s, total in zip(together, kept, strict=True)]
    return [_cell(state, (c, s), whole(parts), parts) for s, parts in zip(together, _folded(state, item), strict=True)]


def _cell(state: State, at: tuple[int, int], total: Moments, parts: list[Moments]) -> Found:
    """Return what is found of one layer and one set."""
    (c, s), run, wanted = at, state.run, state.targets
    width, goals, kept = outputs(run), wanted.values.shape[1], keeps_moments(run)
    said, goal = _only(total, 0, width), _only(total, width, goals)
    low_rank, flawed = _low_rank(said, state.options, state.images[s])
    if flawed := rounded(state.specs[c], said) or flawed:
        return {}, dict.fromkeys(STATUSES, flawed)
    assert low_rank is not None
    # Copies vary as one: by their own number features of few images would look less isotropic than they are.
    reference = isotropic_reference(low_rank.features, state.images[s], low_rank.rank)
    first = None if kept else _only(total, width + goals, None)
    first_flawed = NOT_KEPT
    if first is not None:
        then = Moments(first.count, first.output_mean, first.output_scatter)
        first_flawed = rounded(state.specs[c], then) or _first_flaw(first)
    target_flaw = _target_flaw(wanted, state.members[s], goal)
    usable = said if target_flaw in (NO_TARGETS, ALL_ZERO) else goal  # what stands in for no targets is not given
    metrics = feature_metrics_of_moments(
        said.second,
        said.cross,
        said.output_second,
        usable.cross,
        usable.output_second,
        said.count,
        tolerance=state.options.tolerance,
        unit=roundoff(state.specs[c].dtype),
    )
    values: dict[str, Any] = {
        "low_rank": low_rank.value,
        "low_rank_isotropic": reference,
        "output_rank": low_rank.rank,
        "effective_dimension": metrics.effective_dimension,
    }
    leading = ["intensity", "utilisation", "cumulative_utilisation"]
    leading += [] if target_flaw else ["quality", "cumulative_quality"]
    values |= {name: getattr(metrics, name)[: state.options.leading] for name in leading}
    cosine_flawed = first_flawed
    if first is not None and first_flawed != NOT_FINITE:
        deviation = kernel_deviation_of_moments(first)
        if not first_flawed:
            values |= {"kernel_deviation": deviation.deviation, "kernel_similarity": deviation.similarity}
        if np.isfinite(deviation.cosine):
            values["kernel_cosine"], cosine_flawed = deviation.cosine, ""
    reasons = {
        "isotropic_status": BEYOND if np.isnan(reference) else "",
        "target_status": target_flaw,
        "kernel_status": first_flawed,
        "cosine_status": cosine_flawed,
    }
    others = [_bounded(moments, width, goals, state.options) for moments in left_out(parts)]
    for name in BOUNDED:
        if name not in values:
            reasons[f"{name}_interval_status"] = first_flawed
            continue
        valid = None if name == "effective_dimension" else (0.0, 1.0)
        low, high, why = bounds(values[name], [other[name] for other in others], valid, [m.count for m in parts])
        values |= {f"{name}_low": low, f"{name}_high": high}
        reasons[f"{name}_interval_status"] = NOT_KEPT if kept else why
    return values, reasons


def _folded(state: State, item: tuple[int, range, int]) -> list[list[Moments]]:
    """Return for each of some sets the moments of each fold, of features beside all else."""
    (c, together, t), run, wanted = item, state.run, state.targets
    path = state.specs[c].path

    def beside(block: int, mine: NDArray[np.bool_], places: NDArray[np.intp]) -> dict[str, Any]:
        each = [
            vectors(run, LOGITS, t, block, mine),
            wanted.values[places],
            state.first(path, together.start, block, mine),
        ]
        return {"outputs": np.concatenate(each, 1)}

    members, folds = [state.members[s] for s in together], [state.folds[s] for s in together]
    return folded(run, state.specs[c], t, members, folds, beside)


def _low_rank(said: Moments, options: RichnessOptions, images: int) -> tuple[LowRank | None, str]:
    """Return the low-rank measure of features and outputs, or why there is none."""
    reason = flaw(said)
    of_outputs = flaw(Moments(said.count, said.output_mean, said.output_scatter))
    if not reason and of_outputs:
        reason = of_outputs if of_outputs == NOT_FINITE else OUTPUTS_STILL
    if reason:
        return None, reason
    found = low_rank_of_moments(said, centring=options.centring, tolerance=options.tolerance)
    # Outputs that span all directions of so few images hold any features whatever.
    return (None, FEW) if found.rank >= images - 1 else (found, "")


def _bounded(moments: Moments, width: int, goals: int, options: RichnessOptions) -> dict[str, float]:
    """Return what has an interval, of the moments without one fold; NaN where there is none."""
    said, first = _only(moments, 0, width), _only(moments, width + goals, None)
    low_rank, _ = _low_rank(said, options, int(said.count))
    if low_rank is None:
        return dict.fromkeys(BOUNDED, np.nan)
    values = np.maximum(np.asarray(eigvalsh(said.second)), 0.0)
    deviation = np.nan if _first_flaw(first) else kernel_deviation_of_moments(first).deviation
    return dict(zip(BOUNDED, (low_rank.value, entropy_rank(values), deviation), strict=True))


def _only(moments: Moments, start: int, count: int | None) -> Moments:
    """Return moments with some of what was accumulated beside the features."""
    assert moments.output_mean is not None
    assert moments.output_scatter is not None
    assert moments.cross_scatter is not None
    kept = slice(start, None if count is None else start + count)
    return Moments(
        moments.count,
        moments.mean,
        moments.scatter,
        moments.output_mean[kept],
        moments.output_scatter[kept, kept],
        moments.cross_scatter[:, kept],
    )


def _first_flaw(first: Moments) -> str:
    reason = flaw(Moments(first.count, first.output_mean, first.output_scatter))
    return FIRST if reason and reason != NOT_FINITE else reason


def _target_flaw(wanted: Targets, member: NDArray[np.bool_], goal: Moments) -> str:
    return wanted.flaw(member) or ("" if goal.output_second.any() else ALL_ZERO)
