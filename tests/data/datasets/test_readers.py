"""One contract for every reader, and each one's odd corners."""

import os
import shutil
import sys
from functools import partial

import numpy as np
import pytest
import tifffile
from dataset_trees import (
    SIDE,
    TREES,
    blob,
    picture,
    raw_scan,
    save,
    write_btad,
    write_mvtec3d,
    write_mvtec_ad,
    write_visa,
)
from eyecandies_tree import fingerprint
from PIL import Image

from musc_jax.data import DATASETS, DataError, open_dataset
from musc_jax.data.cleaning import mvtec3d as plane_cleaning

try:
    import open3d  # noqa: F401
except (ImportError, OSError):
    HAS_OPEN3D = False
else:
    HAS_OPEN3D = True
needs_open3d = pytest.mark.skipif(not HAS_OPEN3D, reason="Open3D is not installed, or lacks system libraries")


def load(name, root, modality=None, **options):
    modality = modality or DATASETS[name].modalities[-1]
    options.setdefault("cache_dir", root.parent / "cache")
    return open_dataset(name, data_dir=root, modality=modality, **options)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=needs_open3d if name == "mvtec3d" else ()) for name in TREES]
)
def tree(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param) / "data set é"
    root.mkdir()
    TREES[request.param][0](root)
    return request.param, root


def test_contract(tree):
    """Counts, shapes, types, labels, masks, pairs; nothing in the dataset changes."""
    name, root = tree
    before = fingerprint(root)
    _, categories, counts = TREES[name]
    for modality in DATASETS[name].modalities:
        dataset = load(name, root, modality)
        assert dataset.categories == categories
        for category in categories:
            samples = list(dataset.samples(category, size=32))
            labels = [sample.gt_label for sample in samples]
            assert (labels.count(0), labels.count(1)) == counts[category]
            assert [sample.name for sample in samples] == list(dataset.names(category))
            assert len({sample.name for sample in samples}) == len(samples)
            for sample in samples:
                assert sample.image.shape == (32, 32, 3)
                assert sample.image.dtype == np.uint8
                assert sample.gt_mask.shape == (32, 32)
                assert sample.gt_mask.dtype == bool
                assert not (sample.gt_label == 0 and sample.gt_mask.any())
                assert os.sep not in sample.name
                assert (sample.points is None) == (modality == "rgb")
                if sample.points is not None:
                    assert sample.points.shape == (32, 32, 3)
                    assert sample.points.dtype == np.float32
                    assert (sample.points != 0).all(-1).any()
    assert fingerprint(root) == before


def test_does_not_depend_on_the_file_systems_order(tree, monkeypatch):
    name, root = tree
    want = load(name, root)
    listed = {category: (want.names(category), want.digest(category)) for category in want.categories}
    original = type(root).iterdir
    monkeypatch.setattr(type(root), "iterdir", lambda self: iter(sorted(original(self), reverse=True)))
    again = load(name, root)
    assert {category: (again.names(category), again.digest(category)) for category in again.categories} == listed


def test_limit_categories_and_unknown_ones(tree):
    name, root = tree
    category = TREES[name][1][1]
    dataset = load(name, root, categories=[category], limit=2)
    assert dataset.categories == (category,)
    assert len(dataset.names(category)) == 2
    with pytest.raises(DataError, match="no category 'teapot'"):
        load(name, root, categories=[category, "teapot"])


def test_a_category_given_for_the_dataset_is_recognised(tree):
    name, root = tree
    _, categories, _ = TREES[name]
    inner = next(p for p in (root / categories[0], *(c / categories[0] for c in root.iterdir())) if p.is_dir())
    if name == "visa":
        pytest.skip("VisA is found by its table")
    with pytest.raises(DataError, match="give its parent folder"):
        load(name, inner)


def test_nothing_there(tmp_path):
    for name in TREES:
        for place in (tmp_path / "none", tmp_path):
            with pytest.raises(DataError, match="the dataset is at https://"):
                load(name, place)
        with pytest.raises(DataError, match="--data_dir"):
            open_dataset(name, cache_dir=tmp_path, modality="rgb")


@pytest.mark.parametrize("name", ["mvtec_ad", "visa", "mpdd", "btad"])
def test_pictures_have_no_points(name, tmp_path):
    for modality in ("points", "rgb+points"):
        with pytest.raises(DataError, match="pictures only, no points; take modality rgb"):
            open_dataset(name, data_dir=tmp_path, cache_dir=tmp_path, modality=modality)


# MVTec AD


@pytest.fixture
def mvtec(tmp_path):
    write_mvtec_ad(tmp_path / "data")
    return tmp_path / "data"


