"""Tests of isotropy, 128 draws of 65,552 float32 coordinates (ResNet-20 up to the end of stage 2), beside plain NumPy.

The peers are what one would write instead: the product in float64 and, for the family, the same statistics from the
eigenvalues, with the exact test's redrawn directions made in all coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.harness import Case, sized
from featdyn.statistics import Gram, isotropy
from tests.engine.statistics import peers

DRAWS, COORDINATES = 128, 65_552
LIMIT = 5.0  # seconds on two cores, all tests beyond the Gram product


def cases(device: str) -> Iterator[Case]:
    if device == "cuda":
        return  # on the CPU only: beyond one product the work is small
    rng = np.random.default_rng(0)
    x = rng.standard_normal(sized((DRAWS, COORDINATES), (24, 900)), dtype=np.float32)
    yield _gram(x)
    yield _family("isotropic", x)
    x[:, :2] *= 40
    yield _family("two directions", x)


def _gram(x: np.ndarray) -> Case:
    expected = peers.gram(x)

    def check(found: Any) -> None:
        products = found.about("known").rows if isinstance(found, Gram) else None
        got = found if products is None else products @ products.T
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-6)

    return Case(
        name=f"Gram matrix {x.shape[0]}x{x.shape[1]} float32",
        ours=lambda: Gram.of(x),
        peers={"numpy-float64": lambda: peers.gram(x)},
        check=check,
        repeats=7,
        notes="ours also centres, and sums fourth powers",
    )


def _family(kind: str, x: np.ndarray) -> Case:
    gram = Gram.of(x)
    products = peers.gram(x)
    expected = peers.statistics(products, x.shape[1])

    def check(found: Any) -> None:
        got = found if isinstance(found, dict) else {name: found[name].result.statistic for name in expected}
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-6, atol=1e-6, err_msg=name)

    def ours() -> Any:
        gram.__dict__.pop("_about_zero", None)  # what an earlier call kept
        return isotropy(gram, center="known")

    return Case(
        name=f"all tests beyond the Gram matrix, {kind}",
        ours=ours,
        peers={"numpy": lambda: peers.statistics(products, x.shape[1], replicates=2)},
        check=check,
        repeats=3,
        notes=f"to stay under {LIMIT:g} s; the peer makes 2 of the exact test's 999 redrawn sets",
    )
