"""From a public function to one of its implementations, and back to the caller's kind of array.

``reference`` and ``cpu`` modules take and return numpy arrays, ``gpu`` modules torch tensors. The sibling modules of an
operation hold functions of the same name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from featdyn_kernels._versions import simd

if TYPE_CHECKING:
    import torch

    Array: TypeAlias = np.ndarray[Any, Any] | torch.Tensor

Backend: TypeAlias = Literal["reference", "cpu", "gpu"]
BACKENDS = ("reference", "cpu", "gpu")
PLAIN = {"eigh"}  # operations whose CPU path is NumPy's


def is_tensor(array: object) -> bool:
    """Whether ``array`` is a torch tensor, without importing torch when nobody else has."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def namespace(array: object) -> Any:
    """Return the module, numpy or torch, whose functions take this array."""
    return sys.modules["torch"] if is_tensor(array) else np


def kind_of(array: Any) -> str:
    """Return the name of an array's dtype, such as ``float32``."""
    return str(array.dtype).removeprefix("torch.")


def converted(array: Any, kind: str) -> Any:
    """Return an array with the dtype of this name."""
    return array.to(getattr(namespace(array), kind)) if is_tensor(array) else array.astype(kind)


def interpreting() -> bool:
    """Whether Triton kernels run under Triton's interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def choose(backend: str | None, *arrays: Any) -> str:
    """Return the backend for these arrays: the override, else ``gpu`` for CUDA tensors and ``cpu`` for the rest."""
    if backend is not None:
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
        return backend
    return "gpu" if any(is_tensor(a) and a.device.type == "cuda" for a in arrays) else "cpu"


def implementation(operation: str, function: str, backend: str) -> Callable[..., Any]:
    """Return ``featdyn_kernels.<operation>.<backend>.<function>``; without SIMD the reference serves the CPU."""
    if backend == "cpu" and operation not in PLAIN and not simd():
        backend = "reference"
    name = f"featdyn_kernels.{operation}.{backend}"
    if importlib.util.find_spec(name) is None:
        raise ValueError(
            f"{operation} has no {backend} implementation yet: pass backend='cpu' and arrays in host memory"
        )
    module = importlib.import_module(name)
    found: Callable[..., Any] = getattr(module, function)
    return found


def to_numpy(array: Any, name: str = "array") -> np.ndarray[Any, Any]:
    """Return a numpy array that shares memory with ``array`` where it can; bfloat16 becomes float32, exactly."""
    if is_tensor(array):
        array = array.detach()
        if str(array.dtype) == "torch.bfloat16":
            array = array.float()
        result: np.ndarray[Any, Any] = array.cpu().numpy()
        return result
    result = np.asarray(array)
    if result.dtype == object:
        raise TypeError(f"{name} must be a numpy array or a torch tensor, got {type(array).__name__}")
    return result


def to_device(array: Any) -> torch.Tensor:
    """Return a torch tensor where Triton kernels can read it: the CUDA device, or the CPU under the interpreter."""
    import torch

    tensor = array.detach() if is_tensor(array) else torch.from_numpy(np.ascontiguousarray(array))
    return tensor if interpreting() else tensor.cuda()


def like(result: Any, example: Any) -> Any:
    """Return ``result`` as the kind of array that ``example`` is, on its device."""
    if is_tensor(example):
        import torch

        tensor = result if is_tensor(result) else torch.from_numpy(np.ascontiguousarray(result))
        return tensor.to(example.device)
    return to_numpy(result)
