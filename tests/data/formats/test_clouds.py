"""PLY, PCD and NPY with named fields: what they hold, and that nothing they merely claim is believed."""

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from cloud_files import pack_lzf, pcd, pcd_points, ply, ply_points

from musc_jax.data.formats.files import Content, FileFault
from musc_jax.data.formats.pcd import decode_pcd, unpack_lzf
from musc_jax.data.formats.ply import decode_ply
from musc_jax.data.formats.scan_geometry import project
from musc_jax.data.scan_points import ScanRules, decode_points
from musc_jax.data.scan_survey import look_at

try:
    import open3d
except (ImportError, OSError):
    open3d = None

POINTS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
WHOLE = np.arange(36).reshape(12, 3) + 1  # in every type of numbers
FACES = (["list uchar int vertex_indices"], [[list(range(i % 4))] for i in range(7)])
XYZ = ["float x", "float y", "float z"]


def content(name, data):
    return Content(Path(name), data, hashlib.sha256(data).hexdigest(), (len(data), 0))


def read(name, data):
    return (decode_ply if name.endswith("ply") else decode_pcd)(content(name, data))


def check_with_open3d(tmp_path, name, data, points):
    if open3d is None:
        return
    (tmp_path / name).write_bytes(data)
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        cloud = open3d.io.read_point_cloud(tmp_path / name, remove_nan_points=False, remove_infinite_points=False)
    np.testing.assert_array_equal(points.reshape(-1, 3), np.asarray(cloud.points))


FORMS = ("ascii", "binary_little_endian", "binary_big_endian")
VERTICES = {
    "points alone": {"vertex": (XYZ, POINTS)},
    "faces behind": {"vertex": (XYZ, POINTS), "face": FACES},
    "faces before": {"face": FACES, "vertex": (XYZ, POINTS)},
    "plain rows before": {"camera": (["int a", "double b"], [(1, 2.5), (3, 4.5)]), "vertex": (XYZ, POINTS)},
    "no rows before": {"face": (FACES[0], []), "vertex": (XYZ, POINTS)},
    "colours and normals": {
        "vertex": (
            ["uchar red", *XYZ, "double nx", "short curvature"],
            [(200, *p, -0.5, -7) for p in POINTS],
        )
    },
    "another order": {"vertex": (["float z", "float x", "float y"], POINTS[:, [2, 0, 1]])},
    "lists among the vertices": {
        "vertex": (
            [*XYZ[:1], "list uchar short near", *XYZ[1:], "list int double far"],
            [(p[0], [7] * (i % 3), p[1], p[2], [0.5] * (i % 2)) for i, p in enumerate(POINTS)],
        )
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", VERTICES)
def test_a_ply_file_gives_its_vertices(tmp_path, form, kind):
    data = ply(VERTICES[kind], form=form, extra=["comment end_header", "obj_info nothing"])
    points = read("a.ply", data)
    np.testing.assert_array_equal(points, POINTS)
    if kind != "another order":  # which Open3D mixes up
        check_with_open3d(tmp_path, "a.ply", data, points)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["char", "uchar", "short", "ushort", "int", "uint", "float", "double", "int8"])
def test_vertices_are_numbers_of_any_type(tmp_path, form, kind):
    points = WHOLE if kind not in ("float", "double") else WHOLE / 8
    data = ply_points(points, kind, form=form)
    np.testing.assert_array_equal(read("a.ply", data), points)
    check_with_open3d(tmp_path, "a.ply", data, points)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
@pytest.mark.parametrize("form", FORMS)
def test_lines_end_as_everywhere(form, end):
    """Behind a bare carriage return the first value may begin with what looks like the rest of a line's end."""
    points = np.array([[10, 1, 2], [3, 10, 4]])
    np.testing.assert_array_equal(read("a.ply", ply_points(points, "uchar", form=form, end=end)), points)


def test_pcd_lines_end_as_on_windows(tmp_path):
    for data in ("ascii", "binary", "binary_compressed"):
        np.testing.assert_array_equal(read("a.pcd", pcd_points(POINTS, data=data, end="\r\n")), POINTS)


def test_an_extra_type_of_another_library_is_passed_over():
    """pyntcloud writes NumPy's `bool`, which the format does not have."""
    rows = [(*p, i % 2) for i, p in enumerate(POINTS)]
    for form in FORMS:
        data = ply({"vertex": ([*XYZ, "bool is_green"], rows)}, form=form)
        np.testing.assert_array_equal(read("a.ply", data), POINTS)


KINDS = ("ascii", "binary", "binary_compressed")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_a_pcd_file_gives_its_points(tmp_path, kind, dtype):
    x, y, z = (WHOLE / 8 if dtype[0] == "f" else WHOLE).astype(dtype).T
    fields = {"label": np.arange(12, dtype="u4"), "z": z, "normal": np.ones((12, 3), "f4"), "x": x, "y": y, "i": x}
    data = pcd(fields, data=kind)
    points = read("a.pcd", data)
    np.testing.assert_array_equal(points, np.stack([x, y, z], -1).astype(float))
    if dtype[1] != "8" or kind == "ascii":  # Open3D takes all numbers of 64 bits for 0
        check_with_open3d(tmp_path, "a.pcd", data, points)


@pytest.mark.parametrize("kind", KINDS)
def test_what_fills_up_rows_is_passed_over(kind):
    """PCL aligns its rows by fields called `_`, and leaves them out where it packs."""
    x, y, z = POINTS.T
    fields = {"x": x, "y": y, "_": np.zeros((12, 4), "u1"), "z": z}
    np.testing.assert_array_equal(read("a.pcd", pcd(fields, data=kind)), POINTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"POINTS": None},
        {"WIDTH": None, "HEIGHT": None},
        {"HEIGHT": None},
        {"COUNT": None},
        {"SIZE": None, "TYPE": None, "COUNT": None},
        {"VERSION": ".5", "FIELDS": None, "COLUMNS": "x y z", "DATA": None, "DATA ": "binary"},
        {"WIDTH": "1", "HEIGHT": "12"},
        {"WIDTH": "3", "HEIGHT": "1"},  # no grid, so nothing is wrong by it
    ],
)
def test_headers_as_older_programs_wrote_them(changes):
    np.testing.assert_array_equal(read("a.pcd", pcd_points(POINTS, changes=changes)), POINTS)


