"""The table of datasets: found by itself, and the one place outside of which no dataset is known by name."""

import ast
import importlib
from pathlib import Path

import pytest
from dropped_modules import second_folder

from musc_jax.data import DATASETS, datasets
from musc_jax.data.spec import MODALITIES, DatasetSpec

HEAD = "from musc_jax.data.datasets.btad import find_btad\nfrom musc_jax.data.spec import DatasetSpec\n"


@pytest.fixture
def drop(tmp_path):
    """Puts a module among the datasets."""

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(HEAD + text)

    with second_folder(tmp_path):
        yield write


def test_every_module_is_a_dataset_in_the_order_of_the_table():
    assert list(datasets.find_datasets(datasets.__path__)) == list(DATASETS)
    modules = {path.stem for folder in datasets.__path__ for path in Path(folder).glob("[!_]*.py")}
    assert set(DATASETS) == modules
    for name, spec in DATASETS.items():
        assert spec.name == name
    assert list(DATASETS) == [
        "synthetic",
        "mvtec3d",
        "eyecandies",
        "mvtec_ad",
        "visa",
        "mpdd",
        "btad",
        "folder",
        "table",
    ], "a new one has its place here by its `rank`"


def test_a_module_that_is_dropped_in_is_found(drop):
    drop("tiles", 'DATASET = DatasetSpec("tiles", find_btad)')
    drop("_part_of_tiles", "")
    found = datasets.find_datasets(datasets.__path__)
    assert list(found) == [*list(DATASETS)[:-2], "tiles", "folder", "table"]
    assert {name: spec for name, spec in found.items() if name != "tiles"} == DATASETS


@pytest.mark.parametrize("text", ["", "DATASET = find_btad", 'DATASET = DatasetSpec("other", find_btad)'])
def test_a_module_without_its_dataset_is_refused(drop, text):
    drop("tiles", text)
    with pytest.raises(ValueError, match=r"datasets\.tiles: expected DATASET, a DatasetSpec with the name 'tiles'"):
        datasets.find_datasets(datasets.__path__)


@pytest.mark.parametrize("modalities", [(), ("depth",), MODALITIES[::-1], ("rgb", "rgb")])
def test_modalities_are_checked(modalities):
    with pytest.raises(ValueError, match=r"modalities: expected some of rgb, points, rgb\+points"):
        DatasetSpec("tiles", DATASETS["btad"].find, modalities)


def test_nobody_else_knows_a_dataset_by_its_name():
    """What is particular to one stands in its module, so that another one can have it, too."""
    found = []
    for package in ("musc_jax", "weights", "launch"):
        for folder in importlib.import_module(package).__path__:
            for path in Path(folder).rglob("*.py"):
                # The paper's tables are of certain ones.
                if not path.is_relative_to(Path(datasets.__path__[0])) and path.parent.name != "reproduction":
                    tree = ast.parse(path.read_text(encoding="utf-8"))
                    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
                    found += [(path.name, value) for value in values if isinstance(value, str) and value in DATASETS]
    flags = [("input_flags.py", "synthetic"), ("reproduce.py", "table"), ("score_flags.py", "table")]
    assert sorted(found) == flags, "a default and the names of flags"
