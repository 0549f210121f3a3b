"""The reader on small trees in the exact layout: contract, variants and odd corners."""

import shutil

import numpy as np
import pytest
import tifffile
from eyecandies_tree import SIDE, fingerprint, pose_from_above, scene, write_category, write_sample, xyz_of
from PIL import Image

from musc_jax.data import DATASETS, DataError, open_dataset
from musc_jax.data.cleaning import eyecandies as candy_cleaning

INDICES = ("00", "01", "02", "03")


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "data"
    write_category(root, "Lollipop", INDICES)
    write_category(root, "CandyCane", INDICES, raw=False, xyz=True)
    return root


def read(root, **options):
    options.setdefault("cache_dir", root.parent / "cache")
    return open_dataset("eyecandies", data_dir=root, **options)


def test_contract(tree):
    dataset = read(tree)
    assert dataset.name == "eyecandies"
    assert dataset.categories == ("CandyCane", "Lollipop")
    assert dataset.skipped == {"CandyCane": (), "Lollipop": ()}
    assert dataset.warnings == []
    for category in dataset.categories:
        assert dataset.names(category) == INDICES
        for number, sample in enumerate(dataset.samples(category, size=32)):
            folder = tree / category / "test_public" / "data"
            image = Image.open(folder / f"0{number}_image_0.png").resize((32, 32), Image.Resampling.BICUBIC)
            assert sample.name == INDICES[number]
            assert sample.image_path == folder / f"0{number}_image_0.png"
            np.testing.assert_array_equal(sample.image, np.asarray(image))
            assert (sample.image.dtype, sample.points.dtype, sample.gt_mask.dtype) == (np.uint8, np.float32, bool)
            assert sample.points.shape == (32, 32, 3)
            assert sample.gt_label == number % 2
            assert sample.gt_mask.any() == bool(number % 2)


def test_raw_points_are_the_cleaned_scan(tree):
    _, depth = scene(2)
    sample = read(tree).load("Lollipop", 2, size=SIDE)
    valid = (sample.points != 0).all(-1)
    expected = np.zeros((SIDE, SIDE), bool)
    expected[8:30, 8:30] = True
    np.testing.assert_array_equal(valid, expected)
    points = candy_cleaning.back_project(depth, pose_from_above())
    np.testing.assert_allclose(sample.points[valid], points[valid], atol=1e-5)


def test_xyz_is_used_as_it_is(tree):
    sample = read(tree).load("CandyCane", 1, size=SIDE)
    np.testing.assert_array_equal(sample.points, xyz_of(scene(1)[1]))


def test_xyz_beside_depth_wins_and_depth_is_not_looked_at(tmp_path):
    folder = write_category(tmp_path / "d", "Confetto", INDICES, xyz=True)
    (folder / "00_depth.png").write_bytes(b"rubbish")
    (folder / "01_pose.txt").unlink()
    sample = read(tmp_path / "d").load("Confetto", 0, size=SIDE)
    np.testing.assert_array_equal(sample.points, xyz_of(scene(0)[1]))


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_xyz_of_another_float_type(tmp_path, dtype):
    folder = write_category(tmp_path / "d", "Confetto", INDICES, raw=False, xyz=True)
    xyz = xyz_of(scene(0)[1]).astype(dtype)
    tifffile.imwrite(folder / "00_xyz.tiff", xyz, photometric="minisblack", planarconfig="contig")
    points = read(tmp_path / "d").load("Confetto", 0, size=SIDE).points
    np.testing.assert_array_equal(points, xyz.astype(np.float32))


def test_rgb_does_not_look_at_points(tree):
    for path in tree.rglob("*"):
        if path.name.endswith(("depth.png", "pose.txt", "info_depth.yaml", "xyz.tiff")):
            path.write_bytes(b"rubbish")
    dataset = read(tree, modality="rgb")
    assert dataset.load("CandyCane", 0, size=16).points is None
    assert not (tree.parent / "cache").exists()


def test_files_that_are_not_needed_may_be_absent(tmp_path):
    write_category(tmp_path / "d", "Confetto", INDICES, metadata=False)
    assert read(tmp_path / "d").warnings == []


def test_indices_of_any_width_in_numerical_order(tmp_path):
    write_category(tmp_path / "d", "Confetto", ("10", "9", "0100", "007"))
    folder = tmp_path / "d" / "Confetto" / "test_public" / "data"
    (folder / "x_image_0.png").write_bytes(b"no index")
    (folder / "._10_image_0.png").write_bytes(b"left by another system")
    dataset = read(tmp_path / "d")
    assert dataset.names("Confetto") == ("007", "9", "10", "0100")
    assert [sample.name for sample in dataset.samples("Confetto", size=8)] == ["007", "9", "10", "0100"]


@pytest.mark.parametrize("inside", [False, True])
def test_extra_level(tmp_path, inside):
    write_category(tmp_path / "d" / "Eyecandies", "Confetto", INDICES)
    root = tmp_path / "d" / "Eyecandies" if inside else tmp_path / "d"
    assert read(root, cache_dir=tmp_path / "c").categories == ("Confetto",)


