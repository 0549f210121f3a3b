"""Reading single files strictly: a file is read once, whole, and decoded from memory.

Every function raises `FileFault` with a text that names the file, what is wrong and the way out.
None of them follows what a file merely claims: sizes are compared before anything is decoded.
"""

import hashlib
import io
import stat
import struct
import threading
import tokenize
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
import yaml
from jaxtyping import Float, Float64, UInt8, UInt16
from PIL import Image, UnidentifiedImageError

from musc_jax.data.formats.remarks import overheard
from musc_jax.storage.paths import readable
from musc_jax.storage.signatures import START, foreign

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Under Pillow's own limit, which warns through a process-wide filter that threads cannot set aside.
MAX_PIXELS = 64_000_000
_MAX_TEXT_BYTES = 1_000_000
SMALLER = "keep every second point of every second row, or cut the part out"
"""The way out of scans that are too large."""

_AGAIN = "copy it again from the dataset's archive"
_ANEW = "save it again, or replace it by a sound copy"
# CPython 3.11's parser, which reads NPY headers, fails now and then when several threads use it.
NPY_PARSING = threading.Lock()
DECODE_ERRORS = (
    OSError,
    SyntaxError,  # Pillow's way of saying that a chunk is broken
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    EOFError,
    OverflowError,
    ZeroDivisionError,
    MemoryError,
    struct.error,
    tokenize.TokenError,  # NumPy's way of saying that a header is none
    zlib.error,
    Image.DecompressionBombError,
    tifffile.TiffFileError,
)


class FileFault(Exception):
    """One thing wrong with one file; the text is a line of the dataset's report."""

    def __init__(self, path: Path, fault: str, way_out: str = _AGAIN):
        super().__init__(f"{readable(path)}: {fault}; {way_out}")

    @property
    def of_own_file(self) -> str:
        """The same of a file of the user's own, which no archive holds."""
        return str(self).replace(f"make it readable or {_AGAIN}", "make it readable").replace(_AGAIN, _ANEW)


class Content(NamedTuple):
    """A file as it was read.

    Attributes:
        path: where.
        data: all of its bytes.
        digest: their SHA-256 in hexadecimal.
        stamp: length and time of the last change (nanoseconds) just before it was read.
    """

    path: Path
    data: bytes
    digest: str
    stamp: tuple[int, int]


def read(path: Path) -> Content:
    """Read a regular file (or a symbolic link to one) whole.

    Raises:
        FileFault: it is missing, empty, unreadable, not a file, or something that stands for one or is around one, such
            as a Git LFS pointer. A pipe is refused, not waited on.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileFault(path, "is not a regular file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileFault(path, "is missing") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        way_out = "make it readable or " + _AGAIN
        raise FileFault(path, f"cannot be read ({reason})", way_out) from None
    if not data:
        raise FileFault(path, "is empty")
    if (other := foreign(data[:START])) is not None:
        raise FileFault(path, f"is {other.what}", other.way_out)
    stamp = (status.st_size, status.st_mtime_ns)
    return Content(path, data, hashlib.sha256(data).hexdigest(), stamp)


def decode_image(content: Content) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an 8-bit RGB PNG."""
    return _decode_png(content, ("RGB",), "8-bit RGB")


