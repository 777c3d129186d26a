"""Mini-batch gradients at fixed weights, as the training would have drawn them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from featdyn.analysis.gradient_noise.side_by_side import side_by_side
from featdyn.analysis.gradient_noise.training_data import TrainingData
from featdyn.capture.nest import Nest, mapped
from featdyn.errors import FeatdynError
from featdyn.functional import functional_call
from featdyn.training.batches import mixed_seed, seeded
from featdyn_kernels import get_threads
from featdyn_kernels._threads import one_torch_thread

GRADIENT, SECOND = 2, 7
"""So many times what autograd keeps for a gradient is held for one, and for a gradient of it, at most: measured on a
CPU were 1.0 to 1.4 and 3.1 to 6.4 (a ResNet-20, a perceptron, a transformer)."""
BESIDE = 2**28
"""Bytes that gradients beside the first one may hold: our own choice. Small batches are computed side by side, as no
layer of theirs keeps several threads busy; large ones by all of torch's threads."""
_RANDOM = threading.Lock()
"""For layers that are random: they draw from the one generator that all threads share."""


class Sampler:
    """Draws gradients of the training loss with respect to all parameters.

    The network is in training mode and the arithmetic float32, so BatchNorm uses the statistics of each mini-batch as
    it did in training (unless told otherwise), and rounding to bfloat16 adds no noise of its own; the loss is float64,
    as what is left of it when a sample is learnt is rounding in float32. Augmentation, where the recipe has it, is
    drawn anew for each batch and is part of the noise. Nothing is drawn from torch's global generator but what layers
    such as dropout draw, and its state is put back.

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
        for name, parameter in data.model.named_parameters():
            if parameter.is_complex():
                raise FeatdynError(f"the parameter {name} is complex: the noise of real ones is sampled")
        self.data, self.model, self.samples = data, data.model.float().requires_grad_(), data.samples
        self.batch_size = batch_size or data.batch_size
        if self.batch_size > self.samples:
            raise FeatdynError(f"batch_size {self.batch_size} is more than the {self.samples} training samples")
        self._seed, self._training = seed, not stored_statistics
        self._permutation = torch.randperm(self.samples, generator=self._generator(3))

    @cached_property
    def random(self) -> bool:
        """Whether the network itself draws random numbers, as by dropout: two random states give other gradients."""
        if not self._training:
            return False
        index = torch.arange(self.batch_size)
        one, other = (self._gradient(index, (3, 0), chance=number) for number in (1, 2))
        return any(not torch.equal(one[name].nan_to_num(), other[name].nan_to_num()) for name in one)

    @cached_property
    def exact(self) -> bool:
        """Whether the network runs in float64, too: its code may say float32."""
        try:
            self._gradient(torch.arange(self.batch_size), (3, 0), dtype=torch.float64)
        except RuntimeError:
            return False
        return True

    @property
    def apart(self) -> list[str]:
        """Why the mean over draws is not the full gradient (each sample once, in one batch); empty where it is."""
        norms = (m for m in self.model.modules() if isinstance(m, _BatchNorm))
        by_batch = any(self._training or m.running_mean is None for m in norms)
        why = {"augmentation": self.data.augmented, "layers that are random": self.random}
        why["BatchNorm by batch"] = by_batch
        return [name for name, there in why.items() if there]

    def pass_bytes(self, curvature: int, outputs: int) -> int:
        """Bytes of a batch and of all that its gradient needs of the layers; of so many samples for the curvature.

        Each sample has so many ``outputs``, of which the loss, in float64, keeps more than autograd says.
        """
        kept = {tensor.untyped_storage().data_ptr(): 0 for tensor in self.model.state_dict().values()}
        few = min(2, self.samples)

        def keep(tensor: Tensor) -> Tensor:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
            return tensor

        with self.at_rest(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self._gradient(torch.arange(few), (3, 0), chance=0)  # told, as finding out takes passes of its own
        each = sum(kept.values()) / few + 32 * outputs  # logits, log-probabilities and their gradients, float64
        return int(each * max(GRADIENT * self.batch_size, SECOND * min(curvature, self.samples)))

    @cached_property
    def _beside(self) -> int:
        """So many gradients may be computed beside one, by the memory that they hold."""
        weights = sum(tensor.nbytes for tensor in self.model.state_dict().values())
        return BESIDE // (self.pass_bytes(0, 0) + int(weights))

    @cached_property
    def small(self) -> bool:
        """Whether a gradient is computed by one thread, and so has the same bits however many there are."""
        here = next(self.model.parameters()).device.type == "cpu"
        return here and not self.random and self._beside > 0  # torch has one random state, which all threads share

    @property
    def threads(self) -> int:
        """How many gradients are computed at once."""
        return min(get_threads(), 1 + self._beside) if self.small else 1

    def one_thread(self) -> AbstractContextManager[None]:
        """Keep torch to one thread where gradients are small: a team waits for each other longer than it works."""
        return one_torch_thread() if self.small else nullcontext()

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
        batches = torch.split(order, self.batch_size)
        found = self._side_by_side(((index, (1, number)) for number, index in enumerate(batches)), (False,))
        for index, (gradients,) in zip(batches, found, strict=True):
            for name, gradient in gradients.items():
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
        found = self._side_by_side(self._numbered(count, replacement), (permuted,), dtype=dtype)
        return (gradient for (gradient,) in found)

    def with_permuted(self, count: int, replacement: bool) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Yield for each mini-batch of :meth:`draws` the gradients with the labels in use, and with permuted ones.

        One pass forward serves both: what the network computes does not depend on labels.
        """
        both = self._side_by_side(self._numbered(count, replacement), (False, True))
        return ((own, permuted) for own, permuted in both)

    def _numbered(self, count: int, replacement: bool) -> Iterator[tuple[Tensor, tuple[int, int]]]:
        return ((index, (3, number)) for number, index in enumerate(self._batches(count, replacement)))

    def _batches(self, count: int, replacement: bool) -> Iterator[Tensor]:
        """Yield the samples of mini-batches."""
        random, order = self._generator(2), torch.empty(0, dtype=torch.int64)
        for _ in range(count):
            if replacement:
                index = torch.randint(self.samples, (self.batch_size,), generator=random)
            else:
                if len(order) < self.batch_size:
                    order = torch.randperm(self.samples, generator=random)
                index, order = order[: self.batch_size], order[self.batch_size :]
            yield index

    def subset(self, count: int) -> tuple[Nest, Nest]:
        """Return inputs and labels of some fixed training samples, all of them where there are fewer."""
        order = torch.randperm(self.samples, generator=self._generator(1))
        inputs, labels = self.data.of(order[:count], mixed_seed(self._seed, 5))
        return mapped(lambda t: t.float() if t.is_floating_point() else t, inputs), labels

    @contextmanager
    def at_rest(self) -> Iterator[nn.Module]:
        """Give the network in eval mode, in which its loss is a function of the parameters alone."""
        try:
            yield self.model.eval()
        finally:
            self.model.train(self._training)

    def _side_by_side(
        self, batches: Iterable[tuple[Tensor, tuple[int, int]]], permuted: Sequence[bool], **how: Any
    ) -> Iterator[tuple[dict[str, Tensor], ...]]:
        """Return the gradients of batches for each kind of labels, in order; :attr:`threads` are computed at once."""

        def gradients(model: nn.Module, batch: tuple[Tensor, tuple[int, int]]) -> tuple[dict[str, Tensor], ...]:
            with self.one_thread():
                return tuple(self._gradients(*batch, permuted, model=model, **how))

        models = [self.model, *(copy.deepcopy(self.model) for _ in range(1, self.threads))]
        return side_by_side(gradients, batches, models)

    def _gradient(
        self, index: Tensor, purpose: tuple[int, int], *, permuted: bool = False, **how: Any
    ) -> dict[str, Tensor]:
        """Return the gradient of the mean loss of some samples, with their own labels or with others'."""
        return next(self._gradients(index, purpose, (permuted,), **how))

    def _gradients(
        self,
        index: Tensor,
        purpose: tuple[int, int],
        permuted: Sequence[bool],
        *,
        model: nn.Module | None = None,
        dtype: torch.dtype = torch.float32,
        chance: int | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        """Yield the gradient for each kind of labels, after one pass forward, of the network or of a copy.

        Layers that are random draw what the draw gives them, or, to try it, what the number ``chance`` gives.
        """
        draw = mixed_seed(self._seed, *purpose)
        inputs, labels = self.data.of(index, draw)
        given = mapped(lambda t: t.to(dtype, copy=True) if t.is_floating_point() else t.clone(), inputs)
        # Its own parameters, not others in their place: what is checkpointed runs anew on the way back.
        model = model or self.model
        if dtype != torch.float32:
            model = copy.deepcopy(model).to(dtype)
        moving = dict(model.named_parameters())
        # Copies, as a pass in training mode moves BatchNorm's running statistics.
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        with self._chance(draw) if chance is None else _drawing(chance):
            outputs = functional_call(model, buffers, (given,))
        device = next(self.model.parameters()).device
        others = mapped(lambda t: t[self._permutation[index]].to(device), self.data.labels) if any(permuted) else None
        for i, other in enumerate(permuted):
            loss = self.data.loss(outputs, others if other else labels)
            again = i + 1 < len(permuted)
            found = torch.autograd.grad(loss, list(moving.values()), materialize_grads=True, retain_graph=again)
            yield dict(zip(moving, found, strict=True))

    @contextmanager
    def _chance(self, draw: int) -> Iterator[None]:
        """Let layers that are random draw what this draw gives them."""
        if not self.random:
            yield
            return
        with _drawing(self._seed, 3, draw % 2**31):
            yield

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(mixed_seed(self._seed, 4, purpose))


@contextmanager
def _drawing(*seed: int) -> Iterator[None]:
    with _RANDOM, seeded(*seed):  # torch has one random state: one thread at a time
        yield


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


def parameters(part: nn.Module, model: nn.Module) -> list[str]:
    """Return the names of a part's parameters that are trained; of all where nothing in the network says which are."""
    told = any(parameter.requires_grad for parameter in model.parameters())
    return [name for name, parameter in part.named_parameters() if parameter.requires_grad or not told]
