"""Pictures and masks in the formats that datasets come in: PNG, JPEG, BMP, TIFF, WebP; grey, palette, 16 bits.

As in `files`, a file is read once, whole, and decoded from memory; what is wrong with it is a `FileFault`.
"""

import io
import sys
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from musc_jax.data.formats.files import DECODE_ERRORS, MAX_PIXELS, Content, FileFault, brief, check_size
from musc_jax.data.formats.remarks import overheard

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""What counts as a picture, in lower case."""

_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP")
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
# Pillow's names for the bytes of 16-bit colours: where the half is that it does not take, and in which channels.
_FOREIGN = "B" if sys.byteorder == "little" else "L"
_OTHER_HALF = {
    f"{colors};16{order}": (f"{colors};16{opposite}", slice(3))
    for colors in ("RGB", "RGBA")
    for order, opposite in (("B", "L"), ("L", "B"), ("N", _FOREIGN))
} | {"LA;16B": ("RGBA", slice(1, 2))}
_BITS_PER_SAMPLE = 258
# The largest value of a mask that holds numbers of classes: the published sets have up to nine.
_MOST_CLASSES = 20


def decode_picture(content: Content) -> UInt8[np.ndarray, "h w 3"]:
    """Decode a picture to 8-bit RGB.

    Grey becomes three equal channels, transparency is dropped, 16 bits are scaled by their full range (not by each
    picture's own, which would make pictures of one product differ). The orientation a camera noted is not applied: no
    published set's masks follow it.
    """
    pixels, mode = _decode(content)
    if mode in _SIXTEEN_BITS:
        grey = np.round(pixels.astype(np.float64) / 257)
        if pixels.min() < 0 or grey.max() > 255:
            raise FileFault(content.path, "has values outside of 16 bits", "convert it to 8 or 16 bits")
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    return pixels


def decode_any_mask(
    content: Content, *, size: tuple[int, int] | None, nonzero: bool | None
) -> UInt8[np.ndarray, "h w"]:
    """Decode a mask to 8-bit grey; 0 is good, 255 a defect. What is not 0 in the file is at least 1.

    Args:
        content: the file.
        size: (height, width) of its image.
        nonzero: True: every value but 0 is a defect (numbers of classes). False: the grey value is taken as it is.
            None: the former if the largest value is small enough for a class's number.

    Raises:
        FileFault: not a readable picture, or of another size than its image.
    """
    pixels, mode = _decode(content, grey=True)
    check_size(content.path, pixels.shape, size)
    marked = pixels != 0
    if mode in _SIXTEEN_BITS:
        # 256 / 257 is nothing in whole numbers, and a negative value is cut off: both are marks all the same.
        pixels = np.where(marked, np.maximum(np.where(pixels > 255, pixels // 257, pixels), 1), 0)
    if nonzero or (nonzero is None and pixels.max() <= _MOST_CLASSES):
        return np.where(marked, np.uint8(255), np.uint8(0))
    return np.minimum(pixels, 255).astype(np.uint8)


def mask_remark(path: Path, mask: UInt8[np.ndarray, "h w"]) -> str | None:
    """What is odd about the mask of a defective sample: it shows no defect, or none that counts; None otherwise."""
    if not mask.any():
        return f"{path}: has no defect, though its sample is defective; the sample stays so"
    if 1 < mask.max() < 128:
        return (
            f"{path}: its largest value is {mask.max()} of 255, but only what is over one half is a defect, so it "
            "shows none; draw defects in white"
        )
    return None


def _decode(content: Content, *, grey: bool = False) -> tuple[np.ndarray, str]:
    """Pixels, RGB (or one channel) unless they have 16 bits, and the file's mode."""
    path = content.path
    try:
        with overheard(), Image.open(io.BytesIO(content.data), formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise FileFault(path, f"claims {width} x {height} pixels, over {MAX_PIXELS} in all")
            mode = picture.mode
            if mode in _SIXTEEN_BITS:
                return np.array(picture), mode
            if mode == "F":
                raise FileFault(path, "holds floating-point numbers, not a picture", "convert it to 8 or 16 bits")
            if grey and mode in ("P", "L"):
                return np.array(picture), mode  # a palette's index is the class's number
            colors = np.array(picture.convert("RGB"))
            if not grey:
                return colors, mode
            # Grey is rounded, and so is 16 bits to 8: a dark mark would be none.
            marked = colors.any(axis=-1) | _low_halves(content, picture)
            return np.where(marked, np.maximum(np.array(picture.convert("L")), 1), 0).astype(np.uint8), mode
    except DECODE_ERRORS as error:
        raise FileFault(path, f"is no readable picture ({brief(error)})") from None


def _low_halves(content: Content, picture: Image.Image) -> Bool[np.ndarray, "h w"] | bool:
    """Where the lower 8 bits of colours of 16 bits, which Pillow drops, are not all 0; False for colours of 8 bits.

    Pillow takes the first byte of big-endian numbers and the second of little-endian ones: told the opposite, it gives
    the other half.
    """
    if picture.format == "PNG":
        bits = content.data[24]
    else:
        bits = max(getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,)))
    if bits <= 8:
        return False
    with Image.open(io.BytesIO(content.data), formats=_FORMATS) as again:
        tiles, channels = [], slice(3)
        for tile in again.tile:
            raw, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
            if raw not in _OTHER_HALF:
                raise FileFault(content.path, f"is a mask of {bits} bits in several channels", "convert it to grey")
            raw, channels = _OTHER_HALF[raw]
            tiles.append(tile._replace(args=(raw, *rest) if rest else raw))
        again.tile = tiles
        return np.array(again)[..., channels].max(axis=-1) != 0
