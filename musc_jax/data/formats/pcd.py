"""Point clouds of the Point Cloud Library (PCD): text, binary, and compressed by LZF.

Only x, y and z are read. A cloud that has rows and columns keeps them.
"""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from musc_jax.data.formats.files import MAX_PIXELS, SMALLER, Content, FileFault
from musc_jax.data.formats.number_lines import check_room, cut_short, lines, read_rows

_MAX_HEADER = 100_000
_END = re.compile(rb"^DATA[ \t]+(\w+)[ \t]*\r?\n", re.MULTILINE)
_TYPES = frozenset({"F4", "F8", *(f"{kind}{size}" for kind in "IU" for size in (1, 2, 4, 8))})
# Three bytes that repeat what came before give 264 bytes at most.
_MOST_EXPANSION = 88


class _Field(NamedTuple):
    """One column of a cloud, or several of the same type."""

    name: str
    kind: str
    """F, I or U."""
    size: int
    """Bytes of one value."""
    values: int
    """How many a point has."""


class _Header(NamedTuple):
    """What a file says of itself."""

    fields: tuple[_Field, ...]
    points: int
    grid: tuple[int, int] | None
    """(height, width) of a cloud that has rows and columns."""
    data: str
    """ascii, binary or binary_compressed."""
    end: int
    """Where the values begin."""


def decode_pcd(content: Content) -> Float[np.ndarray, "p 3"] | Float[np.ndarray, "h w 3"]:
    """Read a cloud's coordinates.

    Returns:
        As many points as the file holds, in its order; (height, width, 3) where it has rows and columns. NaN is no
        point.

    Raises:
        FileFault: no PCD file, one without x, y and z, cut short, damaged, or without points.
    """
    header = _read_header(content)
    for name in "xyz":
        found = [field for field in header.fields if field.name == name]
        if len(found) != 1 or found[0].values != 1 or f"{found[0].kind}{found[0].size}" not in _TYPES:
            known = " ".join(field.name for field in header.fields)[:100]
            raise FileFault(content.path, f"has no numbers x, y and z (its fields are: {known})", "save it with them")
    read = {"ascii": _from_text, "binary": _from_rows, "binary_compressed": _from_columns}.get(header.data)
    if read is None:
        raise FileFault(content.path, f"is PCD of the unknown kind {header.data[:20]!r}", "save it as binary")
    points = read(content, header)
    return points if header.grid is None else points.reshape(*header.grid, 3)


def _read_header(content: Content) -> _Header:
    end = _END.search(content.data[:_MAX_HEADER])
    if end is None:
        raise FileFault(content.path, "is no PCD file")
    entries = {}
    for line in content.data[: end.start()].decode("ascii", "replace").splitlines():
        name, *values = line.split() or ["#"]
        entries[name] = values
    try:
        names = entries.get("FIELDS") or entries["COLUMNS"]  # its name before version 0.6
        sizes = [int(size) for size in entries.get("SIZE", ["4"] * len(names))]
        counts = [int(count) for count in entries.get("COUNT", ["1"] * len(names))]
        kinds = entries.get("TYPE", ["F"] * len(names))
        fields = tuple(map(_Field, names, kinds, sizes, counts))
        if not len(names) == len(sizes) == len(counts) == len(kinds) or min(sizes + counts) <= 0:
            raise ValueError
        width, height = (int(entries[name][0]) if name in entries else None for name in ("WIDTH", "HEIGHT"))
        points = int(entries["POINTS"][0]) if "POINTS" in entries else (width or 0) * (1 if height is None else height)
    except (KeyError, IndexError, ValueError):
        raise FileFault(content.path, "has no readable PCD header") from None
    if points > MAX_PIXELS:
        raise FileFault(content.path, f"claims {points} points, over {MAX_PIXELS}", SMALLER)
    if points <= 0:
        raise FileFault(content.path, "has no points", "leave it out")
    grid = (height, width) if width is not None and height is not None and min(width, height) > 1 else None
    if grid and grid[0] * grid[1] != points:
        raise FileFault(content.path, f"claims {width} x {height} points, and {points} in all, which is not the same")
    return _Header(fields, points, grid, end[1].decode(), end.end())


