"""Run by `test_sharding.py` where JAX has four devices: sharded scoring equals that of one device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import GROUPS, make_backbones, make_samples
from test_mutual import naive_mutual, units
from test_recurring import parts, score

import musc_jax
from musc_jax import Config, pipeline
from musc_jax.config import ScoringConfig
from musc_jax.execution import devices, sharded
from musc_jax.execution.devices import to_global
from musc_jax.execution.programs import Programs
from musc_jax.execution.raw_tokens import raw_tokens
from musc_jax.execution.schedule import Machine, Products
from musc_jax.models import GivenTokens
from musc_jax.mutual import AverageInterval
from musc_jax.references import draw_references


@pytest.fixture(scope="module")
def backbones():
    return make_backbones()


@pytest.fixture(scope="module")
def samples():
    return make_samples(7)


def mesh_of(count):
    return devices.make_mesh(jax.devices()[:count])


@pytest.mark.parametrize(
    ("devices", "count"), [*((4, n) for n in range(2, 10)), (3, 2), (3, 7), (2, 3), (2, 6), (1, 3)]
)
def test_mutual_scores(rng, devices, count):
    """Also far from the origin, where devices that subtract different means would not agree."""
    features, mesh = units(rng, count, 11, 7) + np.float32(5), mesh_of(devices)
    program = jax.jit(lambda z: sharded.sharded_mutual_scores(z, mesh, interval=0.4))
    got = program(features)
    assert got.sharding.is_fully_replicated
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, naive_mutual(features, 0.4), atol=1e-5)
    np.testing.assert_array_equal(got, program(features))


@pytest.mark.parametrize(
    ("devices", "count", "options"),
    [
        (4, 9, {"variant": "released"}),
        (4, 6, {"variant": "paper", "interval": 0.5}),
        (3, 5, {"variant": "released", "trust": False}),
        (2, 3, {"enhancement": False}),
    ],
)
def test_multimodal_scores(rng, devices, count, options):
    image, points, mesh = units(rng, count, 9, 7), units(rng, count, 13, 5), mesh_of(devices)
    arrays = image, points, rng.integers(0, 9, (count, 13))
    program = jax.jit(lambda *a: sharded.sharded_multimodal_scores(*a, mesh, **options))
    want = jax.jit(lambda *a: musc_jax.multimodal_scores(*a, **options))(*arrays)
    got = program(*arrays)
    for a, b, again in zip(got, want, program(*arrays), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_array_equal(a, again)


@pytest.mark.parametrize(
    "options", [{"precision": "fast"}, {"precision": "accurate"}, {"references": 3, "seed": 2}, {"references": 99}]
)
def test_options_of_mutual_scores(rng, options):
    features, mesh = units(rng, 7, 11, 8), mesh_of(4)
    got = jax.jit(lambda z: sharded.sharded_mutual_scores(z, mesh, **options))(features)
    want = jax.jit(lambda z: musc_jax.mutual_scores(z, **options))(features)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(("devices", "count"), [(4, 9), (4, 16), (3, 7), (2, 5)])
def test_pairs_in_blocks(rng, devices, count):
    """Shares of odd and even size, opposite devices and none, blocks with something to fill up."""
    features, mesh = units(rng, count, 11, 7) + np.float32(5), mesh_of(devices)
    products = Products(tokens_at_once=22, samples_at_once=2)
    machine, stages = Machine(Programs(), mesh=mesh), [to_global(features, count, mesh)]
    (got,) = sharded.score_stage(stages, AverageInterval(0.4), draw_references(count), machine, products=products)
    np.testing.assert_allclose(got, naive_mutual(features, 0.4), atol=1e-5)


def test_padding_takes_no_part(rng):
    """Whatever it holds."""
    features, mesh = units(rng, 5, 11, 7), mesh_of(4)
    program = jax.jit(lambda z: sharded.sharded_mutual_scores(z, mesh, count=5))
    want = naive_mutual(features, 0.3)
    for content in (0, 1e6, np.nan):
        filled = np.concatenate([features, np.full((3, 11, 7), content, np.float32)])
        np.testing.assert_allclose(program(filled), want, atol=1e-5)


def test_a_broken_sample_is_no_perfect_match(rng):
    features, mesh = units(rng, 6, 7, 5), mesh_of(4)
    features[2, 3] = np.nan
    assert np.isnan(jax.jit(lambda z: sharded.sharded_mutual_scores(z, mesh))(features)[2]).all()


def test_every_sample_is_extracted_where_it_is_scored(rng):
    features, mesh = units(rng, 6, 11, 7), mesh_of(4)
    assert devices.samples_of_process(6, mesh) == range(6)
    spread = devices.to_global(features, 6, mesh)
    assert spread.shape == (8, 11, 7)
    for shard, device in zip(spread.addressable_shards, mesh.devices.flat, strict=True):
        assert shard.device == device
        np.testing.assert_array_equal(np.asarray(shard.data)[: max(0, 6 - shard.index[0].start)], features[shard.index])


@pytest.mark.parametrize(
    ("options", "subsets"),
    [
        ({"modality": "points"}, 1),
        ({"modality": "rgb+points"}, 2),
        ({"modality": "rgb+points", "scoring": ScoringConfig(references=2, seed=1)}, 1),
        ({"modality": "rgb+points", "scoring": ScoringConfig(nearest_images=2)}, 1),
        ({"modality": "points", "scoring": ScoringConfig(nearest_images=1)}, 2),
        ({"variant": "v1", "modality": "rgb"}, 2),
    ],
)
def test_the_whole_pipeline(samples, backbones, options, subsets):
    """Seven samples on four devices: the last one has one sample and one repeated."""
    config = Config(image_size=32, grouping=GROUPS, **options, **backbones)
    want = pipeline.score(samples, config, mesh=mesh_of(1), subsets=subsets)
    got = pipeline.score(samples, config, subsets=subsets)
    assert [sample.name for sample in got.samples] == [sample.name for sample in samples]
    # Rank matching swaps neighbours in rank on a rounding; without it nothing but rounding is left.
    tolerance = 2e-3 if options["modality"] == "rgb+points" else 1e-5
    np.testing.assert_allclose(got.anomaly_maps, want.anomaly_maps, atol=tolerance * want.anomaly_maps.max())
    np.testing.assert_allclose(got.pred_scores, want.pred_scores, atol=max(tolerance, 1e-4))


@pytest.mark.parametrize("silent", [(), (2, 5)])
def test_regions_of_interest_and_samples_that_do_not_vouch(samples, backbones, silent):
    """Each device masks its own samples' tokens, and those that come by."""
    config = Config(modality="rgb+points", image_size=32, grouping=GROUPS, **backbones)
    samples = [dataclasses.replace(sample, vouches=i not in silent) for i, sample in enumerate(samples)]
    column = np.arange(32)[None] + np.zeros((32, 1), int)
    regions = [(column < 24 + i) & (column > 2 * i) for i in range(6)]
    inside = [dataclasses.replace(s, roi=roi) for s, roi in zip(samples, [*regions, None], strict=True)]
    want, got = pipeline.score(inside, config, mesh=mesh_of(1)), pipeline.score(inside, config)
    np.testing.assert_allclose(got.anomaly_maps, want.anomaly_maps, atol=2e-3 * want.anomaly_maps.max())
    np.testing.assert_allclose(got.pred_scores, want.pred_scores, atol=2e-3)
    assert not any(map_[~roi].any() for map_, roi in zip(got.anomaly_maps, regions, strict=False))


