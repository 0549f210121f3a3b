"""A plain folder: anomalib's conventions, flat, and point data in every format."""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import tifffile
from cloud_files import pcd_points, ply_points
from dataset_trees import SIDE, blob, picture, save
from eyecandies_tree import fingerprint
from PIL import Image

from musc_jax.data import Camera, DataError, FolderLayout, open_dataset
from musc_jax.data.formats.scan_geometry import back_project, depth_picture, project

CAMERA = Camera(50.0, 60.0, 19.5, 20.5)
LABELLED = {"normal_dir": ("good",), "abnormal_dir": ("bad",)}


def load(root, modality="rgb", *, categories=None, skip_bad=False, **layout):
    return open_dataset(
        "folder",
        data_dir=root,
        cache_dir=root.parent / "cache",
        modality=modality,
        categories=categories,
        skip_bad=skip_bad,
        folder=FolderLayout(**layout),
    )


def scan(seed=0, side=SIDE):
    """An organised map in metres with a hole."""
    y, x = np.mgrid[:side, :side] / side + 0.1
    z = 1 + 0.1 * np.sin(5 * x + seed)
    points = np.stack([x, y, z], -1).astype(np.float32)
    points[:2] = 0
    return points


@pytest.fixture
def root(tmp_path):
    """Three good samples, two bad ones with masks; points beside nothing yet."""
    root = tmp_path / "my parts é"
    for i in range(3):
        save(root / "good" / f"{i}.png", picture(i))
    for i in range(2):
        save(root / "bad" / f"{i}.jpg", picture(10 + i))
        save(root / "masks" / f"{i}.png", blob(value=1 + 254 * i))
    return root


def test_labelled_as_anomalib_has_it(root):
    before = fingerprint(root)
    dataset = load(root, **LABELLED, mask_dir=("masks",))
    assert dataset.categories == ("my parts é",)
    samples = list(dataset.samples("my parts é", size=SIDE))
    assert [sample.name for sample in samples] == ["good_0", "good_1", "good_2", "bad_0", "bad_1"]
    assert [sample.gt_label for sample in samples] == [0, 0, 0, 1, 1]
    for sample in samples:
        np.testing.assert_array_equal(sample.gt_mask, (blob() > 0) if sample.gt_label else np.zeros((SIDE, SIDE), bool))
    assert not dataset.warnings
    assert fingerprint(root) == before


def test_without_masks_pixels_have_no_truth(root):
    samples = list(load(root, **LABELLED).samples("my parts é", size=16))
    assert [sample.gt_mask is None for sample in samples] == [False] * 3 + [True] * 2


def test_flat_has_no_labels(root):
    samples = list(load(root / "good").samples("good", size=16))
    assert [sample.name for sample in samples] == ["0", "1", "2"]
    assert all(sample.gt_label is None and sample.gt_mask is None for sample in samples)


def test_flat_with_masks_takes_labels_from_them(root):
    for i in range(3):
        save(root / "truth" / f"{i}.png", blob(value=255 * (i == 1)))
    samples = list(load(root / "good", mask_dir=(str(root / "truth"),)).samples("good", size=16))
    assert [sample.gt_label for sample in samples] == [0, 1, 0]


def test_categories_are_folders_with_the_same_layout(root):
    dataset = load(root.parent, categories=["my parts é"], **LABELLED)
    assert len(dataset.names("my parts é")) == 5


def test_several_defects_and_subfolders(root):
    for defect in ("crack", "dent"):
        save(root / "defects" / defect / "deep" / "0.png", picture(3))
        save(root / "truth" / defect / "deep" / "0.png", blob())
    layout = {"normal_dir": ("good",), "abnormal_dir": ("defects/crack", "defects/dent")}
    dataset = load(root, **layout, mask_dir=("truth",))
    assert dataset.names("my parts é")[3:] == ("crack_deep_0", "dent_deep_0")
    dataset = load(root, **layout, mask_dir=("truth/crack", "truth/dent"))
    assert len(dataset.names("my parts é")) == 5


def test_extensions(root):
    save(root / "good" / "9.bmp", picture(9))
    assert len(load(root / "good", extensions=("PNG",)).names("good")) == 3
    assert len(load(root / "good").names("good")) == 4
    with pytest.raises(DataError, match=r"has no pictures \(\.gif\)"):
        load(root / "good", extensions=(".gif",))


