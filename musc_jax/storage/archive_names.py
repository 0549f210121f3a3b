"""Names in archives that are not trusted: which are unpacked, and which are one name on some system."""

import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath

from musc_jax._text import shown

_MOST_NAME, _MOST_PART, _MOST_DEPTH = 1000, 255, 40
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{p}{i}" for p in ("com", "lpt") for i in range(1, 10))})


class Refused(Exception):
    """What is wrong with an archive, without its name and the way out."""


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive.

    Attributes:
        name: its path below the archive's root, with slashes; harmless.
        size: in bytes, 0 for folders.
        folder: whether it is one.
    """

    name: str
    size: int
    folder: bool


def checked_name(name: str, *, folder: bool) -> str:
    """A member's name without what changes nothing in it; "" for the root itself."""
    shown = shown_name(name)
    if len(name) > _MOST_NAME or any(len(p.encode(errors="replace")) > _MOST_PART for p in name.split("/")):
        raise Refused(f"holds a name that is too long, {shown}")
    if not name.isprintable():  # surrogates, for what is not UTF-8, are not printable either
        raise Refused(f"holds a name with unprintable characters, {shown}")
    if name.startswith("/") or "\\" in name or ":" in name:
        raise Refused(f"holds a name that is absolute or of another system, {shown}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Refused(f"holds a name that climbs out, {shown}")
    if len(parts) > _MOST_DEPTH:
        raise Refused(f"holds a name that is too deep, {shown}")
    for part in parts:
        if part != part.rstrip(" .") or part.split(".")[0].casefold() in _RESERVED:
            raise Refused(f"holds a name that not every system can have, {shown}")
    if not parts and not folder:
        raise Refused("holds a file without a name")
    return "/".join(parts)


class Clashes:
    """Finds names that are one name on some system, and files that are folders elsewhere in the archive."""

    def __init__(self) -> None:
        self._spelled: dict[str, str] = {}
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, member: Member) -> None:
        """Take note of a member.

        Raises:
            Refused: it clashes with an earlier one.
        """
        if not member.name:
            return
        path = PurePosixPath(member.name)
        parents = [str(parent) for parent in path.parents][:-1]
        for name in (member.name, *parents):
            key = unicodedata.normalize("NFC", name).casefold()
            if self._spelled.setdefault(key, name) != name:
                raise Refused(
                    f"holds names that differ in case only, {shown_name(self._spelled[key])} and {shown_name(name)}"
                )
        if member.name in self._files:
            raise Refused(f"holds {shown_name(member.name)} twice")
        clash = next((parent for parent in parents if parent in self._files), None)
        if not member.folder:
            if member.name in self._folders:
                clash = member.name
            self._files.add(member.name)
        self._folders.update(parents if not member.folder else [member.name, *parents])
        if clash is not None:
            raise Refused(f"holds {shown_name(clash)} as a file and as a folder")


def shown_name(name: str) -> str:
    """A name, or other text of an archive's, as a message can hold it."""
    return f"'{shown(name, most=80)}'"
