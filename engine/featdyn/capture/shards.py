"""From a full block of samples to its shards: the arrays as they passed the network, and the cube that follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from featdyn.capture import cube
from featdyn.capture.arrays import gradient_scale
from featdyn.capture.blocks import Block
from featdyn.capture.fit import Fit
from featdyn.capture.options import CaptureOptions
from featdyn.errors import TrainingError
from featdyn.store import Schema
from featdyn.store.checkpoint import CheckpointFiles
from featdyn.store.place import Place
from featdyn.store.reader import read_block


class Shards:
    """Writes blocks of a recording, which reads the checkpoint before; padding comes as 0 and is written as NaN.

    Layers come with the shape of one activation; ``missing`` of some samples says where arrays hold padding.
    """

    def __init__(
        self,
        place: Place,
        schema: Schema,
        layers: Mapping[str, tuple[int, ...]],
        options: CaptureOptions,
        missing: Callable[[slice], Mapping[str, Tensor]] = lambda samples: {},
    ) -> None:
        self._place, self._schema, self._options, self._missing = place, schema, options, missing
        features = {name: int(np.prod(shape)) for name, shape in layers.items()}
        self._sketches = {name: cube.Sketch(name, n, options.sketch) for name, n in features.items()}

    def write(self, block: Block, files: CheckpointFiles, fit: Fit) -> None:
        """Write every shard of a block, and note how its values fit."""
        rows, samples = block.rows, self._schema.block_slice(block.index)
        if rows != samples.stop - samples.start:  # else some would be memory that nobody wrote
            raise TrainingError(f"a block has {rows} of its {samples.stop - samples.start} samples")
        missing = self._missing(samples)
        columns: dict[str, list[Tensor]] = {}
        for name, sketch in self._sketches.items():
            path = f"layers/{name}/activation"
            stored, padding = block.arrays[path][:rows], missing.get(path)
            values = stored.flatten(1).float()
            count = None if padding is None else (~padding).sum(1) * stored[0, 0].numel()
            found = cube.summaries(values, self._before(path, files.index, block.index, padding), count)
            if self._options.gradients:
                gradient = block.arrays[f"layers/{name}/gradient"][:rows].flatten(1).float()
                found["gradient_norm"] = gradient.norm(dim=1) / gradient_scale(self._options)
            found["sketch"] = sketch(values)
            for key, value in found.items():
                columns.setdefault(key, []).append(value)
        for path, memory in block.arrays.items():
            if memory.is_floating_point():
                fit.see(path, memory[:rows], block.largest[path][:rows])
            if path in missing:
                memory[:rows][missing[path]] = torch.nan
            files.write(path, memory[:rows].numpy(), block.index)
        for key, column in columns.items():
            files.write(f"cube/{key}", torch.stack(column).numpy(), block.index)

    def _before(self, path: str, checkpoint: int, block: int, padding: Tensor | None) -> Tensor | None:
        if checkpoint == 0:
            return None
        values = read_block(self._place, self._schema, path, checkpoint - 1, block)
        # torch converts halves many times faster than numpy.
        before = torch.from_numpy(np.require(values, requirements="W")).float()
        if padding is not None:
            before = before.masked_fill(padding.view(*padding.shape, *(1,) * (before.ndim - 2)), 0.0)
        return before.flatten(1)
