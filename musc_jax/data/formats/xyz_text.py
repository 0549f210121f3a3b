"""Point clouds as plain text (.xyz): x, y and z at the beginning of each line, whatever comes after them."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64

from musc_jax.data.formats.files import MAX_PIXELS, SMALLER, Content, FileFault
from musc_jax.data.formats.number_lines import lines, read_rows

_COMMENTS = (b"#", b"//", b"%")


def decode_xyz_text(content: Content) -> Float64[np.ndarray, "p 3"]:
    """Read a cloud's coordinates, separated by space, comma or semicolon.

    A first line of names and one that says how many points there are, are passed over, as are comments.

    Raises:
        FileFault: fewer than three numbers a line, lines of different length, or something that is no number.
    """
    first = next(_rows(content, 0), b"")
    if b"\0" in first:
        raise FileFault(content.path, "is no text", "save x, y and z of a point a line, or PLY")
    skipped = 1 if _is_head(first) else 0
    row = next(_rows(content, skipped), b"")
    for mark in (b";", b","):
        # A comma between digits may also be a decimal one: then spaces separate.
        if mark in row and (mark == b";" or b", " in row or len(row.split()) < 3):
            content = content._replace(data=content.data.replace(mark, b" "))
            row = row.replace(mark, b" ")
            break
    count, columns = sum(1 for _ in _rows(content, skipped)), len(row.split())
    if columns < 3:
        raise FileFault(content.path, "has no x, y and z in a line", "save three numbers a line, or PLY")
    if count > MAX_PIXELS:
        raise FileFault(content.path, f"has {count} points, over {MAX_PIXELS}", SMALLER)
    return read_rows(content, _rows(content, skipped), rows=count, columns=columns, wanted=(0, 1, 2))


def _rows(content: Content, skipped: int) -> Iterator[bytes]:
    rows = (line for line in lines(content, 0) if not line.lstrip().startswith(_COMMENTS))
    for _ in range(skipped):
        next(rows, None)
    return rows


def _is_head(line: bytes) -> bool:
    """Whether a line holds names of columns, or a number of points."""
    words = line.replace(b",", b" ").replace(b";", b" ").split()
    if len(words) == 1:
        return words[0].isdigit()
    return bool(words) and words[0].strip(b"\"'").lower() in (b"x", b"x[m]", b"x[mm]", b"px")
