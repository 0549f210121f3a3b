"""Damaged copies of every layout: one report with all findings, or work goes on; the dataset is never changed."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from dataset_trees import TREES, picture, raw_scan, save
from eyecandies_tree import fingerprint
from PIL import Image

from musc_jax.data import DATASETS, DataError, FolderLayout, open_dataset

try:
    import open3d  # noqa: F401
except (ImportError, OSError):
    HAS_OPEN3D = False
else:
    HAS_OPEN3D = True


class Layout(NamedTuple):
    """A defective sample's files, and how to open the tree."""

    write: object
    category: str
    image: str
    mask: str
    scan: str | None = None
    folder: FolderLayout | None = None


def write_folder(root):
    for i in range(3):
        save(root / "good" / f"{i:03d}.png", picture(i, (60, 80, 3)))
        save(root / "bad" / f"{i:03d}.png", picture(9 + i, (60, 80, 3)))
        save(root / "masks" / f"{i:03d}.png", (picture(3, (60, 80)) > 90).astype(np.uint8) * 255)
        for kind in ("good", "bad"):
            path = root / "depth" / kind / f"{i:03d}.tiff"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, raw_scan(i)[0], photometric="minisblack", planarconfig="contig")


LAYOUTS = {
    "mvtec_ad": Layout(
        TREES["mvtec_ad"][0],
        "bottle",
        "bottle/test/contamination/001.png",
        "bottle/ground_truth/contamination/001_mask.png",
    ),
    "mpdd": Layout(
        TREES["mpdd"][0],
        "tubes",
        "MPDD/tubes/test/anomalous/000.png",
        "MPDD/tubes/ground_truth/anomalous/000_mask.png",
    ),
    "btad": Layout(
        TREES["btad"][0],
        "01",
        "BTech_Dataset_transformed/01/test/ko/0000.bmp",
        "BTech_Dataset_transformed/01/ground_truth/ko/0000.png",
    ),
    "visa": Layout(
        TREES["visa"][0], "candle", "candle/Data/Images/Anomaly/001.JPG", "candle/Data/Masks/Anomaly/001.png"
    ),
    "mvtec3d": Layout(
        TREES["mvtec3d"][0],
        "bagel",
        "bagel/test/crack/rgb/001.png",
        "bagel/test/crack/gt/001.png",
        "bagel/test/crack/xyz/001.tiff",
    ),
    "eyecandies": Layout(
        TREES["eyecandies"][0],
        "CandyCane",
        "CandyCane/test_public/data/03_image_0.png",
        "CandyCane/test_public/data/03_mask.png",
        "CandyCane/test_public/data/03_depth.png",
    ),
    "folder": Layout(
        write_folder,
        "data",
        "bad/001.png",
        "masks/001.png",
        "depth/bad/001.tiff",
        FolderLayout(normal_dir=("good",), abnormal_dir=("bad",), mask_dir=("masks",), depth_dir="depth"),
    ),
}


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("<html>404</html>")


def link_to_itself(path):
    path.unlink()
    path.symlink_to(path.name)


def other_size(path):
    save(path, np.full((13, 17), 255, np.uint8))


def doubled(path):
    shutil.copy(path, path.with_suffix(".tif" if path.suffix != ".tif" else ".png"))


def wrong_shape(path):
    if path.suffix == ".png":
        save(path, np.zeros((13, 31), np.uint16) + 5)
    else:
        tifffile.imwrite(path, np.ones((13, 31, 3), np.float32), photometric="minisblack", planarconfig="contig")


def not_finite(path):
    points = tifffile.imread(path)
    points[3, 5] = np.nan
    tifffile.imwrite(path, points, photometric="minisblack", planarconfig="contig")


# What is damaged, how, and what the report says of it.
DAMAGES = {
    "image truncated": ("image", truncate, "is no readable picture|is a damaged PNG"),
    "image of no bytes": ("image", empty, "is empty"),
    "image is text": ("image", text, "is a web page, not the file itself"),
    "image links to itself": ("image", link_to_itself, "cannot be read|is missing"),
    "mask missing": ("mask", Path.unlink, "is missing"),
    "mask truncated": ("mask", truncate, "is no readable picture|is a damaged PNG"),
    "mask of no bytes": ("mask", empty, "is empty"),
    "mask of another size": ("mask", other_size, "is 17 x 13 pixels, but its (image|picture)"),
    "scan missing": ("scan", Path.unlink, "missing"),
    "scan truncated": ("scan", truncate, "damaged|cannot be read|not a readable TIFF|TIFF"),
    "scan of no bytes": ("scan", empty, "is empty"),
    "scan of another shape": ("scan", wrong_shape, "31 x 13"),
    "scan without measurements": ("scan", None, "has no points"),
}
# In a folder of one's own a link that leads nowhere is passed over and accounted for.
CASES = [
    (name, damage)
    for name, layout in LAYOUTS.items()
    for damage in DAMAGES
    if getattr(layout, DAMAGES[damage][0]) and (name, damage) != ("folder", "image links to itself")
]


