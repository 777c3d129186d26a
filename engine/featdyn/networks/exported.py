"""A module as a graph of operations by torch.export, which follows control flow that torch.fx cannot."""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from featdyn.networks.hooked_part import one_tensor
from featdyn.networks.rows import rows
from featdyn.networks.trace import CannotCut, Trace
from featdyn.networks.twin import eval_twin

CHECKS = ("_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range", "sym_constrain_range_for_size")
"""Operations that compute nothing."""


def export(module: nn.Module, example: Tensor) -> Trace:
    """Export a module in eval mode, for batches of any size.

    Parameters and buffers are those of the module by name, and layers of ``torch.nn`` are one operation again, as
    torch.fx has them. Raises :class:`NetworkError` where torch.export refuses, or fixes the size of the batch.
    """
    inputs = rows(example)
    try:
        twin = eval_twin(module)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _quiet():
            of_batch = {0: torch.export.Dim.DYNAMIC}
            program = torch.export.export(twin, (inputs,), dynamic_shapes=(of_batch,), strict=False)
        return _trace(module, program, inputs)
    except CannotCut:
        raise
    except Exception as error:  # the forward functions of users raise what they please
        raise CannotCut(module, error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what torch.export says of its own code and of what it refuses, which is said in one line."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _trace(module: nn.Module, program: Any, inputs: Tensor) -> Trace:
    kinds = torch.export.graph_signature
    said = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    if any(spec.kind is not kinds.OutputKind.USER_OUTPUT for spec in program.graph_signature.output_specs):
        raise CannotCut(module, "it changes buffers in eval mode")
    known = {name for name, _ in (*module.named_parameters(remove_duplicate=False), *module.named_buffers())}
    graph, copies, constants = fx.Graph(), dict[fx.Node, fx.Node](), dict[str, Tensor]()
    copies |= {node: graph.placeholder("x") for node in program.graph.nodes if _given(node, said, kinds)}
    for node in program.graph.nodes:
        if node in copies:
            continue
        if node.op == "get_attr" or (node.op == "placeholder" and said[node.name].kind is kinds.InputKind.CUSTOM_OBJ):
            raise CannotCut(module, f"torch.export keeps {node.target} as it is, which holds operations of its own")
        if node.op == "placeholder" and said[node.name].kind is kinds.InputKind.CONSTANT_TENSOR:
            value = program.constants[said[node.name].target]
            if isinstance(value, nn.Parameter):
                raise CannotCut(module, f"the parameter {said[node.name].target} is not registered")
            name = f"_tensor_constant_{len(constants)}"
            copies[node], constants[name] = graph.get_attr(name), value
        elif node.op == "placeholder":
            if said[node.name].target not in known:
                raise CannotCut(module, f"the tensor {said[node.name].target} is not registered")
            copies[node] = graph.get_attr(said[node.name].target)
        elif node.op == "output":
            leaves = [leaf for leaf in node.args[0] if isinstance(leaf, fx.Node)]
            if len(leaves) != 1:
                raise CannotCut(module, f"it returns {len(leaves)} tensors, not one")
            graph.output(copies[leaves[0]])
        elif getattr(getattr(node.target, "_overloadpacket", None), "__name__", "") not in CHECKS:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].meta["nn_module_stack"] = _stack(node)
            if node.target is torch.ops.aten.view.default:  # the memory behind it may be another layer's
                copies[node].target = torch.ops.aten.reshape.default
    calls = _calls(graph)
    _layers_again(module, graph, calls)
    values = _outputs(module, inputs)
    returned = {
        path: node
        for path, node in ((key, _result(nodes)) for key, nodes in _calls(graph).items())
        if node is not None
        and f"{path}@1" not in calls
        and _shape(values.get(path)) == tuple(node.meta["val"].shape[1:])
    }
    wrapped = frozenset(path for path in returned if not isinstance(values[path], Tensor))
    return Trace(module, graph, dict(reversed(returned.items())), constants, wrapped)


def _given(node: fx.Node, said: dict[str, Any], kinds: Any) -> bool:
    return node.op == "placeholder" and said[node.name].kind is kinds.InputKind.USER_INPUT


def _stack(node: fx.Node) -> dict[str, tuple[str, Any]]:
    """Return the calls of submodules that an operation is in, outer ones first: ``path``, then ``path@1``."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    marked = ((key.partition("@"), path, kind) for key, (path, kind) in stack.items() if key.startswith("L__self__"))
    return {path + at + number: (path, kind) for (_, at, number), path, kind in marked if path}


def _calls(graph: fx.Graph) -> dict[str, list[fx.Node]]:
    """Return the operations of each call of a submodule."""
    found: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        for call in node.meta.get("nn_module_stack") or ():
            found.setdefault(call, []).append(node)
    return found


def _result(nodes: list[fx.Node]) -> fx.Node | None:
    """Return the operation of a call whose value is used behind it, if there is exactly one and it is a tensor."""
    inner = set(nodes)
    used = [node for node in nodes if any(user not in inner for user in node.users)]
    return used[0] if len(used) == 1 and isinstance(used[0].meta.get("val"), Tensor) else None


def _layers_again(module: nn.Module, graph: fx.Graph, calls: dict[str, list[fx.Node]]) -> None:
    """Put calls of layers of torch.nn in the place of their operations: others know them by their type."""
    for call, nodes in calls.items():
        path = call.partition("@")[0]
        layer, last = module.get_submodule(path), _result(nodes)
        if last is None or not _is_layer(layer):
            continue
        inner = set(nodes)
        given = {arg for node in nodes for arg in node.all_input_nodes if arg not in inner and arg.op != "get_attr"}
        if len(given) != 1:
            continue
        with graph.inserting_after(last):
            whole = graph.call_module(path, (given.pop(),))
        whole.meta.update(last.meta)
        last.replace_all_uses_with(whole)
        for node in reversed(nodes):
            if not node.users:
                graph.erase_node(node)


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is one operation of one tensor, as torch.fx has it."""
    own = type(module).__module__.startswith("torch.nn.") and not any(True for _ in module.children())
    hooked = "forward" in vars(module) or bool(module._forward_pre_hooks)
    return (
        (own or isinstance(module, _BatchNorm))
        and not hooked
        and len(inspect.signature(module.forward).parameters) == 1
    )


def _outputs(module: nn.Module, inputs: Tensor) -> dict[str, Any]:
    """Return what each submodule returns."""
    found: dict[str, Any] = {}
    twin = eval_twin(module)
    for path, inner in twin.named_modules():
        inner.register_forward_hook(lambda _, __, out, path=path: found.update({path: out}))
    with torch.no_grad():
        twin(inputs.clone())
    return found


def _shape(output: Any) -> tuple[int, ...] | None:
    """Return what one sample has of the only tensor that an output is or holds."""
    tensor = one_tensor(output)
    return None if tensor is None else tuple(tensor.shape[1:])
