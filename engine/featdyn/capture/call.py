"""How a model is asked about a batch of probes: called, its answer read, and the loss of each sample taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from featdyn.errors import FeatdynError, NetworkError, first_line
from featdyn.networks import class_loss
from featdyn.store import Run

Loss: TypeAlias = Callable[[Any, Any], Tensor] | None  # (outputs, labels) -> (sample,)


@dataclass(frozen=True)
class Call:
    """How a model is asked.

    Parameters
    ----------
    forward
        ``(model, inputs) -> outputs``; when None a dict of inputs is given as ``model(**inputs)``, a tuple as
        ``model(*inputs)``, a tensor as ``model(inputs)``.
    output
        Which of several outputs counts as logits: a key or attribute, a place in a tuple, or a function of the outputs;
        when None the one tensor that there is, or what is called ``logits``.
    loss
        ``(outputs, labels) -> (sample,)`` of all that the model returns; when None
        :func:`featdyn.networks.class_loss` of the logits.
    tokens
        Whether that of a sample with targets at positions is the mean or the sum over them.
    """

    forward: Callable[[nn.Module, Any], Any] | None = None
    output: str | int | Callable[[Any], Any] | None = None
    loss: Loss = None
    tokens: Literal["mean", "sum"] = "mean"

    @property
    def said(self) -> dict[str, Any]:
        """What a store says of it, JSON-like: keys and places as they are, functions by their names."""
        return {"forward": _named(self.forward), "output": _named(self.output)}

    def __call__(self, model: nn.Module, inputs: Any) -> Any:
        """Return what the model returns."""
        if self.forward is not None:
            return self.forward(model, inputs)
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, tuple) else model(inputs)

    def logits(self, outputs: Any) -> Tensor:
        """Return what counts as logits; NetworkError where that is not one tensor of real numbers."""
        found, output = outputs, self.output
        if output is None and isinstance(outputs, Mapping) and "logits" in outputs:
            output = "logits"
        try:
            if callable(output):
                found = output(outputs)
            elif isinstance(output, str) and not isinstance(outputs, Mapping):
                found = getattr(outputs, output)
            elif output is not None:
                found = outputs[output]
        except (LookupError, TypeError, AttributeError) as error:
            raise NetworkError(f"the network returns {_described(outputs)}, which has no {output!r}") from error
        if not isinstance(found, Tensor) or not found.is_floating_point():
            ways = "choose with output= what counts as logits" if found is outputs else "choose another output="
            raise NetworkError(f"the network returns {_described(found)}, not one tensor of real numbers: {ways}")
        return found

    def losses(self, outputs: Any, logits: Tensor, labels: Any, samples: int) -> Tensor:
        """Return the loss of each sample, ``(sample,)``; NaN where nothing is to be compared."""
        if self.loss is None:
            return logits.new_full((samples,), torch.nan) if labels is None else class_loss(logits, labels, self.tokens)
        try:
            found = self.loss(outputs, labels)
        except FeatdynError:
            raise
        except Exception as error:  # the functions of users raise what they please
            raise ValueError(f"loss fails on the probes: {first_line(error)}") from error
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if got == (samples, samples) and samples > 1:
            raise ValueError(
                f"loss must return one number for each sample, shape ({samples},), got {got}: labels of shape "
                "(sample,) are spread over outputs of shape (sample, 1): compare with outputs[:, 0]"
            )
        if got != (samples,):
            raise ValueError(
                f"loss must return one number for each sample, shape ({samples},), got {got}: "
                "leave its mean out (reduction='none') and sum over all axes but the first"
            )
        return found


def _named(given: Any) -> Any:
    if not callable(given):
        return given
    name = getattr(given, "__qualname__", type(given).__qualname__)
    return {"function": f"{getattr(given, '__module__', None)}:{name}"}


def _described(outputs: Any) -> str:
    if isinstance(outputs, Tensor):
        return str(outputs.dtype)
    kind = type(outputs).__name__
    if isinstance(outputs, Mapping):
        return f"{kind} with {', '.join(map(repr, outputs))}"
    return f"{kind} of {len(outputs)}" if isinstance(outputs, tuple | list) else kind


def recorded_call(
    run: Run, forward: Any = None, output: Any = None, loss: Loss = None, tokens: Literal["mean", "sum"] = "mean"
) -> Call:
    """Return how a run's network is asked: as it was recorded, by the functions that are given.

    Raises :class:`FeatdynError` where it was recorded with a function, which no store holds, and none is given.
    """
    said = run.described("call")
    for name, given in (("forward", forward), ("output", output)):
        if given is None and isinstance(said.get(name), dict):
            raise FeatdynError(
                f"{run.path}: was recorded with a function as {name} ({said[name].get('function')}), which the "
                f"store does not hold: give {name}= as it was given to the recorder (--{name} module:function)"
            )
    return Call(forward, said.get("output") if output is None else output, loss, tokens)
