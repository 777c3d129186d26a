"""The tangent kernels of a few probes at any checkpoint: what one task computes."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.features.tangent_kernel import TangentKernelOptions
from featdyn.analysis.inputs.layer_vectors import outputs
from featdyn.analysis.inputs.one_input import Inputs
from featdyn.analysis.inputs.stitchable import BETWEEN, Stitchable
from featdyn.analysis.inputs.widest import widest
from featdyn.capture.tap import device_of
from featdyn.compute import Plan
from featdyn.networks.twin import eval_twin
from featdyn.statistics.richness.ntk import BLOCK, ENTRY, empirical_ntk
from featdyn.store import Run

Values: TypeAlias = NDArray[np.float64]


def directions(outputs: int, options: TangentKernelOptions) -> Tensor:
    """Return along which so many outputs are followed, ``(K, outputs)``: each, or sums of all with random signs."""
    if outputs <= options.directions:
        return torch.eye(outputs, dtype=torch.float64)
    signs = np.random.default_rng(options.seed).choice([-1.0, 1.0], (options.directions, outputs))
    return torch.from_numpy(signs / np.sqrt(outputs))


class Kernels:
    """A run's network and the chosen probes of each set, by their places in the run."""

    def __init__(
        self, run: Run, parts: Stitchable, chosen: list[NDArray[np.intp]], options: TangentKernelOptions
    ) -> None:
        self._run, self._parts, self._options = run, parts, options
        self._network = eval_twin(parts.model)
        self._inputs = [Inputs(run).at(places).to(device_of(parts.model)) for places in chosen]

    def at(self, t: int) -> list[Values]:
        """Return the kernel ``(m, m)`` of each set at a checkpoint."""
        state, ways = self._parts.states[t], directions(outputs(self._run), self._options)
        return [empirical_ntk(self._network, inputs, ways, state=state) for inputs in self._inputs]

    def plan(self) -> Plan:
        """Return what all checkpoints will need."""
        run, most = self._run, max(map(len, self._inputs))
        count = len(directions(outputs(run), self._options))
        trained = [p.numel() for p in self._network.parameters() if p.requires_grad]
        largest, one = max(trained, default=0), self._inputs[0][:1]
        together = min(count, max(1, BLOCK // max(1, ENTRY * most * sum(trained))))
        of_one = 4 * together * max(largest, BETWEEN * widest(self._network, one))
        rows = sum(map(len, self._inputs))
        return Plan(
            f"{run.checkpoints} checkpoints x {rows} probes x {count} directions of outputs, "
            f"gradients of {sum(trained):,} numbers",
            tasks=run.checkpoints,
            reads=0,
            task={
                "gradients": min(BLOCK, ENTRY * most * together * sum(trained)),
                "passes": min(max(BLOCK, of_one), of_one * most),
                "kernels": 8 * 4 * len(self._inputs) * most**2,
            },
            state=self._parts.held | {"inputs": rows * one.nbytes},
            result={"kernels": 8 * 4 * len(self._inputs) * most**2},
        )
