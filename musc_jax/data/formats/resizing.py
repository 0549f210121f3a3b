"""Resizing full-size files to the working size.

The three rules differ because the published programs' do: the image is filtered (Pillow's bicubic
widens its kernel when it shrinks), points are picked and never mixed (a mean of object and
background is a point in mid-air), the mask is filtered and then cut at one half.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped, UInt8
from PIL import Image


def resize_image(image: UInt8[np.ndarray, "h w 3"], *, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Resize an RGB image to a square with Pillow's (antialiased) bicubic filter."""
    _check_size(size)
    picture = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return np.array(picture)


def shrink_image(image: UInt8[np.ndarray, "h w 3"], *, max_pixels: int) -> UInt8[np.ndarray, "small_h small_w 3"]:
    """Scale a picture down to at most so many pixels, keeping its proportions; one that has no more stays as it is."""
    height, width = image.shape[:2]
    if height * width <= max_pixels:
        return image
    scale = (max_pixels / (height * width)) ** 0.5
    # Never more than asked for, and never less than a pixel.
    small = max(1, int(width * scale)), max(1, int(height * scale))
    return np.array(Image.fromarray(image).resize(small, Image.Resampling.BICUBIC, reducing_gap=2.0))


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


FITS = ("squash", "pad", "crop")
"""Ways to make a picture square: scale its sides by different factors, add a margin, or take its middle."""
PADDING = (124, 116, 104)
"""What margins are filled with: ImageNet's mean colour, which is 0 once a picture is normalised. One colour for all, so
that the margin of one picture finds its match in that of any other; edges that are drawn out would make stripes of a
defect, and mirrored ones a second defect."""


def make_square(pixels: Shaped[np.ndarray, "h w *rest"], fit: str, *, padding: object = 0) -> np.ndarray:
    """A picture, mask or point map before it is scaled to a square.

    Args:
        pixels: at any size; those of one sample have the same proportions.
        fit: one of `FITS`.
        padding: what margins are filled with.

    Returns:
        As it was for "squash", which the resizing does.
    """
    height, width = pixels.shape[:2]
    if fit == "squash" or height == width:
        return pixels
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return np.ascontiguousarray(pixels[top : top + side, left : left + side])
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.empty((side, side, *pixels.shape[2:]), pixels.dtype)
    square[:] = padding
    square[top : top + height, left : left + width] = pixels
    return square


def resize_defect(mask: UInt8[np.ndarray, "h w"], *, size: int) -> Bool[np.ndarray, "size size"]:
    """Resize a mask of one's own as `resize_mask` does, but never lose all of its defect: its strongest pixel stays.

    Args:
        mask: 0 is good, 255 a defect; of values between, which are soft edges, those over one half are.
        size: side of the result.
    """
    _check_size(size)
    filtered = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.BILINEAR))
    kept = filtered > 127
    if not kept.any() and int(mask.max(initial=0)) > 127:
        if filtered.any():
            at = int(filtered.argmax())
        else:
            row, column = np.unravel_index(int(mask.argmax()), mask.shape)
            at = int(row) * size // mask.shape[0] * size + int(column) * size // mask.shape[1]
        kept = kept.copy()
        kept.flat[at] = True
    return kept


def mask_label(mask: UInt8[np.ndarray, "h w"]) -> int:
    """Label a sample by its full-size mask: 1 if any pixel is non-zero, else 0."""
    return int(mask.any())


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size must be at least 1, received {size}")
