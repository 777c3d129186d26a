"""What this machine can do at best: bytes copied and multiply-adds per second."""

from __future__ import annotations

import time

import torch


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
    """Return ``copy`` in bytes read plus written per second, and ``matmul-<dtype>`` in multiply-adds per second."""
    ceilings = {}
    source = torch.randn(2**26 if device == "cpu" else 2**29, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    ceilings["copy"] = 2 * source.nbytes / _best(lambda: target.copy_(source), device)
    n = 2048 if device == "cpu" else 8192
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(n, n, device=device).to(dtype)
        b = torch.randn(n, n, device=device).to(dtype)
        a @ b
        ceilings[f"matmul-{str(dtype).removeprefix('torch.')}"] = n**3 / _best(lambda a=a, b=b: a @ b, device)
    return ceilings
