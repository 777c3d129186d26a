"""Corruptions of images, five severities each.

Parameters are those of the published CIFAR-10-C generator (Hendrycks and Dietterich, 2019, `make_cifar_c.py`), tuned
for 32 x 32 pixels; blur is in pixels and pixelation in fractions at any size. The images are made anew here, which is
our own choice: other random numbers, and values are rounded where the generator truncates. To compare with published
CIFAR-10-C figures read its arrays (`featdyn.data.cifar10c`).
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from featdyn.data.order import key
from featdyn.errors import DataError

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Random = np.random.RandomState  # unlike Generator's, its draws never change between versions of NumPy (NEP 19)

_BLOCK = 256  # images at a time, to bound the memory of their float64 versions


def corrupt(
    pixels: Pixels, corruption: str, severity: int, *, indices: Sequence[int] | npt.NDArray[np.int64], seed: int
) -> Pixels:
    """Return copies of images, uint8 (N, C, H, W), with one of `CORRUPTIONS` of severity 1 to 5.

    Each result depends on the image, `corruption`, `severity`, `seed` and the image's index alone, not on its batch;
    the N indices are those in the images' data set. On tiny images neighbouring severities of pixelate can coincide.

    Raises
    ------
    DataError
        For an unknown corruption.
    ValueError
        For a severity outside 1..5, or another shape or dtype.
    """
    if corruption not in CORRUPTIONS:
        raise DataError(f"unknown corruption {corruption!r}: use one of {', '.join(CORRUPTIONS)}")
    if not 1 <= severity <= 5:
        raise ValueError(f"severity: must lie in 1..5, got {severity}")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(indices) != len(pixels):
        raise ValueError(f"pixels: needs uint8 ({len(indices)}, C, H, W), got {pixels.dtype} {pixels.shape}")
    out = np.empty(pixels.shape, np.uint8)
    for start in range(0, len(pixels), _BLOCK):
        block = slice(start, start + _BLOCK)
        seeds = [np.random.SeedSequence([seed, key(corruption), severity, int(i)]) for i in indices[block]]
        streams = [Random(np.random.PCG64(one)) for one in seeds]
        values = CORRUPTIONS[corruption](pixels[block], severity - 1, streams)
        out[block] = np.rint(np.clip(values, 0, 255))
    return out


def _gaussian_noise(pixels: Pixels, level: int, streams: list[Random]) -> Floats:
    scale = 255 * (0.04, 0.06, 0.08, 0.09, 0.10)[level]
    return pixels + scale * np.stack([r.standard_normal(pixels.shape[1:]) for r in streams])


def _shot_noise(pixels: Pixels, level: int, streams: list[Random]) -> Floats:
    photons = (500, 250, 100, 75, 50)[level] / 255  # per unit of pixel value
    return np.stack([r.poisson(image * photons) for r, image in zip(streams, pixels, strict=True)]) / photons


def _impulse_noise(pixels: Pixels, level: int, streams: list[Random]) -> Floats:
    amount = (0.01, 0.02, 0.03, 0.05, 0.07)[level]
    draws = np.stack([r.random_sample((2, *pixels.shape[1:])) for r in streams])
    salt_or_pepper = 255.0 * (draws[:, 1] < 0.5)
    return np.where(draws[:, 0] < amount, salt_or_pepper, pixels)


def _gaussian_blur(pixels: Pixels, level: int, streams: list[Random]) -> Floats:
    from scipy.ndimage import gaussian_filter

    sigma = (0.4, 0.6, 0.7, 0.8, 1.0)[level]
    blurred: Floats = gaussian_filter(pixels.astype(np.float64), (0, 0, sigma, sigma), mode="nearest")
    return blurred


def _contrast(pixels: Pixels, level: int, streams: list[Random]) -> Floats:
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[level]
    # The sum of integers is exact, so the mean is the same in any batch.
    mean: Floats = pixels.sum(axis=(2, 3), dtype=np.int64, keepdims=True) / (pixels.shape[2] * pixels.shape[3])
    faded: Floats = (pixels - mean) * factor + mean
    return faded


def _brightness(pixels: Pixels, level: int, streams: list[Random]) -> Floats:
    # Adding to V of HSV with H and S kept scales all channels by the ratio of the new V to the old; black becomes grey.
    value = pixels.max(axis=1, keepdims=True).astype(np.float64)
    raised: Floats = np.minimum(value + 255 * (0.05, 0.1, 0.15, 0.2, 0.3)[level], 255)
    return np.where(value == 0, raised, pixels * raised / np.maximum(value, 1))


def _pixelate(pixels: Pixels, level: int, streams: list[Random]) -> Floats:
    # PIL's box filter down to a fraction of the size gives each pixel to the block that its centre lies in, and back up
    # it repeats the nearest block; here in integers, so that no tie depends on rounding.
    fraction = (0.95, 0.9, 0.85, 0.75, 0.65)[level]
    values = pixels.astype(np.int64)
    area: npt.NDArray[np.int64] = np.ones((1, 1, 1, 1), np.int64)
    back = []
    for axis in (2, 3):
        size = pixels.shape[axis]
        small = max(1, int(size * fraction))
        centres = (2 * np.arange(size) + 1) * small
        starts = np.searchsorted((centres - 1) // (2 * size), np.arange(small))
        values = np.add.reduceat(values, starts, axis=axis)
        counts = np.diff(starts, append=size)
        area = area * counts.reshape([-1 if a == axis else 1 for a in range(4)])
        back.append(centres // (2 * size))
    means: Floats = values / area
    return means[:, :, back[0][:, None], back[1]]


CORRUPTIONS: dict[str, Callable[[Pixels, int, list[Random]], Floats]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "gaussian_blur": _gaussian_blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "pixelate": _pixelate,
}
