"""The pipeline as a library call, on samples made in memory."""

import dataclasses
import pickle

import chex
import numpy as np
import pytest
from scenes import GROUPS, make_backbones, make_samples

import musc_jax
from musc_jax import Config, pipeline
from musc_jax.config import AggregationConfig, ConfigError
from musc_jax.data import SampleError
from musc_jax.execution.extraction import extract
from musc_jax.execution.point_extraction import normalize_points
from musc_jax.execution.programs import Programs
from musc_jax.subsets import divide


@pytest.fixture(scope="module")
def backbones():
    return make_backbones()


@pytest.fixture(scope="module")
def samples():
    return make_samples(6)


@pytest.mark.parametrize("modality", ["rgb", "points", "rgb+points"])
@pytest.mark.parametrize("variant", ["released", "paper"])
def test_finds_the_odd_one_out(samples, backbones, modality, variant):
    config = Config(variant=variant, modality=modality, image_size=32, grouping=GROUPS, **backbones)
    results = pipeline.score(samples, config)
    chex.assert_tree_all_finite((results.pred_scores, results.anomaly_maps))
    assert results.anomaly_maps.shape == (6, 32, 32)
    assert results.max_scores.argmax() == 4
    np.testing.assert_allclose(results.max_scores, results.anomaly_maps.max((1, 2)))
    spot = samples[4].gt_mask
    assert results.anomaly_maps[4][spot].mean() > 1.2 * results.anomaly_maps[4][~spot].mean()


def test_order_of_samples_does_not_matter(samples, backbones):
    config = Config(modality="rgb+points", image_size=32, grouping=GROUPS, **backbones)
    plain, turned = pipeline.score(samples, config), pipeline.score(samples[::-1], config)
    # Rank matching swaps neighbours in rank on a rounding; values next to each other in rank are close.
    np.testing.assert_allclose(turned.anomaly_maps[::-1], plain.anomaly_maps, atol=2e-3 * plain.anomaly_maps.max())
    np.testing.assert_allclose(turned.pred_scores[::-1], plain.pred_scores, atol=1e-2)


def test_version_1_is_the_mean_over_degrees_and_stages(samples, backbones):
    image = backbones["image_backbone"]
    config = Config.v1(image_size=32, image_backbone=image)
    results = pipeline.score(samples, config)
    mean, std = (np.array(v, np.float32) for v in (image.mean, image.std))
    pixels = (np.stack([s.image for s in samples]).astype(np.float32) / 255 - mean) / std
    stages = image.module.apply(image.variables, pixels, blocks=image.v1_blocks)
    scores = [
        musc_jax.mutual_scores(np.stack([musc_jax.lnamd_grid(t, degree=r) for t in stage]))
        for stage in stages
        for r in (1, 3, 5)
    ]
    np.testing.assert_allclose(results.patch_scores.image, np.mean(scores, axis=0), atol=1e-4)


def test_programs_are_compiled_once(samples, backbones):
    config = Config(modality="rgb+points", image_size=32, grouping=GROUPS, **backbones)
    programs = Programs()
    first = pipeline.score(samples, config, programs=programs)
    count, seconds = programs.count, programs.compile_seconds
    again = pipeline.score(samples, config, programs=programs)
    assert programs.count == count
    assert programs.compile_seconds == seconds > 0
    np.testing.assert_array_equal(again.anomaly_maps, first.anomaly_maps)
    assert {"image backbone", "point grouping", "mutual scoring", "maps"} <= set(programs.seconds)


def test_other_clouds_and_pictures_take_the_same_programs(samples, backbones):
    """One for each stage, however many points a cloud has; another number of samples takes new ones to score."""
    config = Config(modality="rgb+points", image_size=32, grouping=GROUPS, **backbones)
    programs = Programs()
    other = []
    for i, sample in enumerate(samples):
        points = sample.points.copy()
        points[:, : 3 * i + 1] = 0
        other.append(dataclasses.replace(sample, image=sample.image[::-1], points=points))
    assert len({int((sample.points != 0).all(-1).sum()) for sample in other}) == len(other)
    pipeline.score(samples, config, programs=programs)
    # Backbone and aggregation of images; centres, groups, backbone and aggregation of points; scores (prepared, pairs,
    # finished), two maps, RsCon.
    assert programs.count == 12
    pipeline.score(other, config, programs=programs)
    assert programs.count == 12
    pipeline.score(other[:4], config, programs=programs)
    assert programs.count == 16


