"""The pipeline as a library call, on samples made in memory."""

import dataclasses
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import GROUPS, make_backbones, make_samples

from musc_jax import Config, pipeline, resolved
from musc_jax.config import AggregationConfig, ConfigError
from musc_jax.data import SampleError
from musc_jax.execution.extraction import extract
from musc_jax.execution.feature_store import FeatureStore
from musc_jax.execution.programs import Programs
from musc_jax.execution.scoring import plan_for
from musc_jax.models import VisionTransformer
from musc_jax.subsets import divide
from musc_jax.tokens import normalize_points


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


def test_programs_are_compiled_once(samples, backbones):
    config = Config(modality="rgb+points", image_size=32, grouping=GROUPS, **backbones)
    programs = Programs()
    first = pipeline.score(samples, config, programs=programs)
    count, seconds = programs.count, programs.compile_seconds
    again = pipeline.score(samples, config, programs=programs)
    assert programs.count == count
    assert programs.compile_seconds == seconds > 0
    np.testing.assert_array_equal(again.anomaly_maps, first.anomaly_maps)
    assert not programs.seconds


def test_stages_are_timed_on_request(samples, backbones):
    programs = Programs(profile=True)
    pipeline.score(samples, Config(image_size=32, grouping=GROUPS, **backbones), programs=programs)
    stages = {f"{kind} {step}" for kind in ("image", "point") for step in ("backbone", "aggregation")}
    assert set(programs.seconds) == stages | {"loading", "point grouping", "mutual scoring", "maps", "re-scoring"}
    assert min(programs.seconds.values()) > 0


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
    # Backbone and aggregation of images; centres, groups, backbone and aggregation of points; scores (prepared, their
    # table, pairs, finished), two maps, RsCon.
    assert programs.count == 13
    pipeline.score(other, config, programs=programs)
    assert programs.count == 13
    pipeline.score(other[:4], config, programs=programs)
    assert programs.count == 18


def test_progress_is_reported(samples, backbones):
    seen = []
    config = Config(modality="rgb", image_size=32, image_backbone=backbones["image_backbone"])
    pipeline.score(samples, config, progress=lambda *call: seen.append(call))
    assert [c for c in seen if c[0] == "features"] == [("features", i + 1, 6) for i in range(6)]
    assert seen[-1] == ("maps", 6, 6)


def test_progress_of_parts_counts_their_samples(samples, backbones, monkeypatch):
    """Also within a part: two halves may take minutes each."""
    monkeypatch.setattr("musc_jax.execution.dense._WORK_AT_ONCE", 1)
    seen = []
    config = Config(modality="rgb", image_size=32, image_backbone=backbones["image_backbone"])
    pipeline.score(samples, config, subsets=2, progress=lambda *call: seen.append(call))
    scoring = [(done, total) for stage, done, total in seen if stage == "scoring"]
    assert {stage for stage, *_ in seen} == {"features", "scoring"}
    assert scoring == sorted(scoring)
    assert [done for done, _ in dict.fromkeys(scoring)] == [0, 1, 2, 3, 4, 5, 6]
    assert scoring.count((6, 6)) == 1


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
        ({"points": np.zeros((32, 32, 3), np.float32)}, "0 points are fewer than the 16 of a group"),
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


class BlackIsTooMuch(VisionTransformer):
    """A backbone whose tokens of a black picture are NaN."""

    def __call__(self, images, **options):
        tokens = super().__call__(images, **options)
        black = (images < -1.7).all(axis=(1, 2, 3))[:, None, None]
        return tuple(jnp.where(black, jnp.nan, stage) for stage in tokens)


@pytest.fixture(scope="module")
def breaking(backbones):
    """A config and programs that break on a black picture."""
    image = backbones["image_backbone"]
    image = dataclasses.replace(image, module=BlackIsTooMuch(image.module.config))
    options = backbones | {"image_backbone": image}
    return Config(modality="rgb+points", image_size=32, grouping=GROUPS, **options), Programs()


SPOILED = {
    "features of its image are not finite": {"image": np.zeros((32, 32, 3), np.uint8)},
    "features of its points are not finite": {"points": np.full((32, 32, 3), np.nan, np.float32)},
    "15 points are fewer than the 16 of a group": {
        "points": np.pad(np.ones((3, 5, 3), np.float32), ((0, 29), (0, 27), (0, 0)))
    },
}


