"""The synthetic set: same bytes for a seed, defects as promised, read through the ordinary reader."""

import threading

import numpy as np
import pytest
import yaml
from eyecandies_tree import fingerprint
from PIL import Image
from waiting import PATIENCE_SECONDS

from musc_jax.data import DataError, open_dataset
from musc_jax.data.cleaning import eyecandies as candy_cleaning
from musc_jax.data.datasets import synthetic
from musc_jax.data.synthetic.candies import DEFECT_KINDS
from musc_jax.data.synthetic.samples import CATEGORIES, render

write_for_real = synthetic.write

ITEMS = {
    "image_0.png",
    "depth.png",
    "info_depth.yaml",
    "pose.txt",
    "mask.png",
    "metadata.yaml",
    *(f"{kind}_mask.png" for kind in DEFECT_KINDS),
}


def opened(path):
    with Image.open(path) as image:
        return image.mode, np.array(image)


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "set"
    synthetic.write(root, samples=8, size=128)
    return root


@pytest.fixture
def small(monkeypatch):
    """Make the set that `open_dataset` writes a small one."""
    plain = synthetic.write
    calls = []

    def write(folder, *, seed, workers, progress):
        calls.append(folder)
        plain(folder, seed=seed, samples=4, size=64, workers=workers, progress=progress)

    monkeypatch.setattr(synthetic, "write", write)
    return calls


def test_layout(written):
    assert sorted(path.name for path in written.iterdir()) == [*CATEGORIES, "manifest.json"]
    for category in CATEGORIES:
        names = {path.name for path in (written / category / "test_public" / "data").iterdir()}
        assert names == {f"{index:02d}_{item}" for index in range(8) for item in ITEMS}


def test_files_are_as_in_eyecandies(written):
    for path in sorted(written.rglob("*_image_0.png")):
        stem = str(path).removesuffix("image_0.png")
        pixels = {item: opened(stem + item) for item in ITEMS if item.endswith(".png")}
        assert all(array.shape[:2] == (128, 128) for _, array in pixels.values())
        assert pixels.pop("image_0.png")[0] == "RGB"
        assert pixels.pop("depth.png")[0] == "I;16"
        masks = {item: mask for item, (_, mask) in pixels.items()}
        assert all(mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 255} for mask in masks.values())
        kinds = [masks[f"{kind}_mask.png"] for kind in DEFECT_KINDS]
        np.testing.assert_array_equal(masks["mask.png"], np.maximum.reduce(kinds))
        with open(stem + "metadata.yaml", encoding="utf-8") as file:
            assert yaml.safe_load(file)["anomalous"] == int(masks["mask.png"].any())
        pose = np.loadtxt(stem + "pose.txt")
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        np.testing.assert_array_equal(pose[3], [0, 0, 0, 1])
        assert np.linalg.det(pose[:3, :3]) > 0.99
        assert np.abs(pose - np.eye(4)).max() > 0.3


def test_one_seed_gives_the_same_bytes(written, tmp_path):
    synthetic.write(tmp_path / "again", samples=3, size=128, workers=3)
    again, all_of_them = contents(tmp_path / "again"), contents(written)
    del again["manifest.json"]
    assert len(again) == 2 * 3 * len(ITEMS)
    assert all(all_of_them[name] == data for name, data in again.items())  # sample i whatever their number


def test_another_seed_gives_other_samples():
    first, second = (render(CATEGORIES[0], 1, seed=seed, size=64) for seed in (0, 1))
    assert (first.image != second.image).any()
    assert (first.depth != second.depth).any()


def test_samples_differ_in_form_place_and_light():
    pictures = [render(category, index, size=64) for category in CATEGORIES for index in range(0, 12, 2)]
    assert len({picture.image.tobytes() for picture in pictures}) == 12
    assert len({picture.pose.tobytes() for picture in pictures}) == 12
    assert [picture.subtype for picture in pictures] == [0, 1, 2] * 4


@pytest.mark.slow
@pytest.mark.parametrize("category", CATEGORIES)
def test_each_defect_covers_its_share(category):
    found = []
    for index in range(1, synthetic.SAMPLES, 2):
        picture = render(category, index, size=256)
        assert 0.001 <= picture.mask.mean() <= 0.02, (index, picture.kind)
        found.append(picture.kind)
    assert set(found) == set(DEFECT_KINDS)
    assert max(map(found.count, found)) - min(map(found.count, found)) <= 1


def test_half_is_defective_whatever_the_limit():
    for category in CATEGORIES:
        labels = [render(category, index, size=48).mask.any() for index in range(6)]
        assert labels == [False, True] * 3


def twin(picture, monkeypatch, category, index, size):
    """The same sample without its defect's effect."""
    monkeypatch.setattr("musc_jax.data.synthetic.samples.apply_defect", lambda solid, defect, rng: solid)
    good = render(category, index, size=size)
    monkeypatch.undo()
    return good


