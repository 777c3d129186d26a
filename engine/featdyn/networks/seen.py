"""A mode in which each operation of a network is seen, as it runs when nothing is compiled."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class SeenOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Base of modes with a ``__torch_dispatch__`` of their own.

    PyTorch keeps its compiler away from that, and for this imports the compiler, which takes more than a second of
    each process. Here instead nothing runs compiled where the compiler is there already.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stack = ExitStack()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __enter__(self) -> Any:
        if "torch._dynamo" in sys.modules:
            self._stack.enter_context(torch.compiler.set_stance("force_eager"))
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *raised: Any) -> None:
        try:
            super().__exit__(*raised)  # type: ignore[no-untyped-call]
        finally:
            self._stack.close()