def test_progress_is_reported(samples, backbones):
    seen = []
    config = Config(modality="rgb", image_size=32, image_backbone=backbones["image_backbone"])
    pipeline.score(samples, config, progress=lambda *call: seen.append(call))
    assert [c for c in seen if c[0] == "features"] == [("features", i + 1, 6) for i in range(6)]
    assert seen[-1] == ("maps", 6, 6)


def test_what_does_not_fit_is_named(samples, backbones):
    config = Config(modality="rgb+points", image_size=32, grouping=GROUPS, **backbones)
    with pytest.raises(ValueError, match="N = 1"):
        pipeline.score(samples[:1], config)
    with pytest.raises(ConfigError, match="image_backbone"):
        pipeline.score(samples, Config(modality="rgb"))
    with pytest.raises(ConfigError, match="expected 3 image blocks"):
        pipeline.score(samples, Config(image_size=32, blocks=(1,), grouping=GROUPS, **backbones))
    with pytest.raises(ConfigError, match="degrees"):
        Config(aggregation=AggregationConfig(degrees=()))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image": np.zeros((40, 40, 3), np.uint8)}, r"expected an image of 32 x 32, received \(40, 40, 3\)"),
        ({"points": None}, r"expected points \(32, 32, 3\), received None"),
        ({"points": np.zeros((32, 32, 3), np.float32)}, "0 points are fewer than the 16 of one group"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_by_its_name(samples, backbones, change, problem):
    spoiled = [*samples[:1], dataclasses.replace(samples[1], **change)]
    config = Config(modality="rgb+points", image_size=32, grouping=GROUPS, **backbones)
    with pytest.raises(SampleError, match=f"^sample 001: {problem}") as refused:
        pipeline.score(spoiled, config)
    assert refused.value.name == "001"
    sent = pickle.loads(pickle.dumps(refused.value))  # as one process sends it to another
    assert (type(sent), sent.name, str(sent)) == (SampleError, "001", str(refused.value))


def test_validity_is_decided_before_centring():
    points = np.zeros((4, 4, 3), np.float32)
    points[1:3, 1:3] = [[[1, 1, 1], [3, 1, 1]], [[1, 3, 1], [3, 3, 3]]]
    points[0, 0] = [2, 2, 1.5]  # exactly the mean: all coordinates become 0, and it stays a point
    normal, valid = normalize_points(points)
    assert valid.sum() == 5
    np.testing.assert_allclose(normal[valid].mean(0), 0, atol=1e-7)
    assert np.linalg.norm(normal, axis=1).max() == pytest.approx(1)
    assert valid[0]
    np.testing.assert_array_equal(normal[0], 0)


@pytest.mark.parametrize("modality", ["rgb", "rgb+points"])
def test_parts_are_scored_as_if_the_others_were_not_there(samples, backbones, modality):
    config = Config(modality=modality, image_size=32, grouping=GROUPS, **backbones)
    programs = Programs()
    together = pipeline.score(samples, config, subsets=2, seed=3, programs=programs)
    assert [sample.name for sample in together.samples] == [sample.name for sample in samples]
    for part in divide(len(samples), subsets=2, seed=3):
        alone = pipeline.score([samples[i] for i in part], config, programs=programs)
        np.testing.assert_array_equal(together.pred_scores[part], alone.pred_scores)
        np.testing.assert_array_equal(together.max_scores[part], alone.max_scores)
        np.testing.assert_array_equal(together.anomaly_maps[part], alone.anomaly_maps)
        np.testing.assert_array_equal(together.patch_scores.image[part], alone.patch_scores.image)


def test_samples_in_no_part_are_left_out(samples, backbones):
    config = Config(modality="rgb", image_size=32, image_backbone=backbones["image_backbone"]).resolved()
    programs = Programs()
    features, seen = extract(samples, config, programs)
    results = pipeline.score_features(features, seen, config, programs, parts=[np.array([1, 4]), np.array([0, 3])])
    assert [sample.name for sample in results.samples] == ["000", "001", "003", "004"]
    assert results.anomaly_maps.shape == (4, 32, 32)