def test_grey_palette_alpha_and_16_bits_become_rgb(mvtec):
    good = mvtec / "bottle" / "test" / "good"
    grey = picture(3, (SIDE, SIDE))
    save(good / "003.png", grey)
    Image.fromarray(grey.astype(np.uint16) * 257).save(good / "004.png")
    Image.fromarray(np.dstack([grey] * 3 + [np.full_like(grey, 9)])).save(good / "005.png")
    Image.fromarray(grey).convert("P").save(good / "006.png")
    Image.fromarray(grey).save(good / "007.bmp")
    tifffile.imwrite(good / "008.tiff", grey.astype(np.uint16) * 257)
    dataset = load("mvtec_ad", mvtec, categories=["bottle"])
    images = {sample.name: sample.image for sample in dataset.samples("bottle", size=SIDE)}
    for number in range(3, 9):
        np.testing.assert_array_equal(images[f"good_{number:03d}"], np.repeat(grey[..., None], 3, 2), str(number))


def test_masks_follow_the_rule_of_all_sets(mvtec):
    """Bilinear to the working size, over one half; grey values as they are; the label is the folder's."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[0, 0] = 255
    save(mvtec / "bottle" / "ground_truth" / "contamination" / "001_mask.png", mask)
    dataset = load("mvtec_ad", mvtec, categories=["bottle"])
    sample = next(s for s in dataset.samples("bottle", size=10) if s.name == "contamination_001")
    assert sample.gt_label == 1
    assert not sample.gt_mask.any()
    whole = next(s for s in dataset.samples("bottle", size=SIDE) if s.name == "broken_large_000")
    np.testing.assert_array_equal(whole.gt_mask, blob() > 0)


@pytest.mark.parametrize("name", ["mvtec_ad", "mvtec3d"])
def test_masks_of_class_numbers_and_faint_ones(tmp_path, name):
    """Numbers of classes are made 0 and 255; a mask that no pixel of is over one half is told."""
    (write_mvtec_ad if name == "mvtec_ad" else partial(write_mvtec3d, cleaned=True))(tmp_path / "data")
    category, kind, mask = {
        "mvtec_ad": ("bottle", "contamination", "bottle/ground_truth/contamination/{}_mask.png"),
        "mvtec3d": ("bagel", "crack", "bagel/test/crack/gt/{}.png"),
    }[name]
    masks = [tmp_path / "data" / mask.format(stem) for stem in ("000", "001")]
    drawn = np.asarray(Image.open(masks[0]))
    save(masks[0], drawn // 255 * 3)
    save(masks[1], np.dstack([drawn, 0 * drawn, 0 * drawn]))  # red
    dataset = load(name, tmp_path / "data", categories=[category])
    samples = {sample.name: sample for sample in dataset.samples(category, size=len(drawn))}
    np.testing.assert_array_equal(samples[f"{kind}_000"].gt_mask, drawn > 0)
    assert not samples[f"{kind}_001"].gt_mask.any()
    assert [line.split(",")[0] for line in dataset.warnings] == [f"{masks[1]}: its largest value is 76 of 255"]


def test_a_missing_mask_is_reported_before_any_work(mvtec):
    (mvtec / "bottle" / "ground_truth" / "contamination" / "001_mask.png").unlink()
    shutil.rmtree(mvtec / "grid" / "ground_truth" / "broken_large")
    with pytest.raises(DataError) as error:
        load("mvtec_ad", mvtec)
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert all("_mask.png: is missing, the mask of " in line for line in lines[1:])
    assert len(load("mvtec_ad", mvtec, skip_bad=True).names("grid")) == 5


def test_masks_without_images_are_told(mvtec):
    save(mvtec / "bottle" / "ground_truth" / "contamination" / "009_mask.png", blob())
    assert any("009_mask.png: is a mask without an image" in line for line in load("mvtec_ad", mvtec).warnings)


# BTAD


def test_btads_masks(tmp_path):
    write_btad(tmp_path / "data")
    dataset = load("btad", tmp_path / "data")
    faint = {s.name: s for s in dataset.samples("02", size=SIDE)}["ko_0001"]
    np.testing.assert_array_equal(faint.gt_mask, blob() > 0)
    empty = {s.name: s for s in dataset.samples("03", size=SIDE)}["ko_0001"]
    assert empty.gt_label == 1
    assert not empty.gt_mask.any()
    assert any("0001.bmp: has no defect, though its sample is defective" in line for line in dataset.warnings)


# VisA


@pytest.mark.parametrize("top", ["", "VisA"])
def test_visas_masks_and_table(tmp_path, top):
    write_visa(tmp_path / "data", top=top)
    dataset = load("visa", tmp_path / "data")
    by_name = {s.name: s for s in dataset.samples("candle", size=32)}
    assert set(by_name) == {"Normal_0000", "Normal_0001", "Anomaly_000", "Anomaly_001"}
    for name in ("Anomaly_000", "Anomaly_001"):
        want = np.asarray(Image.fromarray(blob((30, 50))).resize((32, 32), Image.Resampling.BILINEAR)) > 127
        np.testing.assert_array_equal(by_name[name].gt_mask, want)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a,b\n1,2\n", "has no columns"),
        (b"object,split,label,image,mask\ncandle,test\n", "line 2 has too few columns"),
        (b"object,split,label,image,mask\ncandle,test,odd,a.JPG,\n", "line 2: expected normal or anomaly"),
        (b"object,split,label,image,mask\ncandle,test,normal,../a.JPG,\n", "line 2: expected normal or anomaly"),
        (b"object,split,label,image,mask\ncandle,test,normal,/etc/a.JPG,\n", "line 2: expected normal or anomaly"),
        (b"\xff\xfe\x00", "1cls.csv"),
    ],
)
def test_visas_table_is_not_trusted(tmp_path, content, message):
    write_visa(tmp_path / "data")
    (tmp_path / "data" / "split_csv" / "1cls.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load("visa", tmp_path / "data")


# MVTec 3D-AD


@needs_open3d
def test_a_planted_plane_is_removed_and_the_object_stays():
    for seed in range(5):
        xyz, on_object = raw_scan(seed, 300, 400)
        valid = (xyz != 0).all(-1)
        cleaned = plane_cleaning.clean_scan(xyz)
        plane = valid & ~on_object
        assert cleaned.clustered
        assert (cleaned.points & plane).sum() <= 0.01 * plane.sum()
        assert (on_object & ~cleaned.points).sum() < 0.005 * on_object.sum()
        assert not (cleaned.points & ~valid).any()
        # What was never measured keeps its colour, the plane loses it.
        assert cleaned.colors[~valid].all()
        assert not (cleaned.colors & plane).sum() > 0.01 * plane.sum()


@needs_open3d
def test_cleaning_agrees_with_a_plain_statement():
    """The rule in plain words, given the plane; two runs give the same plane."""
    from sklearn.cluster import DBSCAN

    xyz, _ = raw_scan(3)
    xyz[5:9, 5:9, 2] -= 0.2  # a second, smaller cluster
    border = plane_cleaning.border_points(xyz.astype(np.float64))
    (normal, offset), again = (plane_cleaning.fit_plane(border, seed=0) for _ in range(2))
    np.testing.assert_array_equal(np.append(normal, offset), np.append(*again))
    keep = []
    for row in range(xyz.shape[0]):
        for column in range(xyz.shape[1]):
            point = xyz[row, column].astype(np.float64)
            near = abs(float(normal @ point) + offset) < 0.005
            if (point != 0).all() and not near:
                keep.append((row, column))
    points = np.array([xyz[i] for i in keep], np.float64)
    labels = DBSCAN(eps=0.006, min_samples=30).fit_predict(points)
    largest = max(set(labels) - {-1}, key=lambda label: (labels == label).sum())
    want = np.zeros(xyz.shape[:2], bool)
    for place, label in zip(keep, labels, strict=True):
        want[place] = label == largest
    np.testing.assert_array_equal(plane_cleaning.clean_scan(xyz).points, want)


@needs_open3d
def test_no_cluster_keeps_everything_off_the_plane():
    xyz, _ = raw_scan(0)
    sparse = xyz.copy()
    sparse[20:40, 27:53] = 0
    sparse[22:24, 30:32] = xyz[22:24, 30:32]
    cleaned = plane_cleaning.clean_scan(sparse)
    assert not cleaned.clustered
    assert cleaned.points[22:24, 30:32].any()


@pytest.mark.parametrize("shape", [(400, 900), (800, 600), (500, 500), (410, 320)])
def test_padding_to_the_square(shape):
    side = plane_cleaning.square_side(*shape)
    assert side == {(400, 900): 900, (800, 600): 800, (500, 500): 500, (410, 320): 500}[shape]
    padded = plane_cleaning.pad_to_square(np.ones(shape), side)
    assert padded.shape == (side, side)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    assert padded[top : top + shape[0], left : left + shape[1]].all()
    assert padded.sum() == shape[0] * shape[1]


def test_scans_cleaned_by_another_program_are_used_as_they_are(tmp_path):
    write_mvtec3d(tmp_path / "cleaned" / "data", categories=("bagel",), cleaned=True)
    folder = tmp_path / "cleaned" / "data" / "bagel" / "test" / "good"
    dataset = load("mvtec3d", tmp_path / "cleaned" / "data")
    sample = next(s for s in dataset.samples("bagel", size=100) if s.name == "good_000")
    np.testing.assert_array_equal(sample.points, tifffile.imread(folder / "xyz" / "000.tiff"))
    np.testing.assert_array_equal(sample.image, np.asarray(Image.open(folder / "rgb" / "000.png")))


def test_a_cleaned_object_that_reaches_the_edge_stays_whole():
    xyz, _ = raw_scan(0, 200, 200)
    xyz[:92], xyz[108:] = 0, 0
    cleaned = plane_cleaning.clean_scan(xyz)
    np.testing.assert_array_equal(cleaned.points, (xyz != 0).all(-1))
    assert cleaned.colors.all()


@needs_open3d
def test_a_raw_scan_with_a_poorly_measured_border_is_still_raw():
    xyz, on_object = raw_scan(0, 200, 200)
    xyz[(np.random.default_rng(0).random((200, 200)) < 0.7) & ~on_object] = 0
    assert not (plane_cleaning.clean_scan(xyz).points & ~on_object).any()


def test_only_the_scan_was_cleaned(tmp_path):
    """One published program overwrites the scan with its square, and leaves picture and mask as they were."""
    write_mvtec3d(tmp_path / "data", categories=("bagel",))
    for kind in ("good", "crack"):
        for stem in ("000", "001"):
            path = tmp_path / "data" / "bagel" / "test" / kind / "xyz" / f"{stem}.tiff"
            xyz, on_object = raw_scan(0)
            square = np.pad(np.where(on_object[..., None], xyz, 0), ((20, 20), (10, 10), (0, 0)))
            tifffile.imwrite(path, square, photometric="minisblack", planarconfig="contig")
    sample = next(iter(load("mvtec3d", tmp_path / "data").samples("bagel", size=100)))
    assert sample.points.shape == (100, 100, 3)
    assert not sample.image[:20].any()
    assert sample.image[20:80, 10:90].any(-1).all()


@needs_open3d
def test_pictures_alone_are_cleaned_too_and_need_no_scan(tmp_path):
    write_mvtec3d(tmp_path / "data", categories=("bagel",))
    both = next(iter(load("mvtec3d", tmp_path / "data").samples("bagel", size=100)))
    alone = next(iter(load("mvtec3d", tmp_path / "data", "rgb").samples("bagel", size=100)))
    np.testing.assert_array_equal(both.image, alone.image)
    assert (~both.image.any(-1)).mean() > 0.5
    shutil.rmtree(tmp_path / "data" / "bagel" / "test" / "good" / "xyz")
    dataset = load("mvtec3d", tmp_path / "data", "rgb")
    assert any("its scan is missing, so its background stays" in line for line in dataset.warnings)
    with pytest.raises(DataError, match=r"xyz/000\.tiff: is missing, the points of"):
        load("mvtec3d", tmp_path / "data")


@needs_open3d
def test_cleaning_is_done_once(tmp_path, monkeypatch):
    write_mvtec3d(tmp_path / "data", categories=("bagel",))
    first = [s.points for s in load("mvtec3d", tmp_path / "data").samples("bagel", size=50)]
    monkeypatch.setattr(plane_cleaning, "clean_scan", None)
    again = [s.points for s in load("mvtec3d", tmp_path / "data").samples("bagel", size=50)]
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("missing", ["the package", "a system library"])
def test_without_open3d_the_way_out_is_named(tmp_path, monkeypatch, missing):
    write_mvtec3d(tmp_path / "data", categories=("bagel",))
    if missing == "the package":
        monkeypatch.setitem(sys.modules, "open3d", None)
    else:
        (tmp_path / "modules").mkdir()
        broken = 'raise OSError("libusb-1.0.so.0: cannot open shared object file")'
        (tmp_path / "modules" / "open3d.py").write_text(broken)
        monkeypatch.delitem(sys.modules, "open3d", raising=False)
        monkeypatch.syspath_prepend(tmp_path / "modules")
    with pytest.raises(DataError, match=r"pip install 'musc-jax\[open3d\]'.*apt-get install libusb") as error:
        load("mvtec3d", tmp_path / "data")
    lines = str(error.value).splitlines()
    assert len(lines) == 5
    assert sum("pip install" in line for line in lines) == 1
    assert all(line.endswith(".tiff: the same") for line in lines[2:])


@needs_open3d
def test_scans_without_pictures_are_faults(tmp_path):
    write_mvtec3d(tmp_path / "data", categories=("bagel",))
    (tmp_path / "data" / "bagel" / "test" / "good" / "rgb" / "001.png").unlink()
    with pytest.raises(DataError, match=r"xyz/001\.tiff: has no picture"):
        load("mvtec3d", tmp_path / "data")
