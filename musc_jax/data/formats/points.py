"""Point data in the formats people keep it in: xyz TIFF, depth and height maps, NPY, PLY, PCD.

As in `files`, what is wrong with a file is a `FileFault`. What a map's numbers mean is not decided here.
"""

import io
import math
import os
from collections import Counter
from pathlib import Path, PurePath
from typing import Literal, NamedTuple

import numpy as np
import tifffile
from jaxtyping import Float, Num
from PIL import Image

from musc_jax.data.formats.files import DECODE_ERRORS, MAX_PIXELS, NPY_PARSING, SMALLER, Content, FileFault, brief
from musc_jax.data.formats.pcd import decode_pcd
from musc_jax.data.formats.ply import decode_ply
from musc_jax.data.formats.remarks import overheard
from musc_jax.data.formats.xyz_text import decode_xyz_text

EXTENSIONS = frozenset({".tif", ".tiff", ".png", ".npy", ".ply", ".pcd", ".xyz"})
"""What counts as point data, in lower case."""

FOREIGN = {
    **dict.fromkeys((".exr", ".pfm", ".hdr", ".dpt"), "save depth as TIFF of 32-bit floats"),
    **dict.fromkeys((".raw", ".bin", ".dat", ".mat", ".h5", ".hdf5", ".npz", ".zdf"), "save it as NPY or TIFF"),
    **dict.fromkeys((".obj", ".stl", ".off", ".gltf", ".glb", ".step", ".stp"), "save the scan's points as PLY"),
    **dict.fromkeys((".las", ".laz", ".e57", ".ptx"), "save it as PLY or PCD"),
    **dict.fromkeys((".txt", ".csv", ".asc", ".pts"), "call it .xyz if it has x, y and z in each line"),
    **dict.fromkeys((".jpg", ".jpeg", ".webp"), "pictures of depth are not depth: save it as PNG of 16 bits"),
    **dict.fromkeys((".gz", ".zip", ".7z", ".tar"), "unpack it"),
}  # fmt: skip
"""What people keep point data in and is not read: the way out, by suffix in lower case."""

# Columns of a table or channels of a grid with more than x, y and z; a table is so many times as long as wide.
_MORE_COLUMNS, _LONG = range(4, 10), 10
_NODATA = 42113  # a TIFF's tag, as GDAL writes it
_PLAIN = "save it unpacked, or by deflate"
_EXPECTED = "expected floats (height, width, 3), or depth (height, width)"
_CLOUDS = {".ply": decode_ply, ".pcd": decode_pcd, ".xyz": decode_xyz_text}


def foreign_points(folder: Path) -> str:
    """What to say of files in a folder that may be point data and are not read; "" if there are none."""
    counts = Counter(
        suffix
        for _, _, names in os.walk(folder)
        for suffix in (PurePath(name).suffix.lower() for name in names if not name.startswith("."))
        if suffix in FOREIGN
    )
    return "".join(f"; {suffix} ({count} there) is not read: {FOREIGN[suffix]}" for suffix, count in counts.items())


class Scan(NamedTuple):
    """What a file of point data holds, its numbers as they are.

    Attributes:
        values: (height, width) of a map, (height, width, 3) of a grid, (points, 3) of a list.
        form: "map": one number a pixel, depth or height. "grid": x, y and z of each pixel. "list": points one after
            the other, without rows and columns.
    """

    values: Num[np.ndarray, "*shape"]
    form: Literal["map", "grid", "list"]


def decode_scan(content: Content) -> Scan:
    """Decode a file of point data.

    Raises:
        FileFault: not readable, or none.
    """
    path, array = content.path, _decode(content)
    if array.ndim == 2:
        if path.suffix.lower() in (".npy", *_CLOUDS) and (points := _as_list(array)) is not None:
            return Scan(points, "list")
        if array.dtype.itemsize == 1:
            raise FileFault(
                path,
                "holds 8 bits a pixel: a picture of depth, scaled or cut off at 255, not depth itself",
                "save depth in 16 bits a pixel or as floats (PNG, TIFF, NPY)",
            )
        return Scan(array, "map")
    if array.dtype.kind in "fi" and array.dtype.itemsize > 1:
        if array.shape[2] == 3 or (array.shape[2] in _MORE_COLUMNS and array.dtype.kind == "f"):
            return Scan(array[..., :3], "grid")
        if array.shape[0] == 3:
            return Scan(np.moveaxis(array, 0, -1), "grid")
    elif array.shape[2] in (2, 3, 4):
        raise FileFault(
            path,
            f"holds {array.shape[2]} channels of {8 * array.dtype.itemsize} bits: a picture, not depth or points",
            "save depth in one channel of 16 bits or as floats, or x, y and z as floats",
        )
    raise FileFault(path, f"holds {array.dtype} values of shape {array.shape}", _EXPECTED)


