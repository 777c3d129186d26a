"""Run a module on probe samples and collect what passes its layers, leaving the training state as it was."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from featdyn.capture.call import Call
from featdyn.capture.handed_on import HandedOn, memory_of
from featdyn.capture.nest import Nest, leaves, mapped
from featdyn.capture.several_outputs import one_of, replaced
from featdyn.capture.undisturbed import undisturbed
from featdyn.errors import FeatdynError, NetworkError, first_line
from featdyn.networks import Taps, named_layers
from featdyn.networks.attention import without_fast_path

_PLAIN = Call()
_ROUNDING = 1e-5
"""Of the largest logit, between two ways to run one network; in half precision 8 roundings. Our own choice."""
_OTHER = "leave it out, or record another layer"


class LayerError(NetworkError):
    """A layer that cannot be recorded, by its name."""

    def __init__(self, message: str, layer: str = "") -> None:
        super().__init__(message)
        self.layer = layer


class IdleError(LayerError):
    """Layers that do not run in a forward pass, as a list of modules or a branch that is not taken."""

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__(f"layer {layers[0]} does not run in a forward pass: {_OTHER}", layers[0])
        self.layers = layers


class StaleError(LayerError):
    """A layer that is a cut of another network than this one is now, which has hooks or was changed since."""


@dataclass
class Pass:
    """What one batch of probes left: tensors on the model's device, the batch as first axis, layers as they ran."""

    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]  # of each sample's own loss
    logits: Tensor
    loss: Tensor  # NaN where there is none


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's first parameter or buffer is; the CPU for a model without any, or without values."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if not tensor.is_meta:
            return tensor.device
    return torch.device("cpu")


def run(
    model: nn.Module,
    inputs: Nest,
    labels: Nest,
    layers: Sequence[str],
    *,
    gradients: bool,
    call: Call = _PLAIN,
    taps: Taps | None = None,
    handed_on: HandedOn | None = None,
    outputs: dict[str, str | None] | None = None,
) -> Pass:
    """Run one batch in eval mode, on the model's device; the model and the batch are left as they were.

    Of the model that is parameters, buffers, ``.grad``, mode and random state. What was compiled runs as it was
    written: compiled code does not know of the layers that are watched. ``layers`` are names of modules (as in
    ``named_modules``) whose output is one tensor of real numbers; with ``gradients`` each sample's loss is
    differentiated with respect to each of them. Layers that are cuts which no module returns have ``taps``, by which
    the network runs once more. With ``handed_on``, of earlier passes, only layers into which a later step writes are
    copied for that step, else all. ``outputs`` are of layers that may return several tensors: which of them is watched;
    of None the first one of real numbers, whose name is put in its place.

    Raises
    ------
    NetworkError
        A layer does not run, runs twice, returns something else, or its gradient cannot be had.
    ValueError
        A loss that is not one number a sample, or does not depend on the network.
    """
    on, several = handed_on or HandedOn(), {} if outputs is None else outputs
    while True:
        try:
            found = _run(model, inputs, labels, layers, on, several, gradients=gradients, call=call, taps=taps)
        except Exception as error:
            # Autograd lets nobody write into what was not copied; any other error is the network's own.
            if not _of_writing(error) or not on.give_up():
                raise
            continue
        doubtful, written = on.doubtful(), on.written()
        if doubtful or written:
            plain = _run(model, inputs, labels, [], HandedOn(), {}, gradients=False, call=call, taps=None)
            if written or not _alike(found.logits, plain.logits):
                name = written or doubtful[0]
                raise LayerError(
                    f"layer {name} returns memory that a later step writes into by another name, so it has no gradient "
                    "of its own: gradients=False, or record the layer before it",
                    name,
                )
        if on.kept_right() or handed_on is None:
            return found


def _of_writing(error: BaseException | None) -> bool:
    """Return whether autograd refused a step in place ("inplace", "in-place"), in an error or what caused it."""
    if error is None:
        return False
    return "inplace" in str(error).replace("-", "") or _of_writing(error.__cause__)


