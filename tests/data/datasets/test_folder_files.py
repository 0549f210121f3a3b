"""What of a plain folder is a sample, a mask or points, and the account of all that is none."""

import os

import numpy as np
import pytest
from dataset_trees import SIDE, blob, picture, save
from PIL import Image

from musc_jax.data import Camera, DataError, FolderLayout, open_dataset


def load(root, modality="rgb", *, categories=None, **layout):
    return open_dataset(
        "folder",
        data_dir=root,
        cache_dir=root.parent / "cache",
        modality=modality,
        categories=categories,
        folder=FolderLayout(**layout),
    )


def account(dataset):
    (category,) = dataset.categories
    return dataset.accounts[category]


def passed_over(dataset):
    """By reason, how many."""
    found = account(dataset).facts["files"]["passed_over"]
    return {reason: entry["count"] for reason, entry in found.items()}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "parts"
    for i in range(3):
        save(root / "good" / f"{i:03d}.png", picture(i))
    return root


def two_defects(root, masks):
    """A crack and a dent of the same number, whose masks differ."""
    for at, defect in enumerate(("crack", "dent")):
        save(root / defect / "000.png", picture(10 + at))
    for name, rows in masks.items():
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[rows] = 255
        save(root / name, mask)
    return {"normal_dir": ("good",), "abnormal_dir": ("crack", "dent"), "mask_dir": ("masks",)}


def test_masks_in_another_order_than_their_samples_are_refused(root):
    """Each defect had the other one's masks."""
    layout = {"normal_dir": ("good",), "abnormal_dir": ("test/crack", "test/dent")}
    with pytest.raises(
        DataError, match=r"mask_dir: masks/dent would be that of test/crack, and is called as test/dent; "
    ):
        FolderLayout(**layout, mask_dir=("masks/dent", "masks/Crack"))
    with pytest.raises(DataError, match="abnormal_depth_dir: dent would be that of test/crack"):
        FolderLayout(**layout, abnormal_depth_dir=("dent", "other"))
    FolderLayout(**layout, mask_dir=("masks/Crack", "dent/"))
    FolderLayout(**layout, mask_dir=("crack/masks", "dent/masks"))
    FolderLayout(**layout, mask_dir=("dent",))
    with pytest.raises(
        DataError, match=r"normal_dir: expected names of folders, received 'good,'; \. is the whole folder"
    ):
        FolderLayout(normal_dir=("good", ""))


@pytest.mark.parametrize("form", ["{}/000.png", "{}/000_mask.png", "{}/mask_000.png"])
def test_masks_of_two_defects_with_equal_numbers(root, form):
    names = {f"masks/{form.format(defect)}": rows for defect, rows in (("crack", slice(0, 4)), ("dent", slice(20, 30)))}
    samples = list(load(root, **two_defects(root, names)).samples("parts", size=SIDE))
    assert [sample.name for sample in samples[3:]] == ["crack_000", "dent_000"]
    assert [np.flatnonzero(sample.gt_mask.any(1)).tolist() for sample in samples[3:]] == [
        [0, 1, 2, 3],
        [*range(20, 30)],
    ]


def test_one_mask_for_two_defects_is_refused(root):
    layout = two_defects(root, {"masks/000.png": slice(0, 4)})
    with pytest.raises(DataError) as error:
        load(root, **layout)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{root / 'masks' / '000.png'}: could be the mask of {root / 'crack' / '000.png'} and of ")
    assert str(root / "dent" / "000.png") in line


def scan(value):
    points = np.full((SIDE, SIDE, 3), value, np.float32)
    points[..., :2] += np.mgrid[:SIDE, :SIDE].transpose(1, 2, 0) / SIDE
    return points


def write_scan(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, scan(value))


def test_depth_of_good_and_bad_samples_with_equal_numbers(root):
    for i in range(3):
        save(root / "bad" / f"{i:03d}.png", picture(20 + i))
        write_scan(root / "depth" / "good" / f"{i:03d}_depth.npy", 1.0 + i)
        write_scan(root / "depth" / "bad" / f"{i:03d}_depth.npy", 5.0 + i)
    layout = {"normal_dir": ("good",), "abnormal_dir": ("bad",), "depth_dir": "depth"}
    dataset = load(root, "rgb+points", **layout)
    assert [dataset.load("parts", i, size=SIDE).points[0, 0, 2] for i in range(6)] == [1, 2, 3, 5, 6, 7]
    for i in range(3):
        for label in ("good", "bad"):
            (root / "depth" / label / f"{i:03d}_depth.npy").replace(root / "depth" / f"{i:03d}.npy")
    with pytest.raises(DataError) as error:
        load(root, "rgb+points", **layout)
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert [line.partition(": could be the points of ")[0] for line in lines] == [
        str(root / "depth" / f"{i:03d}.npy") for i in range(3)
    ]
    assert all(str(root / "good") in line and str(root / "bad") in line for line in lines)


