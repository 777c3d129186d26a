"""A recipe with a seed gives the same in every version: runs are continued, and compared, over years.

What is held is the loss of the first steps, into which initialisation, order, augmentation, dealt parts, schedule and
optimizer go, and loss and accuracy on the part of the test images that was drawn. That each of these is right other
tests say; these numbers are what they gave when they were written down.
"""

from __future__ import annotations

import pytest
import torch

from featdyn.data import Dataset
from featdyn.data import load as load_data
from featdyn.training import load
from featdyn.training.loop import Loop

PLAIN = (
    "network.name=mlp",
    "network.options.widths=[16, 8]",
    "training.epochs=2",
    "training.batch_size=256",
    "training.learning_rate=0.4",
    "checkpoints.test_samples=50",
)
RECIPES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "another seed": ("training.seed=3",),
    "mirrored": ("training.augment=true", "network.name=cnn", "network.options.widths=[4, 4]"),
    "shifted": ("training.augment=true", "training.mirror=false"),
    "suppressed": ("training.suppress=0.3",),
    "noisy labels": ("labels.noise=0.4", "labels.seed=2"),
    "adam": ("training.optimizer=adam", "training.learning_rate=0.02"),
    "adamw": ("training.optimizer=adamw", "training.learning_rate=0.02", "training.weight_decay=5"),
    "muon": ("training.optimizer=muon", "training.learning_rate=0.02"),
    "squared error": ("training.loss=squared_error", "training.target_scale=3", "training.learning_rate=0.1"),
    "cosine after a warmup": ("training.warmup=3",),
    "milestones": ("training.schedule=steps", "training.milestones=[0.1, 0.3]"),
    "lazy": ("network.options.alpha=4",),
    "resnet20": ("network.name=resnet20", "network.options={width=4}", "training.learning_rate=0.02"),
    "transformer": ("network.name=transformer", "network.options={width=16, depth=1, heads=2}"),
    "frozen, and fresh behind": (
        "intervention.cut=hidden1",
        "intervention.freeze_at=0.4",
        "intervention.reinitialise=true",
    ),
}
LOSSES: dict[str, tuple[float, ...]] = {
    "plain": (2.3429, 2.3277, 2.308, 2.308, 2.2869, 2.2243, 0.24),
    "another seed": (2.3733, 2.306, 2.2732, 2.2454, 2.1884, 2.09, 0.34),
    "mirrored": (2.3775, 2.3489, 2.3363, 2.3268, 2.3189, 2.307, 0.12),
    "shifted": (2.3358, 2.3433, 2.3227, 2.3195, 2.3115, 2.2912, 0.18),
    "suppressed": (2.3429, 2.3327, 2.3137, 2.3168, 2.3055, 2.2756, 0.14),
    "noisy labels": (2.3462, 2.3478, 2.3042, 2.3125, 2.3281, 2.2915, 0.1),
    "adam": (2.3429, 2.3144, 2.2806, 2.2569, 2.1989, 2.0915, 0.34),
    "adamw": (2.3429, 2.313, 2.2895, 2.278, 2.2497, 2.1992, 0.34),
    "muon": (2.3429, 2.3291, 2.3116, 2.305, 2.2856, 2.2536, 0.24),
    "squared error": (4.7861, 4.5685, 4.361, 4.2122, 4.0982, 4.0353, 0.1),
    "cosine after a warmup": (2.3429, 2.3419, 2.3176, 2.3158, 2.3008, 2.2585, 0.16),
    "milestones": (2.3429, 2.3277, 2.324, 2.3271, 2.321, 2.312, 0.2),
    "lazy": (2.3026, 2.2739, 2.2306, 2.1818, 2.1308, 1.9827, 0.4),
    "resnet20": (2.3984, 2.4212, 2.3468, 2.298, 2.2439, 2.3367, 0.18),
    "transformer": (2.6597, 2.4445, 2.2416, 2.2055, 2.0488, 1.825, 0.42),
    "frozen, and fresh behind": (2.3429, 2.3277, 2.3331, 2.3177, 2.2967, 2.3021, 0.16),
}
"""Of five steps, then on the drawn test images, and the share of these that is right."""


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits")


@pytest.mark.parametrize("name", RECIPES)
def test_the_first_steps_are_the_same_in_every_version(data: Dataset, name: str) -> None:
    assert given(data, name) == pytest.approx(LOSSES[name], rel=5e-4)


def given(data: Dataset, name: str) -> list[float]:
    """Return what a recipe gives."""
    loop = Loop(load("digits", [*PLAIN, *RECIPES[name]]), data)
    return [*(loop.step(step)[0] for step in range(5)), *loop.evaluate(whole=False)]


def test_the_order_of_samples_is_the_same_in_every_version(data: Dataset) -> None:
    batches = Loop(load("digits", [*PLAIN]), data).batches
    assert batches.index(0)[:4].tolist() == [188, 960, 202, 49]
    assert batches.index(7)[:4].tolist() == [555, 411, 651, 392]
    assert torch.equal(batches.index(7), batches.index(7))
