"""NumPy's archives (.npz) as named arrays: described at once, read one by one, and never unpickled.

An archive is a ZIP file of `.npy` members, stored or deflated. What a member declares is held against what it has
before anything is allocated.
"""

import math
import threading
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from musc_jax._text import shown
from weights.errors import WeightsError
from weights.torch_file import GuardedFile
from weights.torch_pickle import BrokenPickleError

_PART = 1 << 20
# Parameters hardly get smaller; an array of zeros, such as a token that is not used, does.
_MOST_PACKED, _SMALL = 50, 1 << 24
# NumPy parses headers with the interpreter's own parser, of whose warnings there is one list for all threads.
_PARSING = threading.Lock()
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_ERRORS = (
    OSError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError, EOFError, NotImplementedError, KeyError,
    OverflowError, UnicodeDecodeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError, BrokenPickleError,
)  # fmt: skip


class NpzArray(NamedTuple):
    """One array of an archive.

    Attributes:
        path, member: The archive, and the member that it is.
        shape, dtype: Of the array.
        by_columns: Whether the first axis runs fastest in the file.
        start: Where the values begin, behind the member's header.
    """

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype
    by_columns: bool
    start: int

    def read(self) -> np.ndarray:
        """The values, with the byte order of this machine.

        Raises:
            WeightsError: The member is cut short or damaged.
        """
        values = bytearray(math.prod(self.shape) * self.dtype.itemsize)
        with _opened(self.path) as archive, archive.open(self.member) as stream:
            _exactly(stream, bytearray(self.start))
            _exactly(stream, values)
            if stream.read(1):  # at the end, where the checksum is compared
                raise ValueError(f"{shown(self.member)} is longer than it says")
        flat = np.frombuffer(values, self.dtype)
        array = flat.reshape(self.shape[::-1]).T if self.by_columns else flat.reshape(self.shape)
        return array.astype(self.dtype.newbyteorder("="), copy=False)


def is_npz(path: Path) -> bool:
    """Whether a file is a ZIP archive of arrays and of nothing else."""
    try:
        with path.open("rb") as start:
            if start.read(4) != b"PK\x03\x04":
                return False
        with GuardedFile(path) as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except _ERRORS:
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def npz_arrays(path: Path, *, most: int) -> dict[str, NpzArray]:
    """What is in an archive, by name.

    Args:
        path: The file.
        most: Number of arrays that a sound one may have.

    Raises:
        WeightsError: It is damaged, holds Python objects, or declares what it cannot hold; names file and member.
    """
    found: dict[str, NpzArray] = {}
    with _opened(path) as archive:
        infos = archive.infolist()
        if len(infos) > most:
            raise ValueError(f"{len(infos)} arrays, which no backbone has")
        if sum(info.compress_size for info in infos) > path.stat().st_size:
            raise ValueError("its members overlap")
        for info in infos:
            name = info.filename.removesuffix(".npy")
            if name in found:
                raise ValueError(f"{shown(info.filename)} comes twice")
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{shown(info.filename)} is encrypted, or packed in a way that NumPy has not")
            if info.file_size > max(_SMALL, _MOST_PACKED * info.compress_size):
                raise ValueError(f"{shown(info.filename)} is said to be {info.file_size} bytes, far more than it holds")
            found[name] = _described(path, archive, info)
    return found


def _described(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NpzArray:
    with archive.open(info) as stream, _PARSING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a header is of Python 2
        version = np.lib.format.read_magic(stream)
        read: Any = _HEADERS.get(version)
        if read is None:
            raise ValueError(f"{shown(info.filename)} is of version {version} of NumPy's format; save it again")
        shape, by_columns, dtype = read(stream)
        start = stream.tell()
    if dtype.hasobject:
        raise ValueError(f"{shown(info.filename)} holds Python objects, which are not read; save arrays of numbers")
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"{shown(info.filename)} has the shape {shown(shape)}")
    if math.prod(shape) * dtype.itemsize != info.file_size - start:
        raise ValueError(f"{shown(info.filename)} claims {shown(shape)} values of {dtype} and does not hold so many")
    return NpzArray(path, info.filename, shape, dtype, by_columns, start)


def _exactly(stream: Any, into: bytearray) -> None:
    """Fills a buffer, a part at a time."""
    view, at = memoryview(into), 0
    while at < len(view):
        part = stream.read(min(_PART, len(view) - at))
        if not part:
            raise ValueError("it is cut short")
        view[at : at + len(part)] = part
        at += len(part)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive; everything that reading it may end in is one kind of error."""
    try:
        with GuardedFile(path) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except _ERRORS as error:
        reason = shown(str(error) or type(error).__name__)
        way_out = "" if ";" in reason else "; fetch it again"
        raise WeightsError(f"{path}: no sound NumPy archive: {reason}{way_out}") from None
