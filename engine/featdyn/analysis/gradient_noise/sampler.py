"""Mini-batch gradients at fixed weights, as the training would have drawn them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from featdyn.analysis.gradient_noise.training_data import TrainingData
from featdyn.errors import FeatdynError
from featdyn.networks import cuts
from featdyn.training.batches import mixed_seed, seeded

GRADIENT, SECOND = 12, 30
"""So many times the features of all cuts are held for a gradient, and for one of a gradient, at most."""
_RANDOM = threading.Lock()
"""For dropout, which draws from the one generator that all threads share."""


class Sampler:
    """Draws gradients of the training loss with respect to all parameters.

    The network is in training mode and the arithmetic float32, so BatchNorm uses the statistics of each mini-batch as
    it did in training (unless told otherwise), and rounding to bfloat16 adds no noise of its own; the loss is float64,
    as what is left of it when a sample is learnt is rounding in float32. Augmentation, where the recipe has it, is
    drawn anew for each batch and is part of the noise. Nothing is drawn from torch's global generator but what dropout
    draws, and its state is put back.

    Parameters
    ----------
    batch_size
        Of the draws; None is that of the data.
    stored_statistics
        Run in eval mode, where BatchNorm has the checkpoint's statistics and dropout is off.

    Raises
    ------
    FeatdynError
        The batch is larger than the training set.
    """

    def __init__(self, data: TrainingData, batch_size: int | None, seed: int, stored_statistics: bool = False) -> None:
        self.data, self.model, self.samples = data, data.model, len(data.labels)
        self.batch_size = batch_size or data.batch_size
        if self.batch_size > self.samples:
            raise FeatdynError(f"batch_size {self.batch_size} is more than the {self.samples} training samples")
        self._seed, self._training = seed, not stored_statistics
        self._permuted = data.labels[torch.randperm(self.samples, generator=self._generator(3))]

    @property
    def random(self) -> bool:
        """Whether the network itself draws random numbers."""
        return self._training and any(isinstance(m, _DropoutNd) and m.p > 0 for m in self.model.modules())

    @property
    def apart(self) -> list[str]:
        """Why the mean over draws is not the full gradient (each sample once, in one batch); empty where it is."""
        norms = (m for m in self.model.modules() if isinstance(m, _BatchNorm))
        by_batch = any(self._training or m.running_mean is None for m in norms)
        why = {"augmentation": self.data.augmented, "dropout": self.random, "BatchNorm by batch": by_batch}
        return [name for name, there in why.items() if there]

    def pass_bytes(self, curvature: int, outputs: int) -> int:
        """Bytes of a batch and of all that its gradient needs of the layers; of so many samples for the curvature.

        Each sample has so many ``outputs``.
        """
        first = self.subset(1)[0]
        widths = 4 * (sum(prod(cut.shape) for cut in cuts(self.model, first)) + first.numel() + outputs)
        return widths * max(GRADIENT * self.batch_size, SECOND * min(curvature, self.samples))

    def at(self, state: Mapping[str, Tensor]) -> None:
        """Put the network at a checkpoint."""
        self.model.load_state_dict(dict(state))
        self.model.train(self._training)

    def full(self) -> dict[str, Tensor]:
        """Return the gradient of the mean loss over the whole training set, float64.

        Taken in batches of the sampler's size, the last one smaller; where gradients depend on chance or on their batch
        (:attr:`apart`), with one draw for each sample and in one partition.
        """
        total: dict[str, Tensor] = {}
        order = torch.randperm(self.samples, generator=self._generator(0))
        for number, index in enumerate(torch.split(order, self.batch_size)):
            for name, gradient in self._gradient(index, (1, number)).items():
                part = gradient.double() * (len(index) / self.samples)
                total[name] = total[name] + part if name in total else part
        return total

    def draws(
        self, count: int, replacement: bool, *, permuted: bool = False, dtype: torch.dtype = torch.float32
    ) -> Iterator[dict[str, Tensor]]:
        """Yield gradients of ``count`` mini-batches.

        With replacement, every sample of every batch is drawn independently. Without, batches are disjoint parts of a
        random order, a new one when it is used up, as training takes them. Batches are the same whatever the labels,
        ``permuted`` over the training set or those in use.
        """
        random, order = self._generator(2), torch.empty(0, dtype=torch.int64)
        for number in range(count):
            if replacement:
                index = torch.randint(self.samples, (self.batch_size,), generator=random)
            else:
                if len(order) < self.batch_size:
                    order = torch.randperm(self.samples, generator=random)
                index, order = order[: self.batch_size], order[self.batch_size :]
            yield self._gradient(index, (3, number), self._permuted if permuted else None, dtype)

    def subset(self, count: int) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of some fixed training samples, all of them where there are fewer."""
        order = torch.randperm(self.samples, generator=self._generator(1))
        return self.data.of(order[:count], mixed_seed(self._seed, 5))

    def _gradient(
        self, index: Tensor, purpose: tuple[int, int], of: Tensor | None = None, dtype: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        """Return the gradient of the mean loss of some samples, with their own labels or with others."""
        draw = mixed_seed(self._seed, *purpose)
        inputs, labels = self.data.of(index, draw)
        inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
        labels = labels if of is None else of[index].to(labels)
        moving = {name: p.detach().to(dtype).requires_grad_() for name, p in self.model.named_parameters()}
        buffers = {  # copies, as a pass in training mode moves BatchNorm's running statistics
            name: b.to(dtype if b.is_floating_point() else b.dtype, copy=True) for name, b in self.model.named_buffers()
        }
        with self._chance(draw):
            logits = functional_call(self.model, {**moving, **buffers}, (inputs.clone(),))
        found = torch.autograd.grad(self.data.loss(logits.double(), labels), list(moving.values()))
        return dict(zip(moving, found, strict=True))

    @contextmanager
    def _chance(self, draw: int) -> Iterator[None]:
        """Let dropout draw what this draw gives it."""
        if not self.random:
            yield
            return
        with _RANDOM, seeded(self._seed, 3, draw % 2**31):  # torch has one random state: one thread at a time
            yield

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(mixed_seed(self._seed, 4, purpose))


def flat(tensors: Mapping[str, Tensor], names: list[str]) -> Tensor:
    """Return these tensors as one vector."""
    return torch.cat([tensors[name].reshape(-1) for name in names])


def unflattened(vector: Tensor, like: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Return a vector as tensors of the shapes, types and places of ``like``."""
    pieces = torch.split(vector, [like[name].numel() for name in names])
    return {name: piece.view(like[name].shape).to(like[name]) for name, piece in zip(names, pieces, strict=True)}


def moved(state: Mapping[str, Tensor], step: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Return a state whose parameters ``names`` have moved by the vector ``step``."""
    changes = unflattened(step, state, names)
    return {name: tensor + changes[name] if name in changes else tensor for name, tensor in state.items()}


def parameters(part: nn.Module) -> list[str]:
    """Return the names of a part's parameters."""
    return [name for name, _ in part.named_parameters()]
