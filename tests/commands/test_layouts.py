"""A full evaluation on a small tree of every layout, and one report where many things are wrong."""

import json

import pytest
from dataset_trees import TREES
from eyecandies_tree import fingerprint
from test_corrupted_trees import HAS_OPEN3D, LAYOUTS, truncate
from test_eval import GOLDEN, SMALL

from launch import eval as command
from musc_jax.data import DATASETS

FOLDER = ["--normal_dir=good", "--abnormal_dir=bad", "--mask_dir=masks", "--depth_dir=depth"]


@pytest.fixture
def run(tmp_path, image_weights, capsys):
    """Runs the command on a tree."""

    def call(name, root, *arguments):
        given = [f"--dataset={name}", f"--data_dir={root}", f"--output_dir={tmp_path / 'results'}", *arguments]
        given += [f"--cache_dir={tmp_path / 'cache'}", f"--weights_rgb={image_weights}", *SMALL]
        given += [f"--weights_points={GOLDEN / 'point_mae_tiny.pth'}"]
        code = command.main(["eval", *given])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_whole_evaluation(run, tmp_path, name):
    if name == "mvtec3d" and not HAS_OPEN3D:
        pytest.skip("Open3D is not installed, or lacks system libraries")
    root = tmp_path / "data"
    root.mkdir()
    LAYOUTS[name].write(root)
    before = fingerprint(root)
    code, out, err = run(name, root, "--save=images", *(FOLDER if name == "folder" else ()))
    assert code == 0, err
    summary = json.loads((tmp_path / "results" / name / "metrics.json").read_text())
    categories = ("data",) if name == "folder" else TREES[name][1]
    assert tuple(summary["categories"]) == categories
    config = json.loads((tmp_path / "results" / name / "run.json").read_text())["config"]
    assert config["modality"] == DATASETS[name].modalities[-1]
    for category, values in summary["categories"].items():
        assert category in out
        assert values["image_AUROC"] is not None
        assert values["pixel_PRO"] is not None
        count = 6 if name == "folder" else sum(TREES[name][2][category])
        assert len(list((tmp_path / "results" / name / category / "images").iterdir())) == count
    assert fingerprint(root) == before


def test_version_1_has_other_windows_on_visa(run, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    LAYOUTS["visa"].write(root)
    assert run("visa", root, "--variant=v1", "--categories=candle")[0] == 0
    config = json.loads((tmp_path / "results" / "visa" / "run.json").read_text())["config"]
    assert config["rescoring"]["windows"] == [1, 8, 9]


@pytest.mark.parametrize("name", ["mvtec_ad", "visa", "mpdd", "btad"])
def test_points_are_refused_before_weights_are_looked_for(run, tmp_path, name):
    code, _, err = run(name, tmp_path / "data", "--modality=points", "--weights_points=/nowhere")
    assert code == 2
    assert err == f"error: --modality: {name} has pictures only, no points; pass --modality=rgb\n"


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_report_and_exit_code_2(run, tmp_path, name):
    root = tmp_path / "data"
    root.mkdir()
    LAYOUTS[name].write(root)
    image, mask = root / LAYOUTS[name].image, root / LAYOUTS[name].mask
    truncate(image)
    mask.write_bytes(b"")
    before = fingerprint(root)
    code, out, err = run(name, root, "--modality=rgb", *(FOLDER if name == "folder" else ()))
    assert code == 2
    assert not out
    assert err.count("error:") == 1
    assert str(image) in err
    assert str(mask) in err
    assert "Traceback" not in err
    assert fingerprint(root) == before
    assert not list((tmp_path / "results").rglob("*.json"))
