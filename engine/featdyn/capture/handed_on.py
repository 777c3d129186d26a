"""What a network goes on with in place of an output that is kept: a copy, unless nothing ever writes into it.

A later step in place (``ReLU(inplace=True)``) would change what is kept. To copy a layer costs as much as to pass
through some; so a first pass copies all, and finds those that nothing writes into.
"""

from __future__ import annotations

import torch
from torch import Tensor


class HandedOn:
    """One network's layers over passes: by :meth:`instead_of` each, until :meth:`kept_right` says that all was well."""

    def __init__(self) -> None:
        self._untouched: set[str] = set()
        self._touched: set[str] = set()  # for good
        self._passed: dict[str, tuple[Tensor, Tensor, int]] = {}  # kept, gone on with, and the version of the latter

    def instead_of(self, name: str, output: Tensor) -> Tensor:
        """Return what the network goes on with, in autograd a step of its own behind ``output``."""
        if name not in self._untouched or output.is_inference():  # which has no version
            passed = output.clone()
        else:
            passed = output.view_as(output) if torch.is_grad_enabled() else output
        self._passed[name] = output, passed, -1 if passed.is_inference() else passed._version
        return passed

    def kept_right(self) -> bool:
        """Return whether the outputs of a pass are as their layers returned them; else it has to be done again."""
        passed, self._passed = self._passed, {}
        right = True
        for name, (kept, other, version) in passed.items():
            same = not other.is_inference() and other._version == version
            if name in self._untouched and not kept.is_inference():
                right = right and same
            elif same:  # what is done to .data does not show in the version; to compare on a GPU is to wait for it
                same = kept.device.type == "cpu" and torch.equal(kept, other)
            if same and name not in self._touched:
                self._untouched.add(name)
            else:
                self._touched.add(name)
                self._untouched.discard(name)
        return right

    def give_up(self) -> bool:
        """Copy all from now on; return whether that is anything new."""
        self._passed = {}
        new = bool(self._untouched)
        self._touched |= self._untouched
        self._untouched = set()
        return new
