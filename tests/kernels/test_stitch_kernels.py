"""The convolution kernels of ``stitch`` against float64."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn_kernels._simd import BF16, WIDE
from featdyn_kernels.stitch import direct, winograd
from featdyn_kernels.stitch.panels import LANES, pack

GUARD = 64
# Of outputs of variance 1 or so, by (bfloat16, Winograd): float32 sums of a few hundred terms, or products of bfloat16.
TOLERANCE = {(False, False): 2e-5, (False, True): 5e-5, (True, False): 0.05, (True, True): 0.3}
KINDS = [False, True] if BF16 else [False]


def _compute(kernel, case: dict, rounded: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return what the kernel and what float64 computes; fail where the kernel writes outside its output."""
    rng = np.random.default_rng(case["seed"])
    n, h, w, c, k = (case[name] for name in ("images", "height", "width", "inputs", "outputs"))
    (a, b), (sa, sb), (pa, pb) = case["taps"], case["stride"], case["padding"]
    x = torch.from_numpy(rng.standard_normal((n, h, w, c), dtype=np.float32))
    weight = rng.standard_normal((k, c, a, b)) / np.sqrt(a * b * c)
    bias = torch.from_numpy(rng.standard_normal(k, dtype=np.float32))
    oh, ow = (h + 2 * pa - a) // sa + 1, (w + 2 * pb - b) // sb + 1
    residual = torch.from_numpy(rng.standard_normal((n, oh, ow, k), dtype=np.float32))
    exact = F.conv2d(x.permute(0, 3, 1, 2).double(), torch.from_numpy(weight), bias.double(), (sa, sb), (pa, pb))
    exact = exact.permute(0, 2, 3, 1) + (residual if case["residual"] else 0)
    exact = exact.clamp(min=0) if case["relu"] else exact

    u = torch.from_numpy(kernel.transform_weight(weight, rounded)).to(torch.bfloat16 if rounded else torch.float32)
    out = torch.full((GUARD + n * oh * ow * k + GUARD,), 1234.5)
    y = out[GUARD:-GUARD].view(n, oh, ow, k)
    zero = torch.zeros(max(c, LANES))
    pointers = [t.data_ptr() for t in (x, u, bias)] + [residual.data_ptr() if case["residual"] else 0, y.data_ptr()]
    floor = np.float32(0 if case["relu"] else -np.inf)
    if kernel is winograd:
        scratch = torch.full((winograd.scratch_size(c, k) + GUARD,), 1234.5)
        kernel.convolve(*pointers, zero.data_ptr(), scratch.data_ptr(), n, h, w, c, k, int(rounded), floor)
    else:
        scratch = torch.full((direct.scratch_size(n * h * w, c, rounded) + GUARD,), 1234.5)
        shape = (n, h, w, c, oh, ow, k, a, b, sa, sb, pa, pb, int(rounded))
        kernel.convolve(*pointers, zero.data_ptr(), scratch.data_ptr(), *shape, floor)
    assert (out[:GUARD] == 1234.5).all()
    assert (out[-GUARD:] == 1234.5).all()
    assert (scratch[-GUARD:] == 1234.5).all()
    assert not zero.any()
    return y.numpy(), exact.numpy()


vectors = st.integers(1, 7).map(lambda n: n * LANES)
common = {
    "seed": st.integers(0, 2**32 - 1),
    "images": st.integers(1, 3),
    "height": st.integers(1, 11),
    "width": st.integers(1, 11),
    "outputs": vectors,
    "residual": st.booleans(),
    "relu": st.booleans(),
}
same = {"taps": st.just((3, 3)), "stride": st.just((1, 1)), "padding": st.just((1, 1))}


@pytest.mark.parametrize("rounded", KINDS)
@settings(max_examples=25, deadline=None)
@given(case=st.fixed_dictionaries({**common, **same, "inputs": vectors}))
def test_winograd(case: dict, rounded: bool) -> None:
    found, exact = _compute(winograd, case, rounded)
    np.testing.assert_allclose(found, exact, rtol=0, atol=TOLERANCE[rounded, True])


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