def decode_mask(content: Content, *, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w"]:
    """Decode an 8-bit grey or 1-bit PNG; 1 bit becomes 0 and 255. `size`: see `decode_xyz`."""
    mask = _decode_png(content, ("L", "1"), "8-bit grey")
    check_size(content.path, mask.shape, size)
    return mask.astype(np.uint8) * np.uint8(255) if mask.dtype == bool else mask


def decode_depth(content: Content, *, size: tuple[int, int] | None = None) -> UInt16[np.ndarray, "h w"]:
    """Decode a 16-bit grey PNG. `size`: see `decode_xyz`.

    All zero is refused: it means that nothing was measured.
    """
    depth = _decode_png(content, ("I;16", "I;16B", "I;16L", "I;16N"), "16-bit grey")
    check_size(content.path, depth.shape, size)
    if not depth.any():
        raise FileFault(content.path, "has no points: every depth is zero")
    return depth.astype(np.uint16)


def decode_xyz(content: Content, *, size: tuple[int, int] | None = None) -> Float[np.ndarray, "h w 3"]:
    """Decode an organised point map from a TIFF.

    Args:
        content: the file.
        size: the (height, width) of its image; None where that is not known.

    Returns:
        Metres, in the file's floating-point type; (0, 0, 0) = no point.

    Raises:
        FileFault: not a readable TIFF, not (height, width, 3) floats, NaN or infinite values
            anywhere, or not one pixel with three non-zero coordinates.
    """
    path = content.path
    try:
        with overheard(), tifffile.TiffFile(io.BytesIO(content.data)) as tiff:
            series = tiff.series[0]
            shape, dtype = series.shape, series.dtype
            _check_xyz_form(path, shape, dtype, size)
            points = np.asarray(series.asarray())
    except DECODE_ERRORS as error:
        raise FileFault(path, f"is not a readable TIFF ({brief(error)})") from None
    _check_xyz_form(path, points.shape, points.dtype, size)
    if not np.isfinite(points).all():
        raise FileFault(path, "holds NaN or infinite coordinates", "write (0, 0, 0) for no point")
    if not (points != 0).all(axis=-1).any():
        raise FileFault(path, "has no points: no pixel has three non-zero coordinates")
    return points


def decode_depth_range(content: Content) -> tuple[float, float]:
    """Read `normalization: {min, max}`, the depths in metres of the values 0 and 65535."""
    fields = decode_yaml(content)
    section = fields.get("normalization")
    if not isinstance(section, dict):
        raise FileFault(content.path, "has no section `normalization` with `min` and `max`")
    values = []
    for name in ("min", "max"):
        try:
            # Through str: YAML reads `1e-3`, which lacks a dot, as text.
            value = float(str(section.get(name)))
        except ValueError:
            fault = f"normalization.{name} is not a number: {section.get(name)!r}"
            raise FileFault(content.path, fault) from None
        if not np.isfinite(value):
            raise FileFault(content.path, f"normalization.{name} is not finite: {value}")
        values.append(value)
    low, high = values
    if not low < high or high <= 0:
        raise FileFault(
            content.path,
            f"normalization.min = {low:g} and .max = {high:g} are no range of depths in front of the camera",
        )
    return low, high


def decode_pose(content: Content) -> Float64[np.ndarray, "4 4"]:
    """Read a 4 x 4 matrix of finite numbers, one row a line, that can be inverted."""
    try:
        rows = [line.replace(",", " ").split() for line in _text(content).splitlines()]
        pose = np.array([[float(entry) for entry in row] for row in rows if row])
    except ValueError:
        raise FileFault(content.path, "is not a 4 x 4 matrix of numbers") from None
    if pose.shape != (4, 4):
        raise FileFault(content.path, f"is not a 4 x 4 matrix, its shape is {pose.shape}")
    if not np.isfinite(pose).all():
        raise FileFault(content.path, "is not a 4 x 4 matrix of finite numbers")
    if np.linalg.cond(pose) > 1e12:
        raise FileFault(content.path, "is a matrix that cannot be inverted")
    return pose


def decode_yaml(content: Content) -> dict[str, object]:
    """Read a YAML mapping of plain values."""
    try:
        fields = yaml.safe_load(_text(content))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FileFault(content.path, f"is not readable YAML ({brief(error)})") from None
    if not isinstance(fields, dict):
        raise FileFault(content.path, "is not a YAML mapping")
    return fields


def _decode_png(content: Content, modes: tuple[str, ...], wanted: str) -> np.ndarray:
    path, data = content.path, content.data
    if not data.startswith(_PNG_SIGNATURE) or len(data) < 33:
        raise FileFault(path, "is not a PNG file")
    width, height = struct.unpack(">II", data[16:24])
    if width * height > MAX_PIXELS:
        raise FileFault(path, f"claims {width} x {height} pixels, over {MAX_PIXELS} in all")
    try:
        with overheard(), Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            mode = picture.mode
            pixels = np.array(picture)
    except DECODE_ERRORS as error:
        raise FileFault(path, f"is a damaged PNG ({brief(error)})") from None
    if mode not in modes:
        raise FileFault(path, f"must be {wanted}, its mode is {mode}", f"convert it to {wanted}")
    return pixels


def _check_xyz_form(path: Path, shape: tuple[int, ...], dtype: np.dtype | None, size: tuple[int, int] | None) -> None:
    if dtype is None or dtype.kind != "f":
        raise FileFault(path, f"must hold floating-point metres, its type is {dtype}")
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise FileFault(path, f"must have the shape (height, width, 3), not {shape}")
    check_size(path, shape, size)
    if shape[0] * shape[1] > MAX_PIXELS:
        raise FileFault(path, f"claims {shape[1]} x {shape[0]} points, over {MAX_PIXELS} in all")


def check_size(path: Path, shape: tuple[int, ...], size: tuple[int, int] | None) -> None:
    """Compare a picture's (height, width) with its image's, where that is known."""
    if size is not None and shape[:2] != size:
        fault = f"is {shape[1]} x {shape[0]} pixels, but its image is {size[1]} x {size[0]}"
        raise FileFault(path, fault)


def _text(content: Content) -> str:
    if len(content.data) > _MAX_TEXT_BYTES:
        raise FileFault(content.path, f"is {len(content.data)} bytes long, no small text file")
    return content.data.decode("utf-8-sig")


def brief(error: BaseException) -> str:
    """The first line of an error, which must not break the report's one line per fault."""
    if isinstance(error, UnidentifiedImageError):
        return "of no known format"  # Pillow's own text names an object in memory
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
