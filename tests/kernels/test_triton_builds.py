"""The Triton kernels of kde and pairwise compile for an H100 and trace with fake tensors; neither needs a device."""

import numpy as np
import pytest
import torch

from featdyn_kernels._dispatch import interpreting

pytestmark = pytest.mark.skipif(interpreting(), reason="the interpreter's kernels do not compile")
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
    types = {n: f"*{FLOAT[dtype]}" if n.endswith("_ptr") else "i32" for n in kernel.arg_names if n not in constants}
    signature = types | dict.fromkeys(constants, "constexpr")
    source = triton.compiler.ASTSource(kernel, signature=signature, constexprs=constants)
    built = triton.compile(source, target=triton.backends.compiler.GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert built.metadata.shared <= 227 * 1024
    if products:
        assert "wgmma" in built.asm["ptx"]


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
