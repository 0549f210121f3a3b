"""Unpacking archives that are not trusted: tar (plain, gzip, bzip2, xz) and zip.

An archive is read twice. First every member is checked, by rules of our own and before anything is written; then it is
unpacked into a temporary folder in which everything must be as it was the first time, and renamed into place. Whatever
goes wrong, nothing is left behind.
"""

import bz2
import copy
import filecmp
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from musc_jax.storage import atomic
from musc_jax.storage.archive_names import Clashes, Member, Refused, checked_name, shown_name
from musc_jax.storage.signatures import foreign

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how many bytes of it are done, and how many there are."""

MOST_RATIO = 200
"""How many times its size an archive may unpack to."""
MOST_BYTES = 100 << 30
"""What an archive may unpack to where the caller says nothing else."""

# Very regular content beats the ratio honestly (an archive of ten black masks); so little does no harm.
_HARMLESS = 1 << 20
_MOST_MEMBERS = 200_000
# Of one read of tarfile's: only extended headers take more than a block, and it parses them in quadratic time.
_MOST_HEADER = 16 << 10
_MOST_DICTIONARY = 1 << 30
_CHUNK = 1 << 20
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    RuntimeError,
    ValueError,
    OverflowError,
    IndexError,
    EOFError,
    MemoryError,
)
_AGAIN = "nothing was unpacked; download it again, from the dataset's home page, or unpack it by hand if you trust it"


class ArchiveError(ValueError):
    """An archive that is not unpacked; one line that names it and the way out."""


@dataclass(frozen=True)
class Inventory:
    """An archive whose members were checked.

    Attributes:
        members: in the order of the archive.
    """

    members: tuple[Member, ...]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(member.size for member in self.members)

    @property
    def tops(self) -> tuple[str, ...]:
        """What lies at the archive's root."""
        return tuple(dict.fromkeys(member.name.split("/", 1)[0] for member in self.members))


# A member, and its content in parts; the content can be asked for until the next member is.
_Walk = Iterator[tuple[Member, Callable[[], Iterator[bytes]]]]


@runtime_checkable
class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def inspect(archive: Path, *, max_bytes: int | None = None, progress: Progress | None = None) -> Inventory:
    """Check every member of an archive, without writing anything.

    Args:
        archive: tar or zip, by its content, not by its name.
        max_bytes: what it may unpack to.
        progress: called with (stage, bytes done, bytes in all).

    Raises:
        ArchiveError: it is broken, or holds what is never unpacked: absolute or climbing names, links, devices, names
            that come twice, far more data than its size allows.
    """
    with _explained(archive), archive.open("rb") as file:
        report = _report(archive, progress, "checking")
        members: list[Member] = []
        clashes = Clashes()
        total, most = 0, MOST_BYTES if max_bytes is None else max_bytes
        allowed = MOST_RATIO * archive.stat().st_size + _HARMLESS
        for member, _ in _walk(file, report):
            total += member.size
            if total > most:
                raise Refused(f"unpacks to more than {most} bytes")
            if total > allowed:
                raise Refused(f"unpacks to more than {MOST_RATIO} times its size")
            if len(members) == _MOST_MEMBERS:
                raise Refused(f"has more than {_MOST_MEMBERS} members")
            clashes.add(member)
            if member.name:
                members.append(member)
        if not members:
            raise Refused("is empty")
        return Inventory(tuple(members))


def extract(
    archive: Path,
    target: Path,
    *,
    max_bytes: int | None = None,
    progress: Progress | None = None,
    inventory: Inventory | None = None,
) -> Inventory:
    """Unpack an archive, all of it or nothing.

    Args:
        archive: see `inspect`.
        target: the folder that gets its content. It may exist: what is there already must be the same, byte for byte,
            as what the archive would put there, and everything else in it stays as it is.
        max_bytes: see `inspect`.
        progress: see `inspect`.
        inventory: what `inspect` returned, so that it need not be done again.

    Returns:
        What was unpacked.

    Raises:
        ArchiveError: see `inspect`; also if there is no room, or a file in `target` would be overwritten.
    """
    if inventory is None:
        inventory = inspect(archive, max_bytes=max_bytes, progress=progress)
    with _explained(archive):
        target = target.resolve()
        # A folder that exists may be a mount: only within it is renaming certain to work.
        beside = target / "unpacked" if target.is_dir() else target
        if target.exists() and not target.is_dir():
            raise ArchiveError(f"{target}: is a file, not a folder; choose another folder")
        with atomic.temporary(beside) as folder:
            atomic.sweep(folder.parent)
            _require_room(folder.parent, inventory)
            folder.mkdir()
            with archive.open("rb") as file:
                _write(_walk(file, _report(archive, progress, "unpacking")), inventory, folder)
            if target.is_dir():
                _merge(folder, target)
            else:
                folder.rename(target)
    return inventory


