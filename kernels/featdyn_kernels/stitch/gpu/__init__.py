"""Suffixes of many checkpoints on a GPU: one launch of a Triton kernel serves all of them."""

from featdyn_kernels.stitch.gpu.device import exclusive
from featdyn_kernels.stitch.gpu.fused import Fused
from featdyn_kernels.stitch.gpu.scores import reduce

__all__ = ["Fused", "exclusive", "reduce"]
