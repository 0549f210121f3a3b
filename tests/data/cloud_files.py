"""PLY and PCD files, written by hand."""

import numpy as np

PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "float32": "f4", "float64": "f8", "bool": "u1",
}  # fmt: skip
BYTE_ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}


def ply(elements, *, form="binary_little_endian", extra=(), end="\n"):
    """A PLY file.

    `elements`: name -> (properties, rows); a property is "float x", or "list uchar int name", whose value in a row is a
    sequence. `extra`: more lines of the header, before the elements.
    """
    header, body = ["ply", f"format {form} 1.0", *extra], b""
    for name, (properties, rows) in elements.items():
        header += [f"element {name} {len(rows)}", *(f"property {p}" for p in properties)]
        for row in rows:
            values = []
            for declared, value in zip(properties, row, strict=True):
                *kinds, _ = declared.split()
                if kinds[0] == "list":
                    values += [(kinds[1], len(value)), *((kinds[2], item) for item in value)]
                else:
                    values.append((kinds[0], value))
            if form == "ascii":
                texts = [repr(float(v)) if PLY_TYPES[kind][0] == "f" else str(int(v)) for kind, v in values]
                body += (" ".join(texts) + end).encode()
            else:
                parts = [np.array(v).astype(BYTE_ORDERS[form] + PLY_TYPES[kind]) for kind, v in values]
                body += b"".join(part.tobytes() for part in parts)
    return (end.join([*header, "end_header"]) + end).encode() + body


def ply_points(points, kind="float", **options):
    """A PLY file of points alone."""
    return ply({"vertex": ([f"{kind} {name}" for name in "xyz"], points.reshape(-1, 3))}, **options)


def pcd(fields, *, data="binary", width=None, height=1, changes=(), end="\n"):
    """A PCD file.

    `fields`: name -> array of one row a point, of one value or several. `changes`: lines of the header by their names;
    None leaves one out.
    """
    arrays = {name: np.asarray(a).reshape(len(a), -1) for name, a in fields.items()}
    count = len(next(iter(arrays.values())))
    lines = {
        "VERSION": "0.7",
        "FIELDS": " ".join(arrays),
        "SIZE": " ".join(str(a.itemsize) for a in arrays.values()),
        "TYPE": " ".join(a.dtype.kind.upper() for a in arrays.values()),
        "COUNT": " ".join(str(a.shape[1]) for a in arrays.values()),
        "WIDTH": str(count // height if width is None else width),
        "HEIGHT": str(height),
        "VIEWPOINT": "0 0 0 1 0 0 0",
        "POINTS": str(count),
        "DATA": data,
    } | dict(changes)
    header = end.join(["# .PCD v0.7", *(f"{k} {v}" for k, v in lines.items() if v is not None), ""]).encode()
    little = {name: a.astype(a.dtype.newbyteorder("<")) for name, a in arrays.items()}
    if data == "ascii":
        rows = zip(*(a.tolist() for a in arrays.values()), strict=True)
        return header + b"".join((" ".join(str(v) for part in row for v in part) + end).encode() for row in rows)
    if data == "binary":
        return header + b"".join(a[i].tobytes() for i in range(count) for a in little.values())
    plain = b"".join(a.tobytes() for name, a in little.items() if name != "_")
    packed = pack_lzf(plain)
    return header + len(packed).to_bytes(4, "little") + len(plain).to_bytes(4, "little") + packed


def pcd_points(points, **options):
    """A PCD file of points alone."""
    return pcd(dict(zip("xyz", np.moveaxis(points.reshape(-1, 3), 1, 0), strict=True)), **options)


def pack_lzf(plain):
    """Packs as LZF does: what was there in the last 8192 bytes is referred to."""
    out, at, literal, seen = bytearray(), 0, bytearray(), {}

    def flush():
        for i in range(0, len(literal), 32):
            out.append(len(literal[i : i + 32]) - 1)
            out.extend(literal[i : i + 32])
        literal.clear()

    while at < len(plain):
        before = seen.get(plain[at : at + 3])
        seen[plain[at : at + 3]] = at
        if before is None or at - before > 8192 or at + 3 > len(plain):
            literal.append(plain[at])
            at += 1
            continue
        length = 3
        while length < 264 and at + length < len(plain) and plain[before + length] == plain[at + length]:
            length += 1
        flush()
        high, low = divmod(at - before - 1, 256)
        coded = length - 2
        out.extend([min(coded, 7) << 5 | high, *([coded - 7] if coded >= 7 else []), low])
        at += length
    flush()
    return bytes(out)
