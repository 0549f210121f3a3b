"""A sample knows the size of its picture as it is shown, so that maps can be put back onto it."""

import numpy as np
import pytest
from dataset_trees import save
from eyecandies_tree import write_category
from PIL import Image

from musc_jax.data import DataError, FolderLayout, open_dataset


def samples(name, root, tmp_path, modality="rgb", **options):
    dataset = open_dataset(name, data_dir=root, cache_dir=tmp_path / "cache", modality=modality, **options)
    return list(dataset.samples(dataset.categories[0], size=16))


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_of_own_pictures_as_they_are_shown(tmp_path, fit):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    root = tmp_path / "parts"
    root.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(root / "0.jpg")
    Image.fromarray(pixels).save(root / "1.jpg", exif=turned)
    found = samples("folder", root, tmp_path, folder=FolderLayout(fit=fit))
    assert [(sample.full_size, sample.fit) for sample in found] == [((20, 30), fit), ((30, 20), fit)]


def test_of_pictures_that_are_read_at_reduced_size(tmp_path):
    for i in range(2):
        save(tmp_path / "parts" / f"{i}.png", np.full((60, 80, 3), i, np.uint8))
    found = samples("folder", tmp_path / "parts", tmp_path, folder=FolderLayout(max_pixels=1200))
    assert [sample.full_size for sample in found] == [(60, 80)] * 2


def test_of_scans_alone(tmp_path):
    cloud = np.random.default_rng(0).uniform(0.1, 1, (20 * 30, 3)).astype(np.float32)
    root = tmp_path / "scans"
    root.mkdir()
    for i in range(2):
        np.save(root / f"{i}.npy", cloud.reshape(20, 30, 3) if i else cloud)
    found = samples("folder", root, tmp_path, "points")
    # Without a grid there are no pixels.
    assert [sample.full_size for sample in found] == [None, (20, 30)]


def test_of_published_pictures(tmp_path):
    write_category(tmp_path / "data", "Apple", range(2))
    found = samples("eyecandies", tmp_path / "data", tmp_path)
    with Image.open(found[0].image_path) as picture:
        assert (found[0].full_size, found[0].fit) == (picture.size[::-1], "squash")
    for kind, stem in (("good", "0"), ("bent", "1")):
        save(tmp_path / "ad" / "cap" / "test" / kind / f"{stem}.png", np.zeros((12, 18, 3), np.uint8))
    save(tmp_path / "ad" / "cap" / "ground_truth" / "bent" / "1_mask.png", np.eye(12, 18, dtype=np.uint8) * 255)
    assert [sample.full_size for sample in samples("mvtec_ad", tmp_path / "ad", tmp_path)] == [(12, 18)] * 2


def test_pictures_to_draw_on_are_as_they_are_shown(tmp_path):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :10] = (255, 0, 0)
    root = tmp_path / "parts"
    root.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(root / "0.png")
    Image.fromarray(pixels).save(root / "1.png", exif=turned)
    dataset = open_dataset("folder", data_dir=root, cache_dir=tmp_path / "cache", modality="rgb")
    np.testing.assert_array_equal(dataset.picture("parts", 0, max_pixels=600), pixels)
    np.testing.assert_array_equal(dataset.picture("parts", 1, max_pixels=600), np.rot90(pixels, -1))
    small = dataset.picture("parts", 1, max_pixels=150)
    assert small.shape == (15, 10, 3)
    assert small[2, 5, 0] > 200 > 50 > small[12, 5, 0]
    (root / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png: is missing"):
        dataset.picture("parts", 0, max_pixels=600)
