"""The sample axis is checked, not believed: what is recorded must give each sample its own row, in any batch.

A few samples pass the network, once more in another order and number, and half of them without the others. What
gives other rows then (windows or tokens folded into the batch, a table of positions, tokens first, samples that meet,
something random) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from featdyn.capture import tap
from featdyn.capture.axis import Axis
from featdyn.capture.call import Call
from featdyn.capture.handed_on import HandedOn
from featdyn.capture.nest import Nest, leaves, mapped
from featdyn.capture.undisturbed import undisturbed
from featdyn.errors import NetworkError
from featdyn.networks import Taps

_PLAIN = Call()
TOLERANCE = 1e-3
"""Of the largest value: batches of another shape round otherwise, in TF32 by up to 5e-4 each time; our own choice."""
ALIKE = 1e-5
"""The same for batches of one shape on a CPU, which round alike: what little samples tell each other counts. Our own
choice."""


def output_shape(model: nn.Module, inputs: Nest, call: Call = _PLAIN) -> tuple[int, ...]:
    """Return the shape of the logits of a few samples, ``(samples, ...)``.

    Raises :class:`NetworkError` where the network cannot run on them, or its logits are not one tensor.
    """
    alone, n = replace(call, loss=None), len(next(tensor for _, tensor in leaves(inputs, "")))
    shape = tuple(tap.run(model, inputs, None, [], gradients=False, call=alone).logits.shape)
    if shape[:1] != (n,):
        raise NetworkError(f"the network's output has shape {shape} for {n} samples: it must have a row for each")
    return shape


def layer_shapes(
    model: nn.Module,
    inputs: Nest,
    labels: Nest,
    layers: Sequence[str],
    *,
    gradients: bool = False,
    call: Call = _PLAIN,
    taps: Taps | None = None,
    axes: Mapping[str, Axis] | None = None,
    handed_on: HandedOn | None = None,
    outputs: dict[str, str | None] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Return what one sample has at each layer, positions first, in the order in which they run.

    ``axes`` are those of layers whose samples or positions lie elsewhere than in most, ``outputs`` those of layers that
    return several tensors, as :func:`featdyn.capture.tap.run` takes and completes them.
    Raises :class:`LayerError` or :class:`NetworkError` where a layer, the output or the loss does not follow the
    samples, or :func:`featdyn.capture.tap.run` refuses.
    """
    one = next(tensor for _, tensor in leaves(inputs, ""))
    n = len(one)
    turned, halved = [*range(n - 1, -1, -1), 0], [i // 2 for i in range(n)]
    others = []
    asked: dict[str, Any] = {"call": call, "taps": taps, "handed_on": handed_on, "outputs": outputs}
    with undisturbed(model):
        first = tap.run(model, inputs, labels, layers, gradients=gradients, **asked)
        # A network may return memory that it keeps, and writes into in the next pass.
        first = replace(first, logits=first.logits.clone(), loss=first.loss.clone())
        for device in {torch.device("cpu"), one.device}:
            torch.rand(1, device=device)  # each pass begins where the random state stands: move it
        for order in (torch.tensor(places, device=one.device) for places in (turned, halved)):
            rows = partial(torch.index_select, dim=0, index=order)
            given = mapped(rows, inputs), mapped(rows, labels)
            passed = tap.run(model, *given, layers, gradients=False, **asked)
            others.append((order, replace(passed, logits=passed.logits.clone(), loss=passed.loss.clone())))

        @cache  # what is random strays above, too: this says only that it is that
        def again() -> tap.Pass:
            return tap.run(model, inputs, labels, layers, gradients=False, **asked)

        # An output may be a small difference of large features, as that of a lazy network: it has their rounding.
        features = max((_largest(values) for values in first.activations.values()), default=0.0)
        logits = [(order, passed.logits) for order, passed in others]
        for why in _strays(first.logits, lambda: again().logits, logits, features):
            raise NetworkError(f"the network's output {why}")
        around = max(_largest(first.logits), 1.0)
        losses = [(order, passed.loss) for order, passed in others]
        for why in _strays(first.loss, lambda: again().loss, losses, around):
            raise NetworkError(f"the loss {why}")
        shapes = {}
        for name, values in first.activations.items():
            axis = (axes or {}).get(name, Axis())
            if max(axis.sample, axis.position or 0) >= max(values.ndim, 1):
                raise tap.LayerError(f"layer {name} returns {values.ndim} axes, so there is no {axis}", name)

            def strays(turned: Callable[[Tensor], Tensor], name: str = name, first: Tensor = values) -> Iterator[str]:
                axes = {passed.activations[name].ndim for _, passed in others} - {first.ndim}
                if axes:
                    return iter([f"gives {first.ndim} or {axes.pop()} axes, as the batch has it"])
                found = [(order, turned(passed.activations[name])) for order, passed in others]
                return _strays(turned(first), lambda: turned(again().activations[name]), found)

            for why in strays(axis.turned):
                raise tap.LayerError(f"layer {name} {why}: {_instead(name, axis, values.ndim, strays)}", name)
            shapes[name] = tuple(axis.turned(values).shape[1:])
    return shapes


def _instead(name: str, axis: Axis, axes: int, strays: Callable[[Callable[[Tensor], Tensor]], Iterator[str]]) -> str:
    """Return what to write where a layer does not follow the samples: the axis that does, if there is one."""
    for place in range(axes):
        if place != axis.sample and not any(strays(Axis(sample=place).turned)):
            also = "".join(f', {key}="{said}"' for key in ("pool", "output") if (said := getattr(axis, key)))
            return (
                f'its samples are axis {place}: write layers={{"{name}": Axis(sample={place}{also})}}, or leave it out'
            )
    return (
        "leave it out, or record a module that gives one row a sample, such as the one after it, or its mean over "
        "tokens or windows"
    )


def _strays(
    first: Tensor, again: Callable[[], Tensor], others: Sequence[tuple[Tensor, Tensor]], around: float = 0.0
) -> Iterator[str]:
    """Yield in what way rows are not those of the samples, in a pass of a batch, and of others by their order.

    ``again`` passes the batch once more, only to tell what is random from what is not.
    """
    n = len(first) if first.ndim else 1
    for order, other in others:
        rows = len(other) if other.ndim else 1
        samples = len(others[0][0]) - 1
        if (n, rows) != (samples, len(order)):
            yield f"gives {n} rows for {samples} samples and {rows} for {len(order)}"
        elif first.shape[1:] != other.shape[1:]:
            yield f"gives rows of {tuple(first.shape[1:])} or {tuple(other.shape[1:])}, as the batch has it"
        elif not first.numel():
            yield f"gives rows without values, {tuple(first.shape[1:])}"
        elif close(first[order], other, around, ALIKE if len(order) == n and not first.is_cuda else TOLERANCE):
            continue
        elif not close(first, again(), around):
            yield (
                "is random in eval mode, or follows what passed before: two passes of the same samples differ "
                "(F.dropout without training=? a state that is kept?)"
            )
        else:
            yield "gives a sample other values in another batch, so that its rows are not the samples, or samples meet"


def close(one: Tensor, other: Tensor, around: float = 0.0, tolerance: float = TOLERANCE) -> bool:
    """Compare up to rounding, also that of values as large as ``around``, from whose differences these are computed."""
    eps = torch.finfo(one.dtype).eps if one.is_floating_point() else 0.0
    share = max(tolerance, eps**0.5 if eps > 1e-4 else 0.0)  # half precisions round at each layer
    allowed = share * _largest(one) + 16 * eps * around
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    return torch.allclose(one, other, rtol=0, atol=allowed, equal_nan=True)


def _largest(values: Tensor) -> float:
    """Return the largest finite magnitude; 0 where there is none."""
    if not values.numel():
        return 0.0
    return float(values.detach().cpu().double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().max())
