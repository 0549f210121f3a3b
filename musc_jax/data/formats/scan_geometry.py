"""From depth, heights and clouds to organised maps of points; pictures of them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from musc_jax.data.folder_layout import Camera

# Stands for a coordinate of exactly 0, which elsewhere means "no point".
_NEARLY_ZERO = np.float32(1e-9)


def mark_points(
    points: Float[np.ndarray, "*shape 3"], valid: Bool[np.ndarray, "*shape"]
) -> Float32[np.ndarray, "*shape 3"]:
    """Points as all else takes them: what is none becomes (0, 0, 0), and no coordinate of a point is exactly 0.

    The published programs count a pixel as a point only if all three coordinates are non-zero, so a point on an axis
    or a plane through the origin is moved by a nanometre.
    """
    with np.errstate(over="ignore"):
        single = points.astype(np.float32)
    there = valid & np.isfinite(single).all(axis=-1)
    single = np.where(single == 0, _NEARLY_ZERO, single)
    return np.where(there[..., None], single, np.float32(0))


def back_project(depth: Float[np.ndarray, "h w"], camera: Camera) -> Float32[np.ndarray, "h w 3"]:
    """Depth along the optical axis to points in the camera's frame; 0, below and not finite are no points."""
    row, column = np.mgrid[: depth.shape[0], : depth.shape[1]]
    measured = np.isfinite(depth) & (depth > 0)
    z = np.where(measured, depth, 0.0)
    points = np.stack([(column - camera.cx) / camera.fx * z, (row - camera.cy) / camera.fy * z, z], axis=-1)
    return mark_points(points, measured)


def raise_heights(heights: Float[np.ndarray, "h w"], pitch: tuple[float, float]) -> Float32[np.ndarray, "h w 3"]:
    """Heights above a plane, seen straight from above, to points: what is high is near, so has a small z.

    Args:
        heights: metres, of any sign; not finite is no point.
        pitch: width and height of a pixel in metres.
    """
    row, column = np.mgrid[: heights.shape[0], : heights.shape[1]]
    measured = np.isfinite(heights)
    middle_row, middle_column = ((length - 1) / 2 for length in heights.shape)
    x, y = (column - middle_column) * pitch[0], (row - middle_row) * pitch[1]
    return mark_points(np.stack([x, y, np.where(measured, -heights, 0.0)], axis=-1), measured)


def pick_nearest(points: Float32[np.ndarray, "h w 3"], size: tuple[int, int]) -> Float32[np.ndarray, "h2 w2 3"]:
    """The points of a map at another (height, width), each the nearest one: a mean of two would lie in mid-air."""
    row, column = (np.arange(new) * old // new for new, old in zip(size, points.shape, strict=False))
    return points[row[:, None], column]


class Projection(NamedTuple):
    """A cloud without a grid as it is seen along its z axis.

    Attributes:
        points: organised map of the nearest points, (0, 0, 0) = no point.
        hidden: share of the points that lie clearly behind others.
    """

    points: Float32[np.ndarray, "size size 3"]
    hidden: float


def project(points: Float32[np.ndarray, "p 3"], *, size: int) -> Projection:
    """Put a cloud on a grid: x to the right, y down, the nearest point (smallest z) of each pixel.

    Scans of one camera that lost their grid come back whole; of a body scanned all around only the side that faces the
    smallest z is seen. Coordinates stay as they are.
    """
    cloud = points[(points != 0).all(axis=-1)].astype(np.float64)
    low, extent = cloud.min(axis=0), np.ptp(cloud, axis=0)
    step = max(extent[0], extent[1], 1e-12) / size
    column, row = (np.minimum(((cloud[:, axis] - low[axis]) / step).astype(np.int64), size - 1) for axis in (0, 1))
    # The shorter side is centred.
    column += (size - 1 - column.max()) // 2
    row += (size - 1 - row.max()) // 2
    order = np.argsort(-cloud[:, 2], kind="stable")  # what is nearer is written later
    pixel = row * size + column
    out = np.zeros((size * size, 3), np.float32)
    out[pixel[order]] = cloud[order]
    behind = cloud[:, 2] - out[pixel, 2] > 0.05 * max(extent.max(), 1e-12)
    return Projection(out.reshape(size, size, 3), float(behind.mean()))


def depth_picture(points: Float32[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of a point map where there is none: near is bright, no point is black."""
    valid = (points != 0).all(axis=-1)
    z = points[..., 2]
    low, high = np.percentile(z[valid], (1, 99)) if valid.any() else (0.0, 0.0)
    shade = 255 - 200 * np.clip((z - low) / max(high - low, 1e-12), 0, 1)
    return np.repeat(np.where(valid, shade, 0).astype(np.uint8)[..., None], 3, axis=-1)
