"""Seeded orders of samples.

They are built from a bit generator's raw stream, which NumPy never changes (NEP 19), so a choice made today is the same
with every later version.
"""

import zlib

import numpy as np
import numpy.typing as npt


def key(text: str) -> int:
    """Return a fixed 32-bit number for `text`, to seed a random stream with."""
    return zlib.crc32(text.encode())


def random_order(count: int, *seeds: int) -> npt.NDArray[np.int64]:
    """Return a permutation of `range(count)`, fixed by `seeds` (non-negative integers)."""
    raw = np.random.PCG64(np.random.SeedSequence(seeds)).random_raw(count)
    return np.argsort(raw, kind="stable")


def random_labels(count: int, classes: int, *seeds: int) -> npt.NDArray[np.int64]:
    """Return `count` labels in 0..classes-1, each as likely as any other, fixed by `seeds`."""
    raw = np.random.PCG64(np.random.SeedSequence(seeds)).random_raw(count)
    return (raw % np.uint64(classes)).astype(np.int64)


def stratified_order(labels: npt.NDArray[np.int64], *seeds: int) -> npt.NDArray[np.int64]:
    """Return a seeded order of the samples in which every prefix is as balanced over classes as the data allow.

    Each round takes one sample of every class that has one left, so any two classes with enough samples differ by at
    most one in a prefix. Labels are int64 (N,), seeds non-negative, the order a permutation of `range(N)`.
    """
    order = random_order(len(labels), *seeds)
    shuffled = labels[order]
    by_class = np.argsort(shuffled, kind="stable")
    ordered = shuffled[by_class]
    starts = np.searchsorted(ordered, ordered)  # where the class of each sample begins
    rounds = np.empty_like(order)
    rounds[by_class] = np.arange(len(order)) - starts
    return order[np.argsort(rounds, kind="stable")]
