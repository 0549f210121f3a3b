"""Names of samples out of the paths of their files: fit to be files' names anywhere, short, each of them once."""

import hashlib
import re
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import PurePath

from musc_jax.storage.paths import as_text, readable

# With the longest ending of a saved file they stay below what any file system in use takes (143, encrypted ones).
_MOST_BYTES = 120
# What Windows does not take in a name, and what breaks a line or hides in one.
_UNFIT = re.compile(r'[\\/:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE | re.DOTALL)
_DIGITS = 8


def group_prefixes(folders: Sequence[str], *, root: str) -> list[str]:
    """For folders of samples the names that tell them apart, to put before their samples' own.

    The last part of each path where those differ, and else what is left when the parts that all begin with and all end
    with are taken away: `test/good/rgb` and `test/cut/rgb` are good and cut.

    Args:
        folders: as flags name them.
        root: what `.` is called.

    Returns:
        One for each folder; equal ones only where folders are named twice.
    """
    parts = [[part for part in PurePath(folder).parts if part not in ("/", "..")] or [root] for folder in folders]
    last = [own[-1] for own in parts]
    if len(set(last)) == len(last):
        return last
    shortest = min(map(len, parts))
    begin = next((i for i in range(shortest) if len({own[i] for own in parts}) > 1), shortest - 1)
    end = next((i for i in range(shortest - begin) if len({own[-1 - i] for own in parts}) > 1), 0)
    return ["_".join(own[begin : len(own) - end]) or own[-1] for own in parts]


def safe_names(paths: Sequence[str]) -> list[str]:
    """Names for results, from paths that may hold anything.

    Args:
        paths: each of them once; what is fit to be a name stays as it is, slashes become `_`.

    Returns:
        As many names, in UTF-8 and for the file system at hand, without what Windows does not take, of at most 120
        bytes, each of them once even where upper and lower case are the same. One that had to be shortened, or that
        another one has already, gets a digest of its path.
    """
    found: dict[int, str] = {}
    taken: set[str] = set()
    # Those that stay as they are come first, so that another file's odd name never changes theirs.
    for i in sorted(range(len(paths)), key=lambda i: safe_name(paths[i]) != paths[i].replace("/", "_")):
        name, tries = safe_name(paths[i]), 0
        while _folded(name) in taken:
            name, tries = _marked(safe_name(paths[i]), _digest(paths[i], tries)), tries + 1
        taken.add(_folded(name))
        found[i] = name
    return [found[i] for i in range(len(paths))]


def safe_name(path: str) -> str:
    """One such name; see `safe_names`, which tells equal ones apart."""
    # Windows drops dots and spaces at an end; a dot at the beginning hides a file.
    text = "".join(map(_fit, _UNFIT.sub("_", as_text(path)))).strip(" ").rstrip(" .")
    if text.startswith("."):
        text = f"_{text[1:]}"
    if not text:
        text = f"sample_{_digest(path)}"
    if _RESERVED.fullmatch(text):
        text = text.replace(".", "_.", 1) if "." in text else f"{text}_"
    return text if len(text.encode()) <= _MOST_BYTES else _marked(text, _digest(path))


def _fit(character: str) -> str:
    """A character as it may stand in a name."""
    kind = unicodedata.category(character)
    if kind in ("Cc", "Cs", "Cf", "Zl", "Zp", "Cn", "Co"):
        return "_"
    try:
        character.encode(sys.getfilesystemencoding())
    except UnicodeEncodeError:
        return f"u{ord(character):04x}"
    return character


def _marked(name: str, mark: str) -> str:
    """A name with a mark behind it; of a long one its beginning and its end around the mark."""
    room, data = _MOST_BYTES - len(mark) - 2, name.encode()
    if len(data) <= room:
        return f"{name}_{mark}"
    head, tail = (part.decode(errors="ignore") for part in (data[: room - room // 3], data[-(room // 3) :]))
    return f"{head}_{mark}_{tail}"


def _digest(path: str, tries: int = 0) -> str:
    return hashlib.sha256(f"{readable(path)}{tries or ''}".encode()).hexdigest()[:_DIGITS]


def _folded(name: str) -> str:
    """Equal for names that are one and the same on some file system."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
