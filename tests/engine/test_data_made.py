"""Data that featdyn makes: sums modulo 97, and the shortcut written into images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featdyn.data import Dataset, Images, load, normalise, probe_set
from featdyn.data.shortcut import with_shortcut
from featdyn.errors import DataError, RecipeError
from featdyn.training import load as load_recipe
from featdyn.training.loop import Loop
from tests.strategies import sizes


def drawn(count, classes, seed=0, side=4, channels=2):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, channels, side // 2, 2 * side), dtype=np.uint8)
    return pixels, rng.integers(0, classes, count)


def dataset(train, test, classes, side=4):
    parts = (Images(*drawn(n, classes, n, side), "drawn", split) for n, split in ((train, "train"), (test, "test")))
    return Dataset("drawn", *parts, tuple(map(str, range(classes))))


def written(images, classes):
    """The label that the pixels of every channel say."""
    code = images.pixels.reshape(len(images), images.pixels.shape[1], -1)[:, :, :classes]
    assert set(np.unique(code)) <= {0, 255}
    assert (code == code[:, :1]).all()
    assert ((code == 255).sum(2) == 1).all()
    return code[:, 0].argmax(1)


@given(sizes(1, 60), sizes(1, 60), sizes(1, 16), st.floats(0, 1), st.floats(0, 1))
def test_the_shortcut_is_a_label_in_the_first_pixels_and_changes_nothing_else(train, test, classes, share, other):
    before = dataset(train, test, classes)
    low, high = (with_shortcut(before, s) for s in sorted((share, other)))
    for after in (low, high):
        for old, new in ((before.train, after.train), (before.test, after.test)):
            flat = [i.pixels.reshape(*i.pixels.shape[:2], -1)[:, :, classes:] for i in (old, new)]
            np.testing.assert_array_equal(*flat)
            np.testing.assert_array_equal(old.labels, new.labels)
            written(new, classes)
    own = [written(d.train, classes) == before.train.labels for d in (low, high)]
    assert (own[1] | ~own[0]).all()  # a larger share holds a smaller one
    assert own[1].sum() >= round(max(share, other) * train)
    np.testing.assert_array_equal(low.test.pixels, high.test.pixels)


def test_the_shortcut_tells_all_of_training_and_nothing_of_the_test():
    found = with_shortcut(dataset(4000, 4000, 10), 1.0)
    assert (written(found.train, 10) == found.train.labels).all()
    guess = written(found.test, 10)
    assert abs((guess == found.test.labels).mean() - 0.1) < 0.02  # 4 standard errors
    assert np.bincount(guess, minlength=10).min() > 300
    none = with_shortcut(dataset(4000, 10, 10), 0.0)
    assert abs((written(none.train, 10) == none.train.labels).mean() - 0.1) < 0.02


def test_a_shortcut_comes_with_loading_and_a_subset_keeps_its_images():
    whole, part, plain = (load("digits", **o) for o in ({"shortcut": 0.5}, {"shortcut": 0.5, "train_size": 100}, {}))
    np.testing.assert_array_equal(whole.train.pixels[part.train.numbers], part.train.pixels)
    assert (whole.train.pixels != plain.train.pixels).any()
    with pytest.raises(DataError, match="17 classes need as many pixels, images of drawn have 16"):
        with_shortcut(dataset(30, 5, 17), 1.0)


def test_sums_modulo_97_are_all_there_once_and_half_of_them_trains():
    found = load("mod97")
    assert (len(found.train), len(found.test), len(found.classes)) == (4704, 4705, 97)
    seen = set()
    for images in (found.train, found.test):
        assert images.pixels.shape[1:] == (1, 3, 98)
        assert (np.sort(images.pixels, 3)[..., -2:] == [0, 255]).all()
        a, b, equals = images.pixels[:, 0].argmax(2).T
        assert (equals == 97).all()
        np.testing.assert_array_equal((a + b) % 97, images.labels)
        seen |= set(zip(a.tolist(), b.tolist(), strict=True))
    assert len(seen) == 97**2
    assert np.bincount(found.train.labels).min() > 20  # a random half, not some of the sums


def test_symbols_reach_the_network_as_zeros_and_ones_and_are_no_images():
    found = load("mod97")
    inputs = normalise(found.train.pixels[:50], found.mean, found.std)
    assert torch.equal(inputs.unique(), torch.tensor([0.0, 1.0]))
    for options in ({"image_size": 8}, {"shortcut": 1.0}):
        with pytest.raises(DataError, match="mod97 are symbols, not images"):
            load("mod97", **options)
    with pytest.raises(DataError, match="corrupted = 3: mod97 are symbols"):
        probe_set(found, train=5, test=5, corrupted=3)
    with pytest.raises(RecipeError, match=r"training\.augment: mod97 are symbols"):
        Loop(load_recipe("grokking", ["training.augment=true"]))
