"""From a full block of samples to its shards: the arrays as they passed the network, and the cube that follows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from featdyn.capture import cube
from featdyn.capture.arrays import gradient_scale
from featdyn.capture.blocks import Block
from featdyn.capture.fit import Fit
from featdyn.capture.options import CaptureOptions
from featdyn.store import Schema
from featdyn.store.checkpoint import CheckpointFiles
from featdyn.store.place import Place
from featdyn.store.reader import read_block


class Shards:
    """Writes blocks of a recording, which reads the checkpoint before; layers come with the shape of one activation."""

    def __init__(
        self, place: Place, schema: Schema, layers: Mapping[str, tuple[int, ...]], options: CaptureOptions
    ) -> None:
        self._place, self._schema, self._options = place, schema, options
        features = {name: int(np.prod(shape)) for name, shape in layers.items()}
        self._sketches = {name: cube.Sketch(name, n, options.sketch) for name, n in features.items()}

    def write(self, block: Block, files: CheckpointFiles, fit: Fit) -> None:
        """Write every shard of a block, and note how its values fit."""
        rows = block.rows
        for path, memory in block.arrays.items():
            fit.see(path, memory[:rows], block.largest[path][:rows])
            files.write(path, memory[:rows].numpy(), block.index)
        columns: dict[str, list[Tensor]] = {}
        for name, sketch in self._sketches.items():
            path = f"layers/{name}/activation"
            values = block.arrays[path][:rows].flatten(1).float()
            found = cube.summaries(values, self._before(path, files.index, block.index))
            if self._options.gradients:
                gradient = block.arrays[f"layers/{name}/gradient"][:rows].flatten(1).float()
                found["gradient_norm"] = gradient.norm(dim=1) / gradient_scale(self._options)
            found["sketch"] = sketch(values)
            for key, value in found.items():
                columns.setdefault(key, []).append(value)
        for key, column in columns.items():
            files.write(f"cube/{key}", torch.stack(column).numpy(), block.index)

    def _before(self, path: str, checkpoint: int, block: int) -> Tensor | None:
        if checkpoint == 0:
            return None
        values = read_block(self._place, self._schema, path, checkpoint - 1, block)
        # torch converts halves many times faster than numpy.
        return torch.from_numpy(np.require(values, requirements="W")).flatten(1).float()
