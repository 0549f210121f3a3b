"""A tree that is another dataset's than was said is recognised, with the flag that puts it right."""

import pytest
from dataset_trees import write_btad, write_mvtec3d, write_mvtec_ad, write_visa
from eyecandies_tree import write_category

from musc_jax.data import DataError, open_dataset
from musc_jax.data.recognition import likely_datasets

WRITERS = {
    "mvtec_ad": write_mvtec_ad,
    "mvtec3d": write_mvtec3d,
    "visa": write_visa,
    "btad": write_btad,
    "eyecandies": lambda root: write_category(root, "Apple", ["0", "1"]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_is_recognised(tmp_path, name):
    WRITERS[name](tmp_path)
    assert likely_datasets(tmp_path)[0] == name
    assert likely_datasets(tmp_path / "nothing") == ()


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("mvtec_ad", "visa"),
        ("visa", "mvtec_ad"),
        ("mvtec3d", "visa"),
        ("eyecandies", "mvtec3d"),
        ("btad", "visa"),
        ("mvtec3d", "mvtec_ad"),
        ("btad", "mvtec_ad"),
    ],
)
def test_the_other_name_is_said(tmp_path, there, said):
    """VisA prepared as MVTec AD, for one."""
    WRITERS[there](tmp_path / "data")
    options = {"data_dir": tmp_path / "data", "cache_dir": tmp_path / "cache", "modality": "rgb"}
    with pytest.raises(DataError) as error:
        open_dataset(said, **options)
    line = f"note: {tmp_path / 'data'}: is laid out as {there}; pass --dataset={there} if that is meant"
    assert line in str(error.value)
    assert open_dataset(there, **options).categories


def test_a_flat_folder_is_warned_of(tmp_path):
    """All its pictures would be samples: of these, the masks, too."""
    WRITERS["eyecandies"](tmp_path / "data")
    dataset = open_dataset("folder", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", modality="rgb")
    assert any("is laid out as eyecandies; pass --dataset=eyecandies" in line for line in dataset.warnings)


def test_a_right_name_is_left_alone(tmp_path):
    write_mvtec_ad(tmp_path / "data")
    with pytest.raises(DataError) as error:
        open_dataset("mvtec_ad", data_dir=tmp_path / "data", cache_dir=tmp_path, categories=["spoon"], modality="rgb")
    assert "is laid out as" not in str(error.value)
