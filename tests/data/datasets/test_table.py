"""A table of samples: what its columns mean, and what is wrong with it by line."""

import numpy as np
import pytest
from dataset_trees import SIDE, blob, picture, save

from musc_jax.data import DataError, open_dataset


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "parts"
    for i in range(3):
        save(root / "left" / f"{i}.png", picture(i))
        save(root / "right" / f"{i}.png", picture(10 + i))
    save(root / "marks" / "odd name.png", blob())
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE + 0.1
    for i in range(3):
        np.save(root / f"scan{i}.npy", np.stack([x, y, 1 + 0.1 * np.sin(5 * x + i)], -1).astype(np.float32))
    return root


def write(root, text, name="shift 1.csv", **options):
    (root / name).write_bytes(text.encode(options.pop("encoding", "utf-8")))
    modality = options.pop("modality", "rgb")
    return open_dataset("table", data_dir=root / name, cache_dir=root.parent / "cache", modality=modality, **options)


def test_columns(root):
    text = "image_path,mask_path,label,operator\n"
    text += "left/0.png,,good,ann\nright/0.png,marks/odd name.png,NG,bob\nleft/1.png,,,\n"
    dataset = write(root, text)
    assert dataset.categories == ("shift 1",)
    assert dataset.names("shift 1") == ("left_0", "right_0", "left_1")
    samples = list(dataset.samples("shift 1", size=SIDE))
    assert [sample.gt_label for sample in samples] == [0, 1, None]
    np.testing.assert_array_equal(samples[1].gt_mask, blob() > 0)
    np.testing.assert_array_equal(samples[1].image, picture(10))
    assert samples[2].gt_mask is None
    account = dataset.accounts["shift 1"]
    assert account.facts["columns"] == {"not_read": ["operator"]}
    assert account.facts["files"] == {"used": {"pictures": 3, "masks": 1, "scans": 0}}
    assert "files: 3 pictures, 1 mask" in account.lines


@pytest.mark.parametrize(
    "text", ["image_path;label\r\n{0};0\r\n{1};1\r\n", "\ufeffimage_path\tlabel\n{0}\t0\n{1}\t1\n\n"]
)
def test_as_spreadsheets_write_it(root, text):
    dataset = write(root, text.format("left/0.png", root / "left" / "1.png"))
    assert [sample.gt_label for sample in dataset.samples("shift 1", size=8)] == [0, 1]


def test_as_windows_writes_it(root):
    """Of other ways to write a path the names of samples show nothing."""
    text = "Image_Path,Label\r\nleft\\0.png,0\r\nright\\..\\left\\1.png,1\r\nright\\2.png,1\r\n"
    dataset = write(root, text)
    assert dataset.names("shift 1") == ("left_0", "left_1", "right_2")
    np.testing.assert_array_equal(dataset.load("shift 1", 1, size=SIDE).image, picture(1))


def test_what_is_not_there_may_be_left_out(root):
    dataset = write(root, "image_path\nleft/0.png\nleft/9.png\nleft/1.png\n", skip_bad=True)
    assert dataset.names("shift 1") == ("0", "1")
    assert dataset.skipped["shift 1"] == ("9",)


def test_points(root):
    text = "image_path,points_path\nleft/0.png,scan0.npy\nleft/1.png,scan1.npy\n"
    dataset = write(root, text, modality="rgb+points")
    assert all(sample.points.shape == (8, 8, 3) for sample in dataset.samples("shift 1", size=8))
    alone = write(root, "points_path\nscan0.npy\nscan1.npy\n", modality="points")
    assert alone.names("shift 1") == ("scan0", "scan1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\na.png,0\n", "has neither a column image_path nor points_path (its columns are: path, label)"),
        ("", "its columns are: none"),
        ("image_path,image_path\na,b\n", "has a column twice"),
        ("image_path,label\nleft/0.png\n", "line 2 has not as many cells"),
        ("image_path,label\nleft/0.png,0,1\n", "line 2 has not as many cells"),
        ("image_path,label\nleft/0.png,0\nleft/1.png,fine\n", "line 3: label: expected good or defective"),
        ("image_path\nleft/0.png\nleft/1.png\nleft/0.png\n", "lines 2 and 4 both name"),
        (
            "image_path,mask_path\nleft/0.png,marks/odd name.png\nleft/1.png,marks/odd name.png\n",
            "lines 2 and 3 both name",
        ),
        ("image_path,label\nleft/0.png,0\n,1\n", "line 3 names no image_path"),
        (
            "image_path\nleft/0.png\nleft/9.png\n",
            "9.png: is not there, the image_path of line 3; paths are relative to",
        ),
        ("image_path\nleft/0.png\nhttp://a.b/9.png\n", "9.png: is not there, the image_path of line 3"),
        ("image_path\nleft/0.png\nleft/\x001.png\n", "is not there, the image_path of line 3"),
        ("image_path\nleft/0.png\nright/../left/0.png\n", "lines 2 and 3 both name"),
        (
            "image_path,mask_path\nleft/0.png,marks/odd name.png\nleft/1.png,left/../marks/odd name.png\n",
            "lines 2 and 3 both name",
        ),
        ('image_path\n"left/0.png\n', "is no CSV"),
    ],
)
def test_what_is_wrong_is_said_by_line(root, text, said):
    with pytest.raises(DataError) as refused:
        write(root, text)
    assert said in str(refused.value)


def test_no_table_at_all(root):
    with pytest.raises(DataError, match="is not UTF-8"):
        write(root, "image_path\nlöft.png\n", encoding="latin-1")
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset("table", data_dir=root / "no.csv", cache_dir=root.parent / "cache", modality="rgb")
    with pytest.raises(DataError, match="leave --categories out"):
        write(root, "image_path\nleft/0.png\nleft/1.png\n", categories=["left"])