CLOUDS = {
    "ply": ply_points,
    "ply ascii": partial(ply_points, form="ascii"),
    "ply big-endian": partial(ply_points, form="binary_big_endian"),
    "pcd": pcd_points,
    "pcd ascii": partial(pcd_points, data="ascii"),
    "pcd compressed": partial(pcd_points, data="binary_compressed"),
    "pcd grid": partial(pcd_points, height=SIDE),
}


def write_points(path, points, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "tiff":
        tifffile.imwrite(path.with_suffix(".tiff"), points, photometric="minisblack")
    elif kind == "npy":
        np.save(path.with_suffix(".npy"), points)
    elif kind == "flat npy":
        np.save(path.with_suffix(".npy"), points.reshape(-1, 3))
    else:
        path.with_suffix("." + kind.split()[0]).write_bytes(CLOUDS[kind](points))


@pytest.mark.parametrize("kind", ["tiff", "npy", "flat npy", *CLOUDS])
def test_points_that_belong_to_pixels(root, kind):
    for i in range(3):
        write_points(root / "depth" / str(i), scan(i), kind)
    dataset = load(root / "good", "rgb+points", depth_dir=str(root / "depth"))
    for i, sample in enumerate(dataset.samples("good", size=SIDE)):
        np.testing.assert_allclose(sample.points, scan(i), atol=1e-6)


@pytest.mark.parametrize("kind", ["png", "tiff", "float tiff", "npy"])
def test_depth_with_intrinsics(root, kind):
    for i in range(3):
        depth = (1000 * scan(i)[..., 2]).astype(np.uint16)
        stem = root / "depth" / str(i)
        if kind == "png":
            save(stem.with_suffix(".png"), depth)
        elif kind == "npy":
            write_points(stem, depth, "npy")
        else:
            values = np.where(depth > 0, depth, np.nan).astype(np.float32) if "float" in kind else depth
            write_points(stem, values, "tiff")
    with pytest.raises(DataError, match="pass --intrinsics"):
        load(root / "good", "rgb+points", depth_dir=str(root / "depth"))
    dataset = load(root / "good", "rgb+points", depth_dir=str(root / "depth"), camera=CAMERA)
    points = dataset.load("good", 1, size=SIDE).points
    v, u = 7, 31
    z = (1000 * scan(1)[v, u, 2]).astype(np.uint16) * 1e-3
    np.testing.assert_allclose(points[v, u], [(u - 19.5) / 50 * z, (v - 20.5) / 60 * z, z], rtol=1e-5)
    assert (points[:2] == 0).all()
    other = load(root / "good", "rgb+points", depth_dir=str(root / "depth"), camera=CAMERA, depth_scale=1.0)
    assert other.digest("good") != dataset.digest("good")


def test_a_pixel_on_the_axis_is_a_point():
    points = back_project(np.array([[2.0, 0.0, np.nan, np.inf, -1.0]]), Camera(1, 1, 0, 0))
    assert (points[0, 0] != 0).all()
    assert (points[0, 1:] == 0).all()


@pytest.mark.parametrize("kind", ["tiff", "flat npy", "ply"])
def test_points_beside_pictures_and_alone(root, kind):
    for i in range(3):
        write_points(root / "good" / str(i), scan(i), kind)
    assert len(load(root / "good").names("good")) == 3  # pictures alone: the points do not disturb
    assert load(root / "good", "rgb+points").load("good", 0, size=16).points.shape == (16, 16, 3)
    for i in range(3):
        (root / "good" / f"{i}.png").unlink()
    sample = load(root / "good", "points").load("good", 0, size=32)
    assert sample.points.shape == (32, 32, 3)
    assert sample.image.any()
    with pytest.raises(DataError):
        load(root / "good", "rgb+points")


def test_a_cloud_that_has_rows_and_columns_keeps_them_without_a_picture(root):
    """A view along z would lose what lies behind, and turn what looks the other way."""
    for i in range(2):
        folder = root / "clouds"
        points = scan(i)[:, ::-1] * np.float32([1, 1, -1])
        write_points(folder / str(i), points[:, :20], "pcd grid")
    dataset = load(root / "clouds", "points")
    sample = dataset.load("clouds", 0, size=SIDE // 2)
    np.testing.assert_array_equal(sample.points[0], 0)
    assert (np.diff(sample.points[3, :, 0]) < 0).all()
    assert not dataset.warnings


def test_points_without_a_grid_are_refused_beside_a_picture(root):
    for i in range(3):
        np.save(root / "good" / f"{i}.npy", scan()[:, :-1].reshape(-1, 3))
    with pytest.raises(DataError, match="points without a grid"):
        load(root / "good", "rgb+points")


def test_a_cloud_of_one_camera_comes_back_whole():
    points = scan()
    cloud = np.random.default_rng(0).permutation(points[2:].reshape(-1, 3))
    seen = project(cloud, size=SIDE)
    assert seen.hidden == 0
    valid = (seen.points != 0).all(-1)
    assert valid.sum() == len(cloud)
    # Rows and columns of the grid are those of x and y.
    assert (np.diff(seen.points[..., 0], axis=1)[valid[:, 1:] & valid[:, :-1]] > 0).all()
    assert (np.diff(seen.points[..., 1], axis=0)[valid[1:] & valid[:-1]] > 0).all()


def test_of_two_layers_the_nearer_is_seen():
    near = scan()[2:].reshape(-1, 3)
    seen = project(np.concatenate([near, near + np.float32([0, 0, 5])]), size=SIDE)
    assert seen.hidden == pytest.approx(0.5)
    assert seen.points[..., 2].max() < 2


def test_a_closed_body_is_remarked_upon(root):
    for i in range(2):
        near = scan(i)[2:].reshape(-1, 3)
        folder = root / "clouds"
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{i}.npy", np.concatenate([near, near + np.float32([0, 0, 5])]))
    dataset = load(root / "clouds", "points")
    assert len(dataset.warnings) == 2
    assert "50% of the points lie behind others" in dataset.warnings[0]


def test_depth_picture_shows_near_as_bright():
    points = scan()
    shown = depth_picture(points)[..., 0]
    z = points[..., 2]
    valid = z > 0
    assert (shown[~valid] == 0).all()
    assert shown[z == z[valid].min()].min() > shown[z == z.max()].max()


def test_every_orphan_is_listed(root):
    save(root / "masks" / "7.png", blob())
    save(root / "bad" / "5.jpg", picture(1))
    save(root / "bad" / "6.jpg", picture(1))
    with pytest.raises(DataError) as error:
        load(root, **LABELLED, mask_dir=("masks",))
    assert "5.png: is missing, the mask of" in str(error.value)
    assert "6.png: is missing, the mask of" in str(error.value)
    # What has no partner may be the partner of what has none, under another name.
    assert str(error.value).endswith(
        "\n  note: " + str(root / "masks" / "7.png") + ": is a mask without a sample; not used"
    )
    dataset = load(root, **LABELLED, mask_dir=("masks",), skip_bad=True)
    assert len(dataset.names("my parts é")) == 5
    assert any("7.png: is a mask without a sample" in line for line in dataset.warnings)
    for i in range(2):
        write_points(root / "depth" / str(i), scan(i), "npy")
    write_points(root / "depth" / "9", scan(9), "npy")
    with pytest.raises(DataError, match=r"/2: the points of .*2\.png are missing"):
        load(root / "good", "rgb+points", depth_dir=str(root / "depth"))
    (root / "good" / "2.png").unlink()
    dataset = load(root / "good", "rgb+points", depth_dir=str(root / "depth"))
    assert dataset.warnings == [f"{root / 'depth' / '9.npy'}: are points without a picture; not used"]


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"normal_dir": ("nothing",)}, "there are bad, good, masks"),
        ({}, "say which are which by --normal_dir"),
        ({"normal_dir": ("good",), "mask_dir": ("a", "b")}, "mask_dir: expected one folder, or one for each abnormal"),
        ({"normal_dir": ("good",), "normal_depth_dir": ("a", "b")}, "one for each normal_dir"),
        ({"camera": Camera(0, 1, 2, 3)}, "intrinsics"),
        ({"depth_scale": 0.0}, "depth_scale"),
        ({**LABELLED, "mask_dir": ("nothing",)}, "nothing: is not a folder; there are bad, good, masks"),
        ({**LABELLED, "mask_dir": ("nothing",), "depth_dir": "nothing"}, "nothing: is not a folder"),
        ({**LABELLED, "modality": "rgb+points"}, "bad: has no point data beside its pictures .*--modality=rgb"),
        ({**LABELLED, "modality": "rgb+points", "depth_dir": "masks/none"}, "masks/none: is not a folder"),
        ({"normal_dir": ("masks/empty",)}, "empty: has no pictures .*; add them, or name another folder"),
    ],
)
def test_what_makes_no_sense_is_refused(root, layout, message):
    """In a line for each cause, however many samples it concerns."""
    (root / "masks" / "empty").mkdir()
    with pytest.raises(DataError, match=message) as error:
        load(root, **layout)
    assert len(str(error.value).splitlines()) <= 3  # a head, and a line for each of two folders


