"""Points as the CPU tiles want them: centred, scaled, padded, in the dtype that the computation needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._jit import njit
from featdyn_kernels._threads import parallel_blocks
from featdyn_kernels._tiles.points import FAR, SPREAD
from featdyn_kernels._tiles.registers import ROWS, SMALL, padded_rows, panels, products

Array = np.ndarray[Any, Any]

_GROUP = 64  # rows of a product that stay in the second-level cache while all columns pass


def scaled_pair(queries: Array, samples: Array, scale: Array, spread: float = SPREAD) -> tuple[Array, Array]:
    """Return both sets of points around a place among the samples, ``x * scale`` or ``x @ scale.T`` for a matrix.

    float32 unless an input is float64, the samples reach beyond ``spread``, or a query beyond what float32 can square.
    """
    centre = samples[:: -(-len(samples) // 256)].mean(axis=0, dtype=np.float64)
    single = queries.dtype == samples.dtype == np.float32
    points = _scaled(samples, centre, scale, samples.dtype if single else np.dtype(np.float64))
    rows = points if queries is samples else _scaled(queries, centre, scale, points.dtype)
    if single and (_reach(points) > spread or _reach(rows) > FAR):
        return scaled_pair(queries.astype(np.float64), samples.astype(np.float64), scale)
    return rows, points


def matmul_transposed(a: Array, b: Array) -> Array:
    """Return ``a (M, K) @ b (N, K).T`` in their common dtype, on the threads of this package."""
    rows, columns = padded_rows(a), panels(b)
    out = np.empty((len(rows), columns.shape[0] * columns.shape[2]), a.dtype)

    def work(first: int, stop: int) -> None:
        _products(rows, columns, first, stop, out)

    parallel_blocks(work, len(rows), min_block=1 + SMALL // b.size, align=ROWS)
    return out[: len(a), : len(b)]


def _scaled(x: Array, centre: Array, scale: Array, dtype: np.dtype[Any]) -> Array:
    x = np.ascontiguousarray(x)
    if scale.ndim == 2:
        around = np.empty(x.shape)
        _affine(x, centre, np.ones(x.shape[1]), around)
        return matmul_transposed(around, scale).astype(dtype)
    out = np.empty(x.shape, dtype)
    parallel_blocks(lambda first, stop: _affine(x[first:stop], centre, scale, out[first:stop]), len(x), min_block=2**12)
    return out


def _reach(x: Array) -> float:
    return max(float(x.max(initial=0.0)), -float(x.min(initial=0.0)))


@njit
def _affine(x: Any, centre: Any, scale: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[i, k] = (x[i, k] - centre[k]) * scale[k]


@njit
def _products(rows: Any, columns: Any, first: int, stop: int, out: Any) -> None:
    depth, width, stride = rows.shape[1], columns.shape[2], out.shape[1]
    zeros = np.zeros(width, rows.dtype)
    for g in range(first, stop, _GROUP):
        for p in range(columns.shape[0]):
            for i in range(g, min(g + _GROUP, stop), ROWS):
                at = i * stride + p * width
                products(rows, i * depth, depth, columns, p * depth * width, zeros, 0, 0, out, at, stride, depth)
