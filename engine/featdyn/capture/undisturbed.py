"""Run a model in eval mode and leave it as it was, whatever its own code does then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_TABLES = ("_parameters", "_buffers", "_modules")


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and restore its modules, their buffers and all random states afterwards.

    Of modules that is their mode and whatever else stands in them by name, as a count that each pass moves. Where one
    does more than to say so when its mode is set (merges weights, say), parameters are restored, too. Within another
    such context for the same model it costs little: that is in eval mode then.
    """
    modes = [(module, module.training) for module in model.modules()]
    held = [_Held(module) for module, _ in modes]
    before = [_Values(buffer) for module, _ in modes for buffer in module._buffers.values() if buffer is not None]
    moves = any(mode for _, mode in modes)
    before += [_Values(parameter) for parameter in _at_risk(model)] if moves else []
    on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = sorted({p.device for p in model.parameters() if p.is_cuda}, key=str) if on_gpu else []
    with torch.random.fork_rng(devices=devices):
        try:
            if moves:
                model.eval()
            yield
        finally:
            for one in held:
                one.restore()
            for module, mode in modes:
                if module.training != mode:
                    module.training = mode
            for values in before:
                values.restore()


class _Held:
    """What stands in a module by name."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._kind = module, type(module)
        self._own = dict(vars(module))
        tables = {name: self._own.get(name) for name in _TABLES}  # those of TorchScript are none of Python's
        self._tables = {name: dict(table) for name, table in tables.items() if isinstance(table, dict)}

    def restore(self) -> None:
        if type(self._module) is not self._kind:  # a lazy module, which has become another
            return
        _restore(vars(self._module), self._own)
        for name, table in self._tables.items():
            _restore(self._own[name], table)


class _Values:
    """A tensor's values: such as of a count of passes, which some networks keep."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._version, self._values = tensor, tensor._version, tensor.detach().clone()

    def restore(self) -> None:
        tensor = self._tensor
        # What is done to .data does not show in the version; to compare on a GPU is to wait for it.
        compared = tensor.device.type == "cpu" and tensor.layout == torch.strided
        if tensor._version != self._version or (compared and not torch.equal(tensor, self._values)):
            with torch.no_grad():
                tensor.copy_(self._values)


def _restore(now: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [name for name in now if name not in before]:
        del now[name]
    for name, value in before.items():
        if now.get(name, now) is not value:
            now[name] = value


def _at_risk(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of modules whose code decides what it is to set their mode."""
    own = [
        module
        for module in model.modules()
        if type(module).train is not nn.Module.train or type(module).eval is not nn.Module.eval
    ]
    return list(dict.fromkeys(parameter for module in own for parameter in module.parameters()))
