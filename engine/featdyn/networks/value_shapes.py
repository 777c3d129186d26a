"""What flows through a traced module: the shape of every value, and the multiply-adds behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from featdyn.networks.attention import with_plain_attention, without_fast_path
from featdyn.networks.inplace import functionalise
from featdyn.networks.seen import SeenOperations
from featdyn.networks.trace import CannotCut, Trace
from featdyn.networks.twin import eval_twin

BATCHES = (2, 3)
"""Two batch sizes: what differs between them follows the batch, the rest is constant."""


@dataclass(frozen=True)
class TensorOf:
    """Stands for a tensor of this shape."""

    shape: tuple[int, ...]
    real: bool
    """Whether its values are real numbers."""


@dataclass(frozen=True)
class ValueShapes:
    """The values of a trace, with tensors as `TensorOf`, for both batch sizes."""

    trace: Trace
    values: tuple[dict[fx.Node, Any], dict[fx.Node, Any]]
    macs: dict[fx.Node, int]
    """Multiply-adds of each node for one sample."""

    def holds_tensor(self, node: fx.Node) -> bool:
        """Whether the value is a tensor or holds one; other values are sizes and the like."""
        found = []
        fx.node.map_aggregate(self.values[0][node], lambda leaf: found.append(isinstance(leaf, TensorOf)))
        return any(found)

    def sample_shape(self, node: fx.Node) -> tuple[int, ...] | None:
        """Shape of one sample where the value is a tensor of real numbers, or the input, with one row per sample."""
        two, three = (values[node] for values in self.values)
        if not isinstance(two, TensorOf) or not (two.real or node is self.trace.input):
            return None
        if two.shape[:1] != BATCHES[:1] or three.shape[:1] != BATCHES[1:]:
            return None
        return two.shape[1:] if two.shape[1:] == three.shape[1:] else None


def shapes_of(trace: Trace, example: Tensor) -> ValueShapes:
    """Follow shapes through the graph without computing, on torch's meta device; operations in place are rewritten.

    Raises :class:`NetworkError` if the module does not take such an input, or writes in place into memory that it still
    uses elsewhere.
    """
    try:
        with torch.inference_mode(False), torch.no_grad(), without_fast_path(), with_plain_attention():
            twin = eval_twin(trace.module, _to_meta)
            vars(twin).update({name: _to_meta(value) for name, value in trace.constants.items()})
            while True:
                runs = [_Run(trace, twin, batch) for batch in BATCHES]
                for run in runs:
                    run.run(torch.empty((run.batch, *example.shape[1:]), dtype=example.dtype, device="meta"))
                if not runs[0].written:
                    break
                functionalise(trace, runs[0].written, runs[0].env)
    except Exception as error:
        raise CannotCut(trace.module, error) from error
    values = tuple({node: fx.node.map_aggregate(value, _describe) for node, value in run.env.items()} for run in runs)
    macs = {node: count // BATCHES[0] for node, count in runs[0].macs.items()}
    return ValueShapes(trace, (values[0], values[1]), macs)


def _to_meta(value: Tensor) -> Tensor:
    meta = value.detach().to("meta")
    return nn.Parameter(meta, requires_grad=False) if isinstance(value, nn.Parameter) else meta


def _describe(leaf: Any) -> Any:
    return TensorOf(tuple(leaf.shape), leaf.is_floating_point()) if isinstance(leaf, Tensor) else leaf


class _Run(fx.Interpreter):
    """Runs the graph on the meta device, keeping values, multiply-adds and what each node wrote into."""

    def __init__(self, trace: Trace, twin: nn.Module, batch: int) -> None:
        super().__init__(trace.compile(trace.graph, twin), garbage_collect_values=False)
        self.batch = batch
        self.macs: dict[fx.Node, int] = {}
        self.written: list[tuple[fx.Node, fx.Node]] = []

    def run_node(self, n: fx.Node) -> Any:
        before = {node: self.env[node]._version for node in n.all_input_nodes if isinstance(self.env[node], Tensor)}
        with _MetaDevice() as mode:
            value = super().run_node(n)
        self.macs[n] = mode.macs
        self.written += [(n, node) for node, version in before.items() if self.env[node]._version != version]
        return value


class _MetaDevice(SeenOperations):  # type: ignore[no-untyped-call]
    """Makes every new tensor on the meta device and counts multiply-adds."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(argument.name == "device" for argument in func._schema.arguments):
            kwargs = {**kwargs, "device": torch.device("meta")}
        out = func(*args, **kwargs)
        self.macs += multiply_adds(func, args, kwargs, out)
        return out


def multiply_adds(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Count those of one operator of torch, for the whole batch."""
    from torch.utils.flop_counter import flop_registry  # it loads Triton: 0.2 s and 67 MB

    formula = flop_registry.get(func.overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=out)) // 2
