"""Triton's sums over pairs against the float64 reference: on a GPU, or in Triton's interpreter on small odd shapes."""

import numpy as np
import pytest
import torch

from featdyn_kernels import pairwise
from featdyn_kernels._dispatch import interpreting

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() or interpreting()), reason="needs CUDA or TRITON_INTERPRET=1"
)
ATOL = {np.float32: 2e-6, np.float64: 1e-12}


def draw(n, m, d, dtype):
    rng = np.random.default_rng(n)
    return rng, rng.standard_normal((n, d)).astype(dtype), (rng.standard_normal((m, d)) + 0.3).astype(dtype)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (7, 131, 2), (67, 40, 17), (33, 65, 40)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "statistic",
    [
        lambda x, y, b: pairwise.mmd2(x, y, 1.3, backend=b),
        lambda x, y, b: pairwise.mmd2(x, y, [0.5, 1.0, 4.0], backend=b),
        lambda x, y, b: pairwise.energy_distance(x, y, backend=b),
        lambda x, y, b: pairwise.sliced_wasserstein(x, y, p=1.5, directions=9, backend=b),
    ],
)
def test_two_samples(statistic, n, m, d, dtype):
    _, x, y = draw(n, m, d, dtype)
    np.testing.assert_allclose(statistic(x, y, "gpu"), statistic(x, y, "reference"), rtol=1e-5, atol=ATOL[dtype])


@pytest.mark.parametrize(("n", "m", "d"), [(2, 3, 1), (40, 91, 3), (33, 65, 40)])
@pytest.mark.parametrize("r", [1, 17])
@pytest.mark.parametrize(
    "statistic",
    [
        lambda z, a, b: pairwise.mmd2_many(z, a, [0.7, 1.3], backend=b),
        lambda z, a, b: pairwise.energy_distance_many(z, a, backend=b),
        lambda z, a, b: pairwise.sliced_wasserstein_many(z, a, directions=5, backend=b),
    ],
)
def test_many_labellings(statistic, n, m, d, r):
    rng, x, y = draw(n, m, d, np.float32)
    members = np.stack([rng.permutation(n + m) < n for _ in range(r)])
    z = np.concatenate([x, y])
    np.testing.assert_allclose(
        statistic(z, members, "gpu"), statistic(z, members, "reference"), rtol=1e-5, atol=ATOL[np.float32]
    )


def test_tensors_stay_where_they_are():
    _, x, y = draw(5, 9, 2, np.float32)
    got = pairwise.mmd2(torch.from_numpy(x), torch.from_numpy(y), backend="gpu")
    assert isinstance(got, torch.Tensor)
    assert got.shape == ()
    assert got.device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="opcheck traces compiled kernels: needs CUDA")
@pytest.mark.parametrize("factors", [0, 2])
def test_opcheck(factors):
    from featdyn_kernels.pairwise.gpu import pairwise_sums

    rows, points = torch.randn(33, 4, device="cuda"), torch.randn(70, 4, device="cuda")
    weights, scales = torch.rand(70, 3, device="cuda"), torch.rand(factors, device="cuda")
    torch.library.opcheck(pairwise_sums, (rows, points, weights, scales, False, False))
