"""Triton kernels of kde, pairwise and stitch compile for an H100 and trace with fake tensors; none needs a device."""

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
    types = {n: FLOAT[dtype] for n in kernel.arg_names if n.endswith("_ptr")}
    built = compiled(triton, kernel, types, constants, num_warps=4)
    if products:
        assert "wgmma" in built.asm["ptx"]


def compiled(triton, kernel, pointers, constants, divisible=(), **options):
    """Compile for an H100; integers are 32 bits wide, and some a multiple of 16, as pointers are."""
    types = {n: f"*{pointers[n]}" if n in pointers else "i32" for n in kernel.arg_names if n not in constants}
    hints = {(kernel.arg_names.index(n),): [["tt.divisibility", 16]] for n in (*pointers, *divisible)}
    signature = types | dict.fromkeys(constants, "constexpr")
    source = triton.compiler.ASTSource(kernel, signature=signature, constexprs=constants, attrs=hints)
    built = triton.compile(source, target=triton.backends.compiler.GPUTarget("cuda", 90, 32), options=options)
    assert built.metadata.shared <= 227 * 1024
    return built


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inputs", "outputs", "taps", "features"),
    [
        (16, 16, 3, "own"),
        (64, 64, 3, "own"),
        (128, 256, 3, "own"),
        (16, 32, 3, "shared"),
        (5, 7, 3, "odd"),
        (512, 100, 1, "rows"),
    ],
)
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_convolution_compiles_for_an_h100(inputs, outputs, taps, features, dtype):
    triton = pytest.importorskip("triton")
    from featdyn_kernels.stitch.gpu.convolution import _block, _convolution_kernel

    bn = _block(outputs, 128)
    # What Triton takes for constant when it launches: numbers that are 1.
    ones = {"own": ("x_c", "r_c"), "shared": ("x_c", "r_c"), "odd": ()}.get(
        features, ("x_c", "r_c", "height", "width", "out_height", "out_width", "x_i", "x_j", "r_i", "r_j")
    )
    strides = [f"{image}_{axis}" for image in "xr" for axis in "tnij"]
    constants = {
        "INPUTS": inputs, "OUTPUTS": outputs, "TAPS_I": taps, "TAPS_J": taps, "STRIDE_I": 1 + (inputs != outputs),
        "STRIDE_J": 1, "PADDING_I": taps // 2, "PADDING_J": taps // 2, "RESIDUAL": features != "rows", "RELU": True,
        "PRECISION": "tf32x3" if dtype == "fp32" else "ieee", "WIDEN": False, "BM": 128, "BN": bn,
        "BK": _block(inputs, 32 if dtype == "fp32" else 64), **dict.fromkeys(ones, 1),
    }  # fmt: skip
    pointers = dict.fromkeys(("x_ptr", "w_ptr", "residual_ptr", "y_ptr"), dtype) | {"bias_ptr": "fp32"}
    divisible = [] if features == "odd" else [n for n in strides if n not in ones]
    built = compiled(
        triton, _convolution_kernel, pointers, constants, divisible, num_warps=8 if bn > 64 else 4, num_stages=3
    )
    assert "wgmma" in built.asm["ptx"]
    assert features == "odd" or "cp.async" in built.asm["ptx"]


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(("classes", "pixels"), [(10, 64), (100, 1)])
def test_heads_and_scores_compile_for_an_h100(labelled, classes, pixels):
    triton = pytest.importorskip("triton")
    from featdyn_kernels.stitch.gpu import scores

    results = {"labels_ptr": "i64", "own_ptr": "fp32", "prediction_ptr": "i64", "figures_ptr": "fp32"}
    constants = {"LABELLED": labelled, "OWN": labelled, "BC": 16 if classes == 10 else 128}
    for dtype in ("fp32", "bf16"):
        pointers = results | {"x_ptr": dtype, "w_ptr": "fp32", "bias_ptr": "fp32"}
        sizes = {"INPUTS": 64, "PRECISION": "tf32x3", "BN": 16, "BK": 64, "x_c": 1} | (
            {"pixels": 1} if pixels == 1 else {}
        )
        compiled(triton, scores._heads_kernel, pointers, constants | sizes, num_warps=4)
        pointers = results | {"logits_ptr": dtype}
        compiled(triton, scores._scores_kernel, pointers, constants | {"BN": 4096 // constants["BC"]}, num_warps=4)
    wide = {"LABELLED": labelled, "OWN": labelled, "BC": 2**12, "BN": 1, "z_c": 1}
    compiled(triton, scores._scores_kernel, pointers, wide, num_warps=4)


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


def test_stitching_traces_with_fake_tensors():
    pytest.importorskip("triton")
    from featdyn_kernels.stitch.gpu.convolution import convolution
    from featdyn_kernels.stitch.gpu.scores import heads, scores

    with torch._subclasses.FakeTensorMode():
        x, weight = torch.empty(1, 5, 16, 9, 7, device="cuda"), torch.empty(3, 3, 3, 16, 20, device="cuda")
        bias, labels = torch.empty(3, 20, device="cuda"), torch.empty(5, dtype=torch.int64, device="cuda")
        for half in (weight, weight.bfloat16()):
            y = convolution(x, half, bias, None, 0, [2, 2], [1, 1], True)
            assert y.shape == (3, 5, 20, 5, 4)
            assert y.stride() == (2000, 400, 1, 80, 20)
            assert (y.dtype, y.device.type) == (half.dtype, "cuda")
        for given in (labels, None):
            prediction, figures = heads(y.flatten(3), torch.empty(3, 20, 10, device="cuda"), bias[:, :10], given, None)
            assert (prediction.shape, prediction.dtype, figures.shape) == ((3, 5), torch.int64, (5, 3, 5))
            wide = torch.empty(3, 5, 300, device="cuda")
            assert scores(wide, given, wide)[1].shape == (5, 3, 5)
