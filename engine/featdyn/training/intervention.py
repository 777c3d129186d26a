"""Freezing a network up to a cut while it trains, as a function of the recipe and the step alone."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator
from math import prod

import torch
from torch import Tensor, nn

from featdyn.errors import NetworkError, TrainingError
from featdyn.networks import Cut, cuts, resolve
from featdyn.training.batches import Batches, mixed_seed
from featdyn.training.recipe import Recipe


class Intervention:
    """What a recipe's ``[intervention]``, which has a cut, does to a model's training.

    While the part before the cut is frozen, the network runs as prefix without gradients and suffix, which share its
    tensors: the optimizer never sees a gradient of a frozen parameter, so neither weight decay nor momentum moves it.
    Where the prefix gives a sample the same features at each step (no augmentation, statistics frozen), they are
    computed once, in batches of the training's own shape, and a step costs what the suffix costs. They may differ from
    those of a step's own batch by rounding, as a sample's place in its batch differs; they do not depend on where a run
    was resumed. ``fresh`` makes the network anew from a seed.

    Raises :class:`NetworkError` if the network has no such cut, or the name matches several.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, batches: Batches, fresh: Callable[[int], nn.Module]) -> None:
        self._options, self._training = recipe.intervention, recipe.training
        self._model, self._batches, self._fresh = model, batches, fresh
        self._cut = _cut(model, batches, self._options.cut)
        self._prefix = self._cut.prefix.train(self._options.batchnorm == "running")
        self._suffix = self._cut.suffix.train()
        self._features: Tensor | None = None
        first, last = self._options.freeze_at, self._options.thaw_at
        per_epoch, epochs = batches.per_epoch, self._training.epochs
        self.steps = range(*(round(min(epochs if at is None else at, epochs) * per_epoch) for at in (first, last)))
        """The steps at which the prefix is frozen."""

    def begin(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Prepare a step: at the first frozen one momentum ends, and the suffix starts anew if asked to."""
        if step != self.steps.start:
            return
        frozen = self._prefix.state_dict().keys()
        for name, parameter in self._model.named_parameters():
            if self._options.reinitialise or name in frozen:
                optimizer.state.pop(parameter, None)
        if self._options.reinitialise:
            fresh = self._fresh(mixed_seed(self._training.seed, 4)).state_dict()
            for name, value in self._model.state_dict().items():
                if name not in frozen:
                    value.copy_(fresh[name])

    def logits(self, step: int) -> Tensor:
        """Return the logits of a step at which the prefix is frozen."""
        return self._suffix(self._at_cut(step))  # type: ignore[no-any-return]

    @property
    def stored(self) -> int:
        """Bytes of features that will be kept in a temporary file; 0 where they are computed at each step."""
        fixed = not self._training.augment and self._options.batchnorm == "frozen"
        size = self._batches.samples * prod(self._cut.shape) * 4
        worth = len(self.steps) > self._batches.per_epoch  # else most samples are seen once
        return size if fixed and worth and size <= self._options.stored * 2**30 else 0

    def __str__(self) -> str:
        epochs = " to ".join(f"{step / self._batches.per_epoch:.4g}" for step in (self.steps.start, self.steps.stop))
        text = f"frozen up to {self._cut.name} from epoch {epochs}" if self.steps else "never frozen"
        return text + (f"; its features: {self.stored / 2**20:.1f} MiB in a temporary file" if self.stored else "")

    def _at_cut(self, step: int) -> Tensor:
        with torch.no_grad():
            if not self.stored:
                return self._prefix(self._batches.inputs(step))  # type: ignore[no-any-return]
            if self._features is None:
                self._features = self._keep()
            return self._batches.to_device(self._features[self._batches.index(step)])

    def _keep(self) -> Tensor:
        try:
            return mapped(self._every())
        except OSError as error:
            raise TrainingError(
                f"the features at {self._cut.name} do not fit the temporary folder ({error.strerror}): "
                "set TMPDIR to another, or intervention.stored=0"
            ) from error

    def _every(self) -> Iterator[Tensor]:
        """Yield the features of all samples in their order, in batches of one shape."""
        samples, size = self._batches.samples, self._training.batch_size
        for start in range(0, samples, size):
            index = torch.arange(start, start + size).clamp(max=samples - 1)
            yield self._prefix(self._batches.plain(index))[: samples - start]


def mapped(pieces: Iterable[Tensor]) -> Tensor:
    """Join tensors along their first axis in a file without a name, mapped into memory.

    What is read often stays in memory as far as there is room, and is given back when others need it.
    """
    with tempfile.TemporaryFile(prefix="featdyn-") as file:
        for piece in pieces:
            host = piece.detach().cpu().contiguous()
            file.write(host.view(torch.uint8).numpy().data)
        file.flush()
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch warns of memory it may not write to
    return torch.frombuffer(content, dtype=host.dtype).view(-1, *host.shape[1:])


def _cut(model: nn.Module, batches: Batches, name: str) -> Cut:
    found = resolve(cuts(model, batches.plain(torch.zeros(1, dtype=torch.int64))), [name])
    if len(found) > 1:
        raise NetworkError(f"intervention.cut: {name!r} matches {', '.join(cut.name for cut in found)}: name one")
    return found[0]
