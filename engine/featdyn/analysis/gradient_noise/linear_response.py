"""How features answer to small steps of the parameters: Jacobian-vector products.

The difference of two passes is rounding where a step is small; the linear response has the precision of its arithmetic
for a step of any length: float64, and float32 where a convolution multiplies tangents (``tangents.py``). Operations
without a forward derivative (those of weight norm, of bags of embeddings, of a network that goes through NumPy) are
pushed by central differences along the step instead, made as long as float64 bears best.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from math import prod

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from featdyn.analysis.gradient_noise.tangents import SinglePrecisionTangents
from featdyn.capture.axis import pooled
from featdyn.functional import functional_call
from featdyn.networks import Cut, features_at, state_for
from featdyn.networks.attention import with_plain_attention, without_fast_path

TOGETHER = 2**27
"""Bytes of the steps, and of what they move, that are pushed through the network at once."""
RELATIVE = 1e-6
"""Length of a central difference, of the parameters' norm: near the cube root of float64's rounding, where both it and
the curvature cost least (1e-10 of the response, in the networks of the tests); our own choice."""
_FORWARD = threading.Lock()
"""For levels of forward derivatives, which all threads share."""

with warnings.catch_warnings():  # the first derivative makes torch compile rules, which warns of torch's own code
    warnings.simplefilter("ignore", FutureWarning)
    jvp(torch.sin, (torch.zeros(1),), (torch.zeros(1),))


@contextmanager
def derivatives_of_every_kind() -> Iterator[None]:
    """Let one thread at a time take forward or second derivatives, with an attention that has them."""
    with _FORWARD, with_plain_attention(), without_fast_path():
        yield


class Features:
    """The features of inputs ``(N, ...)`` at some cuts, as a function of the parameters, in eval mode and float64.

    The model and its inputs are in float64. ``real`` says at which cuts which positions are no padding, ``(N,
    position)``; the rest is 0.
    """

    def __init__(
        self,
        model: nn.Module,
        cuts: Sequence[Cut],
        inputs: Tensor,
        real: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._real = [(real or {}).get(cut.name) for cut in cuts]
        self._part, self._inputs = features_at(model, cuts), inputs
        self._widest = max(prod(cut.shape) for cut in cuts)
        self.lacking = ""
        """Which forward derivative is not to be had, so that moves are central differences."""

    def at(self, state: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the features at each cut, ``(N, p)``."""
        with torch.inference_mode():
            return self._features(doubled(state_for(self._part, dict(state))))

    def response(self, state: Mapping[str, Tensor], steps: Iterable[Tensor], names: Sequence[str]) -> list[Tensor]:
        """Return how far features at each cut move from ``state``, to first order: float64 ``(N, n, p)``, on the CPU.

        The n steps are vectors, the parameters ``names`` one after the other. Each is pushed at length 1, so that none
        leaves the range of float32.
        """
        own = doubled(state_for(self._part, dict(state)))
        moving = {name: own[name] for name in names}

        def along(tangent: dict[str, Tensor]) -> list[Tensor]:
            with SinglePrecisionTangents():
                return jvp(lambda changed: self._features(own, changed), (moving,), (tangent,))[1]  # type: ignore[no-any-return]

        size = sum(tensor.numel() for tensor in moving.values())
        many = max(1, TOGETHER // _step_bytes(size, len(self._inputs), self._widest))
        found: list[list[Tensor]] = []
        with torch.no_grad(), derivatives_of_every_kind():
            left = iter(steps)
            while some := list(islice(left, many)):
                together = torch.stack(some).double().to(self._inputs.device)
                lengths = together.norm(dim=1, keepdim=True)
                together /= torch.where(lengths > 0, lengths, 1.0)
                tangents = dict(_named(together, moving))
                if not self.lacking:
                    try:
                        pushed = vmap(along, randomness="different")(tangents)
                        found.append([(z * lengths[:, :, None]).cpu() for z in pushed])
                        continue
                    except RuntimeError as error:
                        why = str(error).partition("\n")[0]
                        if isinstance(error, torch.OutOfMemoryError) or "memory" in why:
                            raise
                        self.lacking = why
                moves = self._differences(own, moving, tangents, len(some))
                found.append([z * lengths[:, :, None].cpu() for z in moves])
        return [torch.cat(z).movedim(0, 1) for z in zip(*found, strict=True)]

    def _differences(
        self, own: dict[str, Tensor], moving: dict[str, Tensor], steps: dict[str, Tensor], count: int
    ) -> list[Tensor]:
        """Return the same by central differences, ``(n, N, p)`` at each cut."""
        scale = RELATIVE * (_norm(moving) or 1.0)
        found = []
        for i in range(count):
            step = {name: tensors[i] for name, tensors in steps.items()}
            share = scale / (_norm(step) or 1.0)
            there, back = (
                self._features(own, {name: moving[name] + sign * v for name, v in step.items()})
                for sign in (share, -share)
            )
            found.append([((a - b) / (2 * share)).cpu() for a, b in zip(there, back, strict=True)])
        return [torch.stack(z) for z in zip(*found, strict=True)]

    def _features(self, state: dict[str, Tensor], changed: dict[str, Tensor] | None = None) -> list[Tensor]:
        first = changed or {}  # whichever other name leads to the same tensor
        given = first | {name: tensor for name, tensor in state.items() if name not in first}
        found = zip(functional_call(self._part, given, (self._inputs,)), self._real, strict=True)
        return [(z if real is None else pooled(z, real, "none")).flatten(1) for z, real in found]


def _norm(tensors: Mapping[str, Tensor]) -> float:
    return float(torch.stack([tensor.norm() for tensor in tensors.values()]).norm())


def _step_bytes(size: int, inputs: int, widest: int) -> int:
    return 8 * (3 * size + 8 * inputs * widest)


def pushed_bytes(steps: int, size: int, inputs: int, widest: int) -> int:
    """Return the bytes that :meth:`Features.response` holds for steps of so many parameters, beside its result."""
    one = _step_bytes(size, inputs, widest)
    return max(one, min(TOGETHER, steps * one))


def doubled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state in float64."""
    return {name: t.double() if t.is_floating_point() else t for name, t in state.items()}


def _named(steps: Tensor, like: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield vectors ``(n, p)`` as tensors ``(n, ...)`` of these parameters."""
    pieces = torch.split(steps, [tensor.numel() for tensor in like.values()], dim=1)
    for (name, tensor), piece in zip(like.items(), pieces, strict=True):
        yield name, piece.view(len(steps), *tensor.shape)