@pytest.mark.skipif(open3d is None, reason="Open3D is not installed, or lacks system libraries")
@pytest.mark.parametrize("name", ["a.ply", "a.pcd"])
@pytest.mark.parametrize("options", [{"write_ascii": True}, {}, {"compressed": True}])
def test_files_that_open3d_writes(tmp_path, name, options):
    points = np.random.default_rng(1).normal(size=(3000, 3)).round(2)
    points[5] = np.nan
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    cloud.colors = cloud.normals = open3d.utility.Vector3dVector(np.abs(points) % 1)
    assert open3d.io.write_point_cloud(tmp_path / name, cloud, **options)
    data = (tmp_path / name).read_bytes()
    found = read(name, data)
    np.testing.assert_allclose(found, points, rtol=1e-6)
    check_with_open3d(tmp_path, name, data, found)


@pytest.mark.parametrize(
    "spelling", ["nan", "NaN", "-nan", "-nan(ind)", "nan(snan)", "1.#QNAN", "-1.#IND", "1.#INF", "inf"]
)
@pytest.mark.parametrize("name", ["a.ply", "a.pcd"])
def test_what_is_not_finite_is_no_point(name, spelling):
    data = {
        "a.ply": ply_points(WHOLE, "float", form="ascii"),
        "a.pcd": pcd_points(WHOLE.astype("f4"), data="ascii"),
    }[name].replace(b"\n4.0 5.0 6.0\n", f"\n4.0 {spelling} 6.0\n".encode())
    assert spelling.encode() in data
    points = decode_points(content(name, data), size=None, rules=ScanRules())
    np.testing.assert_array_equal(points[1], 0)
    np.testing.assert_array_equal(np.delete(points, 1, 0), np.delete(WHOLE, 1, 0))


# Rows and columns


@pytest.mark.parametrize("kind", KINDS)
def test_a_pcd_file_keeps_its_grid(kind):
    points = read("a.pcd", pcd_points(POINTS, data=kind, height=3))
    np.testing.assert_array_equal(points, POINTS.reshape(3, 4, 3))


def test_a_grid_that_is_none_is_refused():
    with pytest.raises(FileFault, match=r"a\.pcd: claims 5 x 3 points, and 12 in all, which is not the same"):
        read("a.pcd", pcd_points(POINTS, width=5, height=3))


