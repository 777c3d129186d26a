"""Suffixes of many checkpoints on the CPU: fused steps in Numba, anything else as torch runs it."""

# ruff: noqa: D102  as Runner says

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featdyn_kernels._simd import BF16
from featdyn_kernels._threads import get_threads, one_torch_thread, parallel_blocks
from featdyn_kernels.stitch.layers import Layer, Linear, channels_last, prepare
from featdyn_kernels.stitch.plan import Affine, Call, SuffixPlan
from featdyn_kernels.stitch.runner import Path, checked
from featdyn_kernels.stitch.score import Scores
from featdyn_kernels.stitch.workspace import Workspace

BLOCK_BYTES, MIN_BLOCK = 2**21, 8
"""Features, and samples at least, that pass a suffix together: so few that activations stay in the second-level
cache."""
CHUNK = 4
"""Blocks that meet one suffix before the next is taken: so many that its weights are worth fetching."""

EVEN = 0.9
"""Share of the threads' time that a division of tasks has to fill."""


class Fused:
    """A plan with the weights of every checkpoint laid out, of suffixes in eval mode and float32."""

    def __init__(self, plan: SuffixPlan, modules: Sequence[nn.Module], dtype: torch.dtype) -> None:
        self.plan, self.modules = plan, modules
        self._local = threading.local()
        affine = [step for step in plan.own if isinstance(step, Affine)]
        self.stacked = len(plan.own) == len(affine) == 1 and _stacks(affine[0], modules[0])
        self.error, self.tolerance = (
            (5e-3, 1e-1) if dtype == torch.bfloat16 and BF16 and not self.stacked else (1e-6, 1e-3)
        )
        if self.stacked:  # all heads read the same features: one matrix product
            self.layers: list[list[Layer]] = [[Linear(affine[0], modules, torch.float32)]]
        else:
            # What gives the logits stays in float32: it costs little and decides much.
            types = [torch.float32 if step.value == plan.output else dtype for step in affine]
            steps = list(zip(affine, types, strict=True))
            self.layers = [[prepare(step, module, kind) for step, kind in steps] for module in modules]
        self.slots = _slots(plan)
        self.nbytes = sum(layer.nbytes for layers in self.layers for layer in layers)
        self.path = Path("fused", self._describe(dtype))

    def _describe(self, dtype: torch.dtype) -> str:
        kinds = Counter(layer.kind for layer in self.layers[0])
        kinds["by torch"] = len(self.plan.own) + len(self.plan.shared) - kinds.total()
        said = [", ".join(f"{n} {kind}" for kind, n in kinds.items() if n)]
        if self.stacked:
            said.append("one product for all checkpoints")
        elif dtype == torch.bfloat16:
            said.append("products of bfloat16" if BF16 else "in float32: this processor does not multiply bfloat16")
        return "; ".join(said)

    def run(self, features: Tensor, scores: Scores) -> None:
        samples, rounds = len(features), len(self.layers)
        size = max(MIN_BLOCK, BLOCK_BYTES // (4 * features[0].numel()))
        chunk = min(CHUNK * size, -(-samples // _pieces(rounds, get_threads())))
        chunks = -(-samples // chunk)

        def work(start: int, stop: int) -> None:
            # One range over (chunk, checkpoint): few samples, or few checkpoints, keep every thread busy too.
            space, current, blocks = self._workspace(), -1, []
            with torch.inference_mode(), one_torch_thread():
                for number, t in (divmod(task, rounds) for task in range(start, stop)):
                    if number != current:
                        first, last = number * chunk, min(samples, (number + 1) * chunk)
                        rows = [slice(n, min(last, n + size)) for n in range(first, last, size)]
                        current, blocks = number, [(r, self._shared(features[r])) for r in rows]
                    for r, shared in blocks:
                        logits = checked(self._own(t, dict(shared), space), r.stop - r.start)
                        scores.put(logits.reshape(len(logits), len(self.modules) // rounds, -1), t, r)

        parallel_blocks(work, chunks * rounds)

    def _workspace(self) -> Workspace:
        if not hasattr(self._local, "space"):
            self._local.space = Workspace()
        space: Workspace = self._local.space
        return space

    def _shared(self, features: Tensor) -> dict[str, Any]:
        values: dict[str, Any] = {self.plan.input: channels_last(features) if features.ndim == 4 else features.float()}
        for step in self.plan.shared:
            values[step.value] = step(self.modules[0], values)
        return values

    def _own(self, t: int, values: dict[str, Any], space: Workspace) -> Tensor:
        layers = iter(self.layers[t])
        for step, slot, drop in zip(self.plan.own, self.slots, self.plan.drops, strict=True):
            if isinstance(step, Affine):
                residual = values[step.residual] if step.residual else None
                values[step.value] = next(layers)(values[step.source], residual, space, slot)
            else:
                values[step.value] = step(self.modules[t], values)
            for name in drop:
                del values[name]
        logits: Tensor = values[self.plan.output]
        return logits


def _pieces(rounds: int, threads: int) -> int:
    """Return into how many chunks samples are cut at least, so that threads have about as much to do.

    No more than that: each step of a chunk holds the interpreter for a moment, which the threads share. Of 200 samples
    of the digits recipe and 12 checkpoints, in halves, two threads took as long as one.
    """
    for pieces in range(1, threads):
        tasks = pieces * rounds
        if tasks >= EVEN * threads * -(-tasks // threads):
            return pieces
    return threads


def _stacks(step: Affine, module: nn.Module) -> bool:
    return isinstance(module.get_submodule(step.layer), nn.Linear) and not (step.residual or step.relu)


def _slots(plan: SuffixPlan) -> list[int]:
    """Return which buffer each own step writes; a buffer is used again once its value has met its last reader.

    What torch reads keeps its buffer: the result may be a view of it.
    """
    seen = {name for step in plan.own if isinstance(step, Call) for name in step.sources}
    count = 0
    slots: list[int] = []
    free: list[int] = []
    held: dict[str, int] = {}
    for step, drop in zip(plan.own, plan.drops, strict=True):
        if not free:
            free.append(count)
            count += 1
        slots.append(free.pop())
        if isinstance(step, Affine):
            held[step.value] = slots[-1]
        else:
            free.append(slots[-1])
        free += [held[name] for name in drop if name in held and name not in seen]
    return slots
