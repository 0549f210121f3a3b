"""Resizing full-size files to the working size.

The three rules differ because the published programs' do: the image is filtered (Pillow's bicubic
widens its kernel when it shrinks), points are picked and never mixed (a mean of object and
background is a point in mid-air), the mask is filtered and then cut at one half.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image


def resize_image(image: UInt8[np.ndarray, "h w 3"], *, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Resize an RGB image to a square with Pillow's (antialiased) bicubic filter."""
    _check_size(size)
    picture = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return np.array(picture)


def resize_points(points: Float[np.ndarray, "h w 3"], *, size: int) -> Float32[np.ndarray, "size size 3"]:
    """Pick the nearest point for every target pixel: source index = floor(target * length / size).

    PyTorch's "nearest". Pillow's and JAX's take the centre of the target pixel instead, which
    selects other points. Computed in integers, so no rounding can move an index.
    """
    _check_size(size)
    height, width = points.shape[:2]
    target = np.arange(size)
    picked = points[(target * height // size)[:, None], target * width // size]
    return np.ascontiguousarray(picked, dtype=np.float32)


def resize_mask(mask: UInt8[np.ndarray, "h w"], *, size: int) -> Bool[np.ndarray, "size size"]:
    """Resize an 8-bit mask with Pillow's bilinear filter and keep what is over one half.

    Args:
        mask: 0 is good, 255 a defect. A mask that holds nothing but 0 and 1 is a class index and
            is first made 0 and 255.
        size: side of the result.

    Returns:
        True where the filtered value exceeds half of the full scale, that is from 128 on
        (127 / 255 is just under one half).
    """
    _check_size(size)
    if mask.max(initial=0) == 1:
        mask = mask * np.uint8(255)
    picture = Image.fromarray(mask).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture) > 127


def mask_label(mask: UInt8[np.ndarray, "h w"]) -> int:
    """Label a sample by its full-size mask: 1 if any pixel is non-zero, else 0."""
    return int(mask.any())


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size must be at least 1, received {size}")
