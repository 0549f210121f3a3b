"""Regions of interest as people draw them: a mask whose bright pixels are inside, of any size, laid over a picture."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from musc_jax.data.formats import files, own_pictures
from musc_jax.data.formats.files import Content, FileFault
from musc_jax.data.formats.own_masks import BLACK, TRANSPARENT, difference, keys_of
from musc_jax.data.formats.own_pictures import Header, turned
from musc_jax.data.formats.resizing import make_square, resize_defect

_DRAW = "draw what counts in white on black"
# Values so far from both ends, of so many kinds and on so much of the area, are no soft edges.
_MIDDLE, _KINDS, _SHARE = (32, 223), 20, 0.1


def read_roi(content: Content, *, max_pixels: int) -> tuple[Bool[np.ndarray, "h w"], Header]:
    """The pixels that are inside, turned as the file says, and what it says.

    What is brighter than one half is inside; of a mask that holds 0 and 1 only, 1 is. What is transparent is outside.

    Raises:
        FileFault: no picture, one that is no mask, or one without anything inside.
    """
    drawn = own_pictures.decode(content, max_pixels=max_pixels, whole=True)
    keys = keys_of(content, drawn)
    level = keys if keys.dtype == np.uint8 else difference(keys, (BLACK, TRANSPARENT))
    largest = int(level.max(initial=0))
    middle = level[(level >= _MIDDLE[0]) & (level <= _MIDDLE[1])]
    if middle.size > _SHARE * level.size and len(np.unique(middle)) > _KINDS:
        raise FileFault(
            content.path, "looks like a picture, not like a mask: much of it is neither dark nor bright", _DRAW
        )
    inside = level > (0 if largest == 1 else 127)
    if not inside.any():
        said = "is black" if largest == 0 else f"has no value above {largest} of 255"
        raise FileFault(content.path, f"{said}, so nothing would count: what is bright is inside", _DRAW)
    return inside, drawn.header


def check_roi(path: Path, *, max_pixels: int) -> None:
    """Refuses a file that is no region of interest.

    Raises:
        FileFault: see `read_roi`; or there is none.
    """
    read_roi(files.read(path), max_pixels=max_pixels)


def lay_over(
    inside: Bool[np.ndarray, "h w"], own: Header, *, size: tuple[int, int], orientation: int
) -> tuple[Bool[np.ndarray, "H W"], bool]:
    """A region on the pixels of a picture as it is shown, and whether it has been distorted to fit.

    Args:
        inside: as `read_roi` gives it.
        own: likewise.
        size: (height, width) of the picture as it is shown.
        orientation: the picture's. One drawn on the stored pixels of a picture that is turned sideways is told by its
            size, and turned like that.
    """
    if orientation >= 5 and own.orientation == 1 and own.size == size[::-1] != size:
        inside = turned(inside, orientation)
    height, width = inside.shape
    distorted = max(height * size[1], width * size[0]) > 1.05 * min(height * size[1], width * size[0])
    if inside.shape == size:
        return inside, False
    picture = Image.fromarray(_white(inside)).resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(picture) > 127, distorted


def working_roi(inside: Bool[np.ndarray, "H W"], *, fit: str, size: int) -> Bool[np.ndarray, "size size"]:
    """A region at the working size: pixels of which at least half is inside; never none, if there is any that is kept.

    Args:
        inside: on the pixels of its picture.
        fit: how that becomes square; margins are outside.
        size: side of the result.
    """
    return resize_defect(make_square(_white(inside), fit), size=size)


def _white(inside: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    return inside.astype(np.uint8) * np.uint8(255)
