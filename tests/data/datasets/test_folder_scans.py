"""Scans of a plain folder: what is no point, units, heights, order of points, other sizes than the pictures'."""

import numpy as np
import pytest
import tifffile
from cloud_files import pcd_points, ply_points
from dataset_trees import picture, save
from PIL import ExifTags, Image

from musc_jax.data import Camera, DataError, FolderLayout, open_dataset
from musc_jax.data.account import Account
from musc_jax.data.formats import files
from musc_jax.data.formats.files import FileFault
from musc_jax.data.formats.points import decode_scan

HEIGHT, WIDTH = 48, 64
CAMERA = Camera(80.0, 90.0, 31.0, 24.0)
COUNT = 3


def surface(seed, shape=(HEIGHT, WIDTH)):
    """Depth in metres: smooth and noisy, 0.8 to 1.2."""
    row, column = np.mgrid[: shape[0], : shape[1]] / 24
    noise = np.random.default_rng(seed).normal(scale=1e-3, size=shape)
    return 1 + 0.15 * np.sin(2 * column + seed) * np.cos(row) + noise


def hole(seed, shape=(HEIGHT, WIDTH)):
    """Where there is no point: other places in every scan, a sixth of it."""
    missing = np.zeros(shape, bool)
    missing[5 + seed : 13 + seed, 10:] = True
    return missing


def xyz(seed, shape=(HEIGHT, WIDTH)):
    """Points of a scan in metres, none of them with a coordinate of 0."""
    row, column = np.mgrid[: shape[0], : shape[1]]
    return np.stack([0.01 * column + 0.005, 0.01 * row + 0.005, surface(seed, shape)], axis=-1).astype(np.float32)