@pytest.mark.parametrize("index", [1, 3, 5, 7])
@pytest.mark.parametrize("category", CATEGORIES)
def test_a_defect_shows_where_it_should(category, index, monkeypatch):
    picture = render(category, index, size=192)
    # The noise of picture and depth is drawn last, so it is the same unless the defect draws too.
    good = twin(picture, monkeypatch, category, index, 192)
    change = np.abs(picture.image.astype(float) - good.image).max(-1)
    depth = [p.depth / 65535 * (p.depth_range[1] - p.depth_range[0]) + p.depth_range[0] for p in (picture, good)]
    move = (depth[0] - depth[1]) / (192 / 512)
    outside = ~picture.mask
    assert change[picture.mask].mean() > 4 * change[outside].mean()
    assert change[picture.mask].mean() > 4
    if picture.kind in ("bumps", "dents"):
        sign = -1 if picture.kind == "bumps" else 1
        assert sign * move[picture.mask].mean() > 0.004
        assert np.abs(move[outside]).mean() < 0.0004
    else:
        assert np.abs(move).max() < 0.002


def test_the_reader_finds_the_candy_alone(written, tmp_path):
    dataset = open_dataset("eyecandies", data_dir=written, cache_dir=tmp_path)
    assert dataset.warnings == []
    for category in CATEGORIES:
        for number, sample in enumerate(dataset.samples(category, size=128)):
            valid = (sample.points != 0).all(-1)
            assert 0.08 < valid.mean() < 0.35
            assert valid[sample.gt_mask].all()
            assert sample.gt_label == number % 2
            # Neither conveyor nor rails: the candy stands in the middle.
            assert not valid[:, :12].any()
            assert not valid[:, -12:].any()
            assert sample.points[..., 1][valid].max() < 0


def test_plane_and_rails_are_there_to_be_removed(written):
    picture = render(CATEGORIES[0], 0, size=128)
    low, high = picture.depth_range
    points = candy_cleaning.back_project(picture.depth / 65535 * (high - low) + low, picture.pose)
    above = candy_cleaning.above_plane(points[..., 1], np.ones((128, 128), bool))
    assert 0.4 < 1 - above.mean() < 0.95
    labels, _ = candy_cleaning.cluster(points[above])
    assert labels.max() >= 2  # the candy and two rails


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_median_picture_does_not_find_the_defects(category):
    from sklearn.metrics import average_precision_score

    pictures = [render(category, index, size=96) for index in range(synthetic.SAMPLES)]
    images = np.stack([picture.image for picture in pictures]).astype(float)
    difference = np.abs(images - np.median(images, axis=0)).mean(-1)
    masks = np.stack([picture.mask for picture in pictures])
    assert average_precision_score(masks.ravel(), difference.ravel()) < 0.15


def test_it_is_written_once_to_the_cache(small, tmp_path):
    told = []
    dataset = open_dataset("synthetic", cache_dir=tmp_path, progress=lambda *call: told.append(call))
    assert dataset.name == "synthetic"
    assert dataset.categories == CATEGORIES
    assert ("make synthetic set", 8, 8) in told
    before = fingerprint(tmp_path)
    again = open_dataset("synthetic", cache_dir=tmp_path)
    assert len(small) == 1
    assert fingerprint(tmp_path) == before
    assert [again.digest(c) for c in CATEGORIES] == [dataset.digest(c) for c in CATEGORIES]
    other = open_dataset("synthetic", cache_dir=tmp_path, seed=1)
    assert len(small) == 2
    assert other.digest(CATEGORIES[0]) != dataset.digest(CATEGORIES[0])


@pytest.mark.parametrize("damage", ["gone", "cut", "manifest"])
def test_a_damaged_set_is_written_again(small, tmp_path, damage):
    digest = open_dataset("synthetic", cache_dir=tmp_path).digest(CATEGORIES[1])
    (root,) = (tmp_path / "synthetic").iterdir()
    path = root / CATEGORIES[0] / "test_public" / "data" / "01_depth.png"
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    else:
        (root / "manifest.json").write_text("[]")
    assert open_dataset("synthetic", cache_dir=tmp_path).digest(CATEGORIES[1]) == digest
    assert len(small) == 2
    assert [entry.name for entry in (tmp_path / "synthetic").iterdir()] == [root.name]


def test_what_is_interrupted_is_not_trusted(tmp_path, monkeypatch):
    def stop(*call):
        if call[1] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_dataset("synthetic", cache_dir=tmp_path, progress=stop)
    assert list((tmp_path / "synthetic").iterdir()) == []


def test_two_at_once_do_no_harm(small, tmp_path):
    meeting = threading.Barrier(2, timeout=PATIENCE_SECONDS)
    digests = []

    def work():
        def wait(stage, done, total):
            if stage == "make synthetic set" and done == total:
                meeting.wait()  # both are written, neither is in its place

        dataset = open_dataset("synthetic", cache_dir=tmp_path, progress=wait)
        digests.append([dataset.digest(c) for c in CATEGORIES])

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(digests) == 2
    assert digests[0] == digests[1]
    assert len(list((tmp_path / "synthetic").iterdir())) == 1


def test_unknown_categories_are_refused(small, tmp_path):
    with pytest.raises(DataError, match="FruitJelly, Praline"):
        open_dataset("synthetic", cache_dir=tmp_path, categories=["Bolt"])
    with pytest.raises(DataError, match="FruitJelly, Praline"):
        write_for_real(tmp_path / "new", samples=2, size=48, categories=["Bolt"])


def test_a_full_folder_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        synthetic.write(tmp_path / "mine", samples=2, size=48)
