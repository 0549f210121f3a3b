"""What the numbers of a plain folder's scans mean, and the points that they are."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Num

from musc_jax.data.folder_layout import Camera
from musc_jax.data.formats.files import Content, FileFault
from musc_jax.data.formats.points import decode_scan
from musc_jax.data.formats.scan_geometry import back_project, mark_points, pick_nearest, raise_heights

# Proportions of a scan and its picture that differ by no more than this are the same: 640 x 480 and 1296 x 968.
_SAME_ASPECT = 0.015
# Coordinates so many times as far from the origin as they reach, as of maps of the earth, lose their digits in float32.
_FAR_AWAY = 1000.0


@dataclass(frozen=True)
class ScanRules:
    """How the scans of a category are read; decided once, see `musc_jax.data.scan_rules`.

    Attributes:
        invalid: values of depth, of height, or of z, that mean "no point", as they stand in the files.
        heights: whether maps hold heights, not depth.
        map_scale: metres of a depth or height of 1.
        points_scale: metres of a coordinate of 1.
        pitch: width and height of a height map's pixel in metres.
        camera: of depth.
        camera_of_picture: whether the camera's numbers are for the size of the picture, where the scan has another.
        by_columns: whether points without a grid come column by column; None if nobody knows.
    """

    invalid: tuple[float, ...] = ()
    heights: bool = False
    map_scale: float = 0.001
    points_scale: float = 1.0
    pitch: tuple[float, float] = (0.001, 0.001)
    camera: Camera | None = None
    camera_of_picture: bool = False
    by_columns: bool | None = False


def decode_points(
    content: Content, *, size: tuple[int, int] | None, rules: ScanRules
) -> Float32[np.ndarray, "h w 3"] | Float32[np.ndarray, "p 3"]:
    """Decode point data of a plain folder.

    Args:
        content: the file.
        size: (height, width) of its picture; None where there is none.
        rules: how it is to be read.

    Returns:
        An organised map of the picture's size, (0, 0, 0) = no point and no other coordinate 0; or (p, 3) without an
        order, only if there is no picture.

    Raises:
        FileFault: not readable, no points, in other proportions than its picture, depth without intrinsics or below 0.
    """
    scan, path = decode_scan(content), content.path
    if scan.form == "map":
        points = _map_points(path, scan.values, size, rules)
    else:
        points = _scaled(scan.values, rules)
        if scan.form == "list" and size is not None:
            points = _in_rows(path, points, size, rules.by_columns)
    if not points.any():
        raise FileFault(path, "has no points", _WAY_OUT_OF_NONE)
    return points if size is None or points.shape[:2] == size else _at_size(path, points, size)


_WAY_OUT_OF_NONE = "every value is 0, not finite, or one that stands for no point (--invalid); save it again"


def _map_points(
    path: Path, values: Num[np.ndarray, "h w"], size: tuple[int, int] | None, rules: ScanRules
) -> Float32[np.ndarray, "h w 3"]:
    there = np.isfinite(values) & ~equals_any(values, rules.invalid)
    numbers = np.where(there, values, np.nan if values.dtype.kind == "f" else 0).astype(np.float64)
    if rules.heights:
        return raise_heights(np.where(there, numbers * rules.map_scale, np.nan), rules.pitch)
    below = there & (values < 0)
    if below.any():
        lowest, highest = values[below].min(), values[below].max()
        # The same words for every file of the kind, so that the report has them once.
        which = f"of {lowest:g}" if lowest == highest else "below 0"
        raise FileFault(
            path,
            f"holds depth {which}, but nothing lies behind the camera",
            "for heights above a plane pass --depth_kind=height, for values that mean no point --invalid=VALUE",
        )
    if rules.camera is None:
        raise FileFault(
            path,
            "holds depth, which needs the camera",
            "pass --intrinsics=fx,fy,cx,cy in pixels; for heights above a plane pass --depth_kind=height",
        )
    camera = rules.camera
    if rules.camera_of_picture and size is not None:
        camera = camera_for(camera, size, values.shape)
    return back_project(np.where(there, numbers * rules.map_scale, 0.0), camera)


def camera_for(camera: Camera, size: tuple[int, int], other: tuple[int, ...]) -> Camera:
    """A camera whose numbers are for pictures of (height, width) `size`, for those of `other`."""
    down, across = other[0] / size[0], other[1] / size[1]
    return Camera(
        camera.fx * across, camera.fy * down, (camera.cx + 0.5) * across - 0.5, (camera.cy + 0.5) * down - 0.5
    )


def equals_any(values: Num[np.ndarray, "*shape"], marks: tuple[float, ...]) -> Bool[np.ndarray, "*shape"]:
    """Where a value is one of some numbers, as the file's type has them."""
    found = np.zeros(values.shape, bool)
    for mark in marks:
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                found |= values == values.dtype.type(mark)
        elif float(mark).is_integer() and np.iinfo(values.dtype).min <= mark <= np.iinfo(values.dtype).max:
            found |= values == int(mark)
    return found


