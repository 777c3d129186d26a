"""From a suffix as a torch.fx graph to a flat list of steps, in which all is fused that one kernel can do."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from featdyn_kernels.tracing import symbolic_trace

_ADDS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_RELUS: tuple[Any, ...] = (F.relu, torch.relu, torch.relu_, "relu", "relu_")
_NORMS: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: nn.BatchNorm2d, nn.Linear: nn.BatchNorm1d}
# What surely returns memory of its own.
_FRESH: tuple[Any, ...] = (*_ADDS, *_RELUS, operator.mul, operator.sub, torch.mul, torch.cat, F.pad, F.conv2d, F.linear)
_FRESH_MODULES = (
    nn.Conv2d,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.MaxPool2d,
    nn.ReLU,
)
_OUT_OF_PLACE: dict[Any, Any] = {operator.iadd: operator.add, operator.imul: operator.mul, operator.isub: operator.sub}


class Unplannable(Exception):
    """The module has to run as it stands; the message says why."""


@dataclass(frozen=True)
class Affine:
    """``relu(norm(layer(source)) + residual)`` in one pass; all but the layer are optional."""

    value: str
    layer: str
    source: str
    norm: str | None = None
    residual: str | None = None
    relu: bool = False

    @property
    def sources(self) -> list[str]:
        """Names of the values it reads."""
        return [name for name in (self.source, self.residual) if name]

    def __call__(self, module: nn.Module, values: dict[str, Any]) -> Any:
        """Return the value as torch computes it, with the weights of ``module``."""
        value = module.get_submodule(self.layer)(values[self.source])
        if self.norm:
            value = module.get_submodule(self.norm)(value)
        if self.residual:
            value = value + values[self.residual]
        return F.relu(value) if self.relu else value


@dataclass(frozen=True)
class Call:
    """Any other operation, run as torch runs it, but never in place."""

    value: str
    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def sources(self) -> list[str]:
        """Names of the values it reads."""
        found: list[str] = []
        fx.node.map_arg((self.args, self.kwargs), lambda node: found.append(node.name))
        return found

    @cached_property
    def nested(self) -> bool:
        """Whether values are read from within lists, slices or keyword arguments."""
        return len(self.sources) > sum(isinstance(arg, fx.Node) for arg in self.args)

    def __call__(self, module: nn.Module, values: dict[str, Any]) -> Any:
        """Return the value, with the weights of ``module``."""
        args = tuple(values[arg.name] if isinstance(arg, fx.Node) else arg for arg in self.args)
        kwargs = self.kwargs
        if self.nested:
            args, kwargs = fx.node.map_arg((self.args, self.kwargs), lambda node: values[node.name])
        if self.op == "call_function":
            return self.target(*args, **kwargs)
        if self.op == "call_method":
            return getattr(args[0], self.target)(*args[1:], **kwargs)
        found = operator.attrgetter(self.target)(module)
        return found if self.op == "get_attr" else found(*args, **kwargs)


@dataclass(frozen=True)
class SuffixPlan:
    """The steps of a suffix, in an order in which they can run."""

    input: str
    output: str
    shared: tuple[Call, ...]
    """Steps that read no weights: one result serves all checkpoints."""
    own: tuple[Affine | Call, ...]
    """Steps that every checkpoint takes with its own weights."""

    @cached_property
    def drops(self) -> list[list[str]]:
        """For every own step, the values that no later one reads."""
        last: dict[str, int] = {}
        for place, step in enumerate(self.own):
            last |= dict.fromkeys([step.value, *step.sources], place)
        last.pop(self.output, None)
        return [[name for name, place in last.items() if place == here] for here in range(len(self.own))]


def plan(module: nn.Module) -> SuffixPlan:
    """Compile a module in eval mode, such as :func:`featdyn_kernels.stitch.twin.twin` returns.

    Raises :class:`Unplannable` where torch.fx cannot trace it, it mixes the samples of a batch, or it writes in place
    into what is read again.
    """
    for name, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.running_mean is None:
            raise Unplannable(f"{name} normalises by the statistics of the batch, which must stay whole")
    graph = module if isinstance(module, fx.GraphModule) else _trace(module)
    nodes = list(graph.graph.nodes)
    first, *extra = (node for node in nodes if node.op == "placeholder")
    result = nodes[-1].args[0]
    if any(node.users for node in extra) or not isinstance(result, fx.Node):
        raise Unplannable("it does not map one tensor to one tensor")
    for node in nodes:
        if _in_place(node) and not _sole_owner(graph, node.args[0]):
            raise Unplannable(f"{node.name} writes in place into a tensor that is read elsewhere")
    state, free = module.state_dict(), {first.name}  # not of the graph, where literals count as buffers
    shared: list[Call] = []
    own: list[Affine | Call] = []
    for step in _fuse(graph, nodes):
        if isinstance(step, Call) and free.issuperset(step.sources) and not reads(step, state):
            free.add(step.value)
            shared.append(step)
        else:
            own.append(step)
    return SuffixPlan(first.name, result.name, tuple(shared), tuple(own))


def _trace(module: nn.Module) -> fx.GraphModule:
    try:
        return symbolic_trace(module)
    except Exception as error:  # the forward functions of users raise what they please
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise Unplannable(f"torch.fx cannot trace {type(module).__name__}: {reason}") from error


def _fuse(graph: fx.GraphModule, nodes: list[fx.Node]) -> list[Affine | Call]:
    taken: set[fx.Node] = set()
    fused: dict[fx.Node, Affine] = {}  # by the last node of each: there all that it reads has been computed
    for node in nodes:
        layer = _module(graph, node)
        if layer is None or type(layer) not in _NORMS or _hooked(layer):
            continue
        last, norm, residual, relu = node, None, None, False
        after = _only_user(last, taken)
        if after is not None and type(found := _module(graph, after)) is _NORMS[type(layer)] and not _hooked(found):
            taken.add(after)
            last, norm, after = after, str(after.target), _only_user(after, taken)
        if after is not None and (other := _other_term(after, last)) is not None:
            taken.add(after)
            last, residual, after = after, other.name, _only_user(after, taken)
        if after is not None and _is_relu(graph, after):
            taken.add(after)
            last, relu = after, True
        taken.add(node)
        fused[last] = Affine(last.name, str(node.target), node.all_input_nodes[0].name, norm, residual, relu)
    steps: list[Affine | Call] = []
    for node in nodes:
        if node in fused:
            steps.append(fused[node])
        elif node not in taken and node.op not in ("placeholder", "output"):
            steps.append(_call(node))
    return steps


def _call(node: fx.Node) -> Call:
    target, kwargs = node.target, dict(node.kwargs)
    if node.op == "call_method" and _trailing(str(target)):
        target = str(target)[:-1]
    elif node.op == "call_method" and target == "view":
        target = "reshape"  # fused steps return images in channels-last order, of which not every view exists
    elif node.op == "call_function":
        target = _OUT_OF_PLACE.get(target, target)
        if kwargs.get("inplace") is True:
            kwargs["inplace"] = False
    return Call(node.name, node.op, target, node.args, kwargs)


def _module(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def _hooked(module: nn.Module | None) -> bool:
    """Whether a module does something else than others of its type: by hooks, or a forward function of its own."""
    return module is not None and bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _only_user(node: fx.Node, taken: set[fx.Node]) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0] not in taken else None


def _other_term(node: fx.Node, term: fx.Node) -> fx.Node | None:
    """Return what ``node`` adds to ``term``, if it is a plain sum of two different tensors."""
    if (
        node.op not in ("call_function", "call_method")
        or node.target not in _ADDS
        or node.kwargs
        or len(node.args) != 2
    ):
        return None
    others = [arg for arg in node.args if arg is not term]
    return others[0] if len(others) == 1 and isinstance(others[0], fx.Node) else None


def _is_relu(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(found := _module(graph, node)) is nn.ReLU and not _hooked(found)
    return node.op in ("call_function", "call_method") and node.target in _RELUS


def reads(call: Call, state: Mapping[str, Any]) -> bool:
    """Whether a call depends on the weights in the state of its module."""
    prefix = f"{call.target}."
    return call.op in ("get_attr", "call_module") and any(key == call.target or key.startswith(prefix) for key in state)


def _trailing(method: str) -> bool:
    return method.endswith("_") and not method.endswith("__")


def _in_place(node: fx.Node) -> bool:
    if node.op == "call_method":
        return _trailing(str(node.target))
    return node.op == "call_function" and (node.target in _OUT_OF_PLACE or node.kwargs.get("inplace") is True)


def _sole_owner(graph: fx.GraphModule, value: Any) -> bool:
    """Whether nobody but one reader can see the memory of ``value``, so that overwriting it or not is the same."""
    if not isinstance(value, fx.Node) or len(value.users) != 1:
        return False
    fresh = isinstance(_module(graph, value), _FRESH_MODULES) or value.target in _FRESH
    return value.op == "placeholder" or fresh or all(_sole_owner(graph, source) for source in value.all_input_nodes)
