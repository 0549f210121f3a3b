"""Pictures: image, ground truth and heat overlay side by side, one colour scale for a whole category."""

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

_TILE = 320
# What is left of a picture's brightness outside of its region of interest.
_DIMMED = 0.3
_GAP, _TOP, _BAR = 10, 54, 92
_INK, _PAPER, _WARN = (24, 24, 27), (255, 255, 255), (176, 32, 32)
_TRUTH = np.array((60, 220, 90), np.float64)
_BOX = (64, 196, 255)
_LUMINANCE = np.array((0.299, 0.587, 0.114), np.float64)
# Anchors of a dark-to-bright heat scale whose lightness rises evenly, so that it also reads in grey.
HEAT = np.array(
    [(20, 11, 53), (101, 21, 110), (187, 55, 84), (237, 105, 37), (251, 180, 26), (252, 255, 164)], np.float64
)
"""Colours from the low end of the scale to the high one, evenly spaced."""
NORMAL_PERCENTILE = 98
"""Under its value lies a sample's surface, apart from defects that are small beside it."""
# Fonts of the usual systems, those with the most scripts first.
_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "DejaVuSans.ttf", "arialuni.ttf", "Arial Unicode.ttf",
    "PingFang.ttc", "AppleSDGothicNeo.ttc", "msyh.ttc", "YuGothM.ttc", "msgothic.ttc", "malgun.ttf", "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf", "FreeSans.ttf", "LiberationSans-Regular.ttf", "segoeui.ttf", "arial.ttf",
)  # fmt: skip


def color_scale(
    maps: Float[np.ndarray, "N S S"], inside: Bool[np.ndarray, "N S S"] | None = None
) -> tuple[float, float]:
    """The one colour scale of a category: from what a good sample's surface reaches to the highest value of all.

    Scaling each picture by its own maximum would make every good part glow somewhere. The low end is the value under
    which 98 % of a sample's pixels lie, for the sample at the lowest fifth: good as long as a fifth of the samples are.
    The median of all pixels would not do, since most of them are background where the product is small; nor a high
    percentile of all pixels, which large defects would reach.

    Args:
        maps: Of all samples.
        inside: The pixels that count, at least one of each map; default all.

    Returns:
        (low, high) with low < high, also for constant maps.
    """
    if inside is None:
        surfaces = np.percentile(maps.reshape(len(maps), -1), NORMAL_PERCENTILE, axis=1)
    else:
        surfaces = np.array([np.percentile(one[own], NORMAL_PERCENTILE) for one, own in zip(maps, inside, strict=True)])
    low, high = normal_level(surfaces), float(maps.max())
    return low, max(high, low + 1e-6 * max(1, abs(low)))


def normal_level(surfaces: Sequence[float] | Num[np.ndarray, " N"]) -> float:
    """What good samples' surfaces reach, of each sample's own `NORMAL_PERCENTILE`: that of the lowest fifth."""
    return float(np.percentile(surfaces, 20))