def is_point(values: Num[np.ndarray, "*shape 3"], invalid: tuple[float, ...]) -> Bool[np.ndarray, "*shape"]:
    """Where x, y and z are a point: finite, not all three 0, and z none of the values that stand for no point."""
    return np.isfinite(values).all(axis=-1) & (values != 0).any(axis=-1) & ~equals_any(values[..., 2], invalid)


def _scaled(values: Num[np.ndarray, "*shape 3"], rules: ScanRules) -> Float32[np.ndarray, "*shape 3"]:
    there = is_point(values, rules.invalid)
    points: Float64[np.ndarray, "*shape 3"] = np.where(there[..., None], values, 0).astype(np.float64)
    points = points * rules.points_scale
    if there.any():
        low, high = points[there].min(axis=0), points[there].max(axis=0)
        if np.abs([low, high]).max() > _FAR_AWAY * (high - low).max():
            points = points - (low + high) / 2
    return mark_points(points, there)


def _in_rows(
    path: Path, points: Float32[np.ndarray, "p 3"], size: tuple[int, int], by_columns: bool | None
) -> Float32[np.ndarray, "h w 3"]:
    height, width = size
    if len(points) != height * width:
        raise FileFault(
            path,
            f"holds {len(points)} points without a grid, but its picture has {width} x {height} pixels, so that "
            "nobody knows which belongs to which",
            "save one point a pixel, row by row, or a depth picture; or score points without pictures",
        )
    if by_columns is None:
        raise FileFault(
            path,
            "holds points without a grid, and neither row by row nor column by column do neighbours lie together "
            "clearly better than the other way",
            "pass --point_order=rows or --point_order=columns, or save (height, width, 3)",
        )
    return np.moveaxis(points.reshape(width, height, 3), 0, 1) if by_columns else points.reshape(height, width, 3)


def _at_size(path: Path, points: Float32[np.ndarray, "h w 3"], size: tuple[int, int]) -> Float32[np.ndarray, "h2 w2 3"]:
    if not same_aspect(points.shape, size):
        turned = ", which would fit if one of them were turned" if same_aspect(points.shape[1::-1], size) else ""
        raise FileFault(
            path,
            f"is {points.shape[1]} x {points.shape[0]} points, but its picture is {size[1]} x {size[0]}{turned}",
            "turn, crop or register one of them so that both show the same; another size in the same proportions is "
            "fine",
        )
    return pick_nearest(points, size)


def same_aspect(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two (height, width) have the same proportions, give or take a pixel or 1.5 %."""
    first, second = one[1] * other[0], other[1] * one[0]
    return abs(first - second) <= max(_SAME_ASPECT * max(first, second), *one[:2], *other[:2])


def settings(rules: ScanRules) -> list:
    """For a sample's digest."""
    return list(dataclasses.astuple(rules))
