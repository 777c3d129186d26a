"""What is kept of a layer's output, and what a network goes on with, so that neither changes the other.

A later step in place (``ReLU(inplace=True)``) would change what is kept. Without gradients a copy is kept and the
network goes on with its own tensor, so that it computes what it computes anyhow. With them the network goes on with a
copy, behind which what is kept stands in the graph; that fails where the network knows the same memory by another
name. To copy a layer costs as much as to pass through some; so a first pass copies all, and finds those that nothing
writes into.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Passed:
    """What one pass has of a layer."""

    kept: Tensor
    other: Tensor  # gone on with
    versions: tuple[int, int]  # of both, when the layer returned
    shared: bool  # whether the layer returned memory that it was given


class HandedOn:
    """One network's layers over passes: by :meth:`instead_of` each, until :meth:`kept_right` says that all was well."""

    def __init__(self) -> None:
        self._untouched: set[str] = set()
        self._touched: set[str] = set()  # for good
        self._passed: dict[str, _Passed] = {}

    def instead_of(self, name: str, output: Tensor, given: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return what is kept of a layer's output, and what the network goes on with, in autograd a step behind that.

        ``given`` are the tensors that the layer was given.
        """
        copied, graph = name not in self._untouched or output.is_inference(), torch.is_grad_enabled()
        kept, other = output, output
        if copied:
            kept, other = (output, output.clone()) if graph else (output.clone(), output)
        elif graph:
            other = output.view_as(output)
        shared = graph and any(memory_of(output) == memory_of(tensor) for tensor in given)
        self._passed[name] = _Passed(kept, other, (_version(kept), _version(other)), shared)
        return kept, other

    def kept_right(self) -> bool:
        """Return whether the outputs of a pass are as their layers returned them; else it has to be done again."""
        passed, self._passed = self._passed, {}
        right = True
        for name, one in passed.items():
            same = not one.other.is_inference() and _version(one.other) == one.versions[1]
            if name in self._untouched and not one.kept.is_inference():
                right = right and same
            elif same:  # what is done to .data does not show in the version; to compare on a GPU is to wait for it
                same = one.kept.device.type == "cpu" and torch.equal(one.kept, one.other)
            if same and name not in self._touched:
                self._untouched.add(name)
            else:
                self._touched.add(name)
                self._untouched.discard(name)
        return right

    def written(self) -> str | None:
        """Return a layer of this pass whose copied output was changed by another name that the network has for it."""
        copies = {n: one for n, one in self._passed.items() if one.kept is not one.other and n not in self._untouched}
        return next((name for name, one in copies.items() if _version(one.kept) != one.versions[0]), None)

    def doubtful(self) -> list[str]:
        """Return layers of this pass that returned what they were given, and whose copy was then written into.

        The network may have read the one where it would have read the other.
        """
        return [n for n, one in self._passed.items() if one.shared and _version(one.other) != one.versions[1]]

    def give_up(self) -> bool:
        """Copy all from now on; return whether that is anything new."""
        self._passed = {}
        new = bool(self._untouched)
        self._touched |= self._untouched
        self._untouched = set()
        return new


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def memory_of(tensor: Tensor) -> tuple[torch.device, int]:
    """Return what tensors have in common that are views of one memory."""
    try:
        return tensor.device, tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # a kind of tensor that has none: as if it were its own
        return tensor.device, -id(tensor)