@pytest.mark.parametrize("form", FORMS)
def test_a_scanners_ply_file_keeps_its_grid(form):
    """The vertex of each cell, and nothing where it saw none; in an order of its own."""
    cells = [[i] if i >= 0 else [] for i in (3, -1, 0, 1, -1, 2)]
    elements = {"vertex": (XYZ, POINTS[:4]), "range_grid": (FACES[0], [[cell] for cell in cells])}
    points = read("a.ply", ply(elements, form=form, extra=["obj_info num_cols 3", "obj_info num_rows 2"]))
    want = np.full((6, 3), np.nan)
    want[[0, 2, 3, 5]] = POINTS[[3, 0, 1, 2]]
    np.testing.assert_array_equal(points, want.reshape(2, 3, 3))


@pytest.mark.parametrize("form", FORMS)
def test_pcls_ply_file_keeps_its_grid(form):
    camera = ["float view_px", "int viewportx", "int viewporty", "float k1"]
    for viewport, shape in {(4, 3): (3, 4, 3), (12, 1): (12, 3), (5, 3): (12, 3), (-4, -3): (12, 3)}.items():
        elements = {"vertex": (XYZ, POINTS), "camera": (camera, [(0, *viewport, 0)]), "face": FACES}
        points = read("a.ply", ply(elements, form=form))
        np.testing.assert_array_equal(points, POINTS.reshape(shape))


def test_a_grid_is_checked_against_the_picture():
    data = pcd_points(POINTS, height=3)
    assert decode_points(content("a.pcd", data), size=(3, 4), rules=ScanRules()).shape == (3, 4, 3)
    with pytest.raises(FileFault, match="is 4 x 3 points, but its picture is 3 x 4"):
        decode_points(content("a.pcd", data), size=(4, 3), rules=ScanRules())


# Named fields


NAMED = {
    "a cloud": ("f4", (12,)),
    "a grid": ("f8", (3, 4)),
    "whole numbers": ("i2", (12,)),
    "another byte order": (">f4", (4, 3)),
}


@pytest.mark.parametrize("kind", NAMED)
def test_fields_of_an_npy_file_are_found_by_name(tmp_path, kind):
    dtype, shape = NAMED[kind]
    # As ROS has them, with room between and behind.
    names, offsets = ["rgb", "y", "x", "z"], [0, 8, 16, 32]
    layout = np.dtype({"names": names, "formats": ["u4", *[dtype] * 3], "offsets": offsets, "itemsize": 48})
    table = np.zeros(shape, layout)
    values = (WHOLE if dtype == "i2" else WHOLE / 8).reshape(*shape, 3)
    for i, name in enumerate("xyz"):
        table[name] = values[..., i]
    np.save(tmp_path / "a.npy", table)
    found = content("a.npy", (tmp_path / "a.npy").read_bytes())
    points = decode_points(found, size=None, rules=ScanRules())
    np.testing.assert_array_equal(points, values)


@pytest.mark.parametrize(
    ("dtype", "fault"),
    [
        ([("x", "f4"), ("y", "f4")], r"has no numbers x, y and z \(its fields are: x y\)"),
        ([("x", "f4"), ("y", "f4"), ("z", "S4")], r"has no numbers x, y and z \(its fields are: x y z\)"),
        ([("X", "f4"), ("Y", "f4"), ("Z", "f4")], r"\(its fields are: X Y Z\)"),
        ([("x", "f4", (2,)), ("y", "f4", (2,)), ("z", "f4", (2,))], "has no numbers x, y and z"),
    ],
)
def test_fields_that_are_no_coordinates_are_listed(tmp_path, dtype, fault):
    np.save(tmp_path / "a.npy", np.zeros(5, dtype))
    with pytest.raises(FileFault, match=fault):
        decode_points(content("a.npy", (tmp_path / "a.npy").read_bytes()), size=None, rules=ScanRules())


# Files that are broken, or mean harm


def header(count, form="binary_little_endian", properties=XYZ):
    lines = ["ply", f"format {form} 1.0", f"element vertex {count}", *(f"property {p}" for p in properties)]
    return ("\n".join([*lines, "end_header"]) + "\n").encode()


def compressed(packed, *, points=12, lengths=None):
    start = pcd_points(POINTS, data="binary_compressed")
    start = start[: start.index(b"binary_compressed\n") + 18].replace(b"POINTS 12", f"POINTS {points}".encode())
    lengths = (len(packed), 12 * points) if lengths is None else lengths
    return start.replace(b"WIDTH 12", f"WIDTH {points}".encode()) + np.array(lengths, "<u4").tobytes() + packed


