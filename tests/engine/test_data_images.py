import numpy as np
import pytest
import torch

from featdyn.data import Dataset, Images, normalise
from featdyn.errors import DataError


def images(count=7, channels=3, size=5, classes=3, seed=0, split="train"):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, channels, size, size + 1), np.uint8)
    return Images(pixels, rng.integers(0, classes, count), "noise", split)


def test_moments_equal_an_independent_float64_reference():
    train = images(1030)
    dataset = Dataset("noise", train, images(split="test"), ("a", "b", "c"))
    values = train.pixels.astype(np.float64) / 255
    np.testing.assert_allclose(dataset.mean, values.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, values.std(axis=(0, 2, 3)), rtol=1e-12)
    assert dataset.shape == (3, 5, 6)


def test_moments_do_not_depend_on_the_order_of_images():
    train, test = images(1030), images(split="test")
    backwards = Images(train.pixels[::-1], train.labels[::-1], "noise", "train")
    one, two = (Dataset("noise", split, test, ("a", "b", "c")) for split in (train, backwards))
    assert one.mean == two.mean
    assert one.std == two.std


def test_constant_channel_is_only_shifted():
    pixels = np.full((4, 1, 2, 2), 51, np.uint8)
    split = Images(pixels, np.zeros(4, np.int64), "flat", "train")
    dataset = Dataset("flat", split, split, ("a",))
    assert dataset.std == (1.0,)
    assert dataset.mean == pytest.approx((0.2,))
    assert normalise(pixels, dataset.mean, dataset.std).abs().max() < 1e-6


def test_normalise_has_the_same_bits_in_any_batch_and_layout():
    pixels = images(33).pixels
    mean, std = (0.49, 0.48, 0.45), (0.24, 0.23, 0.26)
    whole = normalise(pixels, mean, std)
    assert whole.dtype == torch.float32
    reference = (pixels / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(whole.numpy(), reference, rtol=1e-5, atol=1e-6)
    for start, stop in ((0, 1), (5, 6), (3, 20)):
        assert torch.equal(normalise(pixels[start:stop], mean, std), whole[start:stop])
    assert torch.equal(normalise(pixels[::-2], mean, std), whole.flip(0)[::2])
    assert torch.equal(normalise(torch.from_numpy(pixels), mean, std), whole)
    fortran = np.asfortranarray(pixels)
    fortran.flags.writeable = False
    assert torch.equal(normalise(fortran, mean, std), whole)


def test_normalise_leaves_its_input_alone():
    pixels = images().pixels
    before = pixels.copy()
    normalise(pixels, (0.5,) * 3, (0.5,) * 3)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize(
    ("pixels", "mean"),
    [
        (np.zeros((2, 1, 3, 3), np.float32), (0.0,)),
        (np.zeros((1, 3, 3), np.uint8), (0.0,)),
        (np.zeros((2, 3, 3, 3), np.uint8), (0.0,)),
    ],
)
def test_normalise_refuses(pixels, mean):
    with pytest.raises(ValueError, match=r"pixels|mean"):
        normalise(pixels, mean, mean)


@pytest.mark.parametrize(("means", "stds"), [(3, 2), (2, 3), (1, 3)])
def test_normalise_needs_a_mean_and_a_deviation_of_each_channel(means, stds):
    with pytest.raises(ValueError, match="mean, std: need 3 numbers each"):
        normalise(np.zeros((2, 3, 4, 5), np.uint8), (0.0,) * means, (1.0,) * stds)


@pytest.mark.parametrize(
    ("shape", "dtype", "fits"),
    [
        ((2, 1, 3, 4), np.uint8, True),
        ((1, 1, 1, 1), np.uint8, True),
        ((2, 3), np.int64, True),
        ((1, 1), np.int64, True),
        ((2, 1, 3, 4), np.int64, False),
        ((2, 3), np.uint8, False),
        ((2, 3, 4), np.uint8, False),
        ((2, 3, 4), np.int64, False),
        ((2, 1, 3, 4, 5), np.uint8, False),
        ((2,), np.uint8, False),
        ((0, 1, 3, 4), np.uint8, False),
        ((2, 0), np.int64, False),
    ],
)
def test_images_are_uint8_of_four_axes_and_texts_int64_of_two(shape, dtype, fits):
    def made():
        return Images(np.zeros(shape, dtype), np.zeros(shape[0], np.int64), "a", "train")

    if fits:
        assert len(made()) == shape[0]
    else:
        with pytest.raises(ValueError, match="pixels: needs non-empty"):
            made()


def test_images_and_dataset_refuse_what_does_not_fit():
    good = images()
    with pytest.raises(ValueError, match="pixels"):
        Images(good.pixels.astype(np.float32), good.labels, "noise", "train")
    with pytest.raises(ValueError, match="labels"):
        Images(good.pixels, good.labels[:-1], "noise", "train")
    with pytest.raises(DataError, match="image_size"):
        Dataset("noise", good, images(size=6, split="test"), ("a", "b", "c"))
    with pytest.raises(DataError, match="labels outside"):
        Dataset("noise", good, images(50, split="test"), ("a", "b"))