def test_names_with_spaces_and_other_letters(tmp_path):
    root = tmp_path / "d\u00e4ta mit L\u00fccken" / "\u83d3\u5b50"
    write_category(root, "S\u00fc\u00df holz", INDICES)
    dataset = read(root)
    assert len(list(dataset.samples("S\u00fc\u00df holz", size=8))) == 4


def test_other_folders_are_no_categories(tree):
    (tree / "notes").mkdir()
    (tree / "readme.txt").write_text("x")
    (tree / "Empty" / "test_public" / "data").mkdir(parents=True)
    (tree / "Lollipop" / "train" / "data").mkdir(parents=True)
    dataset = read(tree)
    assert dataset.categories == ("CandyCane", "Lollipop")
    assert "Empty" in dataset.warnings[0]


def test_categories_in_the_order_asked_for(tree):
    assert read(tree, categories=["Lollipop", "CandyCane", "Lollipop"]).categories == ("Lollipop", "CandyCane")


@pytest.mark.parametrize("category", ["GummyBear", "LicoriceSandwich", "Marshmallow"])
def test_special_categories_keep_the_plane_by_their_name_alone(tmp_path, category):
    root = tmp_path / "GummyBear data"
    write_category(root, category, INDICES)
    write_category(root, "Not" + category, INDICES)
    dataset = read(root)
    # The conveyor is the largest cluster and dark; the box touches nothing, being 10 cm above.
    names = {c: (dataset.load(c, 0, size=SIDE).points != 0).all(-1) for c in dataset.categories}
    assert names["Not" + category][:8].sum() == 0
    keys = [dataset.digest(c) for c in dataset.categories]
    assert keys[0] != keys[1]
    assert len(list((tmp_path / "cache" / "eyecandies_xyz").iterdir())) == 8  # nothing shared between the two rules


def test_limit_takes_the_first(tree):
    assert read(tree, limit=3).names("Lollipop") == INDICES[:3]
    assert read(tree, limit=99).names("Lollipop") == INDICES


def test_a_fault_beyond_the_limit_does_not_matter(tree):
    (tree / "Lollipop" / "test_public" / "data" / "03_mask.png").unlink()
    read(tree, limit=3)


def test_digest_does_not_depend_on_the_place_but_on_the_content(tree, tmp_path):
    there = tmp_path / "elsewhere" / "deep"
    shutil.copytree(tree, there)
    first, second = read(tree), read(there, cache_dir=tmp_path / "other")
    assert {c: first.digest(c) for c in first.categories} == {c: second.digest(c) for c in second.categories}
    assert first.digest("CandyCane") != first.digest("Lollipop")
    assert first.digest("Lollipop") != read(tree, limit=3).digest("Lollipop")
    assert first.digest("Lollipop") != read(tree, modality="rgb").digest("Lollipop")
    for item in ("image_0.png", "mask.png", "depth.png", "info_depth.yaml", "pose.txt"):
        write_sample(there / "Lollipop" / "test_public" / "data", "02", seed=2)
        path = there / "Lollipop" / "test_public" / "data" / f"02_{item}"
        if path.suffix == ".png":
            pixels = np.array(Image.open(path))
            pixels[0, 0] ^= 1
            Image.fromarray(pixels).save(path)
        else:
            path.write_text(path.read_text() + "\n")
        changed = read(there, cache_dir=tmp_path / "other")
        assert changed.digest("Lollipop") != first.digest("Lollipop"), item
        assert changed.digest("CandyCane") == first.digest("CandyCane")


def test_digest_holds_the_version_of_the_cleaning_rule(tree, monkeypatch):
    before = read(tree).digest("Lollipop")
    monkeypatch.setattr(candy_cleaning, "VERSION", candy_cleaning.VERSION + 1)
    assert read(tree).digest("Lollipop") != before


def test_nothing_is_written_into_the_dataset(tree):
    before = fingerprint(tree)
    dataset = read(tree)
    for category in dataset.categories:
        list(dataset.samples(category, size=16))
    assert fingerprint(tree) == before


def test_links_are_read(tree, tmp_path):
    linked = tmp_path / "linked" / "Lollipop" / "test_public" / "data"
    linked.mkdir(parents=True)
    for path in (tree / "Lollipop" / "test_public" / "data").iterdir():
        (linked / path.name).symlink_to(path)
    assert read(tmp_path / "linked", cache_dir=tmp_path / "c").digest("Lollipop") == read(tree).digest("Lollipop")


