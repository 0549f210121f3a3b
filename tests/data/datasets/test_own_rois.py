"""Regions of interest of a plain folder and of a table: how masks of them are read, laid over pictures, and refused."""

import numpy as np
import pytest
from dataset_trees import picture, save
from PIL import Image

from musc_jax.data import DataError, FolderLayout, open_dataset
from musc_jax.data.formats.files import Content
from musc_jax.data.formats.own_rois import read_roi

HEIGHT, WIDTH = 24, 48


def roi(height=HEIGHT, width=WIDTH):
    """The left third is inside."""
    return np.where(np.arange(width) < width // 3, np.uint8(255), np.uint8(0)) + np.zeros((height, 1), np.uint8)


@pytest.fixture
def parts(tmp_path):
    for i in range(3):
        save(tmp_path / "parts" / f"{i}.png", picture(i, (HEIGHT, WIDTH, 3)))
    return tmp_path / "parts"


def opened(root, place, name="folder", **layout):
    layout = {"unlabelled": True} | layout
    folder = FolderLayout(roi=None if place is None else str(place), **layout)
    return open_dataset(name, data_dir=root, cache_dir=root.parent / "cache", modality="rgb", folder=folder)


def read(dataset, size=24):
    (category,) = dataset.categories
    return [dataset.load(category, i, size=size) for i in range(len(dataset.names(category)))]


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (240, 480), (6, 12)], ids=str)
@pytest.mark.parametrize("inside", [True, False], ids=["among the pictures", "elsewhere"])
def test_one_mask_is_for_all_at_any_size(parts, shape, inside):
    place = parts / "roi.png" if inside else parts.parent / "roi.png"
    save(place, roi(*shape))
    dataset = opened(parts, place)
    (account,) = dataset.accounts.values()
    assert account.facts["roi"] == {"file": str(place)}
    samples = read(dataset)
    assert len(samples) == 3
    for sample in samples:
        np.testing.assert_array_equal(sample.roi, np.broadcast_to(np.arange(24) < 8, (24, 24)))
    save(parts.parent / "other.png", roi(12, 24)[:, ::-1])
    assert dataset.digest("parts") != opened(parts, parts.parent / "other.png").digest("parts")


@pytest.mark.parametrize(
    ("fit", "want"),
    # Padded by 12 rows above and below, at half the size; cropped to the columns from 12 to 36, inside up to 16.
    [("squash", 24 * 8), ("pad", 12 * 8), ("crop", 24 * 4)],
)
def test_it_goes_the_way_of_its_picture(parts, fit, want):
    save(parts.parent / "roi.png", roi())
    for sample in read(opened(parts, parts.parent / "roi.png", fit=fit)):
        assert sample.roi.sum() == want
        # The margin is outside, and in the middle is what is inside.
        assert sample.roi[:, 0].sum() in (24, 12)


def test_it_is_drawn_on_what_is_shown_or_on_what_is_stored(parts):
    turn = Image.Exif()
    turn[0x0112] = 6
    for path in parts.iterdir():
        Image.open(path).save(path, exif=turn)  # shown upright, the left third of the file at the top
    save(parts.parent / "stored.png", roi())
    save(parts.parent / "shown.png", roi(HEIGHT, WIDTH).T[:, ::-1])
    for name in ("stored", "shown"):
        for sample in read(opened(parts, parts.parent / f"{name}.png")):
            np.testing.assert_array_equal(sample.roi, np.broadcast_to((np.arange(24) < 8)[:, None], (24, 24)))


def test_one_for_each_is_paired_like_masks(parts):
    places = parts.parent / "regions"
    for i in range(3):
        save(places / f"{i}_roi.png", np.roll(roi(), 16 * i, axis=1))
    dataset = opened(parts, places)
    assert list(dataset.accounts["parts"].facts["roi"]) == ["folder"]
    for i, sample in enumerate(read(dataset)):
        np.testing.assert_array_equal(np.flatnonzero(sample.roi[0]), np.arange(8 * i, 8 * i + 8))
    (places / "1_roi.png").unlink()
    save(places / "7_roi.png", roi())
    with pytest.raises(DataError) as error:
        opened(parts, places)
    assert f"{places}/1.png: is missing, the region of interest of {parts}/1.png; add it" in str(error.value)
    assert "7_roi.png: is a region of interest without a sample" in str(error.value)


