"""Files that are not what they are called: stand-ins for a file that was never fetched, and archives around it.

They are known by their first bytes. No format that this program reads begins like any of them.
"""

from typing import NamedTuple

START = 512
"""So many of the first bytes tell."""


class Foreign(NamedTuple):
    """What a file is instead.

    Attributes:
        what: a noun, as in "a web page".
        way_out: what to do.
    """

    what: str
    way_out: str


_POINTERS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_ANNEX = (b"/annex/objects/", b"\\annex\\objects\\")
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")
_UNPACK = "unpack it, and use what is in it"
_ARCHIVES = {
    b"PK\x03\x04": "a ZIP archive",
    b"PK\x05\x06": "an empty ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
}
_OTHERS = {
    b"%PDF-": Foreign("a PDF document", "take out what is wanted"),
    b"\x89HDF\r\n\x1a\n": Foreign("an HDF5 file, which is not read", "save its arrays in another format"),
}


def is_page(start: bytes) -> bool:
    """Whether a file's first bytes are a web page's."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES)


def foreign(start: bytes) -> Foreign | None:
    """What a file is instead of what it is called.

    Args:
        start: its first bytes, up to `START` of them.

    Returns:
        None if it is nothing of the kind: then only its reader can tell.
    """
    if start.startswith(_POINTERS):
        return Foreign("a Git LFS pointer, not the file itself", "fetch that by `git lfs pull`")
    if start.startswith(_ANNEX):
        return Foreign("a git-annex pointer, not the file itself", "fetch that by `git annex get`")
    if is_page(start):
        return Foreign("a web page, not the file itself", "the download went wrong; fetch it again")
    if start[257:262] == b"ustar":
        return Foreign("a tar archive", _UNPACK)
    for signature, what in _ARCHIVES.items():
        if start.startswith(signature):
            return Foreign(what, _UNPACK)
    return next((kind for signature, kind in _OTHERS.items() if start.startswith(signature)), None)
