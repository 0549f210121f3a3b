"""Files that are whole or not there at all, checked when read, safe to be killed at.

Everything is written under a temporary name in its final folder and renamed. A temporary name tells
which process on which machine made it, so that what a killed process left can be told from what a
living one is writing.
"""

import hashlib
import os
import re
import shutil
import socket
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

# A process id returns after a restart (in a container often at once): the random part tells this
# run's temporary names from those of an earlier one with the same id.
_RUN = uuid.uuid4().hex[:8]
_HOST = "".join(c if c.isalnum() else "_" for c in socket.gethostname()) or "host"

MARKER = ".partial-"
"""What temporary names begin with, so that nothing else should."""

# Strict, so that nothing a person would call so is taken for a leftover of ours.
_TEMPORARY = re.compile(re.escape(MARKER) + r"(\w+)~([0-9]+)~([0-9a-f]{8})~[0-9a-f]{8}")


@contextmanager
def temporary(target: Path) -> Iterator[Path]:
    """Give a temporary name beside `target` for a file or folder; remove it if it still exists.

    The block writes there and renames. Leaving the block, by an exception too, leaves no trace of
    what was not renamed. `target`'s own name may be as long as any: it is no part of this one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.parent / f"{MARKER}{_HOST}~{os.getpid()}~{_RUN}~{uuid.uuid4().hex[:8]}"
    try:
        yield path
    finally:
        _remove(path)


def sweep(folder: Path, *, alone: bool = False) -> None:
    """Remove the temporary files and folders in `folder` whose process no longer runs.

    Args:
        folder: need not be there.
        alone: nobody else writes there, so that all of them go; otherwise those of living processes stay, and of other
            machines, which may share the folder.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.glob(f"{MARKER}*")):
        made = _TEMPORARY.fullmatch(path.name)
        if made is None or not _is_plain(path):
            continue
        host, process, run = made.groups()
        if alone or (host == _HOST and _is_over(int(process), run)):
            _remove(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, in place of what was there."""
    with temporary(path) as part:
        part.write_bytes(data)
        part.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, in place of what was there."""
    write_bytes(path, text.encode())


def write_arrays(path: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to `path` so that `read_arrays` with the same key gives them back.

    The file is a SHA-256 digest of key and content, followed by the content as safetensors. NumPy's own format has its
    header parsed as Python, and that parser of CPython 3.11 fails now and then when several threads use it.
    """
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    with temporary(path) as part:
        with part.open("wb") as file:  # a copy of the content would take as much memory again
            file.write(_digest(key, content))
            file.write(content)
        part.replace(path)


def read_arrays(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """Read what `write_arrays` wrote; None if it is missing, damaged or belongs to another key."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, content = data[:32], data[32:]
    if digest != _digest(key, content):
        return None
    try:
        return load(content)
    except (SafetensorError, ValueError):
        return None


def _digest(key: str, content: bytes) -> bytes:
    """Bind content and key, so that a file moved to another key's name is not trusted either."""
    return hashlib.sha256(key.encode() + b"\n" + content).digest()


def _is_plain(path: Path) -> bool:
    """Whether it is a file or folder of ours and not a link, which we make none of."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _is_over(process: int, run: str) -> bool:
    if process == os.getpid():
        return run != _RUN
    if os.name != "posix":
        return False  # os.kill would end the process there instead of asking after it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # alive, but somebody else's
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
