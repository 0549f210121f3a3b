"""Point data in the formats people keep it in: xyz TIFF, depth pictures with intrinsics, NPY, PLY, PCD.

As in `files`, what is wrong with a file is a `FileFault`. Values that are not finite mean "no point", as PCD and most
cameras have it.
"""

import io
import re
import threading
import warnings
from typing import Any, NamedTuple

import numpy as np
import tifffile
from jaxtyping import Float32, Float64, UInt8
from PIL import Image

from musc_jax.data.folder_layout import Camera
from musc_jax.data.formats.files import DECODE_ERRORS, MAX_PIXELS, Content, FileFault, brief

EXTENSIONS = frozenset({".tif", ".tiff", ".png", ".npy", ".ply", ".pcd"})
"""What counts as point data, in lower case."""

_INSTALL = (
    "pip install 'musc-jax[open3d]', and on Debian or Ubuntu apt-get install libusb-1.0-0 libegl1 libgl1 libx11-6 "
    "libidn2-0 libgomp1"
)
# CPython 3.11's parser, which reads NPY headers, fails now and then when several threads use it.
_PARSING = threading.Lock()
_READING_CLOUDS = threading.Lock()  # Open3D's verbosity is one for the whole process


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
    if array.ndim == 2 and array.shape[1] == 3 and path.suffix.lower() in (".npy", ".ply", ".pcd"):
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
    if kind in (".ply", ".pcd"):
        return _decode_cloud(content)
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
    _check_count(content, *(shape[:2] if len(shape) > 1 else (1, 1)))
    file.seek(0)
    with _PARSING:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


_PLY_BYTES = {
    "char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2,
    "int": 4, "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4, "double": 8, "float64": 8,
}  # fmt: skip
_MAX_HEADER = 100_000


def _check_ply(content: Content) -> None:
    """Compare what a PLY file claims with its length: Open3D trusts the claim and makes up what is missing."""
    end = re.search(rb"end_header\r?\n", content.data[:_MAX_HEADER])
    if not content.data.startswith(b"ply") or end is None:
        raise FileFault(content.path, "is no PLY file")
    lines = [line.split() for line in content.data[: end.start()].decode("ascii", "replace").splitlines()]
    elements = [(line[1], line[2]) for line in lines if line[:1] == ["element"] and len(line) == 3]
    vertices = dict(elements).get("vertex", "")
    if not vertices.isdigit():
        raise FileFault(content.path, "has no `element vertex` with a count")
    ascii_format = ["format", "ascii", "1.0"] in lines
    # What comes before the vertices, and lists, have lengths of their own; then only the least is known.
    row, plain, inside = 0, elements[0][0] == "vertex", False
    for line in lines:
        if line[:1] == ["element"]:
            inside = line[1:2] == ["vertex"]
        elif line[:1] == ["property"] and inside:
            plain &= len(line) == 3 and line[1] in _PLY_BYTES
            row += _PLY_BYTES.get(line[1], 0)
    _check_length(content, int(vertices), end.end(), row if plain else 3, as_lines=ascii_format)


def _check_pcd(content: Content) -> None:
    """The same for PCD."""
    end = re.search(rb"^DATA (\w+)\r?\n", content.data[:_MAX_HEADER], re.MULTILINE)
    if end is None:
        raise FileFault(content.path, "is no PCD file")
    fields = {
        line.split()[0]: line.split()[1:]
        for line in content.data[: end.start()].decode("ascii", "replace").splitlines()
        if line.strip()
    }
    try:
        points = int(fields["POINTS"][0]) if "POINTS" in fields else int(fields["WIDTH"][0]) * int(fields["HEIGHT"][0])
        sizes = [int(size) for size in fields["SIZE"]]
        counts = [int(count) for count in fields.get("COUNT", ["1"] * len(sizes))]
        row = sum(size * count for size, count in zip(sizes, counts, strict=True))
    except (KeyError, IndexError, ValueError):
        raise FileFault(content.path, "has no readable PCD header") from None
    if points < 0 or row <= 0 or min(sizes + counts) <= 0:
        raise FileFault(content.path, "has no readable PCD header")
    kind = end[1].decode()
    if kind == "binary_compressed":
        lengths = content.data[end.end() : end.end() + 8]
        if len(lengths) < 8 or int.from_bytes(lengths[4:], "little") != points * row:
            raise FileFault(content.path, "is cut short or damaged")
        _check_length(content, int.from_bytes(lengths[:4], "little"), end.end() + 8, 1, as_lines=False)
        return
    _check_length(content, points, end.end(), row, as_lines=kind == "ascii")


def _check_length(content: Content, count: int, start: int, row: int, *, as_lines: bool) -> None:
    _check_count(content, count, 1)
    rest = len(content.data) - start
    if as_lines:
        lines = content.data.count(b"\n", start) + (not content.data.endswith(b"\n"))
        short = lines < count
    else:
        short = rest < count * row
    if short:
        raise FileFault(content.path, f"is cut short: it claims {count} points and does not hold them")


def _decode_cloud(content: Content) -> np.ndarray:
    path = content.path
    (_check_ply if path.suffix.lower() == ".ply" else _check_pcd)(content)
    try:
        import open3d
    except (ImportError, OSError) as error:
        kind = path.suffix[1:].upper()
        raise FileFault(path, f"is {kind}, which needs Open3D ({brief(error)})", f"{_INSTALL}; or save NPY") from None
    with _READING_CLOUDS, open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        cloud: Any = open3d.io.read_point_cloud(path, remove_nan_points=False, remove_infinite_points=False)
    points = np.asarray(cloud.points)
    if not len(points):
        raise FileFault(path, "has no points that Open3D can read")
    _check_count(content, len(points), 1)
    return points


def _check_count(content: Content, first: int, second: int) -> None:
    if first * second > MAX_PIXELS:
        raise FileFault(content.path, f"claims {first} x {second} values, over {MAX_PIXELS} in all")