any_shape = {"taps": pairs(1, 4), "stride": pairs(1, 3), "padding": pairs(0, 3), "inputs": st.integers(1, 20)}


@settings(max_examples=40, deadline=None)
@given(case=st.fixed_dictionaries({**common, **any_shape}))
def test_direct(case: dict) -> None:
    case["height"] += case["taps"][0]  # no output is empty
    case["width"] += case["taps"][1]
    found, exact = _compute(direct, case, False)
    np.testing.assert_allclose(found, exact, rtol=0, atol=TOLERANCE[False, False])


@pytest.mark.skipif(not BF16, reason="needs a processor that multiplies bfloat16")
@settings(max_examples=25, deadline=None)
@given(case=st.fixed_dictionaries({**common, **any_shape, "inputs": vectors}))
def test_direct_rounded(case: dict) -> None:
    case["height"] += case["taps"][0]
    case["width"] += case["taps"][1]
    found, exact = _compute(direct, case, True)
    np.testing.assert_allclose(found, exact, rtol=0, atol=TOLERANCE[True, False])


@pytest.mark.parametrize("kernel", [winograd, direct])
def test_bfloat16_rounds_only_the_factors(kernel) -> None:
    if not BF16:
        pytest.skip("needs a processor that multiplies bfloat16")
    case = {"images": 4, "height": 8, "width": 8, "inputs": 64, "outputs": 64, "residual": False, "relu": False}
    case |= {"taps": (3, 3), "stride": (1, 1), "padding": (1, 1), "seed": 0}
    found, exact = _compute(kernel, case, True)
    error = np.sqrt(((found - exact) ** 2).mean()) / exact.std()
    assert 1e-3 < error < (0.02 if kernel is winograd else 0.004)


@pytest.mark.parametrize("kernel", [winograd, direct])
def test_nan_and_infinity_spread_as_in_a_convolution(kernel) -> None:
    c = LANES
    x, y = torch.zeros(1, 8, 8, c), torch.empty(1, 8, 8, c)
    x[0, 1, 1, 0], x[0, 6, 6, 0] = np.nan, np.inf
    weight = np.ones((c, c, 3, 3))
    u = torch.from_numpy(kernel.transform_weight(weight))
    bias, zero, scratch = torch.zeros(c), torch.zeros(c), torch.empty(winograd.scratch_size(c, c))
    pointers = [t.data_ptr() for t in (x, u, bias)] + [0, y.data_ptr(), zero.data_ptr(), scratch.data_ptr()]
    shape = (1, 8, 8, c, c, 0) if kernel is winograd else (1, 8, 8, c, 8, 8, c, 3, 3, 1, 1, 1, 1, 0)
    kernel.convolve(*pointers, *shape, np.float32(0))
    assert not torch.isfinite(y[0, :3, :3]).any()  # Winograd spreads them over their tile, never less far
    assert not torch.isfinite(y[0, 5:, 5:]).any()


def test_panels_hold_every_weight_once() -> None:
    weight = np.arange(2 * 4 * 7 * LANES, dtype=np.float64).reshape(2, 4, 7 * LANES)
    for group in (1, 2):
        assert sorted(pack(weight, group).tolist()) == weight.ravel().tolist()


@pytest.mark.slow
def test_a_processor_with_narrow_vectors(tmp_path) -> None:
    """The same tests, compiled for AVX2: other lanes, other panels, no bfloat16."""
    if not WIDE or os.uname().machine != "x86_64":
        pytest.skip("compiles for narrow vectors already, or for another machine")
    narrow = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx,+sse4.2,+bmi,+bmi2,+lzcnt,+popcnt"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, "-q", "-p", "no:cacheprovider"],
        env={**os.environ, **narrow, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:]
