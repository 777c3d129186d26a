"""One vector for each probe of a recorded layer, and of the outputs, in float64: what statistics over probes are of.

Positions of maps, and those of tokens that are no padding, are averaged, as a head behind global pooling sees them: our
own choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.inputs.positions import has_positions, mean_of_real, padding_of
from featdyn.analysis.inputs.recorded_arrays import is_maps, variables
from featdyn.errors import FeatdynError
from featdyn.store import ArraySpec, Run
from featdyn_kernels.summaries import summarise

LOGITS = "outputs/logits"
WIDEST = 4096
"""Numbers of an output up to which they count as one vector: our own choice."""

PIECE = 2**18
"""Numbers with positions that are widened to float64 at once: all of a block would take many times its size."""

EPS = float(np.finfo(np.float32).eps)
"""What float32 rounds away does not count as variation; a number of Python's, as products with NumPy's stay float32."""

Values = NDArray[np.float64]


def outputs(run: Run) -> int:
    """Return how many numbers an output has; FeatdynError where none are recorded, or they are too many."""
    if LOGITS not in run.nodes:
        raise FeatdynError(f"{run.path}: its outputs were not recorded")
    spec = run.schema[LOGITS]
    if has_positions(spec):
        raise FeatdynError(f"{run.path}: its outputs are by position: one output for each sample is measured")
    size = prod(spec.shape[1:])
    if spec.sample_axis != 0 or size > WIDEST:
        raise FeatdynError(f"{run.path}: its outputs have shape {spec.shape}: only up to {WIDEST} numbers a sample do")
    return size


def blocks(run: Run, member: NDArray[np.bool_]) -> list[int]:
    """Return the blocks that hold probes of a set, ``member (probe,)``."""
    return [b for b in range(run.schema.blocks) if member[run.schema.block_slice(b)].any()]


def vectors(run: Run, path: str, t: int, block: int, mine: NDArray[np.bool_]) -> Values:
    """Return the probes ``mine``, of one block of an array at a checkpoint, ``(n, p)``."""
    spec, values = run.schema[path], run.block(path, t, block)
    values = values if mine.all() else values[mine]
    if path == LOGITS or values.ndim <= 2:
        return values.reshape(len(values), -1).astype(np.float64)
    if is_maps(spec):
        return _means_of_maps(values)
    mask = padding_of(run, spec)
    real = None if mask is None else mask[run.schema.block_slice(block)][mine]
    found = np.empty((len(values), variables(spec)))
    step = max(1, PIECE // prod(values.shape[1:]))
    for start in range(0, len(values), step):
        piece = values[start : start + step].astype(np.float64)
        if real is not None:
            piece = mean_of_real(piece, real[start : start + step])
        found[start : start + step] = piece.reshape(len(piece), -1, piece.shape[-1]).mean(1)
    return found


def _means_of_maps(values: NDArray[Any]) -> Values:
    """Return the means over positions of maps (n, channel, ...), which the kernel of sums over rows reads once."""
    positions = prod(values.shape[2:])
    rows = values.reshape(-1, positions)
    totals = summarise(rows if rows.dtype.kind == "f" else rows.astype(np.float64)).total
    return np.asarray(totals).reshape(values.shape[:2]) / positions


def chosen_vectors(run: Run, path: str, t: int, places: NDArray[np.intp]) -> Values:
    """Return some probes, by their ascending places in the run, ``(n, p)``."""
    picked = np.zeros(run.schema.samples, bool)
    picked[places] = True
    each = [vectors(run, path, t, b, picked[run.schema.block_slice(b)]) for b in blocks(run, picked)]
    return np.concatenate(each)


def pieces(run: Run, member: NDArray[np.bool_]) -> Iterator[tuple[int, NDArray[np.bool_], NDArray[np.intp]]]:
    """Yield each block with probes of a set, which of its probes they are, and their places in the run."""
    for block in blocks(run, member):
        rows = run.schema.block_slice(block)
        mine = member[rows]
        yield block, mine, np.flatnonzero(mine) + rows.start


def block_bytes(run: Run, specs: list[ArraySpec]) -> int:
    """Return the bytes that one block of the largest of these arrays takes while it becomes vectors."""
    rows = min(run.schema.shard_samples, run.schema.samples)
    return max(rows * _of_sample(spec) + _widened(spec, rows) for spec in specs)


def _of_sample(spec: ArraySpec) -> int:
    """Return the bytes of a sample: its values twice, as a file and read, or read and picked, and its vector.

    Scaled values are read as float32. Vectors are held three times, of maps with the five sums of the kernel.
    """
    value = max(spec.itemsize, 4 if "scale_factor" in spec.attrs else 0)
    return 2 * value * prod(spec.shape[1:]) + 8 * variables(spec) * (8 if is_maps(spec) else 3)


def _widened(spec: ArraySpec, rows: int) -> int:
    """Return the bytes of values with positions that are float64 at once."""
    numbers = rows * prod(spec.shape[1:])
    return 0 if is_maps(spec) or len(spec.shape) < 3 else 3 * 8 * min(PIECE, numbers)