def test_a_tree_like_mvtec_3d(root):
    """Good and bad samples lie in folders that are called alike."""
    for place, seed in (("good", 0), ("cut", 5)):
        for i in range(2):
            save(root / "test" / place / "rgb" / f"{i:03d}.png", picture(seed + i))
            write_scan(root / "test" / place / "xyz" / f"{i:03d}.npy", 1.0 + seed + i)
            save(root / "test" / place / "gt" / f"{i:03d}.png", blob(value=255 * (place == "cut")))
    dataset = load(
        root,
        "rgb+points",
        normal_dir=("test/good/rgb",),
        abnormal_dir=("test/cut/rgb",),
        normal_depth_dir=("test/good/xyz",),
        abnormal_depth_dir=("test/cut/xyz",),
        mask_dir=("test/cut/gt",),
    )
    assert dataset.names("parts") == ("good_000", "good_001", "cut_000", "cut_001")
    assert [dataset.load("parts", i, size=SIDE).points[0, 0, 2] for i in range(4)] == [1, 2, 6, 7]
    assert passed_over(dataset) == {"in no folder that a flag names": 2}  # good, and test/good/gt


def test_every_file_of_a_flat_folder_is_accounted_for(root):
    flat = root / "flat"
    for i in range(3):
        save(flat / f"{i}.png", picture(i))
        save(flat / "returned" / f"{i}.png", picture(10 + i))
    for name in ("notes.txt", "a.xml", "b.xml", ".hidden.png", "Thumbs.db", "@eaDir/0.png", "__MACOSX/0.png"):
        (flat / name).parent.mkdir(exist_ok=True)
        (flat / name).write_bytes(b"x")
    save(flat / "masks" / "0.png", blob())
    save(flat / "Ground Truth" / "0.png", blob())
    save(flat / "1_mask.png", blob())
    write_scan(flat / "0.npy", 1.0)
    os.mkfifo(flat / "pipe.png")
    dataset = load(flat)
    assert dataset.names("flat") == ("0", "1", "2", "returned_0", "returned_1", "returned_2")
    assert passed_over(dataset) == {
        "of other kinds": 3,
        "hidden": 1,
        "left by systems, such as thumbnails": 3,
        "in folders of masks, depth or labels": 2,
        "no regular files": 1,
        "point data, which --modality=rgb leaves out": 1,
        "masks or depth beside their pictures": 1,
    }
    nested, files = account(dataset).lines
    assert nested == "3 of 6 samples lie in folders (returned) and are scored with the others"
    assert files.startswith("files: 6 pictures; passed over: ")
    for name in ("notes.txt", "a.xml", "Thumbs.db", "@eaDir/", "Ground Truth/", "1_mask.png", "0.npy", "pipe.png"):
        assert name in files
    assert account(dataset).facts["files"]["used"] == {"pictures": 6, "masks": 0, "scans": 0}


def test_ordinary_folders_take_one_line(root):
    assert account(load(root / "good")).lines == ["files: 3 pictures"]
    save(root / "bad" / "000.png", picture(9))
    save(root / "masks" / "000.png", blob())
    layout = {"normal_dir": ("good",), "abnormal_dir": ("bad",), "mask_dir": ("masks",)}
    assert account(load(root, **layout)).lines == ["files: 4 pictures, 1 mask"]


def test_folders_that_are_called_like_labels(root):
    """Pictures beside them are scored together with them, and this is said; without any nobody can know."""
    for i in range(2):
        save(root / f"{i}.png", picture(i))
    dataset = load(root)
    assert len(dataset.names("parts")) == 5
    assert "good may say what is good: then name them by --normal_dir and --abnormal_dir" in account(dataset).lines[0]
    for i in range(2):
        (root / f"{i}.png").unlink()
    save(root / "ng" / "0.png", picture(5))
    with pytest.raises(DataError, match="say which are which by --normal_dir and --abnormal_dir"):
        load(root)