def cached(root):
    return sorted((root.parent / "cache" / "eyecandies_xyz").iterdir())


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone", "swap"])
@pytest.mark.parametrize("reopen", [False, True])
def test_a_damaged_cache_is_rebuilt(tree, damage, reopen):
    dataset = read(tree, categories=["Lollipop"])
    before = {path.name: path.read_bytes() for path in cached(tree)}
    assert len(before) == 4
    expected = [sample.points for sample in dataset.samples("Lollipop", size=SIDE)]
    for position, path in enumerate(cached(tree)):
        data = before[path.name]
        other = list(before.values())[position - 1]
        flipped = data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]
        new = {"flip": flipped, "cut": data[:-7], "empty": b"", "swap": other, "gone": None}[damage]
        path.unlink() if new is None else path.write_bytes(new)
    if reopen:
        dataset = read(tree, categories=["Lollipop"])
    for sample, points in zip(dataset.samples("Lollipop", size=SIDE), expected, strict=True):
        np.testing.assert_array_equal(sample.points, points)
    assert {path.name: path.read_bytes() for path in cached(tree)} == before


def test_cleaning_is_done_once(tree, monkeypatch):
    first = read(tree)
    expected = first.load("Lollipop", 0, size=SIDE)
    monkeypatch.setattr(candy_cleaning, "clean_scan", None)
    again = read(tree)
    np.testing.assert_array_equal(again.load("Lollipop", 0, size=SIDE).points, expected.points)


def test_no_cluster_is_a_warning_every_time(tmp_path):
    folder = tmp_path / "d" / "Tiny" / "test_public" / "data"
    for index in ("0", "1"):
        write_sample(folder, index)
        depth = np.zeros((SIDE, SIDE), np.uint16) + np.uint16(65535)
        depth[20:23, 20:23] = 0
        Image.fromarray(depth).save(folder / f"{index}_depth.png")
    for _ in range(2):
        dataset = read(tmp_path / "d")
        warnings = [line for line in dataset.warnings if "copy of another" not in line]
        assert [("no cluster" in line, f"{index}_depth.png" in line) for index, line in enumerate(warnings)] == [
            (True, True),
            (True, True),
        ]
        assert (dataset.load("Tiny", 0, size=SIDE).points != 0).all(-1).sum() == 9


def test_metadata_is_only_cross_checked(tree):
    folder = tree / "Lollipop" / "test_public" / "data"
    (folder / "00_metadata.yaml").write_text("anomalous: 1\n")
    (folder / "01_metadata.yaml").write_text("anomalous: true\n")
    (folder / "02_metadata.yaml").write_text("{broken")
    (folder / "03_metadata.yaml").write_text("other: 1\n")
    dataset = read(tree)
    assert len(dataset.warnings) == 2
    assert "00_metadata.yaml" in dataset.warnings[0]
    assert "02_metadata.yaml" in dataset.warnings[1]
    assert [sample.gt_label for sample in dataset.samples("Lollipop", size=8)] == [0, 1, 0, 1]


@pytest.mark.parametrize("how", ["changed", "vanished"])
@pytest.mark.parametrize("item", ["image_0.png", "mask.png", "depth.png", "pose.txt"])
def test_a_file_that_changes_after_the_check_is_named(tree, how, item):
    dataset = read(tree)
    path = tree / "Lollipop" / "test_public" / "data" / f"02_{item}"
    if how == "vanished":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"\n")
    dataset.load("Lollipop", 1, size=8)
    with pytest.raises(DataError, match=f"02_{item}"):
        dataset.load("Lollipop", 2, size=8)
    loading = dataset.samples("Lollipop", size=8, workers=2, ahead=4)
    assert [next(loading).name, next(loading).name] == ["00", "01"]
    with pytest.raises(DataError, match=f"02_{item}"):
        next(loading)


def test_progress_is_told(tree):
    told = []
    read(tree, progress=lambda *call: told.append(call))
    assert told == [("check samples", done, 8) for done in range(9)]


def test_nothing_is_printed(tree, capfd):
    dataset = read(tree)
    list(dataset.samples("Lollipop", size=8))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(tree, workers):
    dataset = read(tree, workers=workers, cache_dir=tree.parent / f"cache{workers}")
    assert dataset.digest("Lollipop") == read(tree).digest("Lollipop")
    for ours, plain in zip(
        dataset.samples("Lollipop", size=16, workers=workers), read(tree).samples("Lollipop", size=16), strict=True
    ):
        np.testing.assert_array_equal(ours.points, plain.points)
        np.testing.assert_array_equal(ours.image, plain.image)


def test_unknown_names_say_which_there_are(tree):
    with pytest.raises(DataError, match="btad, eyecandies, folder, mpdd, mvtec3d, mvtec_ad, synthetic, table, visa"):
        open_dataset("nothing", data_dir=tree, cache_dir=tree)
    with pytest.raises(ValueError, match="CandyCane, Lollipop"):
        read(tree).names("Praline")
    assert {"eyecandies", "synthetic"} <= set(DATASETS)


@pytest.mark.parametrize("options", [{"modality": "depth"}, {"limit": 0}, {"workers": 0}])
def test_options_are_checked(tree, options):
    with pytest.raises(ValueError, match="must be"):
        read(tree, **options)