def _as_list(array: Num[np.ndarray, "rows columns"]) -> Num[np.ndarray, "p 3"] | None:
    """The points of a table: x, y and z, perhaps with normals or colours behind them; None of a map."""
    rows, columns = array.shape
    if columns == 3 or (columns in _MORE_COLUMNS and array.dtype.kind == "f" and rows >= _LONG * columns):
        return array[:, :3]
    return array.T if rows == 3 else None


def _decode(content: Content) -> np.ndarray:
    path = content.path
    kind = path.suffix.lower()
    if kind in _CLOUDS:
        return _CLOUDS[kind](content)
    try:
        with overheard():
            if kind == ".npy":
                array = _decode_npy(content)
            elif kind == ".png":
                with Image.open(io.BytesIO(content.data), formats=("PNG",)) as picture:
                    _check_count(content, *picture.size)
                    # A grey PNG has 16 bits at most; Pillow may give it 32.
                    array = np.array(picture) if picture.mode != "I" else np.array(picture).astype(np.uint16)
            else:
                with tifffile.TiffFile(io.BytesIO(content.data)) as tiff:
                    _check_count(content, *tiff.series[0].shape[:2])
                    array = _without_nodata(tiff, _unpacked(content, tiff))
    except (*DECODE_ERRORS, SystemError) as error:
        if "imagecodecs" in str(error):  # tifffile's extra for rarer ways of packing
            raise FileFault(path, f"is packed in a way that is not read ({brief(error)})", _PLAIN) from None
        raise FileFault(path, f"cannot be read ({brief(error)})") from None
    if array.ndim not in (2, 3) or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise FileFault(path, f"holds {array.dtype} values of shape {array.shape}", _EXPECTED)
    if array.ndim == 3 and array.shape[2] == 1:
        return array[..., 0]
    return array[0] if array.ndim == 3 and array.shape[0] == 1 and array.shape[2] > 4 else array


def _unpacked(content: Content, tiff: tifffile.TiffFile) -> np.ndarray:
    """The numbers of a TIFF; tifffile needs an extra for LZW, which OpenCV writes, and Pillow takes some of it."""
    try:
        return np.asarray(tiff.series[0].asarray())
    except (ValueError, KeyError) as error:
        if "imagecodecs" not in str(error) or len(tiff.series[0].shape) != 2:
            raise
        with Image.open(io.BytesIO(content.data), formats=("TIFF",)) as picture:
            if picture.mode not in ("F", "I;16") or 0x0112 in tiff.pages[0].tags:
                raise
            return np.array(picture)


def _without_nodata(tiff: tifffile.TiffFile, array: np.ndarray) -> np.ndarray:
    """The array with NaN where it has the number that the file itself says is none."""
    tag = tiff.pages[0].tags.get(_NODATA)
    try:
        number = float(str(tag.value).strip("\0 ")) if tag is not None else math.nan
    except ValueError:
        return array
    if math.isnan(number) or array.dtype.kind not in "fiu":
        return array
    missing = array == (array.dtype.type(number) if array.dtype.kind == "f" else number)
    return np.where(missing, np.nan, array) if missing.any() else array


def _decode_npy(content: Content) -> np.ndarray:
    file = io.BytesIO(content.data)
    with NPY_PARSING:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise FileFault(content.path, "holds Python objects, which are not read", "save an array of numbers")
    _check_count(content, *(shape[:2] if len(shape) > 1 else (*shape, 1)[:2]))
    if math.prod(shape) * dtype.itemsize > len(content.data) - file.tell():
        raise FileFault(content.path, f"is cut short: it claims {shape} values and does not hold them")
    file.seek(0)
    with NPY_PARSING:
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
        raise FileFault(content.path, f"claims {first} x {second} values, over {MAX_PIXELS} in all", SMALLER)