BROKEN = {
    "many vertices": ("a.ply", header(10**12) + bytes(12), "claims 1000000000000 points, over .*; keep every"),
    "many vertices, as text": ("a.ply", header(60_000_000, "ascii") + b"1 2 3\n", "cut short: it claims 60000000"),
    "many vertices, all there": ("a.ply", header(60_000_000) + bytes(12), "cut short"),
    "many digits": ("a.ply", header("9" * 5000), "has no readable PLY header"),
    "fewer than none": ("a.ply", header(-1), "has no readable PLY header"),
    "none": ("a.ply", header(0), "has no points"),
    "many rows before": (
        "a.ply",
        ply({"face": FACES, "vertex": (XYZ, POINTS)}).replace(b"face 7", b"face 10000000000000"),
        "cut short",
    ),
    "a row too long": ("a.ply", header(2, "ascii") + b"1 2 3 4\n5 6\n", "has 4 numbers in row 1, where .* says 3"),
    "a row too short": (
        "a.ply",
        header(3, "ascii") + b"1 2 3\n55 66\n77 88 99\n",
        "has 2 numbers in row 2, where .* says 3",
    ),
    "no number": (
        "a.ply",
        header(1, "ascii") + b"1 2 three\n",
        "has 'three' where a number is expected; save it again",
    ),
    "commas": ("a.ply", header(1, "ascii") + b"1,5 2 3\n", "has '1,5' where .*; write numbers with a point"),
    "a list longer than the file": (
        "a.ply",
        header(1, properties=[*XYZ, "list int int l"]) + bytes(12) + b"\xff" * 4,
        "cut short",
    ),
    "lists of no length": (
        "a.ply",
        header(1, properties=[*XYZ, "list float int l"]) + bytes(16),
        "lists as long as a float says",
    ),
    "an unknown type": (
        "a.ply",
        header(1, properties=[*XYZ, "quaternion q"]) + bytes(28),
        "unknown type 'quaternion'; save it as text",
    ),
    "an unknown form": ("a.ply", header(1, "binary_middle_endian"), "has no readable PLY header"),
    "a property of nothing": (
        "a.ply",
        b"ply\nformat ascii 1.0\nproperty float x\nend_header\n",
        "no readable PLY header",
    ),
    "lists as coordinates": (
        "a.ply",
        header(1, properties=["list uchar float x", *XYZ[1:]]),
        "no `element vertex` with numbers",
    ),
    "no z": ("a.ply", header(1, properties=XYZ[:2]), "no `element vertex` with numbers x, y and z"),
    "x twice": (
        "a.ply",
        header(1, properties=[XYZ[0], *XYZ]) + bytes(16),
        "no `element vertex` with numbers x, y and z",
    ),
    "no vertices": ("a.ply", b"ply\nformat ascii 1.0\nend_header\n", "no `element vertex`"),
    "no end": ("a.ply", b"ply\nformat ascii 1.0\n", "is no PLY file"),
    "a grid of what is not there": (
        "a.ply",
        ply(
            {"vertex": (XYZ, POINTS), "range_grid": (FACES[0], [[[12]]])},
            extra=["obj_info num_cols 1", "obj_info num_rows 1"],
        ),
        "its grid names vertices that it does not have",
    ),
    "many points": (
        "a.pcd",
        pcd_points(POINTS, changes={"POINTS": 10**12, "WIDTH": 10**12}),
        "claims 1000000000000 points, over 64000000; keep every second point",
    ),
    "many points, not there": (
        "a.pcd",
        pcd_points(POINTS, changes={"POINTS": 6 * 10**7, "WIDTH": 6 * 10**7}),
        "cut short",
    ),
    "large rows": (
        "a.pcd",
        pcd_points(
            POINTS, changes={"COUNT": "1 1 1 900000000", "FIELDS": "x y z w", "SIZE": "4 4 4 8", "TYPE": "F F F F"}
        ),
        "cut short",
    ),
    "large rows as text": (
        "a.pcd",
        pcd_points(
            POINTS,
            data="ascii",
            changes={"COUNT": "1 1 1 900000000", "FIELDS": "x y z w", "SIZE": "4 4 4 8", "TYPE": "F F F F"},
        ),
        "cut short",
    ),
    "no points": ("a.pcd", pcd_points(POINTS, changes={"POINTS": 0, "WIDTH": 0}), "has no points"),
    "fields of no size": ("a.pcd", pcd_points(POINTS, changes={"SIZE": "4 4 0"}), "no readable PCD header"),
    "a size too few": ("a.pcd", pcd_points(POINTS, changes={"SIZE": "4 4"}), "no readable PCD header"),
    "an odd type": (
        "a.pcd",
        pcd_points(POINTS, changes={"TYPE": "F F S"}),
        r"no numbers x, y and z \(its fields are: x y z\)",
    ),
    "several values of x": ("a.pcd", pcd_points(POINTS, changes={"COUNT": "2 1 1"}), "no numbers x, y and z"),
    "no coordinates": ("a.pcd", pcd_points(POINTS, changes={"FIELDS": "a b c"}), r"\(its fields are: a b c\)"),
    "an unknown kind": ("a.pcd", pcd_points(POINTS, changes={"DATA": "zipped"}), "unknown kind 'zipped'"),
    "no data line": ("a.pcd", b"VERSION .7\nFIELDS x y z\n", "is no PCD file"),
    "packed short": ("a.pcd", compressed(b"")[:-4], "cut short"),
    "packed, cut": ("a.pcd", pcd_points(POINTS, data="binary_compressed")[:-1], "cut short"),
    "packed, of another length": ("a.pcd", compressed(b"\x00a", lengths=(2, 143)), "is damaged"),
    "packed, of much": ("a.pcd", compressed(b"\x00a", points=10_000_000), "is damaged: the length"),
    "packed, referring to nothing": ("a.pcd", compressed(b"\x00a\xe0\xff\x07" * 9), "cannot be unpacked"),
    "packed, ending early": ("a.pcd", compressed(b"\x1fabc" + b"\x20" * 1), "cannot be unpacked"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_by_name_and_without_room(case):
    name, data, fault = BROKEN[case]
    tracemalloc.start()
    try:
        with pytest.raises(FileFault, match=rf"^a\.p.*{fault}"):
            read(name, data)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_an_npy_file_is_not_believed(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 3), np.float32))
    data = (tmp_path / "a.npy").read_bytes()
    for claim in (b"(9, 3)", b"(8000000, 1, 900)", b"(80000000000, 3)"):
        shape = data.replace(b"(4, 3), }" + b" " * len(claim), claim + b", }" + b" " * 6)
        assert len(shape) == len(data)
        with pytest.raises(FileFault, match=r"a\.npy: (is cut short: it claims|claims)"):
            decode_points(content("a.npy", shape), size=None, rules=ScanRules())


