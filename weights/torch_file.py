"""PyTorch's checkpoints as files: where in the zip archive, or in the older row of pickles, the values lie.

Sizes, places and overlaps are checked before anything is allocated. Tensors are read only when asked for, each by
itself, so an optimizer costs nothing and no more than one tensor is in memory twice.
"""

import io
import os
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from musc_jax._text import shown
from weights.errors import WeightsError
from weights.foreign import LEGACY_MAGIC, LEGACY_START, of_archive
from weights.torch_pickle import MAX_PICKLE, BrokenPickleError, Inert, Name, Pickle, Storage, Tensor

# The list of members of a large CLIP checkpoint takes 50 KB; a list of millions would take minutes and gigabytes.
_MAX_DIRECTORY = 2 << 20
_MAX_DEPTH = 100
_MAX_NAME = 500
_PART = 1 << 22
_LEGACY_PROTOCOL = 1001
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_TORCHSCRIPT = ("constants.pkl", "code/")
_OPTIMIZERS = ("optimizer", "lr_scheduler", "scheduler")


class _Place(NamedTuple):
    """Where a storage's raw bytes lie; `checksum` is 0 where the file has none."""

    start: int
    length: int
    checksum: int


class GuardedFile(io.FileIO):
    """A file of which no reader gets much at once: zipfile believes any size that an archive declares."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = max(0, os.fstat(self.fileno()).st_size - self.tell())
        if size > _MAX_DIRECTORY:
            raise BrokenPickleError("its list of members is too large")
        return super().read(size)


class TorchFile:
    """A checkpoint: `tensors` describes what is in it, `read` brings one in.

    Raises:
        WeightsError: The file is no such checkpoint, or not a sound one; names the file and the way out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, _Place] = {}
        self._given_out: Counter[str] = Counter()  # by storage: values that `read_parameter` returned so far
        self._checked: set[str] = set()
        try:
            self.content = self._open()
        except BrokenPickleError as problem:
            raise self._broken(str(problem)) from None
        except (
            OSError,
            zipfile.BadZipFile,
            RecursionError,
            NotImplementedError,
            UnicodeDecodeError,
            OverflowError,
        ) as error:
            raise WeightsError(
                f"{path}: cannot be read as a PyTorch checkpoint ({shown(error)}); fetch it again"
            ) from None

    def _broken(self, problem: str) -> WeightsError:
        way_out = "" if ";" in problem else "; fetch it again"
        return WeightsError(f"{self.path}: no sound PyTorch checkpoint: {problem}{way_out}")

    def _open(self) -> Any:
        with self.path.open("rb") as file:
            start = file.read(512)
        if start.startswith(b"PK\x03\x04"):
            return self._open_zip()
        if start.startswith(LEGACY_START):
            return self._open_legacy()
        raise BrokenPickleError("it is neither a zip archive nor PyTorch's older format")

    def _open_zip(self) -> Any:
        members: dict[str, _Place] = {}
        with GuardedFile(self.path) as file, zipfile.ZipFile(file) as archive:
            infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
            if not infos:
                raise BrokenPickleError("its list of members is empty")
            if (other := of_archive([info.filename for info in infos])) is not None:
                raise WeightsError(f"{self.path}: {other.what}; {other.way_out}")
            # Asked first, because PyTorch compresses the code in it.
            if any(info.filename.partition("/")[2].startswith(_TORCHSCRIPT) for info in infos):
                raise WeightsError(
                    f"{self.path}: a TorchScript archive, which holds code; pass the model's folder from Hugging Face, "
                    f"or load it with PyTorch and save its state_dict()"
                )
            ends = [info.header_offset for info in infos[1:]] + [archive.start_dir]
            for info, end in zip(infos, ends, strict=True):
                name = info.filename.partition("/")[2]
                if name in members:
                    raise BrokenPickleError(f"its member {shown(info.filename)!r} comes twice")
                if (
                    info.compress_type != zipfile.ZIP_STORED
                    or info.flag_bits & 1
                    or info.compress_size != info.file_size
                ):
                    raise BrokenPickleError(f"its member {shown(info.filename)!r} is compressed or encrypted")
                members[name] = _place(file, info, end)
            if len({info.filename.partition("/")[0] for info in infos}) != 1 or "data.pkl" not in members:
                raise BrokenPickleError("it holds no data.pkl")
            order = _member(file, members["byteorder"], 16) if "byteorder" in members else b"little"
            if order != b"little":
                raise BrokenPickleError("its byte order is not little-endian")
            pickle = Pickle(_member(file, members["data.pkl"], MAX_PICKLE))
        self._places = {name[5:]: place for name, place in members.items() if name.startswith("data/")}
        return pickle.load()

    def _open_legacy(self) -> Any:
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            pickle = Pickle(file.read(MAX_PICKLE))
            magic, protocol, system = pickle.load(), pickle.load(), pickle.load()
            if (magic, protocol) != (LEGACY_MAGIC, _LEGACY_PROTOCOL) or not isinstance(system, dict):
                raise BrokenPickleError("an unknown version of PyTorch's older format")
            if system.get("little_endian") is not True:
                raise BrokenPickleError("its byte order is not little-endian")
            content = pickle.load()
            storages, keys = pickle.storages, pickle.load()
            if not isinstance(keys, list):
                raise BrokenPickleError("it does not list its storages")
            at = pickle.position
            for key in keys:
                storage = storages.get(key) if isinstance(key, str) else None
                if storage is None or key in self._places:
                    raise BrokenPickleError("it lists a storage that no tensor has, or one twice")
                count = storage.count if storage.whole is None else storage.whole
                length = count * storage.dtype.itemsize
                file.seek(at)
                header = file.read(8)
                if len(header) < 8 or at + 8 + length > size:
                    raise BrokenPickleError("it ends early")
                if int.from_bytes(header, "little", signed=True) != count:
                    raise BrokenPickleError(f"storage {shown(key)!r} has another length than its tensors say")
                self._places[key] = _Place(at + 8, length, 0)
                at += 8 + length
        return content

    def tensors(self) -> dict[str, Tensor]:
        """All tensors outside an optimizer, by their names joined with dots.

        Raises:
            WeightsError: Names without end.
        """
        found: dict[str, Tensor] = {}
        seen: set[int] = set()

        def walk(value: Any, name: str, depth: int) -> None:
            if isinstance(value, Tensor):
                found[name] = value
            elif isinstance(value, dict) and id(value) not in seen:
                if depth > _MAX_DEPTH or len(name) > _MAX_NAME:
                    raise self._broken("it nests dictionaries endlessly")
                seen.add(id(value))
                for key, inner in value.items():
                    if not (depth == 0 and key in _OPTIMIZERS) and isinstance(inner, Tensor | dict):
                        part = str(key)[: _MAX_NAME + 1]
                        walk(inner, f"{name}.{part}" if name else part, depth + 1)

        walk(self.content, "", 0)
        return found

    def read(self, tensor: Tensor) -> np.ndarray:
        """The values of one tensor, its own copy.

        Raises:
            WeightsError: The storage is missing, not as long as the pickle says, or damaged.
        """
        storage = tensor.storage
        place, item = self._places.get(storage.key), storage.dtype.itemsize
        count = storage.count if storage.whole is None else storage.whole
        if place is None or place.length != count * item:
            raise self._broken(f"storage {shown(storage.key)!r} is missing or of another length")
        if not tensor.size:
            return np.zeros(tensor.shape, storage.dtype)
        span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
        try:
            damaged = self._is_damaged(storage.key, place)
            start = place.start + (storage.start + tensor.offset) * item
            # Mapped, so that a view of every other value, say, does not bring in what lies between.
            flat = np.memmap(self.path, storage.dtype, "r", start, (span,))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{self.path}: cannot be read ({shown(error)}); fetch it again") from None
        if damaged:
            raise self._broken(f"storage {shown(storage.key)!r} is damaged (its checksum differs)")
        strides = tuple(s * item for s in tensor.strides)
        return np.array(np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False))

    def read_parameter(self, tensor: Tensor) -> np.ndarray:
        """`read`, for tensors that have their values to themselves, as parameters do.

        Raises:
            WeightsError: As `read`; more values were asked for than the storage has. Tensors laid over each other would
                let a small file fill any amount of memory.
        """
        storage = tensor.storage
        self._given_out[storage.key] += tensor.size
        if self._given_out[storage.key] > (storage.count if storage.whole is None else storage.whole):
            raise self._broken(f"tensors lie over each other in storage {shown(storage.key)!r}")
        return self.read(tensor)

    def _is_damaged(self, key: str, place: _Place) -> bool:
        """Compares a storage with its checksum, once."""
        if not place.checksum or key in self._checked:
            return False
        checksum, left = 0, place.length
        with self.path.open("rb") as file:
            file.seek(place.start)
            while left and (part := file.read(min(left, _PART))):
                checksum, left = zlib.crc32(part, checksum), left - len(part)
        self._checked.add(key)
        return checksum != place.checksum


def _place(file: io.FileIO, info: zipfile.ZipInfo, end: int) -> _Place:
    """Where a member's bytes lie; they must end where the next member begins, at the latest."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if info.header_offset < 0 or len(header) < _LOCAL_HEADER.size:
        raise BrokenPickleError("it ends early")
    signature, name, extra = _LOCAL_HEADER.unpack(header)
    start = info.header_offset + _LOCAL_HEADER.size + name + extra
    if signature != b"PK\x03\x04" or start + info.file_size > end:
        raise BrokenPickleError(f"its member {shown(info.filename)!r} lies over another one, or past the end")
    return _Place(start, info.file_size, info.CRC)


def _member(file: io.FileIO, place: _Place, most: int) -> bytes:
    """A small member, whole."""
    if place.length > most:
        raise BrokenPickleError("its pickle is too large")
    file.seek(place.start)
    data = io.FileIO.read(file, place.length)  # not the guarded one: the pickle may be larger than a list of members
    if len(data) != place.length or (place.checksum and zlib.crc32(data) != place.checksum):
        raise BrokenPickleError("its pickle is damaged")
    return data


__all__ = ["Inert", "Name", "Storage", "Tensor", "TorchFile"]
