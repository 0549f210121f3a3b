"""How many bits the values of a picture have, and colours of 16 bits, of which Pillow takes 8."""

import io
import math
import re
import struct
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile
from jaxtyping import UInt8, UInt16
from PIL import Image

from musc_jax.data.formats.files import DECODE_ERRORS, Content, FileFault, brief

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras have."""

# Pillow's names for the bytes of 16-bit colours: under which it gives the half that it does not take, and in which
# channels of what it gives then.
_FOREIGN = "B" if sys.byteorder == "little" else "L"
OTHER_HALF = {
    f"{colors};16{order}": (f"{colors};16{opposite}", slice(3))
    for colors in ("RGB", "RGBA", "RGBX")
    for order, opposite in (("B", "L"), ("L", "B"), ("N", _FOREIGN))
} | {"LA;16B": ("RGBA", slice(1, 2))}
_FULL = 65535
# Width, height and largest value, with comments between.
_PPM = re.compile(rb"P6" + 3 * rb"\s+(?:#[^\n]*\n\s*)*(\d+)" + rb"\s")
_BITS_PER_SAMPLE, _MAX_VALUE, _PLANAR, _MAX_SAMPLE_VALUE = 258, 281, 284, 341


def depth_of(largest: int) -> int:
    """The fewest bits of `DEPTHS` that hold a value."""
    return next(bits for bits in DEPTHS if largest < 2**bits)


def stated_bits(content: Content, picture: Image.Image) -> tuple[int | None, bool]:
    """Bits of a file's values by its own tags, None where it has none; and whether they may be scaled up to 16.

    TIFF: BitsPerSample of packed values; MaxSampleValue and SMaxSampleValue if they are the largest value of a depth
    (many programs put the picture's own largest value there, by which pictures of one product would differ). PNG: sBIT,
    whose values the standard wants scaled up, while many programs leave them. PGM's and PPM's are scaled to 16 bits.
    """
    if picture.format == "PNG":
        noted = [max(data) for kind, data in _chunks(content.data) if kind == b"sBIT" and data]
        return (noted[0], True) if noted else (None, False)
    if picture.format == "PPM":
        # Of 65535, which many programs write whatever they hold, Pillow takes values as they are.
        return (None if _largest_of_ppm(picture) == _FULL else 16), False
    tags: Any = getattr(picture, "tag_v2", {})
    bits = max(_numbers(tags, _BITS_PER_SAMPLE), default=8)
    if bits not in (8, 16, 32):
        return int(bits), False
    for tag in (_MAX_SAMPLE_VALUE, _MAX_VALUE):
        largest = max(_numbers(tags, tag), default=0)
        if any(largest == 2**depth - 1 for depth in range(8, 16)):
            return round(math.log2(largest + 1)), False
    return None, False


def has_wide_colors(content: Content, picture: Image.Image) -> bool:
    """Whether a picture's colours have 16 bits in the file; Pillow's mode does not tell."""
    if picture.format == "PNG":
        return content.data[24] == 16
    if picture.format == "PPM":
        return picture.mode == "RGB" and _largest_of_ppm(picture) > 255
    return picture.format == "TIFF" and max(_numbers(getattr(picture, "tag_v2", {}), _BITS_PER_SAMPLE), default=8) > 8


def wide_colors(
    content: Content, picture: Image.Image
) -> tuple[UInt16[np.ndarray, "h w *colors"], UInt8[np.ndarray, "h w"] | None] | None:
    """Colours (or grey) of 16 bits and alpha of 8, as they are stored; None where the lower halves cannot be had.

    Pillow takes the first byte of big-endian numbers and the second of little-endian ones: told the opposite, it gives
    the other half.
    """
    if picture.mode not in ("RGB", "RGBA", "LA"):
        return None
    if picture.format == "PPM":
        pixels = _wide_ppm(content)
        return None if pixels is None else (pixels, None)
    again = Image.open(io.BytesIO(content.data), formats=(str(picture.format),))
    with again:
        tiles, channels = [], slice(3)
        for tile in again.tile:
            raw, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
            if raw not in OTHER_HALF:
                return None
            raw, channels = OTHER_HALF[raw]
            tiles.append(tile._replace(args=(raw, *rest) if rest else raw))
        again.tile = tiles
        low = np.array(again)[..., channels]
    high = np.array(picture)
    colors = 1 if picture.mode == "LA" else 3
    pixels = (high[..., :colors].astype(np.uint16) << 8) | low
    alpha = high[..., -1] if picture.mode != "RGB" else None
    return (pixels[..., 0] if colors == 1 else pixels), alpha


def has_planes(picture: Image.Image) -> bool:
    """Whether a TIFF has its colours one after the other, which Pillow mixes up where they have 16 bits."""
    return picture.format == "TIFF" and _numbers(getattr(picture, "tag_v2", {}), _PLANAR) == (2.0,)


def colors_of_planes(content: Content) -> tuple[UInt16[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"] | None]:
    """Colours of 16 bits and alpha of 8 of a TIFF that has them one after the other, as they are stored.

    Raises:
        FileFault: They are packed in a way that is not read, or are no colours.
    """
    fault = "has colours of 16 bits one after the other (PlanarConfiguration 2)"
    way_out = "save it with the colours of each pixel side by side, or as PNG"
    try:
        with tifffile.TiffFile(io.BytesIO(content.data)) as tiff:
            planes = np.asarray(tiff.pages[0].asarray())
    except DECODE_ERRORS as error:
        raise FileFault(content.path, f"{fault}, packed in a way that is not read ({brief(error)})", way_out) from None
    if planes.ndim != 3 or planes.shape[0] not in (3, 4) or planes.dtype != np.uint16:
        raise FileFault(content.path, f"{fault}: {planes.dtype} of shape {planes.shape}", way_out)
    alpha = (planes[3] >> 8).astype(np.uint8) if len(planes) == 4 else None
    return np.ascontiguousarray(np.moveaxis(planes[:3], 0, -1)), alpha


def _largest_of_ppm(picture: Image.Image) -> int:
    """The largest value that a PGM or PPM names, as Pillow's decoder is told; it needs none for the usual two."""
    tiles: Any = getattr(picture, "tile", ())
    arguments = tiles[0].args if tiles else None
    if isinstance(arguments, tuple) and isinstance(arguments[-1], int) and len(arguments) == 2:
        return int(arguments[-1])
    return _FULL if picture.mode.startswith("I") else 255


def _wide_ppm(content: Content) -> UInt16[np.ndarray, "h w 3"] | None:
    """Colours of 16 bits, which Pillow scales to 8; None of a PPM in plain text."""
    header = re.match(
        rb"P6(?:\s+(?:#[^\n]*\n\s*)*)(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s", content.data
    )
    if header is None:
        return None
    width, height, largest = map(int, header.groups())
    values = np.frombuffer(content.data, ">u2", width * height * 3, header.end()).reshape(height, width, 3)
    return np.round(np.minimum(values, largest) * (_FULL / largest)).astype(np.uint16)


def _numbers(tags: Any, tag: int) -> tuple[float, ...]:
    value = tags.get(tag, ())
    value = value if isinstance(value, tuple) else (value,)
    return tuple(float(v) for v in value if isinstance(v, int | float) and math.isfinite(v))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A PNG's chunks up to its pixels."""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            return
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length