def test_a_folder_of_days(root):
    for day in ("2024-05-01", "2024-05-02"):
        save(root.parent / "week" / day / "0.png", picture(len(day)))
    dataset = load(root.parent / "week")
    assert dataset.names("week") == ("2024-05-01_0", "2024-05-02_0")
    assert (
        "as one product; --per_folder of launch.score, or --categories=2024-05-01,2024-05-02, scores each"
        in account(dataset).lines[0]
    )
    # Folders that are categories by themselves are no part of another one.
    save(root.parent / "week" / "0.png", picture(1))
    save(root.parent / "week" / "1.png", picture(2))
    dataset = load(root.parent, categories=["week", "parts/good"])
    assert len(dataset.names("week")) == 4
    save(root.parent / "week" / "2024-05-02" / "1.png", picture(1))
    dataset = load(root.parent, categories=["week", "week/2024-05-02"])
    assert dataset.names("week") == ("0", "1", "2024-05-01_0")


def test_folders_within_those_of_samples(root):
    """Masks, depth and labels are no samples, nor is what another flag names."""
    save(root / "bad" / "000.png", picture(9))
    for inner in ("masks", "depth", "gt", "Labels", "ground_truth"):
        save(root / "bad" / inner / "000.png", blob())
    dataset = load(root, normal_dir=("good",), abnormal_dir=("bad",), mask_dir=("bad/masks",))
    assert dataset.names("parts") == ("good_000", "good_001", "good_002", "bad_000")
    assert passed_over(dataset) == {"in folders of masks, depth or labels": 4}
    save(root / "000.png", picture(30))
    dataset = load(root, normal_dir=(".",), abnormal_dir=("bad",), mask_dir=("bad/masks",))
    assert dataset.names("parts")[-1] == "bad_000"
    assert [dataset.load("parts", i, size=8).gt_label for i in range(5)] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("SegmentationClass", True),
        ("mask_images", True),
        ("depth_png", True),
        ("binary masks", True),
        ("GroundTruth", True),
        ("GT-maps", True),
        ("Masks2", True),
        ("seg", True),
        ("images", False),
        ("masked", False),
        ("label printer", False),
        ("class 1", False),
        ("depth camera", False),
    ],
)
def test_folders_called_as_those_of_masks_or_depth(root, name, is_one):
    save(root / "good" / name / "000.png", blob())
    dataset = load(root / "good")
    assert len(dataset.names("good")) == (3 if is_one else 4)
    assert passed_over(dataset) == ({"in folders of masks, depth or labels": 1} if is_one else {})


@pytest.mark.parametrize(
    ("first", "second"), [("pass", "fail"), ("OK", "NG"), ("gut", "schlecht"), ("iO", "niO"), ("合格", "不良")]
)
def test_labels_in_the_names_of_folders(root, first, second):
    for name in (first, second):
        save(root / "lots" / "7" / name / "0.png", picture(len(name)))
    with pytest.raises(
        DataError, match=r"has pictures only in folders, .* called like labels \(.*; say which"
    ) as error:
        load(root / "lots")
    assert first in str(error.value)
    assert "pass --unlabelled if all are one product" in str(error.value)
    assert len(load(root / "lots", unlabelled=True).names("lots")) == 2


def test_where_there_are_no_pictures_it_is_said_what_there_is(root):
    for name in ("0.dcm", "1.dcm", "2"):
        (root / "other" / name).parent.mkdir(exist_ok=True)
        (root / "other" / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"has no pictures .*; passed over: 3 of other kinds \(.*0\.dcm"):
        load(root / "other")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["0.json"], "0.json lies there, but masks are pictures: draw what it holds into one"),
        (["0_mask.npy"], "0_mask.npy lies there, but masks are pictures"),
        (["0_1.png", "0_2.png"], "0_1.png, 0_2.png may be parts of it: put them into one picture"),
        (["0_mask1.png", "0_mask2.png"], "may be parts of it"),
        (["0/000.png", "1/000.png", "0/001.png"], "has folders called as samples (0, 1); several masks of one picture"),
        (["00_1.png", "00_2.png"], "0.png: is missing, the mask of"),
    ],
)
def test_what_may_be_meant_where_a_mask_is_missing(root, names, said):
    """As LabelMe, anomalib and MVTec LOCO have them."""
    for i in range(2):
        save(root / "bad" / f"{i}.png", picture(i))
        save(root / "bad" / f"00{i}.png", picture(5 + i))
        save(root / "masks" / f"00{i}.png", blob()) if len(names) < 3 else None
    for name in names:
        save(root / "masks" / name, blob()) if name.endswith("png") else (root / "masks" / name).write_bytes(b"{}")
    with pytest.raises(DataError) as error:
        load(root, normal_dir=("good",), abnormal_dir=("bad",), mask_dir=("masks",))
    assert said in str(error.value)
    assert ("may be" in str(error.value)) == ("may be" in said)


