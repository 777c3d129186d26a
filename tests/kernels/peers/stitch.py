"""What a user would write to evaluate composites: the loop over pairs, and better loops.

Each peer evaluates one row of the grid: the prefix of one checkpoint with the suffixes of all, at some cuts. Rows are
equally long and share nothing, so the time of a row stands for that of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils.fusion import fuse_conv_bn_eval

Row = Callable[[], Tensor]  # predictions (cut, t2, sample)


def load(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Give a module its part of a network's state, in eval mode."""
    module.load_state_dict({name: state[name] for name in module.state_dict()})
    return module.eval()


def plain(prefixes: Sequence[nn.Module], suffixes: Sequence[Sequence[nn.Module]], x: Tensor, batch: int) -> Row:
    """Return the plain composite loop: for every cut and every t2, the whole composite, batch by batch."""

    def run() -> Tensor:
        with torch.inference_mode():
            return torch.stack(
                [
                    torch.stack([torch.cat([s(prefix(b)).argmax(1) for b in x.split(batch)]) for s in bank])
                    for prefix, bank in zip(prefixes, suffixes, strict=True)
                ]
            )

    return run


def shared(prefixes: Sequence[nn.Module], suffixes: Sequence[Sequence[nn.Module]], x: Tensor, batch: int) -> Row:
    """Return the loop that computes the features of a batch once for all suffixes."""

    def run() -> Tensor:
        found = []
        with torch.inference_mode():
            for prefix, bank in zip(prefixes, suffixes, strict=True):
                blocks = [torch.stack([s(z).argmax(1) for s in bank]) for z in map(prefix, x.split(batch))]
                found.append(torch.cat(blocks, 1))
        return torch.stack(found)

    return run


def vmapped(prefixes: Sequence[nn.Module], suffixes: Sequence[Sequence[nn.Module]], x: Tensor, batch: int) -> Row:
    """Return the loop that hands the suffixes of one cut to ``vmap``."""
    stacks = [stack_module_state(list(bank)) for bank in suffixes]

    def run() -> Tensor:
        found = []
        with torch.inference_mode():
            for prefix, bank, state in zip(prefixes, suffixes, stacks, strict=True):

                def call(part: dict[str, Tensor], z: Tensor, suffix: nn.Module = bank[0]) -> Tensor:
                    return functional_call(suffix, part, (z,))

                blocks = [
                    vmap(call, in_dims=(0, None))({**state[0], **state[1]}, z) for z in map(prefix, x.split(batch))
                ]
                found.append(torch.cat([logits.argmax(-1) for logits in blocks], 1))
        return torch.stack(found)

    return run


def folded(module: nn.Module) -> nn.Module:
    """Fold BatchNorm into the convolution before it, channels-last: the best that plain torch modules do."""
    graph = torch.fx.symbolic_trace(module) if not isinstance(module, torch.fx.GraphModule) else module
    parts = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and isinstance(parts[node.target], nn.BatchNorm2d):
            before = node.args[0]
            if before.op == "call_module" and isinstance(parts[before.target], nn.Conv2d) and len(before.users) == 1:
                owner, _, name = before.target.rpartition(".")
                fused = fuse_conv_bn_eval(parts[before.target], parts[node.target])
                setattr(graph.get_submodule(owner), name, fused)
                node.replace_all_uses_with(before)
                graph.graph.erase_node(node)
    graph.recompile()
    return graph.to(memory_format=torch.channels_last)
