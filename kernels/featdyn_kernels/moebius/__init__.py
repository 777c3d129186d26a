"""Subset transforms over ``2**n`` masks, and the sparse AND-OR model of a masked network.

The last axis of every array holds one value per subset of n variables. **Bit i of the index is variable i**: entry
``0b101`` belongs to the subset {0, 2}, entry 0 to the empty set, the last entry to all variables.

float32 and float64 are computed and returned as they are; float16 and bfloat16 give float32, integers and booleans
float64. Transforms let NaN and infinite values through to every subset that they enter; :func:`sparsify` refuses them.
No gradients flow: the gradient of a transform is its adjoint.
"""

from featdyn_kernels.moebius.sparse import SparseModel, interactions, sparsify
from featdyn_kernels.moebius.transforms import moebius, moebius_adjoint, zeta, zeta_adjoint

__all__ = ["SparseModel", "interactions", "moebius", "moebius_adjoint", "sparsify", "zeta", "zeta_adjoint"]
