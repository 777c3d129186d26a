"""How torch runs attention: settings of the whole process, which several threads may ask for at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


class _Shared:
    """A context that the first thread enters and the last one leaves, so that all find the setting as it was."""

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make, self._lock, self._inside, self._stack = make, threading.Lock(), 0, ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._stack.enter_context(self._make())
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._stack.close()


@contextmanager
def _fastpath_off() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


without_fast_path = _Shared(_fastpath_off)
"""Run torch's encoders as they train: their fused operator, taken without gradients, hides what modules do and cuts
padding off."""
with_plain_attention = _Shared(lambda: sdpa_kernel(SDPBackend.MATH))
"""Run attention as products of matrices, which have derivatives of every kind and can be counted."""
