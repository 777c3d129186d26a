"""The training loop of a recipe, without any recording."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn.capture.undisturbed import undisturbed
from featdyn.data import Dataset, load, noisy_labels
from featdyn.errors import RecipeError
from featdyn.networks import build, predicted_classes
from featdyn.training import precision
from featdyn.training.batches import Batches, mixed_seed, seeded
from featdyn.training.intervention import Intervention
from featdyn.training.losses import loss_of
from featdyn.training.optimizers import optimizer_of
from featdyn.training.options import TrainingOptions
from featdyn.training.recipe import Recipe
from featdyn.training.schedule import learning_rate
from featdyn.training.suppression import penalty


class Loop:
    """Network, data and optimizer of a recipe, and the steps over them.

    Each step is a function of the recipe, the step's number, and the tensors of model and optimizer: nothing else is
    carried from step to step. ``dataset`` is the recipe's, where it is in memory already. Raises :class:`FeatdynError`
    for missing data, an unknown network, or options that do not fit.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset | None = None) -> None:
        self.options = options = recipe.training
        self.device = device_of(options)
        self.precision = precision.settled(options.precision, self.device)
        self.dataset = load(**dict(recipe.data)) if dataset is None else dataset
        classes = len(self.dataset.classes)
        if options.augment and self.dataset.symbols:
            raise RecipeError(f"training.augment: {self.dataset.name} are symbols, not images")
        self._alpha: float = recipe.network.options.get("alpha", 1)
        if self._alpha != 1 and options.optimizer != "sgd":
            raise RecipeError(
                "network.options.alpha needs training.optimizer sgd: Adam's steps do not follow the scale"
            )
        images = self.dataset.images(options.split)
        self.labels = noisy_labels(images.labels, recipe.labels.noise, recipe.labels.seed, classes).labels

        def fresh(seed: int) -> nn.Module:
            with seeded(seed):
                return build(recipe.network.name, classes=classes, shape=self.dataset.shape, **recipe.network.options)

        model = fresh(options.seed).to(self.device)
        self.model = model.to(memory_format=torch.channels_last) if options.channels_last else model
        self.optimizer = optimizer_of(self.model, options)
        self.loss = loss_of(options)
        self.batches = Batches(self.dataset, self.labels, options, self.device)
        self.steps = options.epochs * self.batches.per_epoch
        self._other = self.dataset.images("train" if options.split == "test" else "test")
        self._tested = _drawn(len(self._other), recipe.checkpoints.test_samples, options.seed)
        self.intervention = Intervention(recipe, self.model, self.batches, fresh) if recipe.intervention.cut else None

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: the schedule's, over alpha^2 for a lazy network.

        With the loss taken of the scaled output, this makes the scaled function move as fast for any alpha (Chizat et
        al. 2019 divide the loss instead; for SGD without weight decay that is the same).
        """
        return learning_rate(step, self.steps, self.options) / float(self._alpha) ** 2

    def step(self, step: int) -> tuple[float, int]:
        """Do one step; return the batch's mean loss and its number of correct predictions."""
        if self.intervention is not None:
            self.intervention.begin(step, self.optimizer)
        labels = self.batches.labels(step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with seeded(self.options.seed, 3, step), self._autocast():
            logits = self._logits(step)
            apart = self._suppressed(step, labels) if self.options.suppress else None
        loss, weight = self.loss(logits.float(), labels).mean(), self.options.suppress
        (loss if apart is None else (1 - weight) * loss + weight * apart).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach()), int((predicted_classes(logits) == labels).sum())

    def _suppressed(self, step: int, labels: Tensor) -> Tensor:
        random = torch.Generator().manual_seed(mixed_seed(self.options.seed, 5, step))
        return penalty(self.model, self.batches.inputs(step), labels, random)

    def _logits(self, step: int) -> Tensor:
        if self.intervention is not None and step in self.intervention.steps:
            return self.intervention.logits(step)
        return self.model(self.batches.inputs(step))  # type: ignore[no-any-return]

    def evaluate(self, *, whole: bool = True) -> tuple[float, float]:
        """Return mean loss and accuracy on the other split, or its drawn part; the model is left as it was."""
        test, loss, correct = self._other, 0.0, 0
        places = np.arange(len(test)) if whole else self._tested
        with undisturbed(self.model), torch.inference_mode():
            for start in range(0, len(places), 500):
                some = places[start : start + 500]
                pixels = torch.from_numpy(test.pixels[some])
                inputs = self.batches.to_device(self.dataset.inputs(pixels))
                labels = torch.from_numpy(test.labels[some]).to(self.device)
                with self._autocast():
                    logits = self.model(inputs).float()
                loss += float(self.loss(logits, labels).sum())
                correct += int((predicted_classes(logits) == labels).sum())
        return loss / len(places), correct / len(places)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


def _drawn(samples: int, most: int, seed: int) -> NDArray[np.intp]:
    """Return at most so many of the places of samples, in order; all of them with 0."""
    if not most or samples <= most:
        return np.arange(samples)
    return np.sort(np.random.default_rng(mixed_seed(seed, 4)).choice(samples, most, replace=False))


def device_of(options: TrainingOptions) -> torch.device:
    """Return where a recipe trains; RecipeError where it asks for a GPU that is not there."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("training.device: cuda asked for, but no GPU is there; use auto or cpu")
    if options.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(options.device)