def no_measurements(path):
    if path.suffix == ".png":
        save(path, np.zeros_like(np.asarray(Image.open(path))))
    else:
        tifffile.imwrite(path, np.zeros_like(tifffile.imread(path)), photometric="minisblack", planarconfig="contig")


@pytest.fixture
def make(tmp_path):
    """Writes a tree, opens it."""

    def write(name):
        if name == "mvtec3d" and not HAS_OPEN3D:
            pytest.skip("Open3D is not installed, or lacks system libraries")
        root = tmp_path / "data"
        root.mkdir()
        LAYOUTS[name].write(root)
        return root

    return write


def load(name, root, **options):
    modality = DATASETS[name].modalities[-1]
    folder = LAYOUTS[name].folder
    return open_dataset(
        name, data_dir=root, cache_dir=root.parent / "cache", modality=modality, folder=folder, **options
    )


def damage_one(root, layout, damage):
    kind, action, message = DAMAGES[damage]
    path = root / getattr(layout, kind)
    (action or no_measurements)(path)
    return path, message


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_one_damage(make, name, damage):
    root, layout = make(name), LAYOUTS[name]
    path, message = damage_one(root, layout, damage)
    before = fingerprint(root)
    with pytest.raises(DataError, match=message) as error:
        load(name, root)
    lines = str(error.value).splitlines()
    assert len(lines) == 1, lines
    assert path.stem.removesuffix("_mask").removesuffix("_image_0") in lines[0]
    assert fingerprint(root) == before
    # The others can be scored. Where two samples do not remain, the report says that.
    rest = load(name, root, skip_bad=True)
    assert len(rest.skipped[layout.category]) == 1
    assert len(rest.names(layout.category)) >= 2
    assert lines[0] in "\n".join(rest.warnings)
    assert fingerprint(root) == before


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_findings_come_in_one_report(make, name):
    """Three samples damaged in three ways, one of them twice."""
    root, layout = make(name), LAYOUTS[name]
    image, mask = root / layout.image, root / layout.mask
    truncate(image)
    empty(mask)
    others = sorted(p for p in image.parent.iterdir() if p != image and p.suffix == image.suffix)[:1]
    good = [
        p
        for p in sorted(root.rglob(f"*{image.suffix}"))
        if p.parent.name in ("good", "ok", "Normal") or (p.parent.parent.name == "good" and p.parent.name == "rgb")
    ]
    others = others if name == "eyecandies" else [p for p in good if "train" not in p.parts][:1]
    for path in others:
        text(path)
    before = fingerprint(root)
    with pytest.raises(DataError) as error:
        load(name, root)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{len(lines) - 1} problems in dataset {name}")
    for path in (image, mask, *others):
        assert sum(str(path) in line for line in lines) == 1, (path, lines)
    assert fingerprint(root) == before


@pytest.mark.parametrize("name", ["mvtec_ad", "mpdd", "btad", "folder"])
def test_a_folder_in_a_pictures_place_leaves_its_mask_alone(make, name):
    root, layout = make(name), LAYOUTS[name]
    (root / layout.image).unlink()
    (root / layout.image).mkdir()
    warnings = load(name, root, categories=None).warnings
    assert any(line.startswith(f"{root / layout.mask}: is a mask without") for line in warnings)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ("eyecandies", "visa")])