def dimmed_outside(image: UInt8[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture that is dark outside of its region of interest."""
    return np.where(inside[..., None], image, (_DIMMED * image).astype(np.uint8))


def heat(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Colours 0 to 255 of values 0 to 1."""
    position = np.clip(values, 0, 1) * (len(HEAT) - 1)
    return np.stack([np.interp(position, np.arange(len(HEAT)), channel) for channel in HEAT.T], axis=-1)


def _overlay(image: np.ndarray, anomaly_map: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Heat over the image; it covers more the hotter it is, so that normal surface stays visible.

    The image is grey here, because red and yellow products look like heat; its colours are in the first tile.
    """
    grey = (image @ _LUMINANCE)[..., None]
    level = np.clip((anomaly_map.astype(np.float64) - scale[0]) / (scale[1] - scale[0]), 0, 1)
    opacity = (0.85 * level**0.75)[..., None]
    return grey * (1 - opacity) + heat(level) * opacity


def overlay_picture(
    image: UInt8[np.ndarray, "h w 3"],
    anomaly_map: Float[np.ndarray, "h w"],
    *,
    scale: tuple[float, float],
    boxes: Sequence[tuple[tuple[int, int, int, int], float]] = (),
    boxes_size: tuple[int, int] | None = None,
) -> Image.Image:
    """A picture with the heat of its map over it, and boxes around its hot regions.

    Args:
        image: The picture; its colours are kept where nothing is hot.
        anomaly_map: Of the same size.
        scale: (low, high) values of the coldest and the hottest colour, from `color_scale`.
        boxes: (left, top, right, bottom) and peak of each region.
        boxes_size: (height, width) that the boxes are meant for; default the picture's.
    """
    # A table of 256 colours instead of arithmetic for each pixel: pictures may have millions of them.
    low, high = scale
    level = np.clip((anomaly_map - np.float32(low)) * np.float32(255 / (high - low)), 0, 255).astype(np.uint8)
    shares = np.arange(256) / 255
    opacity = 0.75 * shares**0.75
    hot = Image.fromarray(level)
    alpha = hot.point(np.rint(255 * opacity).astype(np.uint8).tolist())
    hot.putpalette(heat(shares).astype(np.uint8).tobytes())
    hot = hot.convert("RGB")
    picture = Image.composite(hot, Image.fromarray(image), alpha)
    height, width = boxes_size or image.shape[:2]
    x, y = image.shape[1] / width, image.shape[0] / height
    draw, line = ImageDraw.Draw(picture), max(1, round(min(image.shape[:2]) / 300))
    for (left, top, right, bottom), _ in boxes:
        # One line outside of the region, which would be covered otherwise.
        place = (left * x - line, top * y - line, max(right * x, left * x + 1), max(bottom * y, top * y + 1))
        draw.rectangle(place, outline=_BOX, width=line)
    return picture


def _outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image, dimmed, with defects at full brightness inside a green line."""
    line = ndimage.binary_dilation(mask, iterations=max(1, len(mask) // 112)) & ~mask
    dimmed = np.where(mask[..., None], image, 0.45 * image)
    return np.where(line[..., None], _TRUTH, dimmed)


def title_font(text: str, *, size: int) -> tuple[Any, str]:
    """A font for a text in any script, and the text with what that font has no signs for written as escapes.

    Pillow's own font has ASCII only. For anything else the system's fonts are looked through; a row of boxes, which
    most draw for signs they lack, names nothing.
    """
    own = ImageFont.load_default(size=size)
    found = own, _shown(text, own)
    for name in _FONTS:
        if found[1] == text:
            break
        font = _system_font(name, size)
        if font is not None and len(_shown(text, font)) < len(found[1]):
            found = font, _shown(text, font)
    return found


@cache
def _system_font(name: str, size: int) -> Any:
    try:
        return ImageFont.truetype(name, size)
    except (OSError, ImportError):
        return None


def _shown(text: str, font: Any) -> str:
    missing = _sign(font, "\uffff")
    seen = {c: c == " " or (c.isprintable() and _sign(font, c) not in (None, missing)) for c in set(text)}
    return "".join(c if seen[c] else ascii(c)[1:-1] if not c.isascii() else repr(c)[1:-1] for c in text)


def _sign(font: Any, character: str) -> tuple[bytes, tuple[int, int]] | None:
    """How a font draws a character; None where it cannot."""
    try:
        mask = font.getmask(character)
    except (UnicodeEncodeError, ValueError):  # the font that Pillow has without FreeType
        return None
    return bytes(mask), mask.size


def _fitted(draw: ImageDraw.ImageDraw, name: str, rest: str, width: int, font: Any) -> str:
    """A title with the middle of the name left out as far as it takes for the rest to be seen."""
    text, kept = f"{name}   {rest}", len(name)
    while draw.textlength(text, font=font) > width and kept > 2:
        kept -= 1
        text = f"{name[: (kept + 1) // 2]}...{name[len(name) - kept // 2 :]}   {rest}"
    return text


def _tile(pixels: np.ndarray) -> Image.Image:
    tile = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    return tile.resize((_TILE, _TILE), Image.Resampling.LANCZOS)


def sample_picture(
    image: UInt8[np.ndarray, "S S 3"],
    gt_mask: Bool[np.ndarray, "S S"] | None,
    anomaly_map: Float[np.ndarray, "S S"],
    *,
    scale: tuple[float, float],
    name: str,
    pred_score: float,
    gt_label: int | None,
    note: str | None = None,
) -> Image.Image:
    """One sample as a row of three tiles with titles and a colour bar.

    Args:
        image: What was scored.
        gt_mask: True on defects; None where there is no mask.
        anomaly_map: Its map.
        scale: (low, high) values of the colour bar's ends, from `color_scale` over the whole category.
        name: The sample's name.
        pred_score: Its score.
        gt_label: 1 defective, 0 good, None unknown.
        note: A remark drawn in red, such as that the weights are random.

    Returns:
        An RGB picture of the same size for every sample (a note adds a line below).

    Raises:
        ValueError: A scale whose low end is not below its high end.
    """
    if not scale[0] < scale[1]:
        raise ValueError(f"scale: expected low < high, received {scale}")
    plain = image.astype(np.float64)
    truth = plain * 0.45 if gt_mask is None else _outlined(plain, gt_mask)
    tiles = (("image", plain), ("ground truth", truth), ("anomaly map", _overlay(plain, anomaly_map, scale)))
    bottom = 26 if note else 8
    canvas = Image.new("RGB", (_GAP + 3 * (_TILE + _GAP) + _BAR, _TOP + _TILE + bottom), _PAPER)
    draw = ImageDraw.Draw(canvas)
    small = ImageFont.load_default(size=14)
    label = {0: "good", 1: "defective", None: "label unknown"}[gt_label]
    font, written = title_font(name, size=18)
    title = _fitted(draw, written, f"pred_score {pred_score:.4f}   {label}", canvas.width - 2 * _GAP, font)
    draw.text((_GAP, 6), title, _INK, font=font)
    for i, (heading, pixels) in enumerate(tiles):
        left = _GAP + i * (_TILE + _GAP)
        draw.text((left, _TOP - 20), heading, _INK, font=small)
        canvas.paste(_tile(pixels), (left, _TOP))
    if gt_mask is None or not gt_mask.any():
        text = "no mask" if gt_mask is None else "nothing marked"
        draw.text((2 * _GAP + _TILE + 8, _TOP + 8), text, _PAPER, font=small)
    _color_bar(canvas, draw, scale, small)
    if note:
        draw.text((_GAP, _TOP + _TILE + 5), note, _WARN, font=small)
    return canvas


def _color_bar(canvas: Image.Image, draw: ImageDraw.ImageDraw, scale: tuple[float, float], font: Any) -> None:
    left = _GAP + 3 * (_TILE + _GAP)
    ramp = heat(np.linspace(1, 0, _TILE)[:, None].repeat(14, axis=1))
    canvas.paste(Image.fromarray(np.rint(ramp).astype(np.uint8)), (left, _TOP))
    for share in (0.0, 0.5, 1.0):
        value = scale[0] + share * (scale[1] - scale[0])
        top = _TOP + (1 - share) * (_TILE - 1)
        draw.line((left + 14, top, left + 18, top), _INK)
        draw.text((left + 21, np.clip(top - 9, _TOP - 2, _TOP + _TILE - 16)), f"{value:.3g}", _INK, font=font)


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