def _walk(file: BinaryIO, report: Callable[[int], None]) -> _Walk:
    start = file.read(512)
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _walk_zip(file, report)
        report(size)
        return
    allowed: int | None = MOST_RATIO * size + _HARMLESS
    stream: _Stream
    packed = True
    if start[:2] == b"\x1f\x8b":
        stream = gzip.GzipFile(fileobj=file)
    elif start[:3] == b"BZh":
        stream = _Unpacked(file, bz2.BZ2Decompressor)
    elif start[:6] == b"\xfd7zXZ\0":
        new = partial(lzma.LZMADecompressor, format=lzma.FORMAT_XZ, memlimit=_MOST_DICTIONARY)
        stream = _Unpacked(file, new)
    elif _is_tar_header(start):
        stream, allowed, packed = file, None, False
    else:
        other = foreign(start)
        raise Refused(f"is {other.what}" if other else "is no tar (plain, gzip, bzip2, xz) or zip archive")
    yield from _walk_tar(_Guard(stream, allowed, lambda: report(file.tell())), packed=packed)
    report(size)


def _is_tar_header(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return len(start) == tarfile.BLOCKSIZE and not start.strip(b"\0")
    return True


def _walk_tar(guard: "_Guard", *, packed: bool) -> _Walk:
    # Only headers are left to tarfile; it skips what it cannot read, and follows links, so the rest is done here.
    tar = tarfile.TarFile(fileobj=guard, mode="r", encoding="utf-8")  # type: ignore[arg-type]
    while (info := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]
        shown = shown_name(info.name)
        if info.issym() or info.islnk():
            raise Refused(f"holds a link, {shown}")
        if info.ischr() or info.isblk() or info.isfifo():
            raise Refused(f"holds a device or pipe, {shown}")
        if info.issparse() or not (info.isreg() or info.isdir()):
            raise Refused(f"holds {shown}, which is neither file nor folder")
        if info.size < 0:
            raise Refused(f"holds {shown}, which has less than no bytes")
        name = checked_name(info.name, folder=info.isdir())
        yield (
            Member(name, 0 if info.isdir() else info.size, info.isdir()),
            partial(guard.parts, info.offset_data, info.size),
        )
    # At anything but a header tarfile takes the archive for finished.
    if len(guard.last) < tarfile.BLOCKSIZE:
        raise Refused("is cut short")
    if guard.last.strip(b"\0"):
        raise Refused("is damaged (a header cannot be read)")
    # What follows the end mark has no meaning, but the sum that tells whether all arrived well comes after it.
    while packed and guard.read(_MOST_HEADER):
        pass


class _Guard:
    """What tarfile reads from: forwards only, never much at once, never more than allowed."""

    def __init__(self, stream: _Stream, allowed: int | None, report: Callable[[], None]) -> None:
        self._stream, self._allowed, self._report = stream, allowed, report
        self._position = 0
        self.last = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_HEADER:
            raise Refused(f"has a header of {size} bytes")
        self.last = self._take(size)
        return self.last

    def seek(self, position: int) -> None:
        if position < self._position:
            raise Refused("is damaged (a member begins within another)")
        while self._position < position:
            if not self._take(min(_CHUNK, position - self._position)):
                raise Refused("is cut short")

    def parts(self, start: int, size: int) -> Iterator[bytes]:
        self.seek(start)
        while size:
            part = self._take(min(_CHUNK, size))
            if not part:
                raise Refused("is cut short")
            size -= len(part)
            yield part

    def _take(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._stream.read(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
            self._position += len(part)
            if self._allowed is not None and self._position > self._allowed:
                raise Refused(f"unpacks to more than {MOST_RATIO} times its size")
        self._report()
        return b"".join(parts)


class _Unpacked:
    """A bzip2 or xz file as it is unpacked; unlike the standard ones, it can be told how much memory is too much."""

    def __init__(self, file: BinaryIO, new: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> None:
        self._file, self._new = file, new
        self._decoder = new()

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none at the end."""
        while True:
            if self._decoder.eof:
                data = self._decoder.unused_data.lstrip(b"\0")
                while not data:
                    data = self._file.read(1 << 16)
                    if not data:
                        return b""
                    data = data.lstrip(b"\0")
                self._decoder = self._new()
            elif self._decoder.needs_input:
                data = self._file.read(1 << 16)
                if not data:
                    raise Refused("is cut short")
            else:
                data = b""
            unpacked = self._decoder.decompress(data, size)
            if unpacked:
                return unpacked


def _walk_zip(file: BinaryIO, report: Callable[[int], None]) -> _Walk:
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        _check_zip(infos)
        done = 0
        for info in infos:
            name = checked_name(info.filename, folder=info.is_dir())
            yield Member(name, info.file_size, info.is_dir()), partial(_zip_parts, archive, info)
            done += info.compress_size
            report(done)


def _check_zip(infos: list[zipfile.ZipInfo]) -> None:
    """What only a zip can have wrong: its members are found through a table that need not be true."""
    if len(infos) > _MOST_MEMBERS:
        raise Refused(f"has more than {_MOST_MEMBERS} members")
    for info in infos:
        shown = shown_name(info.orig_filename)
        checked_name(info.orig_filename, folder=info.is_dir())  # as it was before zipfile cut it at a NUL
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind == stat.S_IFLNK:
            raise Refused(f"holds a link, {shown}")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Refused(f"holds a device or pipe, {shown}")
        if (info.is_dir() and info.file_size) or (kind == stat.S_IFDIR and not info.is_dir()):
            raise Refused(f"holds {shown}, which is file and folder at once")
        if info.flag_bits & 0x2041:
            raise Refused("is encrypted")
        # The others unpack any amount in one step, before it can be measured.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"is packed by method {info.compress_type}, which is not read here")
        if info.file_size > MOST_RATIO * info.compress_size + _HARMLESS:
            raise Refused(f"holds {shown}, which unpacks to more than {MOST_RATIO} times its size")
    ordered = sorted(infos, key=lambda info: info.header_offset)
    for info, after in pairwise(ordered):
        if info.header_offset + 30 + info.compress_size > after.header_offset:
            raise Refused(f"holds members that overlap, {shown_name(info.orig_filename)}")


def _zip_parts(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    # zipfile stops silently at the declared size; asked for a byte more, it shows whether there is one.
    longer = copy.copy(info)
    longer.file_size = info.file_size + 1
    left = info.file_size
    with archive.open(longer) as stream:
        while part := stream.read(_CHUNK):
            left -= len(part)
            if left < 0:
                break
            yield part
    if left:
        raise Refused(f"holds {shown_name(info.orig_filename)}, which is not as long as it says")


def _write(walk: _Walk, inventory: Inventory, folder: Path) -> None:
    planned = iter(inventory.members)
    for member, content in walk:
        if not member.name:
            continue
        if member != next(planned, None):
            raise Refused("changed while it was read")
        path = folder / member.name
        if member.folder:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for part in content():
                file.write(part)
    if next(planned, None) is not None:
        raise Refused("changed while it was read")


def _merge(folder: Path, target: Path) -> None:
    """Move what is in `folder` into `target`: all of it, or nothing if something else is there."""
    moves = list(_moves(folder, target))
    try:
        for source, place in moves:
            source.rename(place)
    except BaseException:
        for source, place in moves:
            if not source.exists() and place.exists():
                place.rename(source)
        raise


def _moves(folder: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    for source in sorted(folder.iterdir()):
        place = target / source.name
        if place.is_symlink():
            raise ArchiveError(f"{place}: is a link, through which nothing is unpacked; unpack into another folder")
        if not place.exists():
            yield source, place
        elif source.is_dir() and place.is_dir():
            yield from _moves(source, place)
        elif not (source.is_file() and place.is_file() and filecmp.cmp(source, place, shallow=False)):
            raise ArchiveError(
                f"{place}: is there with other content, nothing was unpacked; move it away or choose another folder"
            )


def _require_room(folder: Path, inventory: Inventory) -> None:
    needed = inventory.total + 4096 * len(inventory.members)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ArchiveError(
            f"{folder}: {(needed >> 20) + 1} MB needed, {free >> 20} MB free, nothing was unpacked; make room or "
            "choose another folder"
        )


def _report(archive: Path, progress: Progress | None, stage: str) -> Callable[[int], None]:
    total = archive.stat().st_size
    told = -_CHUNK

    def report(done: int) -> None:
        nonlocal told
        # Every header is reported; a terminal need not be told of each.
        if progress is not None and (done >= told + _CHUNK or done == total != told):
            told = done
            progress(f"{stage} {archive.name}", min(done, total), total)

    return report


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    """Whatever is wrong with an archive, as one line."""
    try:
        yield
    except ArchiveError:
        raise
    except Refused as refusal:
        raise ArchiveError(f"{archive}: {refusal}; {_AGAIN}") from None
    except OSError as error:
        if error.errno is None:  # gzip and bzip2 say so that what they read is damaged
            raise ArchiveError(f"{archive}: is damaged ({error}); {_AGAIN}") from None
        place = error.filename or archive
        raise ArchiveError(f"{place}: {error.strerror}; nothing was unpacked, make room or choose another") from None
    except _BROKEN as error:
        raise ArchiveError(
            f"{archive}: is damaged ({shown_name(str(error) or type(error).__name__)}); {_AGAIN}"
        ) from None
