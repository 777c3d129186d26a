"""The Triton kernels compile for an H100 and trace with fake tensors; neither needs a device."""

import numpy as np
import pytest
import torch

from featdyn_kernels._dispatch import interpreting

pytestmark = [
    pytest.mark.skipif(interpreting(), reason="the interpreter's kernels do not compile"),
    pytest.mark.filterwarnings("ignore"),  # Triton 3.9 warns of a default that 3.10 changes
]
FLOAT = {np.float32: "fp32", np.float64: "fp64"}


def kernels():
    from featdyn_kernels.kde import gpu as kde
    from featdyn_kernels.pairwise import gpu as pairwise

    return {
        "log_sums": (kde._log_sums_kernel, {"OWN": True}),
        "many_sums": (kde._many_sums_kernel, {"BR": 128}),
        "gaussian": (pairwise._sums_kernel, {"BR": 16, "SAME": True, "FACTORS": 3}),
        "distance": (pairwise._sums_kernel, {"BR": 16, "SAME": False, "FACTORS": 0}),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["log_sums", "many_sums", "gaussian", "distance"])
@pytest.mark.parametrize(
    ("dtype", "depth", "products"), [(np.float32, 3, False), (np.float32, 300, True), (np.float64, 3, False)]
)
def test_compiles_for_an_h100(name, dtype, depth, products):
    triton = pytest.importorskip("triton")
    kernel, options = kernels()[name]
    constants = {"DEPTH": depth, "PRODUCTS": products, "BM": 64, "BN": 128, "BK": 32, **options}
    if "PRECISION" in kernel.arg_names:
        constants["PRECISION"] = "tf32x3" if dtype == np.float32 else "ieee"
    built = compiled(triton, kernel, constants, {}, FLOAT[dtype], 4)
    if products:
        assert "wgmma" in built.asm["ptx"]


def compiled(triton, kernel, constants, pointers, others, warps):
    """Return the kernel built for an H100; ``others`` is the type of pointers not named."""
    types = {n: pointers.get(n, f"*{others}") if n.endswith("_ptr") else "i32" for n in kernel.arg_names}
    signature = types | dict.fromkeys(constants, "constexpr")
    source = triton.compiler.ASTSource(kernel, signature=signature, constexprs=constants)
    target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
    built = triton.compile(source, target=target, options={"num_warps": warps})
    assert built.metadata.shared <= 227 * 1024
    return built


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize(("same", "right"), [(True, 128), (False, 16)])
def test_moments_compile_for_an_h100(same, right, dtype):
    triton = pytest.importorskip("triton")
    from featdyn_kernels.moments import gpu

    pointers = {"left_ptr": f"*{dtype}", "right_ptr": f"*{dtype}", "scatter_ptr": "*fp64"}
    tile = {"SAME": same, "BL": 128, "BR": right}
    built = compiled(triton, gpu._products_kernel, {**tile, "STEP": gpu.STEP}, pointers, "fp32", 8 if same else 4)
    # Three products of halves, on the tensor cores; their sum is added to the longer one by ordinary additions.
    assert built.asm["ttgir"].count("warp_group_dot ") == 3
    assert "arith.addf" in built.asm["ttgir"]
    compiled(triton, gpu._add_kernel, {**tile, "STRIP": gpu._STRIP}, pointers, "fp32", 4)
    pointers = {"x_ptr": f"*{dtype}", "found_ptr": "*fp64"}
    compiled(triton, gpu._sums_kernel, {"ORDERED": same, "ROWS": 16, "COLUMNS": 128}, pointers, "i64", 4)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "side", "warps"), [("fp32", 64, 4), ("fp32", 128, 16), ("fp64", 64, 8)])
def test_jacobi_compiles_for_an_h100(dtype, side, warps):
    triton = pytest.importorskip("triton")
    from featdyn_kernels.eigh import gpu

    built = compiled(triton, gpu._jacobi_kernel, {"N": side}, {"converged_ptr": "*i1"}, dtype, warps)
    # Rows change places by shuffles within a warp: the matrices stay in registers.
    assert built.asm["ttgir"].count("efficient_layout") == 2


def test_operators_trace_with_fake_tensors():
    pytest.importorskip("triton")
    from featdyn_kernels.kde.gpu import kde_log_sums, kde_many_sums
    from featdyn_kernels.pairwise.gpu import pairwise_sums

    with torch._subclasses.FakeTensorMode():
        shapes = {"rows": (33, 3), "points": (70, 3), "start": (70,), "weights": (70, 21), "factors": (2,)}
        t = {name: torch.empty(shape, device="cuda") for name, shape in shapes.items()}
        least, sums = kde_log_sums(t["rows"], t["points"], t["start"], False, False)
        assert least.shape == sums.shape == (1, 33)
        least, sums = kde_many_sums(t["rows"], t["points"], t["weights"], False)
        assert sums.shape == (1, 33, 21)
        assert sums.device.type == "cuda"
        assert pairwise_sums(t["rows"], t["points"], t["weights"], t["factors"], True, False).shape == (1, 33, 21)
        from featdyn_kernels.eigh.gpu import eigh_jacobi
        from featdyn_kernels.moments.gpu import moments_products, moments_sums

        x, f, limits = (torch.empty(*shape, device="cuda") for shape in ((300, 150), (300, 10), (4,)))
        assert moments_sums(x, None, limits.long()).shape == (3, 3, 150)
        shifts = [torch.empty(3, width, device="cuda") for width in (150, 10)]
        scatter = moments_products(x, f, *shifts, False)
        assert scatter.shape == (150, 10)
        assert scatter.dtype == torch.float64
        values, vectors, converged = eigh_jacobi(torch.empty(5, 37, 37, device="cuda"), 30)
        assert values.shape == (5, 37)
        assert vectors.shape == (5, 37, 37)
        assert converged.dtype == torch.bool