def _run(
    model: nn.Module,
    inputs: Nest,
    labels: Nest,
    layers: Sequence[str],
    on: HandedOn,
    several: dict[str, str | None],
    *,
    gradients: bool,
    call: Call,
    taps: Taps | None,
) -> Pass:
    modules = named_layers(model)
    kept: dict[str, Tensor] = {}
    apart: set[str] = set()  # layers that ran where autograd was off, such as in a frozen part below torch.no_grad

    def watch(name: str, given: tuple[object, ...], output: object) -> object:
        """Keep what a layer returns, or one tensor of it; return what the network goes on with."""
        wanted, tensors = several.get(name), [tensor for tensor in given if isinstance(tensor, Tensor)]
        if name not in several or (isinstance(output, Tensor) and wanted is None):
            return keep(name, output, tensors)
        try:
            found, at, tensor = one_of(output, wanted)
        except LookupError as error:
            which = "no tensor of real numbers" if wanted is None else f"no output {wanted}"
            kind = "one tensor" if isinstance(output, Tensor) else f"a {type(output).__name__} of {error.args[0]}"
            raise LayerError(f"layer {name} returns {kind}, {which}: {_OTHER}", name) from None
        several[name] = found
        return replaced(output, at, keep(name, tensor, tensors))

    def keep(name: str, output: object, given: Sequence[Tensor] = ()) -> Tensor:
        if not isinstance(output, Tensor):
            raise LayerError(f"layer {name} returns {type(output).__name__}, not one tensor: {_OTHER}", name)
        if output.is_quantized and gradients:
            raise LayerError(
                f"layer {name} is {output.dtype}, which has no gradient: gradients=False, or {_OTHER}", name
            )
        if not output.is_floating_point() and not output.is_quantized:
            raise LayerError(f"layer {name} returns {output.dtype}, not real numbers: {_OTHER}", name)
        if name in kept:
            raise LayerError(f"layer {name} runs twice in one forward pass: record a layer that runs once", name)
        if output.is_quantized:  # recorded are the numbers that it stands for
            kept[name] = output.dequantize()
            return output
        if gradients and not torch.is_grad_enabled():
            apart.add(name)
        if gradients and not output.requires_grad:  # nothing before asks for one, as a frozen embedding of tokens
            output = output.detach().requires_grad_()
        with torch.set_grad_enabled(gradients):
            kept[name], other = on.instead_of(name, output, list(given))
        return other

    def hook(name: str) -> Callable[[nn.Module, tuple[object, ...], object], object]:
        return lambda module, arguments, output: watch(name, arguments, output)

    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and setting it would take seconds to import
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(undisturbed(model))
        stack.enter_context(without_fast_path())
        batch = [tensor for _, tensor in leaves(inputs, "")]
        stack.enter_context(torch.autocast(batch[0].device.type, enabled=False))
        stack.enter_context(torch.set_grad_enabled(gradients))
        # The input asks for a gradient, so that also frozen layers have a graph behind them. The network is given a
        # copy of it, into which its first operation may write.
        first = mapped(lambda t: t.detach().clone().requires_grad_(gradients and t.is_floating_point()), inputs)
        with contextlib.ExitStack() as hooks:
            for name in layers:
                if taps is None or name not in taps.shapes:
                    if name not in modules:
                        raise LayerError(f"layer {name} is no module of the network any more, which was changed", name)
                    if isinstance(modules[name], torch.jit.ScriptModule):
                        raise LayerError(f"layer {name} is TorchScript, which hands nothing out: {_OTHER}", name)
                    hooks.enter_context(modules[name].register_forward_hook(hook(name)))
            try:
                outputs = call(model, mapped(Tensor.clone, first) if gradients or taps is not None else first)
            except FeatdynError:
                raise
            except Exception as error:  # the forward functions of users raise what they please
                why = f"the network does not run on the probes: {first_line(error)}{_kinds(model, batch)}"
                raise NetworkError(why) from error

        def losses_of(outputs: object, logits: Tensor) -> Tensor:
            return call.losses(outputs, logits, mapped(Tensor.clone, labels), len(batch[0]))

        logits = call.logits(outputs)
        own = losses_of(outputs, logits)
        found = _gradients(own, kept, apart) if gradients else {}
        if taps is not None:
            hooked, kept = kept, {}
            again: Any = taps(first.clone(), keep)[1]
            alone = isinstance(again, Tensor) and not isinstance(outputs, Tensor)  # some ways give the logits only
            name = taps.cuts[0].name
            if alone and (call.loss is not None or callable(call.output)):
                raise LayerError(f"layer {name} is no module's output, and loss= or output= takes more than that", name)
            its_logits = again if alone else call.logits(again)
            if not _alike(its_logits, logits):
                raise StaleError(f"layer {name} is no module's output, and hooks or changes hide it: {_OTHER}", name)
            losses = losses_of(again, its_logits)
            found |= _gradients(losses, kept, apart) if gradients else {}
            kept = {**hooked, **kept}
        missing = [name for name in layers if name not in kept]
        if missing:
            raise IdleError(missing)
        # A network may return one of its buffers, which are about to be as they were.
        buffers = {memory_of(buffer) for buffer in model.buffers()}
        ends = [t.detach().clone() if memory_of(t) in buffers else t.detach() for t in (logits, own)]
    return Pass({name: value.detach() for name, value in kept.items()}, found, *ends)


def _kinds(model: nn.Module, batch: Sequence[Tensor]) -> str:
    """Return what to write where numbers are of another type than the network's, or nothing."""
    own = next((parameter.dtype for parameter in model.parameters()), None)
    if own is None or len(batch) > 1 or batch[0].dtype in (own, torch.int64, torch.int32):
        return ""
    return f" (inputs are {batch[0].dtype}, the network {own}: give inputs of that type)"


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether logits are the same up to rounding, which on a GPU two passes of the same need not share."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    scale = float(other.detach().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().amax()) if other.numel() else 0.0
    share = max(_ROUNDING, 8 * torch.finfo(one.dtype).eps)
    close = torch.isclose(one, other, rtol=0.0, atol=share * scale, equal_nan=True)
    return bool(close.all())


def _gradients(losses: Tensor, kept: dict[str, Tensor], apart: set[str]) -> dict[str, Tensor]:
    """Differentiate each sample's loss with respect to what was kept; samples do not meet, so the sum's will do."""
    if not kept:
        return {}
    if not losses.requires_grad:
        raise ValueError("loss does not depend on the recorded layers by steps that autograd knows: gradients=False")
    try:
        computed = torch.autograd.grad(losses.sum(), list(kept.values()), allow_unused=True)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        if "heckpoint" not in str(error):
            raise NetworkError(
                f"the loss has no gradient with respect to the recorded layers ({first_line(error)}): gradients=False "
                "records the rest"
            ) from error
        raise NetworkError(
            "the network checkpoints activations in a way that gives no gradients of layers: "
            "use checkpoint(..., use_reentrant=False), or gradients=False"
        ) from error
    found = {}
    for (name, value), gradient in zip(kept.items(), computed, strict=True):
        if gradient is None and name in apart:
            raise LayerError(
                f"layer {name} runs where autograd is off (torch.no_grad, or checkpoint without use_reentrant=False): "
                "its gradient is not known: leave it out, or gradients=False",
                name,
            )
        found[name] = torch.zeros_like(value) if gradient is None else gradient
    return found
