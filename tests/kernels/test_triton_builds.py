"""The Triton kernels compile for an H100 and an A100, and trace with fake tensors; neither needs a device."""

import numpy as np
import pytest
import torch

from featdyn_kernels._dispatch import interpreting

pytestmark = pytest.mark.skipif(interpreting(), reason="the interpreter's kernels do not compile")
FLOAT = {np.float32: "fp32", np.float64: "fp64"}
SHARED = {90: 227 * 1024, 80: 163 * 1024}  # bytes of shared memory that a block may have
cards = pytest.mark.parametrize("card", list(SHARED), ids="sm_{}".format)


def kernels():
    from featdyn_kernels.kde import gpu as kde
    from featdyn_kernels.pairwise import gpu as pairwise

    return {
        "log_sums": (kde._log_sums_kernel, {}),
        "many_sums": (kde._many_sums_kernel, {"BR": 0}),  # as many vectors as a launch takes at most
        "gaussian": (pairwise._sums_kernel, {"BR": 16, "SAME": True, "FACTORS": 3}),
        "distance": (pairwise._sums_kernel, {"BR": 16, "SAME": False, "FACTORS": 0}),
    }


@pytest.mark.slow
@cards
@pytest.mark.parametrize("name", ["log_sums", "many_sums", "gaussian", "distance"])
@pytest.mark.parametrize(
    ("dtype", "depth", "products"), [(np.float32, 3, False), (np.float32, 300, True), (np.float64, 3, False)]
)
def test_compiles(card, name, dtype, depth, products):
    triton = pytest.importorskip("triton")
    from featdyn_kernels._tiles.gpu import BK, BM, BN, vectors_at_once

    kernel, options = kernels()[name]
    constants = {"DEPTH": depth, "PRODUCTS": products, "BM": BM, "BN": BN, "BK": BK, **options}
    if options.get("BR") == 0:
        constants["BR"] = vectors_at_once(1000, torch.from_numpy(np.empty(0, dtype)).dtype)
    if "PRECISION" in kernel.arg_names:
        constants["PRECISION"] = "tf32x3" if dtype == np.float32 else "ieee"
    types = {n: FLOAT[dtype] for n in kernel.arg_names if n.endswith("_ptr")}
    built = compiled(triton, card, kernel, types, constants, num_warps=4)
    if products:
        assert ("wgmma" if card == 90 else "mma.sync") in built.asm["ptx"]


def compiled(triton, card, kernel, pointers, constants, divisible=(), scalars=None, **options):
    """Compile for a card; scalars are integers of 32 bits or as named, and some a multiple of 16, as pointers are."""
    others = {n: (scalars or {}).get(n, "i32") for n in kernel.arg_names}
    types = {n: f"*{pointers[n]}" if n in pointers else others[n] for n in kernel.arg_names if n not in constants}
    hints = {(kernel.arg_names.index(n),): [["tt.divisibility", 16]] for n in (*pointers, *divisible)}
    signature = types | dict.fromkeys(constants, "constexpr")
    source = triton.compiler.ASTSource(kernel, signature=signature, constexprs=constants, attrs=hints)
    built = triton.compile(source, target=triton.backends.compiler.GPUTarget("cuda", card, 32), options=options)
    assert built.metadata.shared <= SHARED[card]
    return built


def pointers(kernel, others, named):
    """Return the type that each pointer is to; ``others`` is that of those not named."""
    return {n: named.get(n, others) for n in kernel.arg_names if n.endswith("_ptr")}


@pytest.mark.slow
@cards
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
def test_convolution_compiles(card, inputs, outputs, taps, features, dtype):
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
        triton, card, _convolution_kernel, pointers, constants, divisible, num_warps=8 if bn > 64 else 4, num_stages=3
    )
    assert ("wgmma" if card == 90 else "mma.sync") in built.asm["ptx"]
    assert features == "odd" or "cp.async" in built.asm["ptx"]


