"""What is said of datasets that are as published, and of those that are not."""

import shutil
from pathlib import Path

import pytest
from dataset_trees import TREES
from published_trees import MAKERS, header, write_published

from musc_jax.data import DATASETS, DataError
from musc_jax.data.datasets import published_datasets
from musc_jax.data.opening import find_samples
from musc_jax.data.published.layout_check import check_layout
from musc_jax.data.trees import Request

PUBLISHED = published_datasets()


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Each dataset whole, written when it is first asked for; not to be changed."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("published") / name
            write_published(name, made[name])
        return made[name]

    return get


@pytest.fixture
def part(published, tmp_path):
    """Some categories of a dataset, to be changed."""

    def get(name, *categories):
        for category in categories:
            shutil.copytree(published(name) / category, tmp_path / "data" / category)
        if name == "visa":
            shutil.copytree(published(name) / "split_csv", tmp_path / "data" / "split_csv")
        return tmp_path / "data"

    return get


def told(root, findings):
    """(relative path, what is said up to the first comma or semicolon, whether it is a problem)."""
    lines = []
    for finding in findings:
        line = finding.line.replace(",", ";").split(";")[0].replace(f"{root}/", "")
        lines.append((Path(finding.path).relative_to(root).as_posix(), line, finding.problem))
    return lines


def test_every_published_dataset_has_a_small_tree_and_a_whole_one():
    assert set(TREES) == set(PUBLISHED), "a dataset needs a row in TREES of tests/data/dataset_trees.py"
    assert set(MAKERS) == set(PUBLISHED), "a dataset needs a row in MAKERS of tests/data/published_trees.py"


def test_what_was_published_is_complete_and_adds_up():
    totals = {
        name: (sum(c.good for c in s.categories.values()), sum(c.defective for c in s.categories.values()))
        for name, s in PUBLISHED.items()
    }
    assert totals == {
        "mvtec3d": (249, 948),
        "eyecandies": (250, 250),
        "mvtec_ad": (467, 1258),
        "visa": (962, 1200),
        "mpdd": (176, 282),
        "btad": (451, 290),
    }, "good and defective samples in all, as its authors or papers count them"
    for source in PUBLISHED.values():
        assert source.licence
        assert source.home.startswith("https://")
        assert source.recipe
        for archive in source.archives:
            assert archive.url.startswith("https://")
            assert archive.url.endswith(archive.name)
            assert archive.sha256 is None or len(archive.sha256) == 64


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_published(published, name):
    before = [(path, path.stat().st_mtime_ns) for path in sorted(published(name).rglob("*"))]
    assert [str(finding) for finding in check_layout(name, published(name))] == []
    assert [(path, path.stat().st_mtime_ns) for path in sorted(published(name).rglob("*"))] == before


@pytest.mark.parametrize(("name", "wrapper"), [(n, w) for n in PUBLISHED for w in PUBLISHED[n].wrappers])
def test_wrapped_as_the_reader_accepts_it(tmp_path, name, wrapper):
    write, categories, counts = TREES[name]
    write(tmp_path / "plain")
    source = tmp_path / "plain"
    if not (source / categories[0]).exists():
        source = next(path for path in source.iterdir() if path.is_dir())
    (tmp_path / "data").mkdir()
    source.rename(tmp_path / "data" / wrapper)
    modality = DATASETS[name].modalities[-1]
    found = find_samples(name, Request(tmp_path / "data", tmp_path / "cache", modality=modality))
    assert {c: len(s) for c, s in found.candidates.items()} == {c: sum(n) for c, n in counts.items()}
    findings = check_layout(name, tmp_path / "data", categories=categories)
    assert all("published" in finding.line for finding in findings), "counts and sizes of a small tree, nothing else"
    assert {finding.category for finding in findings} == set(categories), (
        "each category in TREES has to be counted otherwise than what was published"
    )


def test_no_dataset_at_all(tmp_path):
    (tmp_path / "folder").mkdir()
    for path, message in ((tmp_path / "none", "is not a folder"), (tmp_path / "folder", "has no categories")):
        (finding,) = check_layout("mvtec_ad", path)
        assert finding.problem
        assert str(finding).startswith(f"{path}: {message}")
    (finding,) = check_layout("visa", tmp_path / "folder")
    assert "1cls.csv" in str(finding)


def test_unknown_names(tmp_path):
    with pytest.raises(DataError, match="take one of: mvtec3d"):
        check_layout("synthetic", tmp_path)
    with pytest.raises(DataError, match="MVTec AD has no category 'bagel'"):
        check_layout("mvtec_ad", tmp_path, categories=["bagel"])


def test_mvtec_ad(part):
    root = part("mvtec_ad", "bottle", "grid")
    bottle = root / "bottle"
    (bottle / "ground_truth/broken/002_mask.png").unlink()
    (bottle / "test/scratch/001.png").unlink()
    (bottle / "test/good/003.png").write_bytes(b"")
    (bottle / "test/good/notes.doc").write_bytes(b"notes")
    (bottle / "test/good/000.jpg").write_bytes(b"two of one stem")
    (bottle / "extra").mkdir()
    (bottle / "archive.zip").write_bytes(b"")
    lines = told(root, check_layout("mvtec_ad", root, categories=["grid", "bottle"]))
    assert lines == [
        ("bottle/test/good/000.png", "has the same stem as 000.jpg", True),
        ("bottle/ground_truth/broken/002_mask.png", "is missing", True),
        ("bottle/test/good/003.png", "is empty", True),
        ("bottle", "has 62 defective samples", True),
        ("bottle/archive.zip", "is an unexpected file", False),
        ("bottle/extra", "is an unexpected folder", False),
        ("bottle/test/good/notes.doc", "has an unknown extension", False),
        ("bottle/ground_truth/scratch/001_mask.png", "is a mask without an image", False),
    ]
    assert lines == told(root, check_layout("mvtec_ad", root, categories=["bottle", "grid"]))