def test_two_files_of_one_stem(make, name):
    """Either could be the one that is meant. (Eyecandies' and VisA's files are found by their full names.)"""
    root, layout = make(name), LAYOUTS[name]
    path = root / layout.mask
    doubled(path)
    before = fingerprint(root)
    with pytest.raises(
        DataError, match=f"has the same stem as {path.stem}|{path.stem}.* could both be its mask; keep one of them"
    ):
        load(name, root)
    assert fingerprint(root) == before


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_harmless_does_not_stop_anything(make, name):
    """Links in a circle, stray files of any name, hidden ones, empty folders, a pipe."""
    root, layout = make(name), LAYOUTS[name]
    want = load(name, root)
    folder = (root / layout.image).parent
    (root / "loop").symlink_to(root, target_is_directory=True)
    (folder / "circle").symlink_to("circle")
    (folder / "up").symlink_to(folder.parent, target_is_directory=True)
    (folder / "notes é and spaces.txt").write_text("about")
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "Thumbs.db").write_bytes(b"\0")
    os.mkfifo(folder / "pipe")
    before = sorted(p.name for p in folder.iterdir())
    dataset = load(name, root)
    for category in want.categories:
        assert dataset.names(category) == want.names(category)
    assert sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.parametrize("name", ["mvtec_ad", "mpdd", "btad", "mvtec3d", "folder"])
def test_any_name_is_a_name(make, name):
    """Spaces, other scripts, several dots."""
    root, layout = make(name), LAYOUTS[name]
    image = root / layout.image
    stem = image.stem
    fresh = "Prüfling № 7. b"
    for path in sorted(root.rglob(f"{stem}*")):
        path.rename(path.with_name(path.name.replace(stem, fresh)))
    dataset = load(name, root)
    assert any(fresh in sample for sample in dataset.names(layout.category))
    index = next(i for i, sample in enumerate(dataset.names(layout.category)) if fresh in sample)
    assert dataset.load(layout.category, index, size=16).gt_label in (0, 1)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("kind", ["image", "mask"])
def test_files_without_permission(make, monkeypatch, name, kind):
    root, layout = make(name), LAYOUTS[name]
    secret = root / getattr(layout, kind)
    plain = Path.read_bytes

    def refuse(path):
        if path == secret:  # root may read everything, so the mode of the file would not do
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\); make it readable") as error:
        load(name, root)
    assert str(secret) in str(error.value)


@pytest.mark.parametrize("name", ["mvtec_ad", "mpdd", "mvtec3d"])
def test_a_folder_that_may_not_be_listed_hides_nothing_else(make, monkeypatch, name):
    root, layout = make(name), LAYOUTS[name]
    (root / layout.mask).write_bytes(b"")
    other = next(c for c in TREES[name][1] if c != layout.category)
    plain = Path.iterdir

    def refuse(path):
        if path.name == "test" and path.parent.name == other:
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=f"{other}/test: cannot be read .Permission denied.; make it readable") as error:
        load(name, root)
    assert f"{root / layout.mask}: is empty" in str(error.value)
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize("name", [name for name in TREES if name != "visa"])
def test_a_category_that_may_not_be_looked_into(make, monkeypatch, name):
    """It is not left out silently: the mean would be another. (VisA's categories stand in its table.)"""
    root, (one, other, *_) = make(name), TREES[name][1]
    plain = Path.stat

    def refuse(path, **options):
        if other in path.parts[:-1]:  # root may look anywhere, so the folder's mode would not do
            raise PermissionError(13, "Permission denied")
        return plain(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    for categories in (None, [other], [one, other]):
        with pytest.raises(DataError, match=r"cannot be looked at \(Permission denied\); make it readable") as error:
            load(name, root, categories=categories)
        assert len(str(error.value).splitlines()) == 1
        assert f"/{other}/" in str(error.value)
    assert load(name, root, categories=[one]).categories == (one,)


@pytest.mark.parametrize("name", ["mvtec3d", "folder"])
def test_points_that_are_not_finite(make, name):
    """In the published sets they are damage; in a folder of one's own they mean that nothing was measured there."""
    root, layout = make(name), LAYOUTS[name]
    not_finite(root / layout.scan)
    if name == "mvtec3d":
        with pytest.raises(DataError, match="holds NaN or infinite"):
            load(name, root)
        return
    dataset = load(name, root)
    index = dataset.names("data").index("bad_001")
    assert np.isfinite(dataset.load("data", index, size=60).points).all()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_that_changes_after_the_check(make, name):
    root, layout = make(name), LAYOUTS[name]
    dataset = load(name, root)
    save(root / layout.image, picture(99, np.asarray(Image.open(root / layout.image)).shape))
    with pytest.raises(DataError, match="has changed since it was checked"):
        list(dataset.samples(layout.category, size=16))
