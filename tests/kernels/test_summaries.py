"""Summaries of rows against the float64 reference, and against torch's own rounding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn_kernels import set_threads, summaries
from featdyn_kernels.summaries import gpu
from tests.kernels.peers import summaries as peers

KINDS = ("bfloat16", "float16", "float32", "float64")
ODD = (0.0, -0.0, 1e-8, -6e-8, 65504.0, 65519.9, 65520.0, -1e30, np.inf, -np.inf, np.nan)
quick = settings(deadline=None, max_examples=30)


def draw(seed, n, features, kind, odd=False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64).relu() * 10 ** (seed % 4)
    if odd and x.numel():
        places = torch.randint(0, x.numel(), (3,), generator=generator)
        x.view(-1)[places] = torch.tensor(ODD, dtype=torch.float64)[torch.randperm(len(ODD), generator=generator)[:3]]
    return x.to(getattr(torch, kind))


def slots_of(seed, features, width):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2 * width, features)


shapes = {"n": st.integers(0, 5), "features": st.sampled_from((0, 1, 3, 31, 64, 1023, 1024, 1025, 2077))}


@quick
@given(**shapes, kind=st.sampled_from(KINDS), stored=st.sampled_from(("float16", "float32")), seed=st.integers(0, 999))
def test_rounding_is_that_of_torch_and_the_largest_is_exact(n, features, kind, stored, seed):
    x = draw(seed, n, features, kind, odd=True)
    out = torch.full(x.shape, 7.0, dtype=getattr(torch, stored))
    found = summaries.rounded(x, out)
    torch.testing.assert_close(out, x.to(out.dtype), rtol=0, atol=0, equal_nan=True)
    assert found.dtype == torch.float64
    expected = summaries.rounded(x, torch.empty_like(out), backend="reference")
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(gpu.rounded(x, torch.empty_like(out)), expected, rtol=0, atol=0, equal_nan=True)


def test_largest_is_that_of_the_finite_values_exactly():
    rows = torch.tensor([[1e-30, -2e-30], [0.0, 0.0], [-torch.inf, 3.0], [torch.inf, -torch.inf], [torch.nan, 1.0]])
    found = summaries.rounded(rows, torch.empty_like(rows))
    assert found[:4].tolist() == [torch.tensor(2e-30).item(), 0.0, 3.0, 0.0]
    assert found[4].isnan()
    assert summaries.rounded(torch.tensor([-2.0, 3.0]), torch.empty(2)).tolist() == [2.0, 3.0]


@quick
@given(
    **shapes,
    kind=st.sampled_from(KINDS[1:]),
    compared=st.booleans(),
    width=st.sampled_from((0, 1, 7, 64)),
    seed=st.integers(0, 999),
)
def test_sums_match_the_reference(n, features, kind, compared, width, seed):
    x = draw(seed, n, features, kind)
    before = draw(seed + 1, n, features, kind) if compared else None
    slots = slots_of(seed, features, width) if width else None
    found = summaries.summarise(x, before, slots, width)
    expected = summaries.summarise(x, before, slots, width, backend="reference")
    on_gpu = gpu.summarise(x, before, slots, width)
    scale = float(x.double().abs().sum()) if x.numel() else 0.0
    for name, other in zip(found.__dataclass_fields__, on_gpu, strict=True):
        one, same = getattr(found, name), getattr(expected, name)
        if same is None:
            assert one is None
            assert other is None
            continue
        for values in (one, other):
            assert values.dtype == torch.float64
            torch.testing.assert_close(values, same, rtol=1e-12, atol=1e-13 * scale)
    assert (found.product is not None) == compared
    assert (found.sketch is not None) == (width > 0)


def test_more_components_than_slots_of_16_bits():
    x, slots = draw(2, 2, 50, "float32"), slots_of(2, 50, 40_000)
    assert summaries.summarise(x, slots=slots, width=40_000).sketch.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS[1:])
def test_what_is_not_finite_stays_in_its_row(kind):
    x = draw(3, 5, 1500, kind)
    x[1, 3], x[3, 1400] = torch.nan, -torch.inf
    found = summaries.summarise(x, x, slots_of(0, 1500, 8), 8)
    assert found.squares.isfinite().tolist() == [True, False, True, False, True]
    assert found.total[3] == -torch.inf
    assert found.sketch.isfinite().all(1).tolist() == [True, False, True, False, True]
    assert found.product.isnan().tolist() == [False, True, False, False, False]


def test_squares_of_the_largest_float32_do_not_overflow():
    x = torch.full((1, 3), torch.finfo(torch.float32).max)
    assert summaries.summarise(x).squares.isfinite().all()


@pytest.mark.parametrize("peer", [peers.torch_passes, peers.numpy_passes])
def test_peers_compute_the_same(peer):
    x, before = draw(4, 6, 500, "float32"), draw(5, 6, 500, "float32").half()
    slots = slots_of(1, 500, 16)
    out, largest, found = peer(x, before, slots, 16)
    kept = torch.empty_like(before)
    torch.testing.assert_close(torch.as_tensor(largest).double(), summaries.rounded(x, kept))
    assert torch.equal(torch.as_tensor(out), kept)
    expected = summaries.summarise(kept, before, slots, 16, backend="reference")
    for name, values in found.items():
        torch.testing.assert_close(
            torch.as_tensor(values).double(), getattr(expected, name), rtol=1e-4, atol=1e-3, msg=name
        )


def test_strides_arrays_and_threads():
    x = draw(6, 64, 4096, "float32")
    turned = x.t().contiguous().t()
    slots = slots_of(2, 4096, 64)
    expected = summaries.summarise(x, x, slots, 64)
    out = torch.empty(64, 64, 64, dtype=torch.float16)
    summaries.rounded(x.view(64, 64, 64).transpose(1, 2), out)
    assert torch.equal(out, x.view(64, 64, 64).transpose(1, 2).half())
    arrays = summaries.summarise(x.numpy(), turned.numpy(), slots, 64)
    assert isinstance(arrays.total, np.ndarray)
    try:
        for threads in (1, 3):
            set_threads(threads)
            again = summaries.summarise(turned, x, slots, 64)
            for name in again.__dataclass_fields__:
                assert torch.equal(getattr(again, name), getattr(expected, name))
                assert np.array_equal(getattr(arrays, name), getattr(expected, name).numpy())
    finally:
        set_threads(None)


def test_wrong_arguments():
    x = torch.zeros(2, 3)
    with pytest.raises(TypeError, match=r"values must be bfloat16, .* got int64"):
        summaries.rounded(x.long(), x)
    with pytest.raises(TypeError, match="out must be float16, float32 or float64, got bfloat16"):
        summaries.rounded(x, x.bfloat16())
    with pytest.raises(ValueError, match=r"one shape \(N, ...\), got \(2, 3\) and \(3, 2\)"):
        summaries.rounded(x, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="out must be contiguous"):
        summaries.rounded(x, torch.zeros(3, 2).t())
    with pytest.raises(TypeError, match=r"stored must be .* got bool"):
        summaries.summarise(x.bool())
    with pytest.raises(ValueError, match=r"before must be float32 of shape \(2, 3\) like stored, got float16"):
        summaries.summarise(x, x.half())
    with pytest.raises(ValueError, match="slots must have length 3, got 2"):
        summaries.summarise(x, slots=np.zeros(2, int), width=1)
    with pytest.raises(ValueError, match=r"slots must lie in \[0, 2\)"):
        summaries.summarise(x, slots=np.array([0, 1, 2]), width=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_the_gpu():
    x, slots = draw(7, 9, 3000, "float32", odd=True), slots_of(3, 3000, 64)
    out = torch.empty(x.shape, dtype=torch.float16, device="cuda")
    found = summaries.rounded(x.cuda(), out)
    expected = summaries.rounded(x, torch.empty(x.shape, dtype=torch.float16))
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0, equal_nan=True)
    clean = draw(8, 9, 3000, "float16")
    here, there = (summaries.summarise(v, v, slots, 64) for v in (clean, clean.cuda()))
    for name in here.__dataclass_fields__:
        torch.testing.assert_close(getattr(there, name).cpu(), getattr(here, name), rtol=1e-12, atol=1e-6)