SOUND = {
    **{f"ply {form}": ("a.ply", ply(VERTICES["lists among the vertices"], form=form)) for form in FORMS},
    "ply with faces": ("a.ply", ply(VERTICES["faces before"])),
    **{f"pcd {kind}": ("a.pcd", pcd_points(POINTS, data=kind, height=3)) for kind in KINDS},
}


@pytest.mark.parametrize("case", SOUND)
def test_a_file_that_was_cut_is_never_read_as_another_cloud(case):
    name, data = SOUND[case]
    whole = read(name, data)
    for end in range(len(data)):
        try:
            found = read(name, data[:end])
        except FileFault:
            continue
        # What is missing is not needed: the end of a line, or of a number of the last one, which text cannot tell.
        rows = slice(None, -1) if "ascii" in case else slice(None)
        np.testing.assert_array_equal(found.reshape(-1, 3)[rows], whole.reshape(-1, 3)[rows])


@pytest.mark.parametrize("case", SOUND)
def test_damaged_files_end_in_a_fault_or_in_points(case):
    name, data = SOUND[case]
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        try:
            points = read(name, bytes(damaged))
        except FileFault:
            continue
        assert points.shape[-1] == 3


def test_lzf_repeats_itself():
    for plain in (b"a" * 1000, b"abc" * 300, bytes(range(256)) * 5, np.random.default_rng(0).bytes(500)):
        packed = pack_lzf(plain)
        assert unpack_lzf(packed, len(plain))[: len(plain)] == plain
        assert len(packed) < len(plain) or plain[:2] not in (b"aa", b"ab")
    # A single byte, repeated by references to the one before.
    assert unpack_lzf(b"\x00a\xe0\xff\x00", 265) == b"a" * 265


