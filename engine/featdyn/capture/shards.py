"""From a full block of samples to its shards: the arrays as they passed the network, and the cube that follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from featdyn.capture import cube
from featdyn.capture.arrays import gradient_scale
from featdyn.capture.before import Before
from featdyn.capture.blocks import Block
from featdyn.capture.fit import Fit
from featdyn.capture.kept_moments import KeptMoments
from featdyn.capture.options import CaptureOptions
from featdyn.errors import TrainingError
from featdyn.store import Schema
from featdyn.store.checkpoint import CheckpointFiles
from featdyn.store.place import Place
from featdyn_kernels.summaries import Summaries, summarise


class Shards:
    """Writes blocks of a recording; padding comes as 0 and is written as NaN.

    With ``moments`` these take activations, and nothing else keeps them. Layers come with the shape of one activation;
    ``missing`` of some samples says where arrays hold padding. What a
    checkpoint is compared with is the one before, which stays in memory where ``keeps`` says so.
    """

    def __init__(
        self,
        place: Place,
        schema: Schema,
        layers: Mapping[str, tuple[int, ...]],
        options: CaptureOptions,
        missing: Callable[[slice], Mapping[str, Tensor]] = lambda samples: {},
        *,
        keeps: bool = False,
        moments: KeptMoments | None = None,
    ) -> None:
        self._schema, self._options, self._missing = schema, options, missing
        self._before, self._moments = Before(place, schema, keeps=keeps), moments
        features = {name: int(np.prod(shape)) for name, shape in layers.items()}
        self._sketches = {name: cube.Sketch(name, n, options.sketch) for name, n in features.items()}

    def write(self, block: Block, files: CheckpointFiles, fit: Fit) -> None:
        """Write every shard of a block, and note how its values fit."""
        rows, samples = block.rows, self._schema.block_slice(block.index)
        if rows != samples.stop - samples.start:  # else some would be memory that nobody wrote
            raise TrainingError(f"a block has {rows} of its {samples.stop - samples.start} samples")
        missing = self._missing(samples)
        columns: dict[str, list[Tensor]] = {}
        sums: dict[str, Summaries] = {}
        for name, sketch in self._sketches.items():
            path, gradient = (f"layers/{name}/{of}" for of in ("activation", "gradient"))
            stored, padding = block.arrays[path][:rows], missing.get(path)
            kept = self._moments is None  # else there is nothing to compare with
            before = self._before.rows(path, files.index, block.index, padding) if kept else None
            sums[path] = summarise(stored, before, sketch.slots, sketch.width)
            count = None if padding is None else (~padding).sum(1) * stored[0, 0].numel()
            found = cube.summaries(sums[path], stored[0].numel() if count is None else count)
            if self._options.gradients:
                sums[gradient] = summarise(block.arrays[gradient][:rows])
                norm = torch.as_tensor(sums[gradient].squares).sqrt()
                found["gradient_norm"] = (norm / gradient_scale(self._options)).float()
            for key, value in found.items():
                columns.setdefault(key, []).append(value)
        if self._moments is not None:
            features = {name: block.arrays[f"layers/{name}/activation"][:rows] for name in self._sketches}
            self._moments.add(features, block.arrays["outputs/logits"][:rows], samples)
        for path, memory in block.arrays.items():
            if memory.is_floating_point():
                fit.see(path, memory[:rows], block.largest[path][:rows], sums.get(path))
            if self._moments is not None and path.startswith("layers/"):
                continue
            if path in missing:
                memory[:rows][missing[path]] = torch.nan
            files.write(path, memory[:rows].numpy(), block.index)
            if path.endswith("/activation"):
                if path in missing:
                    memory[:rows][missing[path]] = 0
                block.arrays[path] = self._before.exchange(path, files.index, block.index, memory)
        for key, column in columns.items():
            files.write(f"cube/{key}", torch.stack(column).numpy(), block.index)
