"""What is done with one row of a tile: whole panels of it, so what lies behind the last column counts too.

Sums are taken register by register, in an order of our own. Left to LLVM (``fastmath``), the order changes with whether
code was just compiled or comes from the disk, and the last bits with it.
"""

from __future__ import annotations

from typing import Any

from featdyn_kernels._jit import njit
from featdyn_kernels._simd import exp2, lanes, load, smallest, splat, sqrt, store, total, where_less
from featdyn_kernels._tiles.registers import REGISTERS


@njit
def nearest(tile: Any, r: int, stop: int) -> Any:
    """Return the smallest of the first entries of a row."""
    at, width = r * tile.shape[1], REGISTERS * lanes(tile)
    found = load(tile, at, REGISTERS)
    for j in range(at + width, at + stop, width):
        entries = load(tile, j, REGISTERS)
        found = where_less(entries, found, entries, found)
    return smallest(found)


@njit
def exp2_sum(tile: Any, r: int, stop: int, top: Any, factor: Any) -> Any:
    """Return ``sum_j 2**(top - factor * tile[r, j])``, where no exponent is positive."""
    at, width = r * tile.shape[1], REGISTERS * lanes(tile)
    tops, factors, found = splat(top, REGISTERS), splat(factor, REGISTERS), splat(top - top, REGISTERS)
    for j in range(at, at + stop, width):
        found = found + exp2(tops - factors * load(tile, j, REGISTERS))
    return total(found)


@njit
def exp2_in_place(tile: Any, r: int, stop: int, top: Any, factors: Any) -> None:
    """Replace the first entries of a row by ``sum_f 2**(top - f * tile[r, j])``, where no exponent is positive."""
    at, width = r * tile.shape[1], REGISTERS * lanes(tile)
    tops = splat(top, REGISTERS)
    for j in range(at, at + stop, width):
        entries = load(tile, j, REGISTERS)
        found = splat(top - top, REGISTERS)
        for factor in factors:
            found = found + exp2(tops - splat(factor, REGISTERS) * entries)
        store(tile, j, found)


@njit
def root_sum(tile: Any, r: int, stop: int) -> Any:
    """Return ``sum_j sqrt(tile[r, j])``."""
    at, width = r * tile.shape[1], REGISTERS * lanes(tile)
    found = splat(tile.dtype.type(0), REGISTERS)
    for j in range(at, at + stop, width):
        found = found + sqrt(load(tile, j, REGISTERS))
    return total(found)


@njit
def root_in_place(tile: Any, r: int, stop: int) -> None:
    """Replace the first entries of a row by their roots."""
    at, width = r * tile.shape[1], REGISTERS * lanes(tile)
    for j in range(at, at + stop, width):
        store(tile, j, sqrt(load(tile, j, REGISTERS)))
