"""Files that stand for others, as pointers of Git LFS do, or are around them: named wherever data is read."""

import gzip

import numpy as np
import pytest
import tifffile
from cloud_files import pcd_points, ply_points
from dataset_trees import TREES, blob, picture, save
from published_trees import write_published

from musc_jax.data import Camera, DataError, FolderLayout, open_dataset
from musc_jax.data.datasets import published_datasets
from musc_jax.data.published.layout_check import check_layout
from musc_jax.storage.archives import ArchiveError, inspect

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:83d77ad2\nsize 234686\n"
STAND_INS = {
    "a pointer": (POINTER, "is a Git LFS pointer, not the file itself; fetch that by `git lfs pull`"),
    "an older pointer": (POINTER.replace(b"git-lfs", b"hawser"), "is a Git LFS pointer"),
    "an annex": (b"/annex/objects/MD5E-s234686--83d77ad2.png\n", "is a git-annex pointer.*`git annex get`"),
    "a page": (b"<!DOCTYPE html><html>", "is a web page, not the file itself; the download went wrong; fetch it again"),
    "packed": (gzip.compress(b"ply\n"), "is a gzip archive; unpack it, and use what is in it"),
    "a document": (b"%PDF-1.7", "is a PDF document"),
}
FILES = (
    "good/0.png",
    "bad/0.jpg",
    "masks/0.png",
    "depth/0.tiff",
    "depth/1.npy",
    "depth/2.ply",
    "depth/3.pcd",
    "depth/4.png",
)


@pytest.fixture
def parts(tmp_path):
    """Pictures, masks, and points in every format."""
    root = tmp_path / "parts"
    row, column = np.mgrid[:8, :8] / 8 + 0.1
    points = np.stack([column, row, 1 + 0.1 * column * row], axis=-1).astype(np.float32)
    for i in range(5):
        save(root / "good" / f"{i}.png", picture(i, (8, 8, 3)))
    save(root / "bad" / "0.jpg", picture(9, (8, 8, 3)))
    save(root / "masks" / "0.png", blob((8, 8)))
    depth = root / "depth"
    depth.mkdir()
    tifffile.imwrite(depth / "0.tiff", points, photometric="minisblack")
    np.save(depth / "1.npy", points)
    (depth / "2.ply").write_bytes(ply_points(points))
    (depth / "3.pcd").write_bytes(pcd_points(points))
    save(depth / "4.png", (1000 * points[..., 0]).astype(np.uint16))
    return root


def load(root, modality):
    layout = {"normal_dir": ("good",)}
    if modality == "rgb":
        layout |= {"abnormal_dir": ("bad",), "mask_dir": ("masks",)}
    else:
        layout |= {"depth_dir": "depth", "camera": Camera(9, 9, 4, 4)}
    cache = root.parent / "cache"
    return open_dataset("folder", data_dir=root, cache_dir=cache, modality=modality, folder=FolderLayout(**layout))


@pytest.mark.parametrize("place", FILES)
def test_in_a_folder_of_ones_own(parts, place):
    modality = "rgb+points" if place.startswith("depth") else "rgb"
    load(parts, modality)
    kinds = STAND_INS if place == "good/0.png" else {"a pointer": STAND_INS["a pointer"]}
    for data, message in kinds.values():
        (parts / place).write_bytes(data)
        with pytest.raises(DataError, match=f"{parts / place}: {message}"):
            load(parts, modality)


PUBLISHED = {
    "mvtec_ad": ("bottle/test/good/*.png", "bottle/ground_truth/*/*.png"),
    "eyecandies": (
        *(f"CandyCane/test_public/data/*_{item}" for item in ("image_0.png", "mask.png", "depth.png")),
        *(f"CandyCane/test_public/data/*_{item}" for item in ("info_depth.yaml", "pose.txt")),
    ),
    "visa": ("split_csv/1cls.csv", "candle/Data/Masks/Anomaly/*.png"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_in_a_published_dataset(tmp_path, name):
    """Pictures, masks, depth and its numbers, tables."""
    TREES[name][0](tmp_path / "data")
    for pattern in PUBLISHED[name]:
        path = next(iter(sorted((tmp_path / "data").glob(pattern))))
        before = path.read_bytes()
        path.write_bytes(POINTER)
        with pytest.raises(DataError, match=f"{path}: is a Git LFS pointer.*`git lfs pull`"):
            open_dataset(name, data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", modality=MODALITY[name])
        path.write_bytes(before)


MODALITY = {"mvtec_ad": "rgb", "visa": "rgb", "eyecandies": "rgb+points"}


def test_a_tree_that_was_cloned_without_git_lfs_is_not_as_published(tmp_path):
    """All files are there, and each is called as it should be."""
    (category,) = [name for name in published_datasets()["btad"].categories if name == "02"]
    write_published("btad", tmp_path)
    assert not check_layout("btad", tmp_path, categories=[category])
    path = tmp_path / category / "test" / "ko" / "0000.png"
    path.write_bytes(POINTER)
    (finding,) = check_layout("btad", tmp_path, categories=[category])
    assert str(finding) == f"{path}: is a Git LFS pointer, not the file itself; fetch that by `git lfs pull`"
    assert finding.problem


@pytest.mark.parametrize("kind", ["a pointer", "a page", "a document"])
def test_as_an_archive(tmp_path, kind):
    data, message = STAND_INS[kind]
    (tmp_path / "btad.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match=f"btad.zip: {message.partition(';')[0]}"):
        inspect(tmp_path / "btad.zip")
