"""Pictures, maps and clouds as text that stands inside a page, small enough for hundreds of them."""

import base64
import io
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, features

_CLOUD_POINTS = 1500
_QUALITIES = (82, 70, 55)
_SMALLEST = 64
_MEDIA = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"RIFF", "webp"))


def data_address(content: bytes, kind: str) -> str:
    """The address under which a page finds a picture within itself."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def finished_picture(content: bytes) -> str:
    """The address of a picture that is a file already.

    Raises:
        ValueError: it is none of the kinds that browsers show.
    """
    for head, kind in _MEDIA:
        if content.startswith(head):
            return data_address(content, kind)
    raise ValueError(f"picture: expected a PNG, JPEG or WebP file, received one that begins with {content[:8]!r}")


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _at_most(picture: Image.Image, side: int, filter_: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """The picture, made smaller if a side is longer than that."""
    share = side / max(picture.size)
    if share >= 1:
        return picture
    size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    return picture.resize(size, filter_)


def _lossless(picture: Image.Image) -> str:
    if features.check("webp"):
        return data_address(_saved(picture.convert("RGB"), "WEBP", lossless=True, quality=20, method=2), "webp")
    return data_address(_saved(picture, "PNG", optimize=True), "png")


def photograph(image: UInt8[np.ndarray, "H W 3"], *, side: int, size: int) -> str:
    """The address of an image.

    Args:
        image: RGB.
        side: its longer side in the page, pixels, if it is not smaller.
        size: bytes that it may take as a file: finely textured surfaces get a lower quality, then fewer pixels.
    """
    kind = "WEBP" if features.check("webp") else "JPEG"
    picture = _at_most(Image.fromarray(image), side)
    while True:
        for quality in _QUALITIES:
            content = _saved(picture, kind, quality=quality)
            if len(content) <= size:
                return data_address(content, kind.lower())
        if max(picture.size) <= _SMALLEST:
            return data_address(content, kind.lower())
        picture = _at_most(picture, max(_SMALLEST, round(0.75 * max(picture.size))))


def map_picture(map_: Float[np.ndarray, "h w"], extent: tuple[float, float], *, side: int) -> str:
    """The address of a map as 256 levels of grey, black at the lower end of its extent.

    Maps are smooth, so that they lose nothing that could be seen by becoming smaller. No level stands for more than the
    value was: what lies at a threshold must not appear above it. What is not finite is black.
    """
    low, high = extent
    finite = np.nan_to_num(map_.astype(np.float32), nan=low, posinf=high, neginf=low)
    smaller = _at_most(Image.fromarray(finite), side, Image.Resampling.BILINEAR)
    levels = (np.asarray(smaller, np.float64) - low) * (255 / (high - low) if high > low else 0)
    return _lossless(Image.fromarray(np.clip(np.floor(levels + 1e-6), 0, 255).astype(np.uint8)))


def mask_picture(mask: Bool[np.ndarray, "H W"], *, side: int) -> str:
    """The address of a mask, white on defects; a defect of a single pixel stays visible however small it becomes."""
    height, width = mask.shape
    step = max(1, math.ceil(max(height, width) / side))
    padded = np.pad(mask, ((0, -height % step), (0, -width % step)))
    blocks = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)
    picture = Image.fromarray(255 * blocks.any((1, 3)).astype(np.uint8))
    return data_address(_saved(picture.convert("1"), "PNG", optimize=True), "png")


def packed_cloud(
    points: Float[np.ndarray, "P 3"], values: Float[np.ndarray, " P"], extent: tuple[float, float]
) -> dict[str, object] | None:
    """A cloud of some 1,500 points, 16 bits a coordinate and 8 a value; None where there is no point.

    Returns:
        `points` (x, y, z one point after the other, little-endian), `values`, both as base64, and `low` and `step`,
        which turn the whole numbers back into coordinates.
    """
    known = np.flatnonzero(np.isfinite(points).all(1) & np.isfinite(values))
    if not len(known):
        return None
    if len(known) > _CLOUD_POINTS:
        # The same points each time, in no pattern that would show as lines.
        known = np.sort(np.random.default_rng(0).choice(known, _CLOUD_POINTS, replace=False))
    chosen = points[known].astype(np.float64)
    low = chosen.min(0)
    step = max(float((chosen.max(0) - low).max()) / 65535, 1e-12)
    whole = np.rint((chosen - low) / step).astype("<u2")
    span = extent[1] - extent[0]
    levels = np.clip(np.rint((values[known] - extent[0]) * (255 / span if span > 0 else 0)), 0, 255).astype(np.uint8)
    text: Callable[[np.ndarray], str] = lambda array: base64.b64encode(array.tobytes()).decode()  # noqa: E731
    return {"points": text(whole), "values": text(levels), "low": low.tolist(), "step": step}
