"""Batches of clouds, images and maps: their size, and what fills the last one up, changes no number."""

import dataclasses

import jax
import numpy as np
import pytest
from scenes import GROUPS, make_backbones, make_samples

from musc_jax import Config, pipeline, resolved
from musc_jax.execution.devices import over_samples
from musc_jax.execution.extraction import extract
from musc_jax.execution.feature_store import FeatureStore
from musc_jax.execution.programs import Programs
from musc_jax.execution.raw_tokens import raw_tokens
from musc_jax.models import GivenTokens
from musc_jax.tokens import is_point, unit_cloud

COUNT = 5
SIZES = [3, 4, COUNT]  # with two and three to fill up, and none


class Counted(Programs):
    """Keeps how many samples went into each call, by stage."""

    def __init__(self):
        super().__init__()
        self.sizes = {}

    def run(self, stage, function, *args, **options):
        if stage != "mutual scoring":
            self.sizes.setdefault(stage, []).append(len(jax.tree.leaves(args)[-1]))
        return super().run(stage, function, *args, **options)


@pytest.fixture(scope="module")
def samples():
    return make_samples(COUNT)


@pytest.fixture(scope="module")
def usual(samples):
    """By modality, and ablation where there is one, what one at a time gives."""
    found = {}

    def score(**options):
        key = tuple(options.items())
        if key not in found:
            found[key] = pipeline.score(samples, make_config(**options))
        return found[key]

    return score


def make_config(**options):
    return Config(image_size=32, grouping=GROUPS, **options, **make_backbones())


@pytest.fixture
def at_once(monkeypatch):
    """Forces sizes of batches on this platform."""

    def force(size):
        monkeypatch.setitem(resolved._CLOUDS_AT_ONCE, "cpu", size)
        monkeypatch.setitem(resolved._IMAGES_AT_ONCE, "cpu", size)

    return force


def assert_same(got, want, share):
    for name in ("anomaly_maps", "max_scores", "pred_scores"):
        one, other = getattr(got, name), getattr(want, name)
        # Sample scores are stretched to 0 to 1, and their errors with them.
        atol = share * (1 if name != "pred_scores" else 10) * np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{"modality": "points"}, {"modality": "rgb+points", "ablate": ("cae",)}])
def test_the_size_of_a_batch_changes_nothing(samples, usual, at_once, options, size):
    want = usual(**options)
    at_once(size)
    programs = Counted()
    got = pipeline.score(samples, make_config(**options), programs=programs)
    batches = -(-COUNT // size)
    # Each is called for every batch: sampling, grouping; the backbone; aggregation; maps of each modality.
    assert programs.sizes["point grouping"] == [size] * 2 * batches
    assert programs.sizes["point backbone"] == programs.sizes["point aggregation"] == [size] * batches
    assert programs.sizes["maps"] == [size] * batches * (2 if "rgb" in options["modality"] else 1)
    # Without rank matching nothing but rounding is left.
    assert_same(got, want, 1e-5)


def test_with_rank_matching(samples, usual, at_once):
    want = usual(modality="rgb+points")
    at_once(3)
    # It swaps values next to each other in rank on a rounding.
    assert_same(pipeline.score(samples, make_config(modality="rgb+points")), want, 2e-3)


def test_features_on_the_disk_and_a_sample_left_out(samples, usual, at_once, tmp_path):
    """The one that is left out lies in the middle of a batch."""
    at_once(3)
    broken = dataclasses.replace(samples[0], name="broken", points=np.full((32, 32, 3), np.nan, np.float32))
    config, skipped = make_config(modality="points").resolved(), []
    mixed = [*samples[:1], broken, *samples[1:]]
    features, seen = extract(mixed, config, Programs(), store=FeatureStore(tmp_path), skipped=skipped)
    assert [error.name for error in skipped] == ["broken"]
    assert [sample.name for sample in seen] == [sample.name for sample in samples]
    got = pipeline.score_extracted(features, seen, config, Programs())
    assert_same(got, usual(modality="points"), 1e-5)


def test_tokens_that_are_kept_are_those_of_the_run(samples, at_once):
    at_once(3)
    config, few = make_config(modality="rgb+points"), dataclasses.replace(samples[1], points=np.zeros((32, 32, 3), "f"))
    found = list(raw_tokens([samples[0], few, *samples[1:]], config.resolved(), Programs()))
    assert "0 points are fewer" in str(found.pop(1)[1])
    tokens = [dataclasses.replace(sample, tokens=own) for sample, own in found]
    image, points = GivenTokens(16, (32,) * 3), GivenTokens(40, (24,) * 3)
    given = dataclasses.replace(config, image_backbone=image, point_backbone=points)
    want = pipeline.score(samples, config)
    # The cloud that was left out is no longer in its batch, and ranks may swap on a rounding.
    assert_same(pipeline.score(tokens, given), want, 2e-3)


def test_a_part_of_a_batch_is_mapped_together():
    """Seven in threes; and one alone meets the function as it is."""
    seen = []

    def function(common, x, *, add):
        seen.append((common.shape, x.shape))
        return {"sum": common + x.sum() + add}

    x, common = np.arange(14, dtype=np.float32).reshape(7, 2), np.float32([1])
    for together in (None, 3, 7, 9):
        mapped = over_samples(function, shared=1, together=together)
        assert mapped is over_samples(function, shared=1, together=together)
        np.testing.assert_array_equal(mapped(common, x, add=2)["sum"][:, 0], x.sum(1) + 3)
    np.testing.assert_array_equal(over_samples(function, shared=1)(common, x[:1], add=2)["sum"], [[4]])
    assert set(seen) == {((1,), (2,))}


@pytest.mark.parametrize("offset", [0.0, 0.6, 900.0])
def test_a_cloud_is_centred_as_in_float64(rng, offset):
    """Also where it lies far away, by metres or, in millimetres, by hundreds of them."""
    points = (rng.uniform(-0.05, 0.05, (40, 40, 3)) + offset + 0.1).astype(np.float32)
    points[rng.random((40, 40)) < 0.3] = 0
    valid = is_point(points).reshape(-1)
    got = jax.jit(jax.vmap(unit_cloud))(points.reshape(1, -1, 3), valid[None])[0]
    wide = points.reshape(-1, 3).astype(np.float64)
    wide -= wide[valid].mean(0)
    wide /= np.linalg.norm(wide[valid], axis=1).max()
    assert got.dtype == np.float32
    # Only the result is rounded: to half of the last bit, or to the next number where a sum ends near the middle.
    np.testing.assert_allclose(got, np.where(valid[:, None], wide, 0), rtol=2**-23, atol=1e-12)


def test_a_cloud_without_a_point_is_no_nan():
    got = jax.jit(unit_cloud)(np.ones((4, 3), np.float32), np.zeros(4, bool))
    np.testing.assert_array_equal(got, np.zeros((4, 3)))
