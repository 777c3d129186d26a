import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from featdyn.data import CORRUPTIONS, corrupt
from featdyn.errors import DataError

modest = settings(deadline=None, max_examples=60)
corruptions, severities = st.sampled_from(sorted(CORRUPTIONS)), st.integers(1, 5)


def random_images(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


shapes = st.tuples(st.integers(1, 6), st.sampled_from([1, 3]), st.integers(1, 33), st.integers(1, 33))


@modest
@given(shapes, corruptions, severities, st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_corruption_depends_on_the_image_and_its_index_alone(shape, corruption, severity, seed, random):
    pixels = random_images(shape)
    before = pixels.copy()
    indices = random.sample(range(10_000), len(pixels))
    whole = corrupt(pixels, corruption, severity, indices=indices, seed=seed)
    assert whole.dtype == np.uint8
    assert whole.shape == pixels.shape
    np.testing.assert_array_equal(pixels, before)
    for i in range(len(pixels)):
        alone = corrupt(pixels[i : i + 1], corruption, severity, indices=indices[i : i + 1], seed=seed)
        np.testing.assert_array_equal(alone[0], whole[i])
    strided = corrupt(np.asfortranarray(pixels)[::-1], corruption, severity, indices=indices[::-1], seed=seed)
    np.testing.assert_array_equal(strided[::-1], whole)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_many_images_go_in_blocks(corruption):
    pixels = random_images((601, 1, 4, 5))
    whole = corrupt(pixels, corruption, 5, indices=range(601), seed=1)
    part = corrupt(pixels[250:270], corruption, 5, indices=range(250, 270), seed=1)
    np.testing.assert_array_equal(whole[250:270], part)


@pytest.mark.parametrize("corruption", ["gaussian_noise", "shot_noise", "impulse_noise"])
def test_noise_differs_between_seeds_indices_and_severities(corruption):
    pixels = np.full((2, 3, 16, 16), 128, np.uint8)
    one = corrupt(pixels, corruption, 3, indices=[5, 6], seed=0)
    assert (one[0] != one[1]).any()
    assert (corrupt(pixels, corruption, 3, indices=[5, 6], seed=1) != one).any()
    # The same normal or uniform draws at another severity would make severities dependent.
    change = [(corrupt(pixels, corruption, s, indices=[5, 6], seed=0) != 128) for s in (4, 5)]
    assert (change[0] != change[1]).any()


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_severities_grow(corruption, channels):
    smooth = gaussian_filter(random_images((40, channels, 32, 32)).astype(float), (0, 0, 2, 2))  # as photographs are
    pixels = np.clip(128 + 8 * (smooth - smooth.mean()), 0, 255).astype(np.uint8)
    change = [
        np.abs(corrupt(pixels, corruption, s, indices=range(40), seed=0).astype(int) - pixels).mean()
        for s in (1, 2, 3, 4, 5)
    ]
    assert 0 < change[0] < change[1] < change[2] < change[3] < change[4]


NOISY = {
    "gaussian_noise": [0, 0, 49, 79, 42, 124, 162, 146, 193, 205, 177, 255],
    "shot_noise": [0, 15, 31, 51, 61, 112, 143, 128, 199, 235, 209, 224],
    "impulse_noise": [0, 20, 0, 60, 80, 100, 120, 0, 255, 180, 200, 220],
}


def test_noise_is_the_same_in_every_version():
    """A run that is resumed after an upgrade has to meet the same probes."""
    pixels = np.arange(0, 240, 20, dtype=np.uint8).reshape(1, 1, 3, 4)
    for corruption, wanted in NOISY.items():
        assert corrupt(pixels, corruption, 5, indices=[17], seed=2).ravel().tolist() == wanted


@pytest.mark.parametrize("row", [[5, 20, 20, 35, 50, 50], [0, 15, 15, 30, 45, 45, 60]])
def test_a_centre_between_two_blocks_is_of_the_first_and_has_the_value_of_the_second(row):
    pixels = np.arange(0, 10 * len(row), 10, dtype=np.uint8)[None, None, :, None]
    for image in (pixels, pixels.transpose(0, 1, 3, 2)):
        assert corrupt(image, "pixelate", 4, indices=[0], seed=0).ravel().tolist() == row


# --- each corruption against its definition ---


def test_gaussian_noise_has_the_published_scale():
    pixels = np.full((50, 3, 32, 32), 128, np.uint8)
    for severity, scale in enumerate((0.04, 0.06, 0.08, 0.09, 0.10), 1):
        noise = corrupt(pixels, "gaussian_noise", severity, indices=range(50), seed=0) - 128.0
        assert noise.std() == pytest.approx(np.hypot(255 * scale, 12**-0.5), rel=0.01)  # and the rounding's own
        assert abs(noise.mean()) < 0.3


def test_shot_noise_has_the_variance_of_photons():
    for severity, photons in enumerate((500, 250, 100, 75, 50), 1):
        for value in (40, 100):
            pixels = np.full((50, 3, 32, 32), value, np.uint8)
            noisy = corrupt(pixels, "shot_noise", severity, indices=range(50), seed=0).astype(float)
            assert noisy.mean() == pytest.approx(value, abs=0.3)  # up to 5.1 levels a photon, rounded
            assert noisy.std() == pytest.approx(255 * np.sqrt(value / 255 / photons), rel=0.02)
    assert (corrupt(np.zeros((1, 1, 4, 4), np.uint8), "shot_noise", 5, indices=[0], seed=0) == 0).all()


def test_impulse_noise_sets_the_published_share_to_black_and_white():
    pixels = np.full((50, 3, 32, 32), 128, np.uint8)
    for severity, amount in enumerate((0.01, 0.02, 0.03, 0.05, 0.07), 1):
        noisy = corrupt(pixels, "impulse_noise", severity, indices=range(50), seed=0)
        assert set(np.unique(noisy)) == {0, 128, 255}
        assert (noisy != 128).mean() == pytest.approx(amount, rel=0.06)
        assert (noisy == 255).mean() == pytest.approx(amount / 2, rel=0.08)


def test_gaussian_blur_equals_a_dense_convolution():
    pixels = random_images((2, 3, 9, 7))
    for severity, sigma in enumerate((0.4, 0.6, 0.7, 0.8, 1.0), 1):
        radius = int(4 * sigma + 0.5)
        offsets = np.arange(-radius, radius + 1)
        weights = np.exp(-(offsets**2) / (2 * sigma**2))
        kernel = np.outer(weights, weights) / weights.sum() ** 2
        padded = np.pad(pixels.astype(float), ((0, 0), (0, 0), (radius, radius), (radius, radius)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape, axis=(2, 3))
        wanted = np.rint((windows * kernel).sum(axis=(4, 5)))
        np.testing.assert_array_equal(corrupt(pixels, "gaussian_blur", severity, indices=[0, 1], seed=0), wanted)


def test_contrast_shrinks_about_each_channels_mean():
    pixels = random_images((2, 3, 5, 7))
    for severity, factor in enumerate((0.75, 0.5, 0.4, 0.3, 0.15), 1):
        mean = pixels.astype(float).mean(axis=(2, 3), keepdims=True)
        wanted = np.rint(mean + factor * (pixels - mean))
        np.testing.assert_array_equal(corrupt(pixels, "contrast", severity, indices=[0, 1], seed=0), wanted)
    flat = np.full((1, 3, 5, 7), 77, np.uint8)
    np.testing.assert_array_equal(corrupt(flat, "contrast", 5, indices=[0], seed=0), flat)


def test_brightness_adds_to_the_value_of_hsv():
    from colorsys import hsv_to_rgb, rgb_to_hsv

    pixels = random_images((1, 3, 16, 16))
    pixels[0, :, 0, 0] = 0
    for severity, amount in enumerate((0.05, 0.1, 0.15, 0.2, 0.3), 1):
        wanted = np.empty(pixels.shape)
        for y, x in np.ndindex(16, 16):
            hue, saturation, value = rgb_to_hsv(*(pixels[0, :, y, x] / 255))
            wanted[0, :, y, x] = 255 * np.array(hsv_to_rgb(hue, saturation, min(value + amount, 1)))
        bright = corrupt(pixels, "brightness", severity, indices=[0], seed=0)
        assert np.abs(bright - wanted).max() <= 0.5 + 1e-9
    grey = corrupt(np.array([[[[0, 100, 250]]]], np.uint8), "brightness", 2, indices=[0], seed=0)
    np.testing.assert_array_equal(grey[0, 0, 0], [26, 126, 255])


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (28, 28), (20, 32)])
def test_pixelate_equals_pillows_box_filter(size):
    # At these sizes no pixel's centre lies between two blocks; elsewhere Pillow's answer hangs on its rounding errors.
    pixels = random_images((3, 1, *size))
    for severity, fraction in enumerate((0.95, 0.9, 0.85, 0.75, 0.65), 1):
        ours = corrupt(pixels, "pixelate", severity, indices=range(3), seed=0)
        for image, pixelated in zip(pixels, ours, strict=True):
            height, width = (int(s * fraction) for s in size)
            small = Image.fromarray(image[0]).resize((width, height), Image.Resampling.BOX)
            wanted = np.asarray(small.resize(size[::-1], Image.Resampling.BOX))
            # Pillow rounds after each of its two passes, we round once.
            assert np.abs(pixelated[0].astype(int) - wanted).max() <= 1


def test_corrupt_refuses():
    pixels = random_images((2, 3, 4, 4))
    with pytest.raises(DataError, match="'fogg': use one of gaussian_noise"):
        corrupt(pixels, "fogg", 1, indices=[0, 1], seed=0)
    for severity in (0, 6):
        with pytest.raises(ValueError, match="severity"):
            corrupt(pixels, "contrast", severity, indices=[0, 1], seed=0)
    with pytest.raises(ValueError, match="pixels"):
        corrupt(pixels, "contrast", 1, indices=[0], seed=0)
    with pytest.raises(ValueError, match="pixels"):
        corrupt(pixels.astype(float), "contrast", 1, indices=[0, 1], seed=0)