def test_what_recurs_is_found_wherever_it_lies(rng):
    stages, _ = parts(rng, 0.2)
    want, got = (score(stages, "filter", mesh=mesh_of(count)) for count in (1, 4))
    assert got.recurring == want.recurring != ()
    np.testing.assert_allclose(got.patch_scores.image, want.patch_scores.image, atol=1e-5)


@pytest.mark.parametrize("options", [{"modality": "rgb+points"}, {"variant": "v1", "modality": "rgb"}])
def test_tokens_that_are_given(samples, backbones, options):
    config = Config(image_size=32, grouping=GROUPS, **options, **backbones)
    want, found = pipeline.score(samples, config), list(raw_tokens(samples, config.resolved(), Programs()))
    tokens = [dataclasses.replace(sample, tokens=own) for sample, own in found]
    image = GivenTokens(16, (32,) * 3, embedded=True)
    given = dataclasses.replace(config, image_backbone=image, point_backbone=GivenTokens(40, (24,) * 3))
    got = pipeline.score(tokens, given)
    # Ranks of nearly equal scores may swap on a rounding.
    np.testing.assert_allclose(got.anomaly_maps, want.anomaly_maps, atol=2e-3 * want.anomaly_maps.max())
    aggregated = dataclasses.replace(given, image_backbone=dataclasses.replace(image, aggregated=True))
    assert np.isfinite(pipeline.score(tokens, aggregated).anomaly_maps).all()


