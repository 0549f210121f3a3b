"""Point data in the formats people keep it in: xyz TIFF, depth pictures with intrinsics, NPY, PLY, PCD.

As in `files`, what is wrong with a file is a `FileFault`. Values that are not finite mean "no point", as PCD and most
cameras have it.
"""

import io
import math
import threading
import warnings
from typing import NamedTuple

import numpy as np
import tifffile
from jaxtyping import Float, Float32, Float64, UInt8
from PIL import Image

from musc_jax.data.folder_layout import Camera
from musc_jax.data.formats.files import DECODE_ERRORS, MAX_PIXELS, Content, FileFault, brief
from musc_jax.data.formats.pcd import decode_pcd
from musc_jax.data.formats.ply import decode_ply

EXTENSIONS = frozenset({".tif", ".tiff", ".png", ".npy", ".ply", ".pcd"})
"""What counts as point data, in lower case."""

_PLAIN = "save it unpacked, or by deflate"
_CLOUDS = {".ply": decode_ply, ".pcd": decode_pcd}
# CPython 3.11's parser, which reads NPY headers, fails now and then when several threads use it.
_PARSING = threading.Lock()


def decode_points(
    content: Content, *, size: tuple[int, int] | None, camera: Camera | None, depth_scale: float
) -> Float32[np.ndarray, "h w 3"] | Float32[np.ndarray, "p 3"]:
    """Decode point data.

    Args:
        content: the file.
        size: (height, width) of its picture; None where there is none.
        camera: for depth pictures.
        depth_scale: metres of a depth of 1.

    Returns:
        An organised map, (0, 0, 0) = no point; or (p, 3) without an order, only if there is no picture.

    Raises:
        FileFault: not readable, no points, of another size than its picture, or depth without intrinsics.
    """
    path = content.path
    array = _decode(content)
    if array.ndim == 2 and array.shape[1] == 3 and path.suffix.lower() in (".npy", *_CLOUDS):
        points = array.astype(np.float32)
        if size is not None:
            if len(points) != size[0] * size[1]:
                raise FileFault(
                    path,
                    f"holds {len(points)} points without a grid, but its picture has {size[1]} x {size[0]} pixels, so "
                    "that nobody knows which belongs to which",
                    "save one point a pixel, row by row, or a depth picture; or score points without pictures",
                )
            points = points.reshape(*size, 3)
    elif array.ndim == 2:
        if camera is None:
            raise FileFault(path, "holds depth, which needs the camera", "pass --intrinsics=fx,fy,cx,cy")
        points = back_project(array.astype(np.float64) * depth_scale, camera)
    elif array.ndim == 3 and array.shape[2] == 3 and array.dtype.kind == "f":
        points = array.astype(np.float32)
    else:
        raise FileFault(
            path,
            f"holds {array.dtype} values of shape {array.shape}",
            "expected floats (height, width, 3), or depth (height, width)",
        )
    if size is not None and points.shape[:2] != size:
        raise FileFault(
            path, f"is {points.shape[1]} x {points.shape[0]} points, but its picture is {size[1]} x {size[0]}"
        )
    points = np.where(np.isfinite(points).all(axis=-1, keepdims=True), points, np.float32(0))
    if not (points != 0).all(axis=-1).any():
        raise FileFault(path, "has no points: none has three non-zero coordinates")
    return points


def back_project(depth: Float64[np.ndarray, "h w"], camera: Camera) -> Float32[np.ndarray, "h w 3"]:
    """Depth along the optical axis to points in the camera's frame; 0, below and not finite are no points."""
    row, column = np.mgrid[: depth.shape[0], : depth.shape[1]]
    measured = np.isfinite(depth) & (depth > 0)
    z = np.where(measured, depth, 0.0)
    points = np.stack([(column - camera.cx) / camera.fx * z, (row - camera.cy) / camera.fy * z, z], axis=-1)
    # A pixel on the axis has a coordinate of exactly 0, which elsewhere means "no point".
    points = np.where(measured[..., None] & (points == 0), 1e-9, points)
    return points.astype(np.float32)


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


def _decode(content: Content) -> np.ndarray:
    path = content.path
    kind = path.suffix.lower()
    if kind in _CLOUDS:
        return _CLOUDS[kind](content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == ".npy":
                array = _decode_npy(content)
            elif kind == ".png":
                with Image.open(io.BytesIO(content.data), formats=("PNG",)) as picture:
                    _check_count(content, *picture.size)
                    array = np.array(picture)
            else:
                with tifffile.TiffFile(io.BytesIO(content.data)) as tiff:
                    _check_count(content, *tiff.series[0].shape[:2])
                    array = np.asarray(tiff.series[0].asarray())
    except (*DECODE_ERRORS, SystemError) as error:
        if "imagecodecs" in str(error):  # tifffile's extra for rarer ways of packing
            raise FileFault(path, f"is packed in a way that is not read ({brief(error)})", _PLAIN) from None
        raise FileFault(path, f"cannot be read ({brief(error)})") from None
    if array.ndim not in (2, 3) or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise FileFault(
            path,
            f"holds {array.dtype} values of shape {array.shape}",
            "expected floats (height, width, 3), or depth (height, width)",
        )
    return array


def _decode_npy(content: Content) -> np.ndarray:
    file = io.BytesIO(content.data)
    with _PARSING:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise FileFault(content.path, "holds Python objects, which are not read", "save an array of numbers")
    _check_count(content, *(shape[:2] if len(shape) > 1 else (*shape, 1)[:2]))
    if math.prod(shape) * dtype.itemsize > len(content.data) - file.tell():
        raise FileFault(content.path, f"is cut short: it claims {shape} values and does not hold them")
    file.seek(0)
    with _PARSING:
        array = np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    return array if dtype.names is None else _named(content, array)


def _named(content: Content, table: np.ndarray) -> Float[np.ndarray, "... 3"]:
    """The fields x, y and z of an array with named ones; all others are left out."""
    fields = [table.dtype.fields[name][0] for name in "xyz" if name in table.dtype.names]  # type: ignore[index,operator]
    if len(fields) < 3 or any(field.kind not in "fiu" for field in fields):
        known = " ".join(table.dtype.names or ())[:100]
        raise FileFault(content.path, f"has no numbers x, y and z (its fields are: {known})", "save it with them")
    points = np.stack([table[name] for name in "xyz"], axis=-1)
    return points if points.dtype.kind == "f" else points.astype(np.float64)


def _check_count(content: Content, first: int, second: int) -> None:
    if first * second > MAX_PIXELS:
        raise FileFault(content.path, f"claims {first} x {second} values, over {MAX_PIXELS} in all")
