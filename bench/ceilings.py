"""What this machine can do at best: bytes copied and multiply-adds per second."""

from __future__ import annotations

import time

import torch

ELEMENTS, SIDE = 2**26, 2048  # of what is copied, and of the matrices, on a CPU


def _best(call: object, device: str, repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()  # type: ignore[operator]
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(device: str) -> dict[str, float]:
    """Return ``copy`` in bytes read plus written per second, and ``matmul-<dtype>`` in multiply-adds per second.

    Of bfloat16 only where the processor multiplies it.
    """
    ceilings = {}
    source = torch.randn(ELEMENTS if device == "cpu" else 8 * ELEMENTS, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    ceilings["copy"] = 2 * source.nbytes / _best(lambda: target.copy_(source), device)
    n = SIDE if device == "cpu" else 4 * SIDE
    kinds = [torch.float32]
    if device == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported():  # else one product takes minutes
        kinds.append(torch.bfloat16)
    for dtype in kinds:
        a = torch.randn(n, n, device=device).to(dtype)
        b = torch.randn(n, n, device=device).to(dtype)
        a @ b
        ceilings[f"matmul-{str(dtype).removeprefix('torch.')}"] = n**3 / _best(lambda a=a, b=b: a @ b, device)
    return ceilings