def write(folder, scans, suffix=".npy"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, values in enumerate(scans):
        path = folder / f"{i}{suffix}"
        if suffix == ".npy":
            np.save(path, values)
        elif suffix == ".png":
            save(path, values)
        elif suffix == ".tiff":
            tifffile.imwrite(path, values, photometric="minisblack")
        else:
            path.write_bytes({".ply": ply_points, ".pcd": pcd_points}[suffix](values))


def pictures(folder, shape=(HEIGHT, WIDTH)):
    for i in range(COUNT):
        save(folder / f"{i}.png", picture(i, (*shape, 3)))


def load(folder, modality="points", *, beside=None, **layout):
    layout.setdefault("camera", None if layout.get("depth_kind") == "height" else CAMERA)
    if beside is not None:
        layout["depth_dir"] = str(folder)
    return open_dataset(
        "folder",
        data_dir=beside or folder,
        cache_dir=folder.parent / "cache",
        modality="rgb+points" if beside else modality,
        folder=FolderLayout(**layout),
    )


def account(dataset):
    """Of the only category, but for the count of its files."""
    (found,) = dataset.accounts.values()
    return Account(found.facts, [line for line in found.lines if not line.startswith("files: ")])


def points_of(dataset, size=WIDTH):
    (category,) = dataset.categories
    return [sample.points for sample in dataset.samples(category, size=size)]


def there(points):
    return (points != 0).all(axis=-1)


# What is no point


MARKS = {
    "the type's maximum": ("u2", [65535]),
    "of signed numbers": ("i2", [32767]),
    "the type's minimum": ("i2", [-32768]),
    "of 32 bits": ("i4", [2**31 - 1]),
    "of unsigned 32 bits": ("u4", [2**32 - 1]),
    "a round number": ("u2", [10_000]),
    "of 16 bits in 32": ("i4", [65535]),
    "of 15 bits": ("u2", [32767]),
    "Kinect's": ("u2", [2047]),
    "behind the camera": ("i2", [-1]),
    "1e10": ("f4", [1e10]),
    "-1e9": ("f4", [-1e9]),
    "-9999": ("f8", [-9999]),
    "-1": ("f4", [-1]),
    "1e5": ("f4", [1e5]),
    "65.535": ("f4", [65.535]),
    "the largest float": ("f4", [np.finfo("f4").max]),
    "the smallest float": ("f8", [np.finfo("f4").min]),
    "the largest of 16 bits": ("f2", [65504]),
    "at both ends": ("f4", [-9999, 9999]),
    "two above": ("u2", [65534, 65535]),
    "not finite as well": ("f4", [np.nan, 1e10, np.inf]),
}


def depth_with(seed, dtype, marks):
    """Depth with marks for "nothing" and the same with 0."""
    scale = 1 if np.dtype(dtype).kind == "f" else 1000
    plain = (scale * surface(seed)).astype(dtype)
    marked, missing = plain.copy(), hole(seed)
    marked[missing] = np.resize(np.array(marks, np.float64), missing.sum()).astype(dtype)
    return marked, np.where(missing, 0, plain).astype(dtype)


@pytest.mark.parametrize("case", MARKS)
def test_a_number_that_stands_for_nothing_is_no_point(tmp_path, case):
    dtype, marks = MARKS[case]
    marked, plain = zip(*(depth_with(i, dtype, marks) for i in range(COUNT)), strict=True)
    write(tmp_path / "marked", marked)
    write(tmp_path / "plain", plain)
    dataset = load(tmp_path / "marked")
    for got, want, seed in zip(points_of(dataset), points_of(load(tmp_path / "plain")), range(COUNT), strict=True):
        np.testing.assert_array_equal(got, want)
        assert not there(got)[::4][hole(seed)[::3]].any()
    facts = account(dataset).facts["missing_points"]
    found = [np.dtype(dtype).type(mark) for mark in facts["invalid"]]
    assert found == [np.dtype(dtype).type(mark) for mark in sorted(marks) if np.isfinite(mark)]
    assert sum(facts["shares"]) + facts["zero_or_not_finite"] == pytest.approx(hole(0).mean())
    (line,) = (line for line in account(dataset).lines if "--invalid" in line)
    assert f"no point where a scan is {found[0]:.10g} (in 3 of 3 scans" in line


def test_it_is_found_in_a_16_bit_png_and_in_a_tiff(tmp_path):
    marked = [depth_with(i, "u2", [65535])[0] for i in range(COUNT)]
    for suffix in (".png", ".tiff", ".npy"):
        write(tmp_path / suffix, marked, suffix)
    want = points_of(load(tmp_path / ".npy"))
    for suffix in (".png", ".tiff"):
        np.testing.assert_array_equal(points_of(load(tmp_path / suffix)), want)


def test_what_only_one_scan_has_or_what_is_near_is_a_point(tmp_path):
    """A box on an even plane, a wall behind, and a stray value of one scan."""
    for name, scans in {
        "box": [np.where(hole(i), 900, 1000).astype("u2") for i in range(COUNT)],
        "wall": [np.where(hole(i), 1, surface(i) / 4).astype("f4") for i in range(COUNT)],
        "stray": [np.where(hole(i) & (i == 0), 90, surface(i)).astype("f4") for i in range(COUNT)],
    }.items():
        write(tmp_path / name, scans)
        dataset = load(tmp_path / name)
        assert all(there(points).all() for points in points_of(dataset))
        lines = [line for line in account(dataset).lines if "--invalid" in line]
        # The points of a unit sphere, which the stray one alone spans.
        assert len(lines) == (name == "stray")
    share = hole(0).mean()
    assert f"0.npy: 90 in {share:.2%} of its pixels is far outside of all others and counts; --invalid=90" in lines[0]
    assert account(dataset).facts["lone_values"] == [[str(tmp_path / "stray" / "0.npy"), 90.0, pytest.approx(share)]]


def test_invalid_overrules_what_is_likely(tmp_path):
    marked, _ = zip(*(depth_with(i, "u2", [65535]) for i in range(COUNT)), strict=True)
    write(tmp_path / "depth", marked)
    dataset = load(tmp_path / "depth", invalid=())
    assert all(there(points).all() for points in points_of(dataset))
    dataset = load(tmp_path / "depth", invalid=(float(marked[0][0, 0]), 65535.0, 0.5))
    assert account(dataset).facts["missing_points"]["by"] == "--invalid"
    points = points_of(dataset, size=WIDTH)[0]
    assert not points[0, 0].any()
    assert not there(points)[10, 20:].any()
    assert 0.8 < there(points).mean() < 1 - hole(0).mean()
    assert dataset.digest("depth") != load(tmp_path / "depth").digest("depth")


def test_the_rule_is_that_of_all_scans_whatever_part_is_scored(tmp_path):
    scans = [depth_with(i, "f4", [1e10])[i > 0] for i in range(COUNT)]
    scans.append(depth_with(7, "f4", [1e10])[0])
    write(tmp_path / "depth", scans)
    limited = open_dataset(
        "folder",
        data_dir=tmp_path / "depth",
        cache_dir=tmp_path / "cache",
        modality="points",
        limit=2,
        folder=FolderLayout(camera=CAMERA),
    )
    assert account(limited).facts["missing_points"]["invalid"] == [1e10]
    assert not there(limited.load("depth", 0, size=WIDTH).points).all()


def test_the_end_of_the_type_is_no_point_though_only_one_scan_has_it(tmp_path):
    write(tmp_path / "depth", [depth_with(i, "u2", [65535])[i > 0] for i in range(COUNT)])
    dataset = load(tmp_path / "depth")
    assert [there(points).mean() for points in points_of(dataset)] == pytest.approx(
        [1 - hole(0).mean()] * COUNT, abs=0.02
    )
    assert any("65535 (in 1 of 3 scans" in line for line in account(dataset).lines)


def test_single_pixels_far_off_are_points_though_scans_share_them(tmp_path):
    """Far off, a stereo camera knows few distances."""
    scans = [(1000 * surface(i, (240, 320))).astype("u2") for i in range(COUNT)]
    for scan in scans:
        scan[100, 100] = 30329
    write(tmp_path / "depth", scans)
    dataset = load(tmp_path / "depth", camera=Camera(400, 400, 160, 120))
    assert account(dataset).facts["missing_points"]["invalid"] == []
    said = "0.npy: 30329 in single pixels is far outside of all others and counts; --invalid=30329 says"
    assert any(said in line and line.endswith("the same of 2 other values") for line in account(dataset).lines)


@pytest.mark.parametrize("dtype", ["i2", "f4"])
@pytest.mark.parametrize("heights", [False, True])
def test_what_a_tiff_says_is_no_data(tmp_path, dtype, heights):
    """A number among the others, as GDAL notes it."""
    (tmp_path / "depth").mkdir()
    for i in range(COUNT):
        values = np.where(hole(i), 1000, 1000 * surface(i)).astype(dtype)
        tag = (42113, "s", 0, "1000", True)
        tifffile.imwrite(tmp_path / "depth" / f"{i}.tif", values, extratags=[tag])
    dataset = load(tmp_path / "depth", depth_kind="height" if heights else "depth")
    for i, points in enumerate(points_of(dataset)):
        kept = there(points)[:, 20][(np.arange(HEIGHT) * WIDTH + HEIGHT - 1) // HEIGHT]
        assert not kept[hole(i)[:, 20]].any()
        assert there(points).mean() > 0.8


def test_depth_below_0_is_refused_by_name(tmp_path):
    for name, dtype, scale in (("whole", "i2", 1000), ("float", "f4", 1), ("millimetres", "f4", 1000)):
        write(tmp_path / name, [(scale * (surface(i) - 1)).astype(dtype) for i in range(COUNT)])
        with pytest.raises(DataError) as error:
            load(tmp_path / name)
        first, *others = str(error.value).splitlines()[1:]
        assert first.startswith(f"  {tmp_path / name / '0.npy'}: holds depth below 0")
        assert others == [f"  {tmp_path / name / f'{i}.npy'}: the same" for i in range(1, COUNT)]
        assert "pass --depth_kind=height, for values that mean no point --invalid=VALUE" in str(error.value)
        assert "makes no sense" not in str(error.value)


def test_a_single_depth_below_0_is_said(tmp_path):
    write(tmp_path / "depth", [np.where(hole(i) & (i == 0), -0.01, surface(i) / 5).astype("f4") for i in range(COUNT)])
    with pytest.raises(DataError, match=r"0\.npy: holds depth of -0\.01, but nothing lies behind .*--invalid=VALUE$"):
        load(tmp_path / "depth")
    assert not there(points_of(load(tmp_path / "depth", invalid=(-0.01,)))[0]).all()


@pytest.mark.parametrize("suffix", [".png", ".npy", ".tiff"])
def test_depth_of_8_bits_is_refused_by_name(tmp_path, suffix):
    write(tmp_path / "depth", [(255 * np.minimum(surface(i), 1)).astype(np.uint8) for i in range(COUNT)], suffix)
    for options in ({}, {"depth_kind": "height"}):
        with pytest.raises(
            DataError, match=rf"0{suffix}: holds 8 bits a pixel: a picture of depth.*; save depth in 16"
        ):
            load(tmp_path / "depth", **options)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_coloured_picture_of_depth_is_refused_by_name(tmp_path, dtype, channels):
    write(tmp_path / "depth", [np.zeros((HEIGHT, WIDTH, channels), dtype)] * 2)
    with pytest.raises(DataError, match=rf"0\.npy: holds {channels} channels of .* bits: a picture, not depth"):
        load(tmp_path / "depth")


def centred(seed):
    """Points of which some have an x, a y or a z of exactly 0, and some none at all."""
    points = xyz(seed)
    points[..., 0] -= points[:, 20, None, 0]
    points[..., 1] -= points[None, 30, :, 1]
    points[32:46, ..., 2] = 0
    points[hole(seed)] = 0
    return points


@pytest.mark.parametrize("suffix", [".tiff", ".npy", ".ply", ".pcd", "list"])
def test_a_coordinate_of_0_does_not_make_a_point_none(tmp_path, suffix):
    """Beside pictures, and alone as a cloud that is looked at along z."""
    points = [centred(i) for i in range(COUNT)]
    if suffix == "list":
        write(tmp_path / "depth", [p.reshape(-1, 3) for p in points])
    else:
        write(tmp_path / "depth", points, suffix)
    pictures(tmp_path / "rgb")
    for seed, got in enumerate(points_of(load(tmp_path / "depth", beside=tmp_path / "rgb"))):
        kept = there(got)[np.arange(HEIGHT) * WIDTH // HEIGHT + (np.arange(HEIGHT) * WIDTH % HEIGHT > 0)]
        np.testing.assert_array_equal(kept, ~hole(seed))
    if suffix not in (".tiff", ".npy"):
        seen = points_of(load(tmp_path / "depth"), size=128)[0]
        assert there(seen).sum() == (~hole(0)).sum()


def test_a_value_of_z_that_stands_for_nothing(tmp_path):
    clouds = [xyz(i) for i in range(COUNT)]
    for i, cloud in enumerate(clouds):
        cloud[hole(i), 2] = -9999
    write(tmp_path / "depth", clouds)
    dataset = load(tmp_path / "depth")
    assert account(dataset).facts["missing_points"]["invalid"] == [-9999]
    assert [there(p).mean() for p in points_of(dataset)] == pytest.approx([1 - hole(0).mean()] * COUNT, abs=0.02)


@pytest.mark.parametrize("mark", [(-1, -1, -1), (0, 0, 7), (9, 9, 9), (0, 0, -1e10)])
@pytest.mark.parametrize("suffix", [".npy", ".ply"])
def test_one_and_the_same_point_far_outside_is_none(tmp_path, mark, suffix):
    clouds = [xyz(i) for i in range(COUNT)]
    for i, cloud in enumerate(clouds):
        cloud[hole(i)] = mark
    write(tmp_path / "depth", clouds, suffix)
    pictures(tmp_path / "rgb")
    dataset = load(tmp_path / "depth", beside=tmp_path / "rgb")
    assert account(dataset).facts["missing_points"]["invalid"] == [mark[2]]
    points = dataset.load("rgb", 1, size=HEIGHT).points
    np.testing.assert_array_equal(there(points), ~hole(1)[:, np.arange(HEIGHT) * WIDTH // HEIGHT])


def test_where_a_range_ends_is_said_and_counts(tmp_path):
    write(tmp_path / "depth", [np.minimum(4000 * surface(i), 4095).astype("u2") for i in range(COUNT)])
    dataset = load(tmp_path / "depth")
    assert all(there(points).all() for points in points_of(dataset))
    assert any("many pixels of 3 scans are 4095, as where a range ends" in line for line in account(dataset).lines)
    told = load(tmp_path / "depth", invalid=(4095.0,))
    assert not any("range ends" in line for line in account(told).lines)
    assert not any(there(points).all() for points in points_of(told))


def test_a_z_of_0_far_from_all_others_counts_and_is_said(tmp_path):
    clouds = [xyz(i) for i in range(COUNT)]
    for i, cloud in enumerate(clouds):
        cloud[hole(i), 2] = 0
    write(tmp_path / "depth", clouds)
    dataset = load(tmp_path / "depth")
    assert all(there(points).all() for points in points_of(dataset))
    assert any("z is exactly 0" in line and "--invalid=0" in line for line in account(dataset).lines)
    told = load(tmp_path / "depth", invalid=(0.0,))
    assert not any("z is exactly 0" in line for line in account(told).lines)
    assert not any(there(points).all() for points in points_of(told))


# Heights


def plateau(seed):
    """Heights in metres about a plane at 0."""
    row, column = np.mgrid[:HEIGHT, :WIDTH] / 24
    return 0.002 * np.sin(2 * column + seed) * np.cos(row)


@pytest.mark.parametrize(
    ("dtype", "unit", "mark"),
    [("i2", 1e-6, -32768), ("f4", 1e-3, np.nan), ("f4", 1e-3, -9999.0), ("f8", 1.0, 1e10), ("u2", 1e-7, 0)],
)
def test_heights_are_points_above_a_plane(tmp_path, dtype, unit, mark):
    scans, shift = [], 0.004 if dtype == "u2" else 0.0
    for i in range(COUNT):
        values = np.round((plateau(i) + shift) / unit) if np.dtype(dtype).kind != "f" else plateau(i) / unit
        scans.append(np.where(hole(i), mark, values).astype(dtype))
    write(tmp_path / "heights", scans)
    options = {"depth_kind": "height"}
    dataset = load(tmp_path / "heights", depth_scale=unit, pixel_pitch=(1e-4, 2e-4), **options)
    assert not any("assumed" in line for line in account(dataset).lines)
    points = dataset.load("heights", 1, size=HEIGHT).points
    columns = np.arange(HEIGHT) * WIDTH // HEIGHT
    np.testing.assert_array_equal(there(points), ~hole(1)[:, columns])
    np.testing.assert_allclose(points[2, :, 0], (columns - 31.5) * 1e-4, atol=1e-8)
    np.testing.assert_allclose(points[:, 3, 1][there(points)[:, 3]], (np.arange(HEIGHT) - 23.5)[~hole(1)[:, 4]] * 2e-4)
    # What is high is near.
    np.testing.assert_allclose(points[2, :, 2], -(plateau(1) + shift)[2, columns], atol=2 * unit * 0.5 + 1e-9)
    guessed = load(tmp_path / "heights", **options)
    cloud = guessed.load("heights", 1, size=HEIGHT).points
    extent = np.ptp(cloud[there(cloud)], axis=0)
    assert extent[2] / extent[0] == pytest.approx(0.1, rel=0.15)
    assert any("--pixel_pitch" in line and "--depth_scale" in line for line in account(guessed).lines)


# Units


@pytest.mark.parametrize(
    ("dtype", "factor", "scale"),
    [("f4", 1, 1.0), ("f8", 0.3, 1.0), ("f4", 1000, 0.001), ("u2", 1000, 0.001), ("f2", 1, 1.0)],
)
def test_the_unit_of_depth_is_told_by_its_type(tmp_path, dtype, factor, scale):
    write(tmp_path / "depth", [(factor * surface(i)).astype(dtype) for i in range(COUNT)])
    dataset = load(tmp_path / "depth")
    z = points_of(dataset)[0][..., 2]
    assert np.median(z) == pytest.approx(factor * scale, rel=0.05)
    assert account(dataset).facts["units"]["depth_scale"] == scale
    (line,) = (line for line in account(dataset).lines if "--depth_scale" in line)
    assert "m away" in line
    told = load(tmp_path / "depth", depth_scale=scale)
    assert not account(told).lines
    np.testing.assert_array_equal(points_of(told)[0][..., 2], z)


@pytest.mark.parametrize("factor", [5e4, 0.5])
def test_depth_that_makes_no_sense_is_refused(tmp_path, factor):
    """Of other units, or with moved bits, as in SUN RGB-D and TUM's."""
    write(tmp_path / "depth", [np.round(factor * surface(i) ** 4).astype("u4") for i in range(COUNT)])
    with pytest.raises(DataError, match=r"0\.npy: depth makes no sense: .* pass --depth_scale=METRES") as error:
        load(tmp_path / "depth")
    assert len(str(error.value).splitlines()) == 1
    assert points_of(load(tmp_path / "depth", depth_scale=1 / factor))
    said = load(tmp_path / "depth", depth_scale=0.001)
    assert any("makes no sense" in line and "as --depth_scale has it" in line for line in account(said).lines)


def test_points_in_millimetres_are_taken_as_such(tmp_path):
    write(tmp_path / "points", [1000 * xyz(i) for i in range(COUNT)], ".tiff")
    dataset = load(tmp_path / "points")
    np.testing.assert_allclose(points_of(dataset)[0][0, 0], xyz(0)[0, 0], rtol=1e-5)
    assert any("taken as millimetres (--points_scale says otherwise)" in line for line in account(dataset).lines)
    told = load(tmp_path / "points", points_scale=0.001)
    assert not account(told).lines


def test_points_in_metres_are_taken_as_they_are(tmp_path):
    write(tmp_path / "points", [xyz(i) for i in range(COUNT)])
    assert not account(load(tmp_path / "points")).lines


@pytest.mark.parametrize("factor", [1e6, 1e-5])
def test_points_that_make_no_sense_are_refused(tmp_path, factor):
    write(tmp_path / "points", [factor * xyz(i) for i in range(COUNT)])
    with pytest.raises(DataError, match=r"0\.npy: points make no sense: .*; pass --points_scale=METRES"):
        load(tmp_path / "points")
    np.testing.assert_allclose(
        points_of(load(tmp_path / "points", points_scale=1 / factor))[0][0, 0], xyz(0)[0, 0], rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["depth", "points", "height"])
def test_a_scan_in_another_unit_is_named(tmp_path, kind):
    scans = [xyz(i) if kind == "points" else surface(i).astype("f4") for i in range(4)]
    scans[2] *= 1000
    write(tmp_path / "scans", scans)
    dataset = load(tmp_path / "scans", depth_kind="height" if kind == "height" else "depth")
    assert any(f"in another unit? {tmp_path / 'scans' / '2.npy'}" in line for line in account(dataset).lines)


def test_coordinates_far_from_the_origin_keep_their_digits(tmp_path):
    """Maps of the earth lie millions of metres from it."""
    clouds = [np.add(xyz(i), [500_000.0, 4_500_000.0, 100.0]) for i in range(COUNT)]
    write(tmp_path / "points", clouds)
    points = points_of(load(tmp_path / "points"))[0]
    assert np.diff(points[0, :, 0]).max() == pytest.approx(0.01, rel=1e-3)


# Order of points without a grid


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (WIDTH, HEIGHT), (HEIGHT, HEIGHT), (HEIGHT, HEIGHT + 1)])
@pytest.mark.parametrize("suffix", [".npy", ".ply", ".pcd"])
@pytest.mark.parametrize("columns", [False, True])
def test_the_order_is_that_in_which_neighbours_lie_together(tmp_path, shape, suffix, columns):
    grids = [xyz(i, shape) for i in range(COUNT)]
    grids[1][hole(1, shape)] = 0
    write(tmp_path / "points", [(np.swapaxes(g, 0, 1) if columns else g).reshape(-1, 3) for g in grids], suffix)
    pictures(tmp_path / "rgb", shape)
    dataset = load(tmp_path / "points", beside=tmp_path / "rgb")
    columns_picked = np.arange(shape[0]) * shape[1] // shape[0]
    for got, want in zip(points_of(dataset, size=shape[0]), grids, strict=True):
        np.testing.assert_array_equal(got, want[:, columns_picked])
    assert account(dataset).facts["order"]["point_order"] == ("columns" if columns else "rows")
    assert any("column by column" in line and "--point_order" in line for line in account(dataset).lines) == columns


@pytest.mark.parametrize("columns", [False, True])
def test_neighbours_lie_together_however_the_axes_are_turned(tmp_path, columns):
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    grids = [(xyz(i) @ turn.T).astype(np.float32) for i in range(COUNT)]
    write(tmp_path / "points", [(np.swapaxes(g, 0, 1) if columns else g).reshape(-1, 3) for g in grids])
    pictures(tmp_path / "rgb")
    dataset = load(tmp_path / "points", beside=tmp_path / "rgb")
    np.testing.assert_array_equal(points_of(dataset, size=HEIGHT)[0], grids[0][:, np.arange(HEIGHT) * WIDTH // HEIGHT])


def test_a_scan_that_shows_no_order_has_that_of_the_others(tmp_path):
    """All points of one lie together."""
    grids = [xyz(i) for i in range(COUNT)]
    grids[0] = 1 + 0.01 * np.random.default_rng(0).random(grids[0].shape, np.float32)
    write(tmp_path / "points", [np.swapaxes(g, 0, 1).reshape(-1, 3) for g in grids])
    pictures(tmp_path / "rgb")
    dataset = load(tmp_path / "points", beside=tmp_path / "rgb")
    for got, grid in zip(points_of(dataset, size=HEIGHT), grids, strict=True):
        np.testing.assert_array_equal(got, grid[:, np.arange(HEIGHT) * WIDTH // HEIGHT])


@pytest.mark.parametrize("columns", [False, True])
def test_the_order_is_that_of_the_picture_as_it_is_stored(tmp_path, columns):
    """A scanner knows nothing of how its camera is held; what is shown is turned."""
    orientation = Image.Exif()
    orientation[ExifTags.Base.Orientation] = 6
    (tmp_path / "rgb").mkdir()
    for i in range(COUNT):
        Image.fromarray(picture(i, (HEIGHT, WIDTH, 3))).save(tmp_path / "rgb" / f"{i}.jpg", exif=orientation)
    grids = [xyz(i) for i in range(COUNT)]
    write(tmp_path / "points", [(np.swapaxes(g, 0, 1) if columns else g).reshape(-1, 3) for g in grids])
    dataset = load(tmp_path / "points", beside=tmp_path / "rgb")
    assert account(dataset).facts["order"]["point_order"] == ("columns" if columns else "rows")
    want = np.rot90(grids[2], -1)[np.arange(HEIGHT) * WIDTH // HEIGHT]
    np.testing.assert_array_equal(dataset.load("rgb", 2, size=HEIGHT).points, want)


def test_scans_in_different_orders_are_refused(tmp_path):
    write(tmp_path / "points", [(np.swapaxes(xyz(i), 0, 1) if i else xyz(i)).reshape(-1, 3) for i in range(COUNT)])
    pictures(tmp_path / "rgb")
    with pytest.raises(DataError, match=r"1\.npy: has its points column by column, but .*0\.npy row by row; save all"):
        load(tmp_path / "points", beside=tmp_path / "rgb")
    assert load(tmp_path / "points", beside=tmp_path / "rgb", point_order="rows")


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, HEIGHT)])
def test_points_in_no_order_are_refused_unless_it_is_said(tmp_path, shape):
    shuffle = np.random.default_rng(0).permutation(shape[0] * shape[1])
    write(tmp_path / "points", [xyz(i, shape).reshape(-1, 3)[shuffle] for i in range(COUNT)])
    pictures(tmp_path / "rgb", shape)
    with pytest.raises(DataError, match=r"0\.npy: holds points without a grid, .*; pass --point_order=rows or"):
        load(tmp_path / "points", beside=tmp_path / "rgb")
    rows = points_of(load(tmp_path / "points", beside=tmp_path / "rgb", point_order="rows"), size=shape[0])[0]
    columns = points_of(load(tmp_path / "points", beside=tmp_path / "rgb", point_order="columns"), size=shape[0])[0]
    given = xyz(0, shape).reshape(-1, 3)[shuffle]
    picked = np.arange(shape[0]) * shape[1] // shape[0]
    np.testing.assert_array_equal(rows, given.reshape(*shape, 3)[:, picked])
    np.testing.assert_array_equal(columns, np.swapaxes(given.reshape(*shape[::-1], 3), 0, 1)[:, picked])


# Scans of another size than their pictures


@pytest.mark.parametrize("shape", [(24, 32), (96, 128), (48, 65)])
@pytest.mark.parametrize("of_picture", [False, True])
def test_depth_of_another_size_is_that_of_the_nearest_pixel(tmp_path, shape, of_picture):
    pictures(tmp_path / "rgb", shape)
    depth = [surface(i).astype("f4") for i in range(COUNT)]
    write(tmp_path / "depth", depth)
    camera = CAMERA
    if of_picture:
        down, across = shape[0] / HEIGHT, shape[1] / WIDTH
        camera = Camera(80 * across, 90 * down, 31.5 * across - 0.5, 24.5 * down - 0.5)
    dataset = load(tmp_path / "depth", beside=tmp_path / "rgb", camera=camera)
    points = dataset.load("rgb", 0, size=16).points
    row, column = np.arange(16) * shape[0] // 16, np.arange(16) * shape[1] // 16
    row, column = row * HEIGHT // shape[0], column * WIDTH // shape[1]
    z = depth[0][row[:, None], column]
    np.testing.assert_allclose(points[..., 2], z, rtol=1e-6)
    if shape != (48, 65):
        np.testing.assert_allclose(points[..., 0], (column - 31) / 80 * z, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(points[..., 1], (row[:, None] - 24) / 90 * z, rtol=1e-4, atol=1e-7)
        assert account(dataset).facts["intrinsics"]["of"] == ("picture" if of_picture else "scan")
    assert any(
        f"({WIDTH} x {HEIGHT} beside {shape[1]} x {shape[0]}): each pixel has the nearest" in line
        for line in account(dataset).lines
    )


def test_a_grid_of_points_of_another_size(tmp_path):
    pictures(tmp_path / "rgb", (96, 128))
    write(tmp_path / "points", [xyz(i) for i in range(COUNT)], ".tiff")
    points = load(tmp_path / "points", beside=tmp_path / "rgb").load("rgb", 2, size=96).points
    np.testing.assert_array_equal(points[:, 0], xyz(2)[np.arange(96) // 2, 0])


@pytest.mark.parametrize(("shape", "turned"), [((48, 48), False), ((64, 48), True), ((30, 64), False)])
def test_other_proportions_are_refused(tmp_path, shape, turned):
    pictures(tmp_path / "rgb", shape)
    write(tmp_path / "depth", [surface(i).astype("f4") for i in range(COUNT)])
    with pytest.raises(DataError, match=r"turn, crop or register one of them") as error:
        load(tmp_path / "depth", beside=tmp_path / "rgb")
    assert f"0.npy: is 64 x 48 points, but its picture is {shape[1]} x {shape[0]}" in str(error.value)
    assert ("which would fit if one of them were turned" in str(error.value)) == turned


def test_a_camera_of_another_size_is_said(tmp_path):
    write(tmp_path / "depth", [surface(i).astype("f4") for i in range(COUNT)])
    dataset = load(tmp_path / "depth", camera=Camera(700, 700, 320, 240))
    assert any("principal point" in line and "another size?" in line for line in account(dataset).lines)


@pytest.mark.parametrize("shape", [(3, HEIGHT, WIDTH), (HEIGHT, WIDTH, 1), (1, HEIGHT, WIDTH)])
def test_axes_as_other_libraries_have_them(tmp_path, shape):
    points = [xyz(i) for i in range(COUNT)]
    scans = [np.moveaxis(p, -1, 0) if shape[0] == 3 else p[..., 2].reshape(shape) for p in points]
    write(tmp_path / "scans", scans)
    np.testing.assert_allclose(points_of(load(tmp_path / "scans"))[0][0, 5, 2], points[0][0, 5, 2], rtol=1e-6)


@pytest.mark.parametrize("more", [1, 3, 6])
@pytest.mark.parametrize("form", ["grid", "list", "turned list"])
def test_what_comes_behind_x_y_and_z_is_left_out(tmp_path, more, form):
    """Intensity, colours, normals."""
    scans = [np.concatenate([xyz(i), np.full((HEIGHT, WIDTH, more), 7, "f4")], axis=-1) for i in range(COUNT)]
    if form != "grid":
        scans = [scan.reshape(HEIGHT * WIDTH, -1) for scan in scans]
    if form == "turned list":
        scans = [scan[:, :3].T for scan in scans]
    write(tmp_path / "scans", scans)
    pictures(tmp_path / "rgb")
    points = load(tmp_path / "scans", beside=tmp_path / "rgb").load("rgb", 0, size=HEIGHT).points
    np.testing.assert_array_equal(points, xyz(0)[:, np.arange(HEIGHT) * WIDTH // HEIGHT])


@pytest.mark.parametrize("kind", ["f4", "u2"])
def test_depth_packed_as_opencv_packs_it(tmp_path, kind):
    """By LZW, which tifffile leaves to an extra."""
    path, depth = tmp_path / "0.tiff", (600 * surface(0)).astype(kind)
    Image.fromarray(depth).save(path, compression="tiff_lzw")
    scan = decode_scan(files.read(path))
    assert scan.form == "map"
    assert scan.values.dtype == kind
    np.testing.assert_array_equal(scan.values, depth)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, compression="tiff_lzw")
    with pytest.raises(FileFault, match=r"is packed in a way that is not read .*; save it unpacked, or by deflate"):
        decode_scan(files.read(path))


@pytest.mark.parametrize(
    ("suffix", "way_out"),
    [
        ("exr", "TIFF of 32-bit floats"),
        ("stl", "as PLY"),
        ("LAS", "as PLY or PCD"),
        ("csv", "call it .xyz"),
        ("jpg", "16 bits"),
    ],
)
def test_files_that_are_not_read_are_named_with_the_way_out(tmp_path, suffix, way_out):
    pictures(tmp_path / "rgb")
    (tmp_path / "depth").mkdir()
    for i in range(COUNT):
        (tmp_path / "depth" / f"{i}.{suffix}").write_bytes(b"1")
    with pytest.raises(DataError, match=rf"\.{suffix.lower()} \(3 there\) is not read: .*{way_out}"):
        load(tmp_path / "depth", beside=tmp_path / "rgb")
    if suffix != "jpg":
        with pytest.raises(DataError, match=rf"\.{suffix.lower()} \(3 there\) is not read: .*{way_out}"):
            load(tmp_path / "depth")
    if suffix == suffix.lower():
        write(tmp_path / "depth", [xyz(i) for i in range(COUNT - 1)])
        with pytest.raises(
            DataError, match=rf"the points of .*2\.png are missing .*; 2\.{suffix} is not read: .*{way_out}"
        ):
            load(tmp_path / "depth", beside=tmp_path / "rgb")
