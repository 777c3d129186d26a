"""Images brought to another size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image


def fit(image: Image.Image, height: int, width: int) -> Image.Image:
    """Crop `image` around its centre to the wanted aspect ratio and resize it (bilinear, antialiased)."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)


def fit_pixels(pixels: npt.NDArray[np.uint8], shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Bring images, uint8 (N, C, H, W), to the channels, height and width of `shape`; channels are 1 or 3.

    Grey becomes colour by repetition and colour becomes grey by luma (ITU-R 601-2); sizes change as in `fit`.
    """
    from PIL import Image

    if pixels.shape[1:] == shape:
        return pixels
    channels, height, width = shape
    out = np.empty((len(pixels), *shape), np.uint8)
    for i, image in enumerate(pixels):
        one = Image.fromarray(np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)))
        fitted = np.asarray(fit(one.convert("L" if channels == 1 else "RGB"), height, width))
        out[i] = fitted if channels == 1 else fitted.transpose(2, 0, 1)
    return out