def test_what_is_left_out_is_on_no_device(samples, backbones):
    """Seven of eight stay: each device has other samples than it extracted."""
    config = Config(modality="rgb+points", image_size=32, grouping=GROUPS, **backbones)
    spoiled = dataclasses.replace(samples[0], name="spoiled", points=np.full((32, 32, 3), np.nan, np.float32))
    want = pipeline.score(samples, config)
    got = pipeline.score([*samples[:1], spoiled, *samples[1:]], config, skip_bad=True)
    assert [error.name for error in got.skipped] == ["spoiled"]
    assert [sample.name for sample in got.samples] == [sample.name for sample in samples]
    np.testing.assert_allclose(got.anomaly_maps, want.anomaly_maps, atol=2e-3 * want.anomaly_maps.max())


def test_what_does_not_fit_on_all_goes_to_the_disk(samples, backbones):
    config = Config(modality="rgb", image_size=32, **backbones)
    want = pipeline.score(samples, config, mesh=mesh_of(1))
    budget = int((90_000_000 + 7 * 32 * 32 * 16 + 30_000) / 0.85)
    assert pipeline.plan_for(config.resolved(), 7, budget, mesh_of(4)).on_disk
    got = pipeline.score(samples, config, memory_bytes=budget)
    np.testing.assert_allclose(got.anomaly_maps, want.anomaly_maps, atol=1e-5)


def _tokens(weights, images, *, power):
    return tuple(jnp.matmul(images**power, w) for w in weights)


def test_extraction_runs_on_every_device(rng):
    weights, images, mesh = [rng.normal(size=(5, k)) for k in (3, 4)], rng.normal(size=(8, 6, 5)), mesh_of(4)
    weights, images = jax.tree.map(jnp.float32, (weights, images))
    function = devices.over_devices(_tokens, mesh, shared=1)
    assert function is devices.over_devices(_tokens, mesh, shared=1)
    got = jax.jit(function, static_argnames="power")(weights, images, power=2)
    for a, b in zip(got, _tokens(weights, images, power=2), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
        assert [shard.device for shard in a.addressable_shards] == list(mesh.devices.flat)
        assert {shard.data.shape[0] for shard in a.addressable_shards} == {2}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, mesh: sharded.sharded_mutual_scores(f[:1], mesh), "N = 1"),
        (lambda f, mesh: sharded.sharded_mutual_scores(f, mesh, count=1), "N = 1"),
        (lambda f, mesh: sharded.sharded_mutual_scores(f, mesh, count=6), "at most the 5"),
        (lambda f, mesh: sharded.sharded_mutual_scores(f, mesh, interval=0.0), "interval"),
        (lambda f, mesh: sharded.sharded_mutual_scores(f, mesh, precision="half"), "precision"),
        (lambda f, mesh: sharded.sharded_mutual_scores(f, jax.make_mesh((2, 2), ("x", "y"))), "mesh"),
        (lambda f, mesh: devices.to_global(f, 6, mesh), "6 of 6 samples, received 5"),
    ],
)
def test_bad_arguments_are_named(rng, call, message):
    with pytest.raises(ValueError, match=message):
        call(units(rng, 5, 4, 3), mesh_of(4))