def test_categories_missing_and_added(part):
    root = part("btad", "01", "02")
    (root / "04" / "test" / "ok").mkdir(parents=True)
    (root / "04" / "test" / "ok" / "0000.png").write_bytes(header())
    (root / "02" / "test").rename(root / "02" / "tests")
    (root / "notes").mkdir()
    (root / "btad.zip").write_bytes(b"")
    (root / "readme.txt").write_bytes(b"about")
    assert told(root, check_layout("btad", root)) == [
        ("04", "is no published category", True),
        ("btad.zip", "is an unexpected file", False),
        ("notes", "is an unexpected folder", False),
        ("02", "has no test", True),
        ("03", "is missing", True),
    ]


def test_mvtec3d(part):
    root = part("mvtec3d", "rope")
    test = root / "rope" / "test"
    (test / "good/xyz/000.tiff").unlink()
    (test / "good/gt/001.png").unlink()
    (test / "crack/gt/032.png").unlink()
    (test / "crack/rgb/034.png").unlink()
    (test / "crack/xyz/036.ply").write_bytes(b"ply")
    assert told(root, check_layout("mvtec3d", root, categories=["rope"])) == [
        ("rope/test/crack/xyz/034.tiff", "has no picture rope/test/crack/rgb/034.png", True),
        ("rope/test/crack/gt/032.png", "is missing", True),
        ("rope/test/good/xyz/000.tiff", "is missing", True),
        ("rope", "has 68 defective samples", True),
        ("rope/test/crack/gt/034.png", "is a mask without an image", False),
        ("rope/test/crack/xyz/036.ply", "has an unknown extension", False),
    ]


def test_visa(part):
    root = part("visa", "candle", "pcb1")
    (root / "candle/Data/Images/Normal/0005.JPG").unlink()
    (root / "candle/Data/Images/Normal/0001.JPG").unlink()  # for training
    (root / "candle/Data/Masks/Anomaly/007.png").unlink()
    (root / "candle/Data/Images/Anomaly/100.JPG").write_bytes(header())
    (root / "candle/Data/Masks/Anomaly/100.png").write_bytes(header())
    table = root / "split_csv/1cls.csv"
    kept = [line for line in table.read_text().splitlines() if "pcb1/Data/Images/Anomaly/003" not in line]
    table.write_text("\n".join(kept))
    assert told(root, check_layout("visa", root, categories=["candle", "pcb1", "fryum"])) == [
        ("candle/Data/Masks/Anomaly/007.png", "is missing", True),
        ("candle/Data/Images/Normal/0005.JPG", "is missing", True),
        ("candle/Data/Images/Anomaly/100.JPG", "belongs to no sample", False),
        ("candle/Data/Masks/Anomaly/100.png", "is a mask without an image", False),
        ("fryum", "is missing", True),
        ("pcb1", "has 99 defective samples", True),
        ("pcb1/Data/Images/Anomaly/003.JPG", "belongs to no sample", False),
        ("pcb1/Data/Masks/Anomaly/003.png", "is a mask without an image", False),
    ]


def test_eyecandies(part):
    root = part("eyecandies", "Lollipop")
    data = root / "Lollipop/test_public/data"
    (data / "03_image_0.png").unlink()
    (data / "04_mask.png").unlink()
    (data / "05_depth.png").unlink()
    for item in ("depth.png", "info_depth.yaml", "pose.txt"):
        (data / f"06_{item}").unlink()
    (data / "07_xyz.tiff").write_bytes(b"II*\0")
    (data / "07_pose.txt").unlink()
    (data / "notes.txt").write_bytes(b"notes")
    for path in data.glob("09_*"):
        path.unlink()
    assert told(root, check_layout("eyecandies", root, categories=["Lollipop"])) == [
        ("Lollipop/test_public/data/03_image_0.png", "is missing", True),
        ("Lollipop/test_public/data/04_mask.png", "is missing", True),
        ("Lollipop/test_public/data/05_depth.png", "is missing", True),
        ("Lollipop/test_public/data/06_xyz.tiff", "is missing (or depth.png", True),
        ("Lollipop", "has 49 samples", True),
        ("Lollipop/test_public/data/notes.txt", "has a name that no file of a sample has", False),
    ]


def test_a_copy_that_was_scaled_down_is_noted(part):
    root = part("mpdd", "tubes")
    assert check_layout("mpdd", root, categories=["tubes"]) == [], "nobody is sure of its size"
    root = part("mvtec_ad", "wood")
    first = root / "wood/test/broken/000.png"
    first.write_bytes(header((256, 256)))
    (finding,) = check_layout("mvtec_ad", root, categories=["wood"])
    assert (finding.path, finding.problem) == (first, False)
    assert finding.line.startswith("is 256 x 256, published as 1024 x 1024")


def test_scans_that_were_padded_in_place_have_their_size(part):
    root = part("mvtec3d", "tire")
    for path in (root / "tire/test").glob("*/rgb/*.png"):
        path.write_bytes(header((800, 800)))
    assert check_layout("mvtec3d", root, categories=["tire"]) == []
