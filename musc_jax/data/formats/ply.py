"""Point clouds and meshes in PLY: text, binary in both byte orders. Only the vertices' x, y and z are read.

Scanners and the Point Cloud Library say in it that the vertices were a grid: `obj_info num_cols` and `num_rows` with an
element `range_grid` (the vertex of each pixel, if it has one), or an element `camera` with the size of its viewport.
"""

import re
import struct
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from musc_jax.data.formats.files import MAX_PIXELS, SMALLER, Content, FileFault
from musc_jax.data.formats.number_lines import check_room, cut_short, lines, number, read_rows

_MAX_HEADER = 100_000
_START = re.compile(rb"ply[ \t]*(\r\n|\n|\r)")
_CODES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8", "bool": "u1", "int64": "i8", "uint64": "u8",
}  # fmt: skip
_LENGTHS = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q"}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_NO_ITEM = -1.0


class _Property(NamedTuple):
    """A number of each row, or a list of them."""

    name: str
    kind: str
    length: str | None
    """Of a list: the type of its length."""


class _Element(NamedTuple):
    """A table."""

    name: str
    rows: int
    properties: tuple[_Property, ...]

    @property
    def plain(self) -> bool:
        """Whether all rows are equally long."""
        return all(p.length is None for p in self.properties)

    def has(self, *names: str) -> bool:
        """Whether there is exactly one property of each name, and a number."""
        return all([p.length for p in self.properties if p.name == name] == [None] for name in names)


class _Header(NamedTuple):
    """What a file says of itself."""

    form: str
    elements: tuple[_Element, ...]
    grid: tuple[int, int] | None
    """(height, width) of a scan."""
    end: int


def decode_ply(content: Content) -> Float64[np.ndarray, "p 3"] | Float64[np.ndarray, "h w 3"]:
    """Read the coordinates of the vertices.

    Returns:
        As many points as there are vertices, in the file's order; (height, width, 3) where it says that they were a
        grid. NaN is no point.

    Raises:
        FileFault: no PLY file, one without vertices that have x, y and z, cut short or damaged.
    """
    header = _read_header(content)
    vertex = next((e for e in header.elements if e.name == "vertex"), None)
    if vertex is None or not vertex.has("x", "y", "z"):
        raise FileFault(content.path, "has no `element vertex` with numbers x, y and z", "save it with them")
    if vertex.rows > MAX_PIXELS:
        raise FileFault(content.path, f"claims {vertex.rows} points, over {MAX_PIXELS}", SMALLER)
    if not vertex.rows:
        raise FileFault(content.path, "has no points", "leave it out")
    table = _Text(content, header.end) if header.form == "ascii" else _Binary(content, header.end, _ORDERS[header.form])
    found: dict[str, np.ndarray] = {}
    viewport = None
    # A mesh's faces are not looked at if nothing that is wanted comes after them.
    wanted = [i for i, e in enumerate(header.elements) if e is vertex or e.name in ("range_grid", "camera")]
    for element in header.elements[: wanted[-1] + 1]:
        if element is vertex:
            found["points"] = table.columns(element, ("x", "y", "z"))
        elif element.name == "range_grid" and header.grid and len(element.properties) == 1:
            if element.rows != header.grid[0] * header.grid[1]:
                raise FileFault(content.path, f"has a grid of {element.rows} cells, and says {header.grid}")
            found["cells"] = table.columns(element, (element.properties[0].name,))[:, 0]
        elif element.name == "camera" and element.rows == 1 and element.has("viewportx", "viewporty"):
            width, height = table.columns(element, ("viewportx", "viewporty"))[0]
            viewport = (int(height), int(width)) if np.isfinite([height, width]).all() else None
        else:
            table.skip(element)
    points = found["points"]
    if "cells" in found:
        return _on_grid(content, points, found["cells"]).reshape(*header.grid, 3)  # type: ignore[misc]
    shape = next((s for s in (header.grid, viewport) if s and min(s) > 1 and s[0] * s[1] == len(points)), None)
    return points if shape is None else points.reshape(*shape, 3)


