"""Names out of flags, datasets and files, joined below a folder that they cannot leave."""

import os
import re
import unicodedata
from pathlib import Path, PureWindowsPath

from musc_jax.storage.atomic import MARKER

# Of one part of a path, in bytes, on every file system in use.
_MOST_BYTES = 255


class UnsafeNameError(ValueError):
    """A name that is no path below a folder; the message says why."""


def below(root: Path, name: str) -> Path:
    """`root / name`, for a name that stays below `root` on every system.

    Nothing on disk is looked at; for links that lie there see `link_between`.

    Args:
        root: any folder.
        name: relative, its parts separated by slashes; may come from anybody.

    Raises:
        UnsafeNameError: the name is empty, absolute or on a drive; has a part that is empty or only of dots and spaces
            (which Windows drops), that begins as our unfinished files do, or is too long; holds NUL or what is no text.
    """
    reason = _objection(name)
    if reason is not None:
        raise UnsafeNameError(f"{name!r} {reason}; expected a relative path such as 'parts' or 'line1/left'")
    return root.joinpath(*name.split("/"))


def _objection(name: str) -> str | None:
    """Why a name is refused; None if it is not."""
    if not name:
        return "is empty"
    if "\0" in name:
        return "holds NUL"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is no text in UTF-8"
    if name.startswith("/") or PureWindowsPath(name).anchor:
        return "is absolute"
    # A backslash is a letter here, and a separator on Windows.
    parts = re.split(r"[/\\]", name)
    if ".." in parts:
        return "climbs out by '..'"
    for part in parts:
        if not part.strip(" ."):
            return f"has the part {part!r}" if part else "has an empty part"
        if part.casefold().startswith(MARKER):
            return f"has a part that begins with {MARKER!r}, as unfinished files do"
        if len(part.encode()) > _MOST_BYTES:
            return f"has a part of more than {_MOST_BYTES} bytes"
    return None


def link_between(root: Path, path: Path) -> Path | None:
    """The first link on the way from `root`, itself excluded, to `path`, included; None if there is none.

    Whoever writes through a link writes somewhere else.
    """
    way = root
    for part in path.relative_to(root).parts:
        way /= part
        if way.is_symlink():
            return way
    return None


def as_text(path: Path | str) -> str:
    """A path as the text that its bytes are in UTF-8, whatever the locale; other bytes stay surrogates."""
    try:
        return os.fsencode(path).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no path of this file system
        return str(path)


def readable(path: Path | str) -> str:
    r"""A path for tables and messages, on one line and in UTF-8: as it is, with \xff for what is no text.

    Line breaks and other signs that are not seen are escaped, too.
    """
    return "".join(map(_visible, as_text(path)))


def _visible(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return ascii(character)[1:-1] if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") else character
