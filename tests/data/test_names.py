"""Names of categories and samples that results could not be called after are faults of the dataset."""

import pytest
from dataset_trees import picture, save, write_visa

from musc_jax.data import DataError, open_dataset
from musc_jax.data.assembly import assemble
from musc_jax.data.dataset import Candidate, Checked
from musc_jax.data.datasets import DATASETS
from musc_jax.data.opening import find_samples
from musc_jax.data.trees import Request

BAD = {
    "/abs": "is absolute",
    "../other": "climbs out by '..'",
    "line1/": "has an empty part",
    ".partial-x": "has a part that begins with '.partial-'",
    "a\0": "holds NUL",
}


@pytest.mark.parametrize("dataset", [name for name in DATASETS if name != "synthetic"])
def test_requested_categories_are_checked_before_anything_is_looked_for(tmp_path, dataset):
    options = {"data_dir": tmp_path / "not there", "cache_dir": tmp_path / "cache", "modality": "rgb"}
    with pytest.raises(DataError) as error:
        open_dataset(dataset, categories=["fine", *BAD], **options)
    assert str(error.value).startswith("categories (--categories): '/abs' is absolute; expected a relative path")
    for name, reason in BAD.items():
        assert f"{name!r} {reason}" in str(error.value)
    assert "'fine'" not in str(error.value)
    with pytest.raises(DataError, match="at least one category"):
        open_dataset(dataset, categories=[], **options)
    assert not list(tmp_path.iterdir())


def test_a_folder_called_as_our_unfinished_files(tmp_path):
    for i in range(2):
        save(tmp_path / ".partial-parts" / f"{i}.png", picture(i))
    options = {"cache_dir": tmp_path / "cache", "modality": "rgb"}
    with pytest.raises(DataError, match=r"^folder: category '.partial-parts' has a part that begins with"):
        open_dataset("folder", data_dir=tmp_path / ".partial-parts", **options)


def test_categories_of_a_table(tmp_path):
    write_visa(tmp_path)
    table = tmp_path / "split_csv" / "1cls.csv"
    first = table.read_text().splitlines()[1].split(",")[0]
    table.write_text(table.read_text().replace(f"\n{first},", "\n../../evil,"))
    with pytest.raises(DataError, match=r"visa: category '../../evil' climbs out by '..'; expected .*; rename it"):
        open_dataset("visa", data_dir=tmp_path, cache_dir=tmp_path / "cache", modality="rgb")


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".partial-x", "", "a\0", "x" * 256, "a\udcff"])
def test_samples(name):
    """One that is called so is as good as unreadable: left out on request, nothing is looked into."""

    def looked_into():
        raise AssertionError

    def sound():
        return Checked(None, ("a: is sound, but for this test",))

    found = {"parts": [Candidate("a", sound), Candidate(name, looked_into)]}
    with pytest.raises(DataError) as error:
        assemble("folder", found)
    (line,) = [line for line in str(error.value).splitlines() if "rename its files" in line]
    assert line.strip().startswith(f"sample {name!r}")


def test_nested_categories_are_found_by_their_paths(tmp_path):
    for place in ("line1/left", "line1/right"):
        for i in range(2):
            save(tmp_path / place / f"{i}.png", picture(i))
    found = find_samples("folder", Request(tmp_path, tmp_path / "cache", ["line1/right", "line1/left"], "rgb"))
    assert list(found.candidates) == ["line1/right", "line1/left"]
    assert not found.faults
