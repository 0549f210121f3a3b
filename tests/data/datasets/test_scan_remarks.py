"""Odd scans of published datasets: a warning by name, and the same numbers."""

import numpy as np
import pytest
import tifffile
from dataset_trees import write_mvtec3d
from eyecandies_tree import write_category

from musc_jax.data import open_dataset


def middle(points):
    """Three columns of it, where something was measured."""
    column = np.arange(points.shape[1])[:, None]
    return (abs(column - points.shape[1] // 2) < 2) & (points != 0).all(axis=-1, keepdims=True)


CASES = {
    "millimetres": (lambda p: 1000 * p, "makes no sense: is it in another unit than metres"),
    "micrometres": (lambda p: 1e-6 * p, "makes no sense"),
    "an axis": (lambda p: np.where(middle(p), p * [0, 1, 1], p), "have a coordinate of exactly 0"),
    "1e10": (lambda p: np.where(middle(p), 1e10, p), "z is 1e+10 in"),
}


def change(paths, spoil):
    for path in paths:
        points = tifffile.imread(path)
        tifffile.imwrite(path, np.asarray(spoil(points), points.dtype), photometric="minisblack")


def load(name, root, **options):
    return open_dataset(name, data_dir=root, cache_dir=root.parent / "cache", **options)


@pytest.mark.parametrize("name", ["mvtec3d", "eyecandies"])
@pytest.mark.parametrize("case", CASES)
def test_an_odd_scan_is_named_and_read_as_before(tmp_path, name, case):
    spoil, message = CASES[case]
    if name == "mvtec3d":
        write_mvtec3d(tmp_path / "tree", categories=("bagel",), cleaned=True)
        paths = sorted(tmp_path.glob("tree/bagel/test/good/xyz/*.tiff"))
    else:
        write_category(tmp_path / "tree", "CandyCane", range(3), raw=False, xyz=True)
        paths = sorted(tmp_path.glob("tree/CandyCane/test_public/data/*_xyz.tiff"))
    usual = load(name, tmp_path / "tree")
    assert not usual.warnings
    change(paths, spoil)
    dataset = load(name, tmp_path / "tree")
    assert [line.split(":")[0] for line in dataset.warnings] == [str(path) for path in paths]
    assert all(message in line for line in dataset.warnings)
    if name == "eyecandies":
        (category,) = dataset.categories
        got = dataset.load(category, 0, size=len(tifffile.imread(paths[0]))).points
        np.testing.assert_array_equal(got, tifffile.imread(paths[0]))


def test_a_range_of_depth_in_millimetres_is_named(tmp_path):
    write_category(tmp_path / "tree", "CandyCane", range(2))
    assert not load("eyecandies", tmp_path / "tree").warnings
    paths = sorted(tmp_path.glob("tree/CandyCane/test_public/data/*_info_depth.yaml"))
    for path in paths:
        path.write_text("normalization: {min: 300.0, max: 700.0}\n")
    said = load("eyecandies", tmp_path / "tree").warnings
    assert [line.split(":")[0] for line in said if "makes no sense" in line] == [str(path) for path in paths]