@pytest.mark.parametrize(
    ("content", "modality", "message"),
    [
        ("npy", "rgb", r"has no pictures \(.*\), but point data; score that by --modality=points$"),
        (None, "rgb", r"has no pictures \(.*\); there are no folders in it$"),
        (
            None,
            "points",
            r"has no point data \(\.npy, \.pcd, \.ply, \.png, \.tif, \.tiff, \.xyz\); there are no folders in it$",
        ),
    ],
)
def test_an_empty_folder_says_what_could_be_meant(root, content, modality, message):
    folder = root / "somewhere"
    folder.mkdir()
    if content:
        write_points(folder / "0", scan(), content)
    with pytest.raises(DataError, match=message):
        load(folder, modality)


def cut(data):
    return data[: len(data) // 2]


def bad_files():
    """Name, bytes, and what the report says."""
    header = b"ply\nformat binary_little_endian 1.0\nelement vertex %d\n"
    header += b"property float x\nproperty float y\nproperty float z\nend_header\n"
    pcd = "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {0}\nHEIGHT 1\nPOINTS {0}\nDATA {1}\n"
    yield "a.ply", header % 10**12 + b"\0" * 12, "claims 1000000000000"
    yield "b.ply", header % 100 + b"\0" * 12, "cut short"
    yield "c.ply", b"ply\nformat ascii 1.0\n", "no PLY"
    yield "d.ply", b"solid stl", "no PLY"
    yield "e.ply", header.replace(b"binary_little_endian", b"ascii") % 5 + b"1 2 3\n", "cut short"
    yield "f.pcd", pcd.format(50, "binary").encode() + b"\0" * 20, "cut short"
    yield "g.pcd", pcd.format(50, "ascii").encode() + b"1 2 3\n", "cut short"
    yield "h.pcd", pcd.format(10**12, "binary").encode(), "claims"
    yield "i.pcd", pcd.format(50, "binary_compressed").encode() + b"\1\0\0\0\1\0\0\0x", "damaged"
    yield "j.pcd", b"VERSION .7\nDATA binary\n", "header"
    yield "k.npy", b"\x93NUMPY\x01\x00", "cannot be read"
    yield "l.npy", b"not an array", "cannot be read"
    yield "m.tiff", b"II*\0\x08\0\0\0", "cannot be read"
    yield "n.npy", b"", "is empty"


@pytest.mark.parametrize(("name", "data", "message"), list(bad_files()), ids=lambda value: str(value)[:6])
def test_broken_points_are_one_line(root, name, data, message):
    folder = root / "clouds"
    folder.mkdir()
    (folder / name).write_bytes(data)
    for i in range(2):
        np.save(folder / f"{i}.npy", scan(i))
    with pytest.raises(DataError, match=message) as error:
        load(folder, "points")
    assert len(str(error.value).splitlines()) == 1


def test_objects_are_not_unpickled(root):
    folder = root / "clouds"
    folder.mkdir()
    for i in range(2):
        np.save(folder / f"{i}.npy", np.array([[{}, 1]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects, which are not read"):
        load(folder, "points")


def test_the_command_on_a_folder(root, tmp_path):
    """As a user: a flat folder, no labels, and the flags' errors."""

    def run(*arguments):
        command = [sys.executable, "-m", "launch.eval", "--dataset=folder", f"--data_dir={root / 'good'}"]
        options = ["--weights_rgb=random", "--backbone=dino_vits16", "--image_size=32", f"--cache_dir={tmp_path / 'c'}"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return subprocess.run(
            [*command, *options, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    done = run("--save=maps,images")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "folder" / "good"
    assert json.loads((tmp_path / "results" / "folder" / "metrics.json").read_text())["mean"]["image_AUROC"] is None
    with Image.open(folder / "images" / "0.png") as page:
        assert page.size[0] > 32
    done = run("--intrinsics=1,2")
    assert done.returncode == 2
    assert "--intrinsics: expected four numbers" in done.stderr