def test_pictures_of_one_name_that_show_different_things(root):
    """Two samples; what may be one picture twice is refused, however it is packed, scaled or coloured."""
    y, x = np.mgrid[:SIDE, :SIDE]
    first = np.stack([120 + 80 * np.sin(x / 5), 90 + 2 * y, 60 + 3 * x], -1).astype(np.uint8)
    other = first.copy()
    other[8:20, 6:28] = (250, 20, 20)
    save(root / "two" / "0.png", first)
    save(root / "two" / "0.jpg", other)
    save(root / "two" / "1.png", first)
    save(root / "two" / "1.tif", other)
    save(root / "masks" / "0.jpg.png", blob())
    dataset = load(root / "two", mask_dir=(str(root / "masks"),), unmasked="good")
    assert dataset.names("two") == ("0", "0.png", "1", "1.tif")
    assert [dataset.load("two", i, size=SIDE).gt_label for i in range(4)] == [1, 0, 0, 0]
    np.testing.assert_array_equal(dataset.load("two", 3, size=SIDE).image, other)
    (line,) = [line for line in account(dataset).lines if line.startswith("names:")]
    assert "2 pictures are called as another one but for the suffix" in line
    assert "0.png, 1.tif" in line
    grey = np.asarray(Image.fromarray(first).convert("L"))
    for again in (
        Image.fromarray(first).resize((2 * SIDE, 2 * SIDE)),
        Image.fromarray(grey // 2),
        Image.fromarray(first),
    ):
        again.save(root / "two" / "0.jpg", quality=70)
        with pytest.raises(
            DataError, match=r"0\.png: has the same stem as 0\.jpg and may be the same once more; keep one"
        ):
            load(root / "two")
    # Grey of 16 bits may be depth, which is left out.
    (root / "two" / "0.jpg").unlink()
    Image.fromarray(grey.astype(np.uint16) * 16).save(root / "two" / "1.tif")
    assert passed_over(load(root / "two")) == {"point data, which --modality=rgb leaves out": 1}


def test_samples_that_were_left_out_are_accounted_for(root):
    (root / "good" / "001.png").write_bytes(b"x")
    save(root / "good" / "003.png", picture(7))
    dataset = open_dataset(
        "folder", data_dir=root / "good", cache_dir=root.parent / "cache", modality="rgb", skip_bad=True
    )
    assert account(dataset).lines[-1] == "left out: 1 of 4 samples, whose files are counted all the same (001)"
    assert account(dataset).facts["left_out"] == ["001"]


def test_depth_beside_its_picture_in_one_folder(root):
    for i in range(2):
        save(root / "flat" / f"{i}_rgb.png", picture(i))
        depth = np.full((SIDE, SIDE), 600 + i, np.uint16)
        Image.fromarray(depth).save(root / "flat" / f"{i}_depth.png")
    camera = Camera(40.0, 40.0, 16.0, 16.0)
    with pytest.raises(DataError, match=r"--depth_dir=\. where pictures are here, too, as 0_depth\.png"):
        load(root / "flat", "rgb+points", camera=camera)
    dataset = load(root / "flat", "rgb+points", camera=camera, depth_dir=".")
    assert account(dataset).facts["files"] == {"used": {"pictures": 2, "masks": 0, "scans": 2}, "passed_over": {}}
    assert [dataset.load("flat", i, size=SIDE).points[0, 0, 2] for i in range(2)] == pytest.approx([0.6, 0.601])


def test_masks_beside_their_pictures(root):
    for i in range(2):
        save(root / "bad" / f"{i}.png", picture(i))
        save(root / "bad" / f"{i}_mask.png", blob())
    dataset = load(root, normal_dir=("good",), abnormal_dir=("bad",))
    assert len(dataset.names("parts")) == 5
    assert passed_over(dataset) == {"masks or depth beside their pictures": 2}
    dataset = load(root, normal_dir=("good",), abnormal_dir=("bad",), mask_dir=("bad",))
    assert account(dataset).facts["files"] == {"used": {"pictures": 5, "masks": 2, "scans": 0}, "passed_over": {}}
    assert dataset.load("parts", 4, size=SIDE).gt_mask.any()


def test_a_folder_that_is_named_twice(root):
    with pytest.raises(DataError, match=r"is the same folder as .*good, but flags name both"):
        load(root, normal_dir=("good",), abnormal_dir=("./good",))
    (root / "bad").symlink_to(root / "good")
    with pytest.raises(DataError, match="is the same folder as"):
        load(root, normal_dir=("good",), abnormal_dir=("bad",))


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_linked_folders_are_followed_once(root):
    flat = root / "flat"
    save(flat / "0.png", picture(0))
    save(flat / "inner" / "0.png", picture(1))
    save(root / "elsewhere" / "0.png", picture(2))
    (flat / "linked").symlink_to(root / "elsewhere")
    (flat / "linked again").symlink_to(root / "elsewhere")
    (flat / "a link to inner").symlink_to(flat / "inner")
    (flat / "inner" / "up").symlink_to(flat)
    (flat / "inner" / "above").symlink_to(root)
    (flat / "inner" / "self").symlink_to(flat / "inner" / "self")
    (flat / "gone.png").symlink_to(root / "gone.png")
    (flat / "file.png").symlink_to(root / "good" / "000.png")
    dataset = load(flat)
    assert dataset.names("flat") == ("0", "file", "inner_0", "linked_0")
    assert passed_over(dataset) == {
        "links that lead nowhere": 2,
        "links to folders that are looked into anyway": 2,
        "links that lead in a circle": 2,
    }


def test_scans_alone_in_a_folder_of_their_own(root):
    for i in range(2):
        write_scan(root / "scans" / f"{i}.npy", 1.0 + i)
        write_scan(root / "labelled" / "depth" / "a" / f"{i}.npy", 1.0 + i)
        write_scan(root / "labelled" / "depth" / "b" / f"{i}.npy", 5.0 + i)
    (root / "empty").mkdir()
    dataset = load(root / "empty", "points", depth_dir="../scans")
    assert dataset.names("empty") == ("0", "1")
    for name in "ab":
        (root / "labelled" / name).mkdir()
    layout = {"normal_dir": ("a",), "abnormal_dir": ("b",), "depth_dir": "depth"}
    dataset = load(root / "labelled", "points", **layout)
    assert dataset.names("labelled") == ("a_0", "a_1", "b_0", "b_1")
    assert [dataset.load("labelled", i, size=SIDE).points[0, 0, 2] for i in range(4)] == [1, 2, 5, 6]


def test_masks_of_defective_samples_only_in_a_flat_folder(root):
    """Refused with the way out; or those without one are good, if somebody says so."""
    save(root / "truth" / "001_mask.png", blob())
    layout = {"mask_dir": (str(root / "truth"),)}
    with pytest.raises(DataError, match="add it, or pass --unmasked=good if that says that it is good") as error:
        load(root / "good", **layout)
    assert "001.png" not in str(error.value)
    dataset = load(root / "good", unmasked="good", **layout)
    samples = list(dataset.samples("good", size=SIDE))
    assert [sample.gt_label for sample in samples] == [0, 1, 0]
    assert [bool(sample.gt_mask.any()) for sample in samples] == [False, True, False]
    assert "2 of 3 samples have no mask and count as good (--unmasked=good)" in account(dataset).lines
    # A mask of another name could make its own sample a good one.
    save(root / "truth" / "0002.png", blob())
    with pytest.raises(DataError, match=r"0002\.png: is a mask without a sample, and its own may count as good"):
        load(root / "good", unmasked="good", **layout)
    (root / "truth" / "0002.png").unlink()
    # Of a sample that is called defective it says nothing.
    save(root / "bad" / "000.png", picture(9))
    with pytest.raises(DataError, match=r"000\.png: is missing, the mask of .*; add it\n"):
        load(root, unmasked="good", normal_dir=("good",), abnormal_dir=("bad",), mask_dir=("truth",))
    with pytest.raises(DataError, match="unmasked: expected one of refuse, good, received 'bad'"):
        FolderLayout(unmasked="bad")