def _from_text(content: Content, header: _Header) -> np.ndarray:
    columns = sum(field.values for field in header.fields)
    check_room(content, header.end, rows=header.points, columns=columns)
    first = dict(zip((f.name for f in header.fields), np.cumsum([0, *(f.values for f in header.fields)]), strict=False))
    rest = lines(content, header.end)
    return read_rows(content, rest, rows=header.points, columns=columns, wanted=[int(first[name]) for name in "xyz"])


def _from_rows(content: Content, header: _Header) -> np.ndarray:
    offsets, size = _offsets(header.fields, 1)
    if header.points * size > len(content.data) - header.end:
        raise cut_short(content, header.points)
    formats = [_dtype(header.fields, name) for name in "xyz"]
    row = np.dtype({"names": list("xyz"), "formats": formats, "offsets": offsets, "itemsize": size})
    table = np.frombuffer(content.data, row, header.points, header.end)
    return _stacked([table[name] for name in "xyz"])


def _from_columns(content: Content, header: _Header) -> np.ndarray:
    """One field after the other, all of it packed."""
    lengths = content.data[header.end : header.end + 8]
    packed, unpacked = int.from_bytes(lengths[:4], "little"), int.from_bytes(lengths[4:], "little")
    fields, start = header.fields, header.end + 8
    offsets, size = _offsets(fields, header.points)
    if size != unpacked:
        # What only fills up rows is not packed.
        fields = tuple(field for field in fields if field.name != "_")
        offsets, size = _offsets(fields, header.points)
    if len(lengths) < 8 or packed > len(content.data) - start:
        raise cut_short(content, header.points)
    if size != unpacked or unpacked > packed * _MOST_EXPANSION:
        raise FileFault(content.path, "is damaged: the length of its values is not that of its points")
    formats = [_dtype(fields, name) for name in "xyz"]
    # What lies behind the coordinates is not unpacked.
    needed = max(at + header.points * kind.itemsize for at, kind in zip(offsets, formats, strict=True))
    values = unpack_lzf(content.data[start : start + packed], needed)
    if values is None:
        raise FileFault(content.path, "is damaged: it cannot be unpacked")
    return _stacked([np.frombuffer(values, *rest) for rest in zip(formats, [header.points] * 3, offsets, strict=True)])


def _offsets(fields: tuple[_Field, ...], points: int) -> tuple[list[int], int]:
    """Where x, y and z begin if each field takes the room of so many points, and the room of all fields."""
    at, found = 0, {}
    for field in fields:
        found[field.name] = at
        at += points * field.size * field.values
    return [found[name] for name in "xyz"], at


def _dtype(fields: tuple[_Field, ...], name: str) -> np.dtype:
    field = next(field for field in fields if field.name == name)
    return np.dtype(f"<{field.kind.lower()}{field.size}")


def _stacked(columns: list[np.ndarray]) -> np.ndarray:
    points = np.stack(columns, axis=-1)
    return points if points.dtype.kind == "f" else points.astype(np.float64)


def unpack_lzf(packed: bytes, needed: int) -> bytearray | None:
    """Unpack LZF: runs of bytes as they are, and references to what was unpacked before.

    Args:
        packed: what was packed, and no more.
        needed: bytes that are wanted; it ends soon after them.

    Returns:
        At least as many bytes; None where the packed ones end early or refer to what is not there.
    """
    out, at = bytearray(), 0
    try:
        while len(out) < needed:
            control = packed[at]
            at += 1
            if control < 32:
                run = packed[at : at + control + 1]
                if len(run) <= control:
                    return None
                out += run
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[at]
                at += 1
            length += 2
            first = len(out) - ((control & 31) << 8) - packed[at] - 1
            at += 1
            if first < 0:
                return None
            source = out[first : first + length]
            # It may reach into what it makes itself: then it repeats.
            out += source if len(source) == length else (source * (length // len(source) + 1))[:length]
    except IndexError:
        return None
    return out
