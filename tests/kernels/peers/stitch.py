"""What a user would write to evaluate composites: the loop over pairs, and better loops.

Each peer evaluates one row of the grid: the prefix of one checkpoint with the suffixes of all, at some cuts. Rows are
equally long and share nothing, so the time of a row stands for that of the grid.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils.fusion import fuse_conv_bn_eval

Row = Callable[[], Tensor]  # predictions (cut, t2, sample)


def load(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Copy a module, in eval mode, with its part of a network's state."""
    module = copy.deepcopy(module)
    module.load_state_dict({name: state[name] for name in module.state_dict()})
    return module.eval()


def plain(prefixes: Sequence[nn.Module], suffixes: Sequence[Sequence[nn.Module]], x: Tensor, batch: int) -> Row:
    """Return the plain composite loop: for every cut and every t2, the whole composite, batch by batch."""

    def composite(prefix: nn.Module, suffix: nn.Module) -> Tensor:
        return torch.cat([suffix(prefix(part)).argmax(1) for part in x.split(batch)])

    def run() -> Tensor:
        with torch.inference_mode():
            pairs = zip(prefixes, suffixes, strict=True)
            return torch.stack([torch.stack([composite(prefix, s) for s in bank]) for prefix, bank in pairs])

    return run


def shared(
    features: Callable[..., Any], suffixes: Sequence[Sequence[Callable[[Tensor], Tensor]]], x: Tensor, batch: int
) -> Row:
    """Return the loop that computes the features of a batch, a tuple for all cuts, once for all suffixes."""

    def run() -> Tensor:
        with torch.inference_mode():
            found = []
            for part in x.split(batch):
                pairs = zip(features(part), suffixes, strict=True)
                found.append(torch.stack([torch.stack([s(z).argmax(1) for s in bank]) for z, bank in pairs]))
            return torch.cat(found, -1)

    return run


def vmapped(features: nn.Module, suffixes: Sequence[Sequence[nn.Module]], x: Tensor, batch: int) -> Row:
    """Return the shared loop in which ``vmap`` runs the suffixes of a cut together."""
    stacks = [stack_module_state(list(bank)) for bank in suffixes]

    def together(z: Tensor, suffix: nn.Module, stack: tuple[dict[str, Tensor], dict[str, Tensor]]) -> Tensor:
        logits = vmap(lambda state: functional_call(suffix, state, (z,)))({**stack[0], **stack[1]})
        return logits.argmax(-1)

    def run() -> Tensor:
        with torch.inference_mode():
            found = []
            for part in x.split(batch):
                parts = zip(features(part), suffixes, stacks, strict=True)
                found.append(torch.stack([together(z, bank[0], stack) for z, bank, stack in parts]))
            return torch.cat(found, -1)

    return run


def compiled(
    features: nn.Module, suffixes: Sequence[Sequence[nn.Module]], x: Tensor, batch: int, backend: str = "inductor"
) -> Row:
    """Return the shared loop through ``torch.compile``; the suffixes of a cut share what it makes."""

    def together(bank: Sequence[nn.Module]) -> list[Callable[[Tensor], Tensor]]:
        call = torch.compile(lambda state, z: functional_call(bank[0], state, (z,)), backend=backend)
        return [partial(call, suffix.state_dict()) for suffix in bank]

    return shared(torch.compile(features, backend=backend), [together(bank) for bank in suffixes], x, batch)


def captured(features: nn.Module, suffixes: Sequence[Sequence[nn.Module]], x: Tensor, batch: int) -> Row:
    """Return the shared loop as one CUDA graph per batch shape, captured now."""
    static = x[:batch].clone()
    loop = shared(features, suffixes, static, batch)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        loop()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = loop()

    def run() -> Tensor:
        found = []
        for part in x.split(batch):
            static[: len(part)] = part
            graph.replay()
            found.append(result[..., : len(part)].clone())
        return torch.cat(found, -1)

    return run


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Multiply float32 numbers on a GPU as they are (``ieee``) or rounded (``tf32``)."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = name
    try:
        yield
    finally:
        for switch, kept in zip(switches, before, strict=True):
            switch.fp32_precision = kept


def rounding(row: Row, name: str) -> Row:
    """Return a loop that runs in this precision."""

    def run() -> Tensor:
        with precision(name):
            return row()

    return run


def folded(module: nn.Module) -> nn.Module:
    """Copy a module with each BatchNorm folded into the convolution before it, in channels-last order."""
    graph = copy.deepcopy(module if isinstance(module, fx.GraphModule) else fx.symbolic_trace(module))
    for node in list(graph.graph.nodes):
        before = node.args[0] if node.op == "call_module" else None
        if isinstance(before, fx.Node) and before.op == "call_module" and len(before.users) == 1:
            conv, norm = graph.get_submodule(before.target), graph.get_submodule(node.target)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                graph.set_submodule(before.target, fuse_conv_bn_eval(conv, norm))
                node.replace_all_uses_with(before)
                graph.graph.erase_node(node)
    graph.recompile()
    return graph.to(memory_format=torch.channels_last)
