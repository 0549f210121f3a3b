"""Numbers in text, one row a line, as PLY and PCD have them: read in blocks, so that a large file needs little room."""

import io
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from jaxtyping import Float64

from musc_jax.data.formats.files import Content, FileFault

_BLOCK = 1 << 14
_SHORTEST = 2  # bytes of a number with what separates it from the next
# How Windows' C library writes what is no number.
_NOT_FINITE = (b"nan", b"#qnan", b"#snan", b"#ind", b"#inf")


def lines(content: Content, start: int) -> Iterator[bytes]:
    """The lines of a file from a place on, without empty ones."""
    # Macintoshes once ended lines with "\r".
    text = io.BytesIO(content.data if b"\n" in content.data else content.data.replace(b"\r", b"\n"))
    text.seek(start)
    return (line for line in text if not line.isspace())


def check_room(content: Content, start: int, *, rows: int, columns: int) -> None:
    """Refuses a file that is too short for the rows it claims, before any room is made for them.

    Raises:
        FileFault: it is.
    """
    if rows * columns * _SHORTEST - 1 > len(content.data) - start:
        raise cut_short(content, rows)


def cut_short(content: Content, rows: int, what: str = "points") -> FileFault:
    """What to say of a file with fewer rows than it claims."""
    return FileFault(content.path, f"is cut short: it claims {rows} {what} and does not hold them")


def read_rows(
    content: Content, rest: Iterator[bytes], *, rows: int, columns: int, wanted: Sequence[int]
) -> Float64[np.ndarray, "rows wanted"]:
    """Read rows of equally many numbers.

    Args:
        content: the file.
        rest: its lines; those that were read are gone from it.
        rows: how many there are; see `check_room`.
        columns: how many numbers each has.
        wanted: which of them are returned.

    Raises:
        FileFault: fewer rows, a row with fewer or more numbers, or something that is no number.
    """
    out = np.empty((rows, len(wanted)))
    for first in range(0, rows, _BLOCK):
        block = list(islice(rest, min(_BLOCK, rows - first)))
        if len(block) < min(_BLOCK, rows - first):
            raise cut_short(content, rows)
        tokens = b"".join(block).split()
        if len(tokens) != len(block) * columns or any(len(block[i].split()) != columns for i in (0, -1)):
            # Never shifted by one: what is too much in one row would be the next one's coordinate.
            for row, line in enumerate(block, first):
                if (count := len(line.split())) != columns:
                    raise FileFault(
                        content.path, f"has {count} numbers in row {row + 1}, where its header says {columns}"
                    )
        for place, column in enumerate(wanted):
            out[first : first + len(block), place] = _numbers(content, tokens[column::columns])
    return out


def _numbers(content: Content, tokens: list[bytes]) -> list[float]:
    try:
        return list(map(float, tokens))
    except ValueError:
        return [number(content, token) for token in tokens]


def number(content: Content, token: bytes) -> float:
    """One number; every spelling of one that is not finite is NaN.

    Raises:
        FileFault: it is none.
    """
    try:
        return float(token)
    except ValueError:
        if any(mark in token.lower() for mark in _NOT_FINITE):
            return np.nan
        shown = token[:20].decode("ascii", "backslashreplace")
        way_out = "write numbers with a point, as in 0.5" if b"," in token else "save it again"
        raise FileFault(content.path, f"has {shown!r} where a number is expected", way_out) from None
