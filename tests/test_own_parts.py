"""A folder of parts to predictions in one call."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny
from PIL import Image

import musc_jax
from musc_jax import pipeline
from musc_jax.config import ConfigError
from musc_jax.data import DataError, FolderLayout, open_dataset

SIDE = 32


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Six parts in two folders, one of them called as if it were a label; one has a spot."""
    root = tmp_path_factory.mktemp("parts") / "caps"
    for i in range(6):
        pixels = np.random.default_rng(i).integers(100, 110, (SIDE, SIDE, 3)).astype(np.uint8)
        if i == 4:
            pixels[8:20, 8:20] = np.random.default_rng(9).integers(0, 255, (12, 12, 3))
        path = root / ("good" if i < 3 else "shift 2") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module")
def config():
    return tiny.make_config(modality="rgb", point_backbone=None)


@pytest.fixture(scope="module")
def found(parts, config):
    return musc_jax.score_folder(parts, config, threshold="rate:0.17")


def test_the_same_as_step_by_step(parts, config, found, tmp_path):
    layout = FolderLayout(unlabelled=True)
    dataset = open_dataset("folder", data_dir=parts, cache_dir=tmp_path, modality="rgb", folder=layout)
    results = pipeline.score(list(dataset.samples("caps", size=config.resolved().size)), config)
    np.testing.assert_array_equal(found.results.pred_scores, results.pred_scores)
    np.testing.assert_array_equal(found.results.anomaly_maps, results.anomaly_maps)
    assert [sample.name for sample in found] == list(dataset.names("caps"))


def test_a_region_of_interest(parts, config, found, tmp_path):
    """The spot lies outside."""
    mask = tmp_path / "roi.png"
    Image.fromarray(np.where(np.arange(SIDE) < 8, np.uint8(255), np.uint8(0)) + np.zeros((SIDE, 1), np.uint8)).save(
        mask
    )
    inside = musc_jax.score_folder(parts, config, roi=mask).results
    assert not inside.anomaly_maps[..., 8:].any()
    assert inside.max_scores[4] < 0.8 * found.results.max_scores[4]


def test_what_is_decided_and_what_was_read(found, parts):
    assert found.decision.rule == "rate:0.17"
    assert found.pred_labels.sum() == 1
    assert any("6 pictures" in line for line in found.inputs)
    assert found.unreadable == ()
    assert [line for line in found.warnings if "6 samples are few" in line]
    assert found.health == ()
    assert {sample.path.parent.name for sample in found} == {"good", "shift 2"}
    assert "<table>" in found._repr_html_()


def test_what_is_odd_about_the_batch(parts, config, tmp_path):
    root = tmp_path / "caps"
    shutil.copytree(parts, root)
    Image.new("RGB", (SIDE, SIDE), "grey").save(root / "blank.png")
    (finding,) = musc_jax.score_folder(root, config).health
    assert (finding.rule, finding.samples) == ("flat", ("blank",))


def test_what_cannot_be_read_is_left_out(parts, config, tmp_path):
    root = tmp_path / "caps"
    for path in parts.rglob("*.png"):
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        (root / path.parent.name / path.name).write_bytes(path.read_bytes())
    (root / "good" / "1.png").write_bytes(b"no picture")
    found = musc_jax.score_folder(root, config)
    assert len(found) == 5
    assert len(found.unreadable) == 1
    with pytest.raises(DataError, match=r"1\.png"):
        musc_jax.score_folder(root, config, skip_bad=False)


def test_what_makes_no_sense_is_refused_before_anything_is_read(config, tmp_path):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(ValueError, match="threshold: expected"):
        musc_jax.score_folder(nowhere, config, threshold="best")
    with pytest.raises(ConfigError, match="image_backbone"):
        musc_jax.score_folder(nowhere, replace(config, image_backbone=None))
    with pytest.raises(ConfigError, match="points, layout"):
        musc_jax.score_folder(nowhere, config, points="depth", layout=FolderLayout(depth_dir="depth"))
    with pytest.raises(DataError, match="is not a folder"):
        musc_jax.score_folder(nowhere, config)


def test_copies_get_the_outcome_of_one(parts, config, found, tmp_path):
    shutil.copytree(parts, tmp_path / "caps")
    for i in range(3):
        shutil.copy(parts / "shift 2" / "4.png", tmp_path / "caps" / "shift 2" / f"4 copy {i}.png")
    copied = musc_jax.score_folder(tmp_path / "caps", config, threshold="rate:0.17")
    scores = {sample.name: sample.pred_score for sample in copied}
    assert len(scores) == 9
    assert {name: scores[name] for name in (sample.name for sample in found)} == {s.name: s.pred_score for s in found}
    assert {scores[f"shift 2_4 copy {i}"] for i in range(3)} == {scores["shift 2_4"]}