def test_a_table_names_one_for_some(parts):
    save(parts.parent / "roi.png", roi())
    table = parts.parent / "batch.csv"
    rows = [f"parts/{i}.png,{'roi.png' if i else ''}\n" for i in range(3)]
    table.write_text("image_path,roi_path\n" + "".join(rows), encoding="utf-8")
    dataset = opened(table, None, "table", unlabelled=False)
    assert dataset.accounts["batch"].facts["roi"] == {"samples": 2}
    whole, *others = read(dataset)
    assert whole.roi is None
    assert [sample.roi.sum() for sample in others] == [24 * 8] * 2
    with pytest.raises(DataError, match="has a column roi_path, and --roi is given; keep one of them"):
        opened(table, parts.parent / "roi.png", "table", unlabelled=False)
    table.write_text("image_path\n" + "".join(f"parts/{i}.png\n" for i in range(3)), encoding="utf-8")
    for sample in read(opened(table, parts.parent / "roi.png", "table", unlabelled=False)):
        assert sample.roi.sum() == 24 * 8
    with pytest.raises(DataError, match="is a folder; a table names a mask for each sample in its column roi_path"):
        opened(table, parts, "table", unlabelled=False)


def test_a_defect_outside_is_none(tmp_path):
    """Whatever its sample is called; it is said."""
    root = tmp_path / "parts"
    for i in range(2):
        save(root / "good" / f"{i}.png", picture(i, (HEIGHT, WIDTH, 3)))
    for i, left in enumerate((4, 30)):
        save(root / "bad" / f"{i}.png", picture(5 + i, (HEIGHT, WIDTH, 3)))
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[5:9, left : left + 6] = 255
        save(root / "masks" / f"{i}.png", mask)
    save(tmp_path / "roi.png", roi())
    names = {"normal_dir": ("good",), "abnormal_dir": ("bad",), "mask_dir": ("masks",), "unlabelled": False}
    dataset = opened(root, tmp_path / "roi.png", **names)
    samples = {sample.name: sample for sample in read(dataset)}
    assert [samples[name].gt_label for name in ("bad_0", "bad_1")] == [1, 0]
    assert samples["bad_0"].gt_mask.any()
    assert not samples["bad_1"].gt_mask.any()
    (line,) = [line for line in dataset.warnings if "outside" in line]
    assert line == f"{root}/masks/1.png: its defect is outside of the region of interest: counts as good"


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), "is black, so nothing would count: what is bright is inside"),
        (np.full((HEIGHT, WIDTH), 100, np.uint8), "has no value above 100 of 255"),
        (picture(1, (HEIGHT, WIDTH, 3)), "looks like a picture, not like a mask"),
        (None, "is missing"),
        (b"text", "is no readable picture"),
    ],
    ids=["black", "dark", "a picture", "nothing", "text"],
)
def test_what_is_no_region_is_refused_in_one_line(parts, pixels, problem):
    place = parts.parent / "roi.png"
    if isinstance(pixels, bytes):
        place.write_bytes(pixels)
    elif pixels is not None:
        save(place, pixels)
    with pytest.raises(DataError) as error:
        opened(parts, place)
    assert str(error.value).startswith(f"roi: {place}: ")
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_crop_leaves_none_of_is_refused(parts):
    save(
        parts.parent / "roi.png",
        np.where(np.arange(WIDTH) < 5, np.uint8(255), np.uint8(0)) + np.zeros((HEIGHT, 1), np.uint8),
    )
    with pytest.raises(DataError, match=r"roi\.png: nothing of it is in what --fit=crop leaves"):
        opened(parts, parts.parent / "roi.png", fit="crop")


def test_the_samples_are_no_region(parts):
    with pytest.raises(DataError, match="is the folder of the samples"):
        opened(parts, parts)


def test_other_proportions_are_said(parts):
    save(parts.parent / "roi.png", roi(40, 40))
    warnings = opened(parts, parts.parent / "roi.png").warnings
    assert any("its region of interest has other proportions than it" in line for line in warnings)


def test_what_is_bright_is_inside(tmp_path):
    """Zeros and ones, colours, transparency, soft edges."""
    half = np.arange(8) < 4
    color = np.where(half[:, None], [200, 30, 30], [20, 20, 20]).astype(np.uint8) + np.zeros((8, 1, 1), np.uint8)
    clear = np.dstack(
        [np.full((8, 8, 3), 255, np.uint8), np.where(half, np.uint8(255), np.uint8(0)) + np.zeros((8, 1), np.uint8)]
    )
    soft = np.array([255, 255, 250, 200, 100, 20, 0, 0], np.uint8) + np.zeros((8, 1), np.uint8)
    for drawn in (half.astype(np.uint8) + np.zeros((8, 1), np.uint8), color, clear, soft):
        path = tmp_path / "roi.png"
        Image.fromarray(drawn).save(path)
        inside, _ = read_roi(Content(path, path.read_bytes(), "", (0, 0)), max_pixels=1000)
        np.testing.assert_array_equal(inside, np.broadcast_to(half, (8, 8)))
