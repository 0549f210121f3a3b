"""Who voted, as a picture: a place of one sample, and the patches of others that match it best and worst."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from musc_jax.report.pictures import title_font

_OWN, _TILE, _GAP, _HEAD, _LINE = 232, 100, 8, 26, 15
_INK, _FAINT, _PAPER, _MARK = (24, 24, 27), (98, 98, 106), (255, 255, 255), (64, 196, 255)


class Tile(NamedTuple):
    """A part of a picture around a place.

    Attributes:
        pixels: the part.
        box: (left, top, right, bottom) of the place in it, 0 to 1.
        name: of the sample; any script.
        distance: of the place from what it is matched with; None for the one that is.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    box: tuple[float, float, float, float]
    name: str
    distance: float | None = None


def cut_out(
    image: UInt8[np.ndarray, "h w 3"], place: tuple[float, float], *, patch: float, reach: float, aspect: float = 1.0
) -> tuple[UInt8[np.ndarray, "h2 w2 3"], tuple[float, float, float, float]]:
    """A part of a square picture, moved inwards where it would reach over the border, and where the place is in it.

    Args:
        image: the picture as it was scored, or larger; squashed ones, too.
        place: (row, column) of the middle, 0 to 1.
        patch: side of what is marked, 0 to 1.
        reach: side of the part, 0 to 1.
        aspect: width to height of the picture before it was squashed; the part has square pixels then.
    """
    sides = np.minimum(1.0, np.array([reach * aspect**0.5, reach / aspect**0.5]))
    corner = np.clip(np.array(place) - sides / 2, 0, 1 - sides)
    shape = np.array(image.shape[:2])
    first = np.floor(corner * shape).astype(int)
    last = np.maximum(first + 1, np.ceil((corner + sides) * shape).astype(int))
    (top, left), (bottom, right) = first, np.minimum(last, shape)
    pixels = image[top:bottom, left:right]
    inside = (np.array(place) * shape - first) / np.array(pixels.shape[:2])
    half = patch * shape / np.array(pixels.shape[:2]) / 2
    low, high = np.clip(inside - half, 0, 1), np.clip(inside + half, 0, 1)
    return pixels, (float(low[1]), float(low[0]), float(high[1]), float(high[0]))


def vote_picture(title: str, note: str, own: Tile, lowest: Sequence[Tile], highest: Sequence[Tile]) -> Image.Image:
    """One place and its matches.

    Args:
        title: such as the sample's name and the place; any script.
        note: a line below it.
        own: the place.
        lowest: the best matches, the closest first.
        highest: the worst ones, the farthest first.
    """
    count = max(len(lowest), len(highest), 1)
    row = _TILE + 2 * _LINE + _HEAD
    width = 3 * _GAP + _OWN + count * (_TILE + _GAP)
    canvas = Image.new("RGB", (width, 2 * _HEAD + 2 * row + _GAP), _PAPER)
    draw = ImageDraw.Draw(canvas)
    _write(draw, (_GAP, 4), title, width - 2 * _GAP, size=17)
    _write(draw, (_GAP, 27), note, width - 2 * _GAP, size=12, color=_FAINT)
    top = 2 * _HEAD
    _draw_tile(canvas, own, (_GAP, top + _HEAD), _OWN)
    left = 2 * _GAP + _OWN + _GAP
    for heading, tiles in (("closest matches", lowest), ("farthest of all best matches", highest)):
        _write(draw, (left, top + 6), heading, width - left, size=13)
        for i, tile in enumerate(tiles):
            _draw_tile(canvas, tile, (left + i * (_TILE + _GAP), top + _HEAD), _TILE)
        top += row
    return canvas


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures below each other."""
    size = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    whole, top = Image.new("RGB", size, _PAPER), 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return whole


def _draw_tile(canvas: Image.Image, tile: Tile, place: tuple[int, int], side: int) -> None:
    picture = Image.fromarray(np.ascontiguousarray(tile.pixels)).resize((side, side), Image.Resampling.BICUBIC)
    canvas.paste(picture, place)
    draw, (left, top) = ImageDraw.Draw(canvas), place
    box = [edge * side + at for edge, at in zip(tile.box, (left, top, left, top), strict=True)]
    for grown, color in ((2, _INK), (1, _MARK)):
        corners = (box[0] - grown, box[1] - grown, max(box[2], box[0]) + grown - 1, max(box[3], box[1]) + grown - 1)
        draw.rectangle(corners, outline=color)
    _write(draw, (left, top + side + 1), tile.name, side, size=11)
    if tile.distance is not None:
        _write(draw, (left, top + side + 1 + _LINE), f"{tile.distance:.4g}", side, size=11, color=_FAINT)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    width: int,
    *,
    size: int,
    color: tuple[int, int, int] = _INK,
) -> None:
    """Text in any script, its middle left out as far as there is no room."""
    font, shown = title_font(text, size=size)
    written, kept = shown, len(shown)
    while draw.textlength(written, font=font) > width and kept > 2:
        kept -= 1
        written = f"{shown[: (kept + 1) // 2]}...{shown[len(shown) - kept // 2 :]}"
    draw.text(place, written, color, font=font)
