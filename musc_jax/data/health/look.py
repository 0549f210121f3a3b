"""A look at a sample: its picture and scan at the size of a stamp, made of what is decoded anyway."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

SIDE, COLORS = 64, 16
# Rows and columns are left out before means are taken, so that a side of a large picture keeps at least so many pixels:
# each pixel of a stamp is still a mean of 64 of them, and 12 megapixels take 5 ms instead of 70.
_ENOUGH = 8 * SIDE
# The sharpest edges, of which a few outshine all others, count as much as those at this share.
_SHARP = 0.98


class Look(NamedTuple):
    """What is kept of a sample for comparing it with others; 9 KB.

    Attributes:
        grey: its picture, squashed; None where it has none, or it is not scored.
        colors: the same in colour, smaller.
        edges: of its scan's z, 0 to 255; None without a scan, or where that has no rows and columns.
        covered: share of the scan's pixels that have a point; without rows and columns the number of points.
    """

    grey: UInt8[np.ndarray, "64 64"] | None = None
    colors: UInt8[np.ndarray, "16 16 3"] | None = None
    edges: UInt8[np.ndarray, "64 64"] | None = None
    covered: float | None = None


def look_at(image: UInt8[np.ndarray, "h w 3"] | None, points: Shaped[np.ndarray, "..."] | None) -> Look:
    """Look at a sample.

    Args:
        image: its picture as it is shown.
        points: (h, w, 3) or (p, 3); (0, 0, 0) is no point.
    """
    grey = colors = edges = covered = None
    if image is not None:
        grey, colors = _stamps(image)
    if points is not None:
        there = (points != 0).any(axis=-1)
        covered = float(there.mean()) if points.ndim == 3 else float(there.sum())
        edges = edges_of(_picked(points[..., 2]), _picked(there)) if points.ndim == 3 else None
    return Look(grey, colors, edges, covered)


def _stamps(image: UInt8[np.ndarray, "h w 3"]) -> tuple[np.ndarray, np.ndarray]:
    height, width = image.shape[:2]
    step = max(1, min(height, width) // _ENOUGH)
    picture = Image.fromarray(np.ascontiguousarray(image[::step, ::step]))
    picture = picture.reduce((max(1, picture.width // (2 * SIDE)), max(1, picture.height // (2 * SIDE))))
    grey = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.array(grey), np.array(picture.resize((COLORS, COLORS), Image.Resampling.BOX))


def _picked(values: Shaped[np.ndarray, "h w"]) -> np.ndarray:
    """The nearest value for each of the stamp's pixels: depth is never mixed."""
    height, width = values.shape
    at = np.arange(SIDE)
    return values[(at * height // SIDE)[:, None], at * width // SIDE]


def edges_of(values: Shaped[np.ndarray, "64 64"], there: Shaped[np.ndarray, "64 64"] | None = None) -> np.ndarray:
    """How steep a stamp is at each pixel, 0 to 255; where nothing is `there` it is at its median."""
    wide = values.astype(np.float64)
    if there is not None and there.any():
        wide = np.where(there, wide, np.median(wide[there]))
    steep = np.hypot(*np.gradient(wide))
    most = float(np.quantile(steep, _SHARP))
    return np.clip(np.rint(steep * (255 / most if most > 0 else 0)), 0, 255).astype(np.uint8)


def flat_vectors(stamps: Shaped[np.ndarray, "N *shape"]) -> Float[np.ndarray, "N D"]:
    """Stamps as vectors of mean 0 and length 1, whose products are correlations; 0 where nothing is to be seen."""
    vectors = stamps.reshape(len(stamps), -1).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