@pytest.mark.parametrize("problem", SPOILED)
def test_a_sample_that_cannot_be_scored_is_named_while_the_next_one_is_extracted(samples, breaking, problem):
    config, programs = breaking
    read = []

    def reading():
        for i, sample in enumerate(samples):
            read.append(sample.name)
            yield dataclasses.replace(sample, **SPOILED[problem]) if i == 2 else sample

    with pytest.raises(SampleError, match=f"^sample 002: {problem}.*; skip_bad leaves it out$"):
        pipeline.score(reading(), config, programs=programs)
    assert read in (["000", "001", "002"], ["000", "001", "002", "003"])


def test_a_refusal_leaves_no_file_open(samples, breaking, monkeypatch):
    """Windows would not let the folder of features be removed."""
    config, programs = breaking
    stores = []
    monkeypatch.setattr(pipeline, "FeatureStore", lambda path: stores.append(FeatureStore(path)) or stores[-1])
    monkeypatch.setattr("musc_jax.execution.memory._PROGRAMS", 0)
    spoiled = [*samples, dataclasses.replace(samples[0], image=np.zeros((32, 32, 3), np.uint8))]
    with pytest.raises(SampleError, match="features of its image"):
        pipeline.score(spoiled, config, programs=programs, memory_bytes=300_000)
    (store,) = stores
    assert store._writers
    assert all(writer._file.closed for writer in store._writers.values())


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("memory", ["plenty", "little"])
def test_what_is_left_out_is_as_if_it_had_not_been_there(samples, breaking, monkeypatch, at_once, memory):
    config, programs = breaking
    monkeypatch.setitem(resolved._IMAGES_AT_ONCE, "cpu", at_once)
    monkeypatch.setattr("musc_jax.execution.memory._PROGRAMS", 0)
    mixed = list(samples)
    for at, (i, change) in zip((1, 4, 8), enumerate(SPOILED.values()), strict=True):
        mixed.insert(at, dataclasses.replace(samples[i], name=f"bad {i}", **change))
    options = {"programs": programs, "memory_bytes": 10**9 if memory == "plenty" else 300_000}
    assert plan_for(config.resolved(), len(mixed), options["memory_bytes"]).on_disk == (memory == "little")
    want = pipeline.score(samples, config, **options)
    got = pipeline.score(mixed, config, skip_bad=True, **options)
    assert [(error.name, error.problem.removesuffix(" (group_size)")) for error in got.skipped] == [
        ("bad 0", "features of its image are not finite"),
        ("bad 1", "features of its points are not finite"),
        ("bad 2", "15 points are fewer than the 16 of a group"),
    ]
    assert [sample.name for sample in got.samples] == [sample.name for sample in samples]
    assert not want.skipped
    # On disk, a mean that also has a sample's sound modality shifts all alike; rank matching swaps on a rounding.
    tolerance = 0 if memory == "plenty" and at_once == 1 else 2e-3 * want.anomaly_maps.max()
    for one, other in zip(got[2:4], want[2:4], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def test_several_processes_leave_nothing_out(samples, breaking, monkeypatch):
    """Each has its share by the number of samples that there were."""
    config, programs = breaking
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    spoiled = [dataclasses.replace(samples[0], points=SPOILED["features of its points are not finite"]["points"])]
    with pytest.raises(SampleError, match=r"sample 000: features of its points .* several processes cannot leave it"):
        extract(spoiled, config.resolved(), programs, skipped=[])


def test_too_few_samples_that_can_be_scored(samples, breaking):
    config, programs = breaking
    spoiled = [dataclasses.replace(sample, points=np.zeros((32, 32, 3), np.float32)) for sample in samples[:2]]
    with pytest.raises(SampleError, match=r"sample 001: 0 points are fewer .*; without it N = 1: samples score"):
        pipeline.score([*spoiled, samples[2]], config, skip_bad=True, programs=programs)


class NoSummary(VisionTransformer):
    """A backbone whose embedding alone is NaN."""

    def __call__(self, images, **options):
        tokens, embedding = super().__call__(images, **options)
        return tokens, embedding * jnp.nan


def test_version_1_looks_at_its_embedding_too(samples, backbones):
    image = backbones["image_backbone"]
    image = dataclasses.replace(image, module=NoSummary(image.module.config))
    config = Config.v1(image_size=32, image_backbone=image)
    with pytest.raises(SampleError, match="sample 000: features of its image are not finite"):
        pipeline.score(samples, config)


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
    results = pipeline.score_extracted(features, seen, config, programs, parts=[np.array([1, 4]), np.array([0, 3])])
    assert [sample.name for sample in results.samples] == ["000", "001", "003", "004"]
    assert results.anomaly_maps.shape == (4, 32, 32)
