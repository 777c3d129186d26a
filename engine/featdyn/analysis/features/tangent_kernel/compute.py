"""Tangent kernels of some probes of each set at every checkpoint, beside the first's, the one before, and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.cells import Cells
from featdyn.analysis.context import Context
from featdyn.analysis.features.folded_moments import bounds
from featdyn.analysis.features.tangent_kernel import TangentKernelOptions
from featdyn.analysis.features.tangent_kernel.kernels import Kernels
from featdyn.analysis.inputs.at_input import whole_network
from featdyn.analysis.inputs.layer_vectors import outputs
from featdyn.analysis.inputs.targets import targets
from featdyn.analysis.status import FEW, NOT_FINITE
from featdyn.statistics.richness.ntk import label_alignment, ntk_deviation

Values: TypeAlias = NDArray[np.float64]
DIMS = ("set", "t")
COMPARED = ("deviation", "change", "alignment")
NUMBERS = (
    *(name + end for name in COMPARED for end in ("", "_low", "_high")), "alignment_shuffled", "gradient_square",
)  # fmt: skip
STATUSES = (
    "status", "shuffled_status", *(f"{name}{end}" for name in COMPARED for end in ("_status", "_interval_status")),
)  # fmt: skip
NO_EARLIER, ZERO_KERNEL = "no_earlier_checkpoint", "no_output_has_a_gradient"
NOT_ASKED = "no_shuffles_were_asked_for"
ALIKE_TARGETS = "kernel_or_targets_do_not_vary"


def tangent_kernel(context: Context[TangentKernelOptions]) -> xr.Dataset:
    """Compare the tangent kernels of all checkpoints."""
    run, sets, options = context.run, context.sets, context.options
    outputs(run)  # or say that there are none of a sample
    parts = whole_network(run, context.model, context.call)
    chosen = sets.choose(run, options.samples, options.seed, per_origin=True)
    kernels, wanted = Kernels(run, parts, chosen, options), targets(run)
    goals = [wanted.flaw(mine) or wanted.values[mine] for mine in chosen]
    cells = Cells(DIMS, (len(chosen), run.checkpoints), NUMBERS, STATUSES)
    context.admit(kernels.plan())
    first, before = list[Values](), list[Values]()
    with context.stage(kernels, parts.around(Kernels, run, chosen, options)) as stage:
        for t, found in enumerate(context.each(stage.map(Kernels.at, range(run.checkpoints)))):
            first = first or found
            for s, kernel in enumerate(found):
                earlier, aims = before[s] if before else None, goals[s]
                cells.put((s, t), *_measured(kernel, first[s], earlier, aims, options))
            before = found
    return cells.dataset().assign_coords(
        {"set": np.array(sets.names, dtype=object), "set_size": ("set", sets.sizes)}
        | {"used": ("set", [len(mine) for mine in chosen])}
        | {"t": np.arange(run.checkpoints), "step": ("t", run.values("step"))}
    )


def _measured(
    kernel: Values, first: Values, before: Values | None, wanted: Values | str, options: TangentKernelOptions
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of one cell by variable, and the reasons of what is missing by status variable."""
    flawed = _flaw(kernel)
    if flawed:
        return {}, dict.fromkeys(STATUSES, flawed)
    values: dict[str, Any] = {"gradient_square": float(kernel.diagonal().mean())}
    reasons = dict.fromkeys(STATUSES, "")

    def put(name: str, measure: Callable[[NDArray[np.intp]], float], why: str) -> None:
        everyone = np.arange(len(kernel))
        found = np.nan if why else measure(everyone)
        if not np.isfinite(found):
            reasons[f"{name}_status"] = reasons[f"{name}_interval_status"] = why or ALIKE_TARGETS
            return
        values[name] = float(np.clip(found, 0, 1))
        low, high, without = bounds(values[name], [measure(np.delete(everyone, i)) for i in everyone])
        values[f"{name}_low"], values[f"{name}_high"] = low, high
        reasons[f"{name}_interval_status"] = without

    def apart(other: Values | None) -> Callable[[NDArray[np.intp]], float]:
        return lambda kept: ntk_deviation(_part(other, kept), _part(kernel, kept)) if other is not None else np.nan

    few = FEW if len(kernel) < 2 else ""
    put("deviation", apart(first), few or _flaw(first))
    put("change", apart(before), few or (NO_EARLIER if before is None else _flaw(before)))
    if isinstance(wanted, str):
        put("alignment", lambda kept: np.nan, wanted)
        reasons["shuffled_status"] = wanted
        return values, reasons
    put("alignment", lambda kept: label_alignment(_part(kernel, kept), wanted[kept]), few)
    if "alignment" not in values or not options.shuffles:
        reasons["shuffled_status"] = reasons["alignment_status"] or NOT_ASKED
        return values, reasons
    random = np.random.default_rng(options.seed)
    dealt = [label_alignment(kernel, random.permutation(wanted)) for _ in range(options.shuffles)]
    return values | {"alignment_shuffled": float(np.mean(dealt))}, reasons


def _part(kernel: Values | None, kept: NDArray[np.intp]) -> Values:
    assert kernel is not None
    return np.asarray(kernel[np.ix_(kept, kept)])


def _flaw(kernel: Values) -> str:
    return "" if np.isfinite(kernel).all() and kernel.any() else (NOT_FINITE if kernel.any() else ZERO_KERNEL)
