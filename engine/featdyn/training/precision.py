"""Which precision of the training step is fast on a device."""

from __future__ import annotations

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 by itself; else it is emulated, many times slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return there and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def settled(asked: str, device: torch.device) -> str:
    """Return what ``auto`` is on a device, and anything else as it is."""
    if asked != "auto":
        return asked
    return "bfloat16" if has_bfloat16(device) else "float32"


def slow(precision: str, device: torch.device) -> str:
    """Return what to say before a run whose precision the device has not, or nothing."""
    if precision != "bfloat16" or has_bfloat16(device):
        return ""
    return (
        f"training.precision: this {device.type} has no bfloat16 of its own, so that a step takes several times "
        "as long as in float32 (ten times on a processor with AVX2); auto takes what is fast"
    )
