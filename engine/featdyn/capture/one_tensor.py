"""A network that takes and returns whatever it does, as one of a tensor and logits: such a one comes apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from featdyn.capture.call import Call
from featdyn.capture.nest import Nest, leaves, restored, structure
from featdyn.errors import NetworkError
from featdyn.networks.packed import Packing, with_forward
from featdyn.networks.twin import eval_twin


def of_one_tensor(
    model: nn.Module, example: Tensor, call: Call, unpacked: Callable[[Tensor], Any] | None = None
) -> nn.Module:
    """Return the network as it takes one tensor such as ``example`` and returns its logits; itself where it does.

    ``call`` says how it is asked, ``unpacked`` makes of the tensor what it takes, where that is something else. Raises
    :class:`NetworkError` where it does not run on that, or returns no logits. Of a network without weights the example
    lies on torch's meta device.
    """

    def ask(model: nn.Module, given: Tensor) -> Any:
        return call(model, given if unpacked is None else unpacked(given))

    plain = unpacked is None and call.forward is None
    found = model if plain else with_forward(model, ask)
    try:
        with torch.inference_mode():
            twin = eval_twin(found, (lambda tensor: tensor.to("meta")) if example.is_meta else None)
            outputs = twin(example.clone())
    except Exception as error:  # what users' forward functions raise
        if plain:
            return model  # who takes it apart says why
        raise NetworkError(f"the network does not take the recorded inputs: {error}") from error
    if isinstance(outputs, Tensor) and call.output is None:
        return found
    call.logits(outputs)  # or say which output is to be chosen
    return with_forward(model, lambda model, given: call.logits(ask(model, given)))


def packed(model: nn.Module, inputs: Nest, call: Call) -> tuple[nn.Module, Tensor]:
    """Return the network as one of a tensor, and inputs ``(N, ...)`` as that.

    Raises :class:`NetworkError` as :func:`of_one_tensor` does, and for complex inputs.
    """
    if isinstance(inputs, Tensor):
        return of_one_tensor(model, inputs, call), inputs
    tensors, said = dict(leaves(inputs, "input")), structure(inputs, "input")
    try:
        packing = Packing.of(tensors)
    except ValueError as error:
        raise NetworkError(str(error)) from error
    example = packing.pack(tensors)
    return of_one_tensor(model, example, call, lambda x: restored(said, packing.unpack(x).__getitem__)), example