@pytest.mark.slow
@cards
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(("classes", "pixels"), [(10, 64), (100, 1)])
def test_heads_and_scores_compile(card, labelled, classes, pixels):
    triton = pytest.importorskip("triton")
    from featdyn_kernels.stitch.gpu import scores

    results = {"labels_ptr": "i64", "own_ptr": "fp32", "prediction_ptr": "i64", "figures_ptr": "fp32"}
    constants = {"LABELLED": labelled, "OWN": labelled, "BC": 16 if classes == 10 else 128}
    for dtype in ("fp32", "bf16"):
        pointers = results | {"x_ptr": dtype, "w_ptr": "fp32", "bias_ptr": "fp32"}
        sizes = {"INPUTS": 64, "PRECISION": "tf32x3", "BN": 16, "BK": 64, "x_c": 1} | (
            {"pixels": 1} if pixels == 1 else {}
        )
        compiled(triton, card, scores._heads_kernel, pointers, constants | sizes, num_warps=4)
        pointers = results | {"logits_ptr": dtype}
        compiled(
            triton, card, scores._scores_kernel, pointers, constants | {"BN": 4096 // constants["BC"]}, num_warps=4
        )
    wide = {"LABELLED": labelled, "OWN": labelled, "BC": 2**12, "BN": 1, "z_c": 1}
    compiled(triton, card, scores._scores_kernel, pointers, wide, num_warps=4)


@pytest.mark.slow
@cards
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize(("same", "right"), [(True, 128), (False, 16)])
def test_moments_compile(card, same, right, dtype):
    triton = pytest.importorskip("triton")
    from featdyn_kernels.moments import gpu

    left_right = {"left_ptr": dtype, "right_ptr": dtype, "scatter_ptr": "fp64"}
    tile = {"SAME": same, "BL": 128, "BR": right}
    kernel, warps = gpu._products_kernel, 8 if same else 4
    built = compiled(
        triton, card, kernel, pointers(kernel, "fp32", left_right), {**tile, "STEP": gpu.STEP}, num_warps=warps
    )
    # Three products of halves, on the tensor cores; their sum is added to the longer one by ordinary additions.
    assert built.asm["ttgir"].count("warp_group_dot " if card == 90 else "tt.dot ") == 3
    assert "arith.addf" in built.asm["ttgir"]
    kernel = gpu._add_kernel
    compiled(triton, card, kernel, pointers(kernel, "fp32", left_right), {**tile, "STRIP": gpu._STRIP}, num_warps=4)
    kernel, found = gpu._sums_kernel, {"x_ptr": dtype, "found_ptr": "fp64"}
    sizes = {"ORDERED": same, "ROWS": 16, "COLUMNS": 128}
    compiled(triton, card, kernel, pointers(kernel, "i64", found), sizes, num_warps=4)


@pytest.mark.slow
@cards
@pytest.mark.parametrize(("dtype", "side", "warps"), [("fp32", 64, 4), ("fp32", 128, 16), ("fp64", 64, 8)])
def test_jacobi_compiles(card, dtype, side, warps):
    triton = pytest.importorskip("triton")
    from featdyn_kernels.eigh import gpu

    kernel = gpu._jacobi_kernel
    built = compiled(
        triton, card, kernel, pointers(kernel, dtype, {"converged_ptr": "i1"}), {"N": side}, num_warps=warps
    )
    # Rows change places by shuffles within a warp: the matrices stay in registers.
    assert built.asm["ttgir"].count("efficient_layout") == 2


@pytest.mark.slow
@cards
@pytest.mark.parametrize(("low", "high", "first"), [(0, 10, 0), (0, 12, 0), (12, 16, 8), (12, 19, 5)])
def test_a_transform_stays_in_the_registers_of_a_warp(card, low, high, first):
    triton = pytest.importorskip("triton")
    from featdyn_kernels.moebius.gpu import _pass_kernel as kernel

    constants = {"LOW": low, "HIGH": high, "FIRST": first, "TILE": 2**12, "SIGN": -1.0, "ADJOINT": 1}
    scalars = {"elements": "i64"}
    built = compiled(
        triton, card, kernel, pointers(kernel, "fp32", {}), constants, scalars, scalars=scalars, num_warps=1
    )
    assert built.metadata.shared == 0
    assert "bar.sync" not in built.asm["ptx"]
    assert ".v4" in built.asm["ptx"]


@pytest.mark.slow
@cards
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["step", "look", "solve"])
@pytest.mark.parametrize("n", [4, 7, 10])
def test_sparsify_compiles(card, name, dtype, n):
    triton = pytest.importorskip("triton")
    from featdyn_kernels.moebius.sparse import gpu, gpu_kernels
    from featdyn_kernels.moebius.sparse.blocks import WHOLE, blocks

    kernel = getattr(gpu_kernels, f"{name}_kernel")
    constants = {"PRECISION": "tf32x3" if dtype == np.float32 else "ieee"}
    if name == "solve":
        constants |= {"SAMPLES": gpu._SAMPLES, "PART": gpu._PART, "WIDTH": blocks(n).places.shape[1]}
    else:
        constants |= {"HIGH": n // 2, "LOW": n - n // 2} if n > WHOLE else {"HIGH": 0, "LOW": n}
    if n == 4:  # what Triton takes for constant when it launches for one table
        constants |= {name: 1 for name in ("batch", "running") if name in kernel.arg_names}
    named = {"running_ptr": "i64", "places_ptr": "i32", "unsolved_ptr": "i1"}
    scalars = {"adapt": "i1", **dict.fromkeys(("pending", "relaxation", "tolerance"), "fp32")}
    compiled(triton, card, kernel, pointers(kernel, FLOAT[dtype], named), constants, scalars=scalars, num_warps=4)


def test_operators_trace_with_fake_tensors():
    pytest.importorskip("triton")
    from featdyn_kernels.kde.gpu import kde_log_sums, kde_many_sums
    from featdyn_kernels.pairwise.gpu import pairwise_sums

    with torch._subclasses.FakeTensorMode():
        shapes = {"rows": (33, 3), "points": (70, 3), "start": (70,), "weights": (70, 21), "factors": (2,)}
        t = {name: torch.empty(shape, device="cuda") for name, shape in shapes.items()}
        least, sums = kde_log_sums(t["rows"], t["points"], t["start"], False)
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
            assert (prediction.shape, prediction.dtype, figures.shape) == ((3, 5), torch.int64, (6, 3, 5))
            wide = torch.empty(3, 5, 300, device="cuda")
            assert scores(wide, given, wide)[1].shape == (6, 3, 5)


def test_moments_and_eigh_trace_with_fake_tensors():
    pytest.importorskip("triton")
    with torch._subclasses.FakeTensorMode():
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


def test_moebius_operators_trace_with_fake_tensors():
    pytest.importorskip("triton")
    from featdyn_kernels.moebius.gpu import moebius_transform
    from featdyn_kernels.moebius.sparse.blocks import blocks
    from featdyn_kernels.moebius.sparse.gpu import moebius_sparse_round
    from featdyn_kernels.moebius.sparse.gpu_kernels import ARRAYS, NUMBERS

    found = blocks(8)
    with torch._subclasses.FakeTensorMode():
        f = torch.empty(600, 2**14, device="cuda")
        assert moebius_transform(f, torch.empty_like(f), 1.0, True) is None
        work, numbers = torch.empty(ARRAYS, 5, 2**8, device="cuda"), torch.empty(NUMBERS, 5, device="cuda")
        constants = (found.places, found.high, found.low, found.vectors, found.spectrum)
        tables = [torch.empty(x.shape, device="cuda") for x in constants]
        running = torch.empty(3, dtype=torch.int64, device="cuda")
        unsolved = moebius_sparse_round(running, work, numbers, *tables, 0.01, True)
        assert unsolved.shape == (3,)
        assert unsolved.dtype == torch.bool
        assert unsolved.device.type == "cuda"