@pytest.mark.parametrize("name", ["a.ply", "a.pcd"])
def test_text_is_read_in_little_room(name):
    points = np.random.default_rng(0).normal(size=(150_000, 3)).astype(np.float32).round(3)
    data = "\n".join(" ".join(map(str, row)) for row in points.tolist()).encode()
    if name == "a.ply":
        data = header(len(points), "ascii") + data
    else:
        data = (
            pcd_points(points[:1], data="ascii", changes={"WIDTH": len(points), "POINTS": len(points)}).rpartition(
                b"ascii"
            )[0]
            + b"ascii\n"
            + data
        )
    tracemalloc.start()
    try:
        found = read(name, data)
        # The points, and a block of lines as text and as words.
        assert tracemalloc.get_traced_memory()[1] < found.nbytes + 10_000_000
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(found, points, rtol=1e-6)


LARGE = 30_000


def large(name):
    points = np.random.default_rng(0).random((LARGE, 3), np.float32)
    if name.endswith("pcd"):
        return pcd_points(points[:1], changes={"WIDTH": LARGE, "POINTS": LARGE})[:-12] + points.tobytes()
    faces = np.zeros(LARGE, np.dtype([("count", "u1"), ("vertices", "<i4", 3)]))
    faces["count"] = 3
    head, last = ply_points(points[:1]).split(b"element")[0], b"end_header\n"
    vertices = f"element vertex {LARGE}\n{''.join(f'property {p}' + chr(10) for p in XYZ)}".encode()
    mesh = f"element face {LARGE}\nproperty list uchar int vertex_indices\n".encode()
    if name == "faces first.ply":
        return head + mesh + vertices + last + faces.tobytes() + points.tobytes()
    return head + vertices + mesh + last + points.tobytes() + faces.tobytes()


@pytest.mark.parametrize("name", ["a.pcd", "faces behind.ply", "faces first.ply"])
def test_a_large_cloud_takes_little_room(tmp_path, name):
    """Looked at, read and seen along z, in a few copies of it at most."""
    (tmp_path / name).write_bytes(large(name))
    found = content(name, large(name))
    tracemalloc.start()
    try:
        look_at(tmp_path / name, None, heights=False)
        points = decode_points(found, size=None, rules=ScanRules())
        seen = project(points, size=32)
        # Of single and double precision; the file's own bytes are among it.
        assert tracemalloc.get_traced_memory()[1] < 14 * points.nbytes
    finally:
        tracemalloc.stop()
    assert len(points) == LARGE
    assert (seen.points != 0).all()


# Text


TEXTS = {
    "spaces": "{0} {1} {2}",
    "tabs": "{0}\t{1}\t{2}",
    "commas": "{0},{1},{2}",
    "commas and spaces": "{0}, {1}, {2}",
    "semicolons": "{0};{1};{2}",
    "colours behind": "{0} {1} {2} 200 100 7",
    "commas and colours": "{0},{1},{2},200,100,7",
}


@pytest.mark.parametrize("form", TEXTS)
@pytest.mark.parametrize("head", ["", "12", "x y z", "X,Y,Z", "# a comment", "//X;Y;Z", '"x";"y";"z"'])
def test_lines_of_numbers_are_points(form, head):
    text = [*([head] if head else []), *(TEXTS[form].format(*map(float, p)) for p in POINTS), ""]
    for end in ("\n", "\r\n"):
        points = decode_points(content("a.xyz", end.join(text).encode()), size=None, rules=ScanRules())
        np.testing.assert_array_equal(points, POINTS)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1 2\n3 4\n", "has no x, y and z in a line"),
        ("# nothing\n", "has no x, y and z in a line"),
        ("1 2 3\n4 5\n", "has 2 numbers in row 2"),
        ("1 2 3\na b c\n", "has 'a' where a number is expected"),
        ("0,5 1,5 2,5\n", "has '0,5' where a number is expected; write numbers with a point"),
        ("0,5;1,5;2,5\n", "has '0,5' where a number is expected; write numbers with a point"),
        ("\0\1\2", "is no text"),
    ],
)
def test_text_that_is_no_points_is_refused(text, fault):
    with pytest.raises(FileFault, match=fault):
        decode_points(content("a.xyz", text.encode()), size=None, rules=ScanRules())