def _on_grid(content: Content, points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The vertex of each cell; NaN where it has none."""
    filled = cells != _NO_ITEM
    if not ((cells[filled] >= 0) & (cells[filled] < len(points))).all():
        raise FileFault(content.path, "is damaged: its grid names vertices that it does not have")
    out = np.full((len(cells), 3), np.nan)
    out[filled] = points[cells[filled].astype(np.int64)]
    return out


def _read_header(content: Content) -> _Header:
    text = content.data[:_MAX_HEADER]
    start = _START.match(text)
    # All lines end as the first one does: behind "\r" a byte of the values may be "\n".
    stop = start and re.search(rb"(?:^|\r|\n)end_header[ \t]*(?:" + start[1] + rb"|$)", text)
    if start is None or stop is None:
        raise FileFault(content.path, "is no PLY file")
    form, elements, sizes = "", [], {}
    try:
        for line in text[start.end() : stop.start()].decode("ascii", "replace").splitlines():
            match line.split():
                case ["format", form, "1.0"]:
                    pass
                case ["element", name, rows]:
                    elements.append(_Element(name, int(rows), ()))
                case ["property", "list", length, kind, name]:
                    elements[-1] = _with(elements[-1], _Property(name, kind, length))
                case ["property", kind, name]:
                    elements[-1] = _with(elements[-1], _Property(name, kind, None))
                case ["obj_info", ("num_cols" | "num_rows") as name, size]:
                    sizes[name] = int(size)
                case [] | ["comment" | "obj_info", *_]:
                    pass
                case _:
                    raise ValueError
        if form not in ("ascii", *_ORDERS) or any(e.rows < 0 for e in elements):
            raise ValueError
    except (ValueError, IndexError):
        raise FileFault(content.path, "has no readable PLY header") from None
    grid = (sizes["num_rows"], sizes["num_cols"]) if len(sizes) == 2 and min(sizes.values()) > 0 else None
    return _Header(form, tuple(elements), grid, stop.end())


def _with(element: _Element, more: _Property) -> _Element:
    return element._replace(properties=(*element.properties, more))


class _Text:
    """The tables of a text file, one row a line."""

    def __init__(self, content: Content, start: int) -> None:
        self._content, self._start = content, start
        self._lines = lines(content, start)

    def skip(self, element: _Element) -> None:
        if element.properties:
            deque(islice(self._lines, min(element.rows, len(self._content.data))), maxlen=0)

    def columns(self, element: _Element, wanted: Sequence[str]) -> np.ndarray:
        """The values of some properties; of a list the first, or -1 where it is empty."""
        count, names = element.rows, [p.name for p in element.properties]
        check_room(self._content, self._start, rows=count, columns=len(names))
        if element.plain:
            places = [names.index(name) for name in wanted]
            return read_rows(self._content, self._lines, rows=count, columns=len(names), wanted=places)
        out = np.full((count, len(wanted)), _NO_ITEM)
        for row in range(count):
            tokens = next(self._lines, b"").split()
            try:
                for p in element.properties:
                    length = 1 if p.length is None else int(tokens.pop(0))
                    if length and p.name in wanted:
                        out[row, wanted.index(p.name)] = number(self._content, tokens[0])
                    if not 0 <= length <= len(tokens):
                        raise IndexError
                    del tokens[:length]
            except (IndexError, ValueError):
                raise cut_short(self._content, count, f"rows of {element.name}") from None
        return out


class _Binary:
    """The tables of a binary file."""

    def __init__(self, content: Content, start: int, order: str) -> None:
        self._content, self._at, self._order = content, start, order

    def skip(self, element: _Element) -> None:
        if element.plain:
            self._at += element.rows * sum(self._dtype(p.kind).itemsize for p in element.properties)
        else:
            self._walk(element, ())

    def columns(self, element: _Element, wanted: Sequence[str]) -> np.ndarray:
        """As `_Text` has it."""
        if not element.plain:
            return self._walk(element, wanted)
        kinds = {p.name: self._dtype(p.kind) for p in element.properties}
        ends = np.cumsum([self._dtype(p.kind).itemsize for p in element.properties])
        starts = dict(zip((p.name for p in element.properties), [0, *map(int, ends)], strict=False))
        formats, offsets = [kinds[name] for name in wanted], [starts[name] for name in wanted]
        row = np.dtype({"names": list(wanted), "formats": formats, "offsets": offsets, "itemsize": int(ends[-1])})
        if element.rows * row.itemsize > len(self._content.data) - self._at:
            raise cut_short(self._content, element.rows)
        table = np.frombuffer(self._content.data, row, element.rows, self._at)
        self._at += element.rows * row.itemsize
        return np.stack([table[name].astype(np.float64) for name in wanted], axis=-1)

    def _walk(self, element: _Element, wanted: Sequence[str]) -> np.ndarray:
        """Row by row, where lists make them differ in length."""
        data, at, fault = (
            self._content.data,
            self._at,
            cut_short(self._content, element.rows, f"rows of {element.name}"),
        )
        if element.rows > len(data) - at:
            raise fault
        steps = [
            (
                wanted.index(p.name) if p.name in wanted else None,
                self._dtype(p.kind).itemsize,
                None if p.length is None else self._length(p.length),
            )
            for p in element.properties
        ]
        places = np.full((element.rows, len(wanted)), -1)
        try:
            for row in range(element.rows):
                for column, size, length in steps:
                    items = 1
                    if length is not None:
                        (items,) = length.unpack_from(data, at)
                        at += length.size
                    if column is not None and items > 0:
                        places[row, column] = at
                    if not 0 <= items * size <= len(data) - at:
                        raise fault
                    at += items * size
        except (struct.error, TypeError):
            raise fault from None
        self._at = at
        raw, out = np.frombuffer(data, np.uint8), np.full(places.shape, _NO_ITEM)
        for column, name in enumerate(wanted):
            kind = self._dtype(next(p.kind for p in element.properties if p.name == name))
            there = places[:, column] >= 0
            rows = raw[places[there, column][:, None] + np.arange(kind.itemsize)]
            out[there, column] = rows.view(kind)[:, 0]
        return out

    def _length(self, kind: str) -> struct.Struct:
        code = _LENGTHS.get(self._dtype(kind).str[1:])
        if code is None:
            raise FileFault(self._content.path, f"has lists as long as a {kind} says", "save it as text")
        return struct.Struct(self._order + code)

    def _dtype(self, kind: str) -> np.dtype:
        if kind not in _CODES:
            raise FileFault(self._content.path, f"has values of the unknown type {kind[:20]!r}", "save it as text")
        return np.dtype(_CODES[kind]).newbyteorder(self._order)  # type: ignore[arg-type]
