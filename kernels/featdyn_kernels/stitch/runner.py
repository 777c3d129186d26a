"""Ways to run many suffixes: one of them fused, one as the modules stand, one in float64."""

# ruff: noqa: D102  as Runner says

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from featdyn_kernels._dispatch import interpreting
from featdyn_kernels._threads import one_torch_thread, parallel_blocks
from featdyn_kernels.stitch import reference
from featdyn_kernels.stitch.score import Scores


class Path(NamedTuple):
    """Which implementation runs."""

    name: str
    """``fused``, ``general`` (every suffix as it stands) or ``reference``."""
    why: str


class Runner(Protocol):
    """What all of them offer."""

    path: Path
    nbytes: int
    """Bytes of weights held beside the modules' own."""
    error: float
    """Expected error of a logit, as a fraction of the checkpoint's largest; 0: the module's own arithmetic."""
    tolerance: float
    """A larger error means that something is wrong."""

    def run(self, features: Tensor, scores: Scores) -> None:
        """Run all suffixes on features (N, ...), N > 0."""


class General:
    """Suffixes as they stand, each on the whole batch."""

    nbytes, error, tolerance = 0, 0.0, 0.0

    def __init__(self, modules: Sequence[nn.Module], why: str, positions: int = 1) -> None:
        self.modules, self.path, self._positions = modules, Path("general", why), positions

    def run(self, features: Tensor, scores: Scores) -> None:

        def work(t: int) -> None:
            # A suffix may write into its input, or take a view of it that other orders of memory do not have.
            own = features.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            logits = self.modules[t](own)
            scores.put(checked(logits, len(features), self._positions), t, slice(None))

        each_checkpoint(work, len(self.modules), features.device)


class Reference:
    """Float64."""

    nbytes, error, tolerance = 0, 0.0, 0.0

    def __init__(self, modules: Sequence[nn.Module], positions: int = 1) -> None:
        self.modules, self.path, self._positions = modules, Path("reference", "asked for"), positions

    def run(self, features: Tensor, scores: Scores) -> None:
        given = [None if tensor is None else tensor.numpy() for tensor in (scores.labels, scores.own)]
        prediction, *figures = reference.run(self.modules, features, *given, positions=self._positions)
        scores.prediction[:] = torch.from_numpy(prediction)
        for kept, found in zip((scores.loss, scores.margin, scores.log_odds, scores.divergence), figures, strict=True):
            if found.size:
                kept[:] = torch.from_numpy(found)


def each_checkpoint(work: Callable[[int], None], checkpoints: int, device: torch.device) -> None:
    """Call ``work(t)`` for every checkpoint: on the CPU side by side, on a GPU in turn."""

    def block(start: int, stop: int) -> None:
        with torch.inference_mode(), one_torch_thread():
            for t in range(start, stop):
                work(t)

    if device.type == "cpu" and not interpreting():  # Triton's interpreter bears no threads
        parallel_blocks(block, checkpoints)
    else:
        block(0, checkpoints)


def checked(logits: Any, samples: int, positions: int = 1) -> Tensor:
    """Return what a suffix returned as logits (sample, 1, class); with positions each of them is a sample."""
    wanted = (samples,) if positions == 1 else (samples, positions)
    if not isinstance(logits, Tensor) or logits.ndim != len(wanted) + 1 or logits.shape[:-1] != wanted:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"a suffix must return logits ({', '.join(map(str, wanted))}, classes), got {got}")
    return logits.reshape(-1, 1, logits.shape[-1]).float()
