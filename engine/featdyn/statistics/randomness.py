"""Where random numbers come from: the same call gives the same answer unless a generator says otherwise."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Rng: TypeAlias = np.random.Generator | int | None


def generator(rng: Rng) -> np.random.Generator:
    """Return a generator: the given one, one of the given seed, or one of seed 0 for None."""
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(seed_of(rng))


def seed_of(rng: int | None) -> int:
    """Return the seed, 0 for None."""
    return 0 if rng is None else rng
