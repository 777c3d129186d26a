"""A run's network and its inputs as those of one tensor: what stitching asks for, however many were recorded."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn.capture.call import Call
from featdyn.capture.nest import restored
from featdyn.capture.one_tensor import of_one_tensor
from featdyn.capture.tap import device_of
from featdyn.errors import NetworkError
from featdyn.networks.packed import Packing
from featdyn.store import Run

_PLAIN = Call()
FEW = 4
"""So many probes show what a network returns."""


def takes_one(run: Run) -> bool:
    """Whether the recorded network takes one tensor."""
    return isinstance(run.described("probes").get("input", ""), str)


def as_given(run: Run, name: str, values: NDArray[Any]) -> Tensor:
    """Return stored inputs or targets in the type that the model took: Zarr has no bfloat16."""
    said = str(run.described("identity").get({"input": "inputs", "target": "labels"}[name], ""))
    found = torch.from_numpy(values)
    return found.bfloat16() if "torch.bfloat16" in said and found.is_floating_point() else found


class Inputs:
    """Reads the inputs of some probes as one tensor; with ``exact`` real numbers are float64."""

    def __init__(self, run: Run, *, exact: bool = False) -> None:
        self._run, self._paths, self._exact = run, list[str](), exact
        self.structure = run.described("probes").get("input", "input")
        restored(self.structure, self._paths.append)  # type: ignore[arg-type]

    @cached_property
    def packing(self) -> Packing:
        """How several are packed, which their shapes and types tell."""
        return Packing.of(self._several(slice(0, 0)))

    def of(self, samples: slice) -> Tensor:
        """Return those of a range of samples."""
        if takes_one(self._run):
            return self._read("input", samples)
        return self.packing.pack(self._several(samples))

    def at(self, places: NDArray[np.intp]) -> Tensor:
        """Return those of some probes, in the order of ``places``: beside them one block of inputs is in memory."""
        found: Tensor | None = None
        for block in range(self._run.schema.blocks):
            samples = self._run.schema.block_slice(block)
            mine = np.flatnonzero((places >= samples.start) & (places < samples.stop))
            if len(mine):
                values = self.of(samples)
                if found is None:
                    found = values.new_empty((len(places), *values.shape[1:]))
                found[torch.from_numpy(mine)] = values[torch.from_numpy(places[mine] - samples.start)]
        return self.of(slice(0, 0)) if found is None else found

    def _several(self, samples: slice) -> dict[str, Tensor]:
        return {path: self._read(path, samples) for path in self._paths}

    def _read(self, path: str, samples: slice) -> Tensor:
        found = as_given(self._run, "input", self._run.values(f"inputs/{path}", samples))
        return found.double() if self._exact and found.is_floating_point() else found


def of_one_input(run: Run, model: nn.Module, call: Call = _PLAIN, *, exact: bool = False) -> nn.Module:
    """Return the network as it takes :class:`Inputs` and returns one tensor, its logits; itself where it does.

    ``call`` says how the model is asked; with ``exact`` it is one in float64. Raises :class:`NetworkError` where it
    does not run on what was recorded, or returns no logits.
    """
    inputs = Inputs(run, exact=exact)
    example, structure = inputs.of(slice(0, min(FEW, run.schema.samples))).to(device_of(model)), inputs.structure

    def unpacked(given: Tensor) -> Any:
        return restored(structure, inputs.packing.unpack(given).__getitem__)

    try:
        return of_one_tensor(model, example, call, None if takes_one(run) else unpacked)
    except NetworkError as error:
        raise NetworkError(f"{run.path}: {error}") from error
