"""Tokens that are there already: scored as those of a backbone are, in one call."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import GROUPS, make_backbones, make_samples
from statement import clouds, maps

import musc_jax
from musc_jax import Config, pipeline
from musc_jax.config import ConfigError
from musc_jax.data import SampleError
from musc_jax.data.sample import SampleTokens
from musc_jax.execution.programs import Programs
from musc_jax.execution.raw_tokens import raw_tokens

COUNT = 5
PROGRAMS = Programs()


@functools.cache
def samples():
    return make_samples(COUNT)


@functools.cache
def config(modality, variant="released"):
    return Config(variant=variant, modality=modality, image_size=32, grouping=GROUPS, **make_backbones())


@functools.cache
def raw(modality, variant="released", inside=False):
    """Raw tokens by our own backbones, as the arguments of `score_features`."""
    own = with_regions() if inside else samples()
    found = [tokens for _, tokens in raw_tokens(own, config(modality, variant).resolved(), PROGRAMS)]
    image = [np.stack(stage) for stage in zip(*(tokens.image for tokens in found), strict=True)]
    points = [np.stack(stage) for stage in zip(*(tokens.points for tokens in found), strict=True)]
    given = {"tokens": image or None}
    if points:
        given |= {"points": points, "clouds": np.stack([sample.points for sample in samples()])}
        given |= {name: np.stack([getattr(tokens, name) for tokens in found]) for name in ("pixels", "curvature")}
    if variant == "v1":
        given["embeddings"] = np.stack([tokens.embedding for tokens in found])
    return given


def score(given, **options):
    given = dict(given)
    options = {"size": 32} | options
    return musc_jax.score_features(given.pop("tokens"), **given, **options)


def assert_equal(got, want):
    for name in ("pred_scores", "max_scores", "anomaly_maps"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
    for name in ("image", "points"):
        mine, theirs = getattr(got.patch_scores, name), getattr(want.patch_scores, name)
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            np.testing.assert_array_equal(mine, theirs, err_msg=name)


@pytest.mark.parametrize(
    ("modality", "variant"), [("rgb", "released"), ("points", "paper"), ("rgb+points", "released"), ("rgb", "v1")]
)
def test_tokens_of_our_backbones_give_the_same_bits(modality, variant):
    want = pipeline.score(samples(), config(modality, variant), programs=PROGRAMS)
    options = {"windows": config(modality, variant).rescoring.windows}
    assert_equal(score(raw(modality, variant), variant=variant, **options), want)


ROI = np.arange(32)[None] + np.arange(32)[:, None] > 20


def with_regions():
    return [dataclasses.replace(sample, roi=ROI) for sample in samples()]


def test_tokens_of_regions_of_interest_give_the_same_bits():
    want = pipeline.score(with_regions(), config("rgb+points"), programs=PROGRAMS)
    assert_equal(score(raw("rgb+points", inside=True), roi=ROI), want)


def test_tokens_outside_never_count():
    """Whatever they are; groups lie outside, too, and stay where they are."""
    given = raw("rgb+points")
    want = score(given, roi=ROI, aggregated=True)
    cells = ROI.reshape(4, 8, 4, 8).any((1, 3)).reshape(-1)
    groups = ROI.reshape(-1)[given["pixels"]]
    assert not cells.all()
    assert not groups.all()
    spoilt = given | {
        "tokens": [np.where(cells[None, :, None], stage, 7) for stage in given["tokens"]],
        "points": [np.where(groups[..., None], stage, -5) for stage in given["points"]],
    }
    assert_equal(score(spoilt, roi=np.stack([ROI] * COUNT), aggregated=True), want)
    assert not want.anomaly_maps[:, ~ROI].any()
    plain = score(given, aggregated=True)
    assert np.abs(want.anomaly_maps - plain.anomaly_maps)[:, ROI].max() > 1e-2 * plain.anomaly_maps.max()


def test_points_are_interpolated_between_groups_inside():
    """Groups outside are nobody's nearest, although they may be nearer."""
    given = raw("points")
    found = score(given, roi=ROI, aggregated=True)
    for i, cloud in enumerate(given["clouds"]):
        points, valid = clouds.normalize(cloud)
        pixels = given["pixels"][i]
        values, counts = np.asarray(found.patch_scores.points[i], np.float64), ROI.reshape(-1)[pixels]
        want = maps.point_map(points, valid, points[pixels], values, 32, counts, ROI)
        # Weights of points at a centre change by as much as their tiny distances do in float32.
        np.testing.assert_allclose(found.anomaly_maps[i], want, atol=1e-4 * want.max())


def test_groups_that_all_lie_outside_name_their_sample():
    given = raw("points")
    regions = np.ones((COUNT, 32, 32), bool)
    regions[2] = ~np.isin(np.arange(32 * 32), given["pixels"][2]).reshape(32, 32) & (np.arange(32) > 3)
    regions[2].reshape(-1)[given["pixels"][2]] = False
    with pytest.raises(SampleError, match=r"^sample 2: no group of its tokens lies inside of its region of interest"):
        score(given, roi=regions)


OPTIONS = {
    "degrees": ((1,), {"aggregation": {"degrees": (1,)}}),
    "curvature_threshold": (1e-6, {"grouping": {"curvature_threshold": 1e-6}}),
    "interval": (0.9, {"scoring": {"interval": 0.9}}),
    "references": (2, {"scoring": {"references": 2}}),
    "nearest_images": (1, {"scoring": {"nearest_images": 1}}),
    "windows": ((2,), {"rescoring": {"windows": (2,)}}),
    "ablate": (("cae",), {"ablate": ("cae",)}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_arrives(name):
    """The threshold also decides which groups are expanded, so that one is not compared with the whole run."""
    value, changes = OPTIONS[name]
    got = score(raw("rgb+points"), **{name: value})
    plain = score(raw("rgb+points"))
    changed = "pred_scores" if name == "windows" else "anomaly_maps"
    assert np.abs(getattr(got, changed) - getattr(plain, changed)).max() > 1e-5
    if name == "curvature_threshold":
        return
    own = config("rgb+points")
    for field, values in changes.items():
        inner = dataclasses.replace(getattr(own, field), **values) if isinstance(values, dict) else values
        own = dataclasses.replace(own, **{field: inner})
    assert_equal(got, pipeline.score(samples(), own, programs=PROGRAMS))


def test_precision_seed_and_form_arrive(monkeypatch):
    seen = []

    def stop(samples, config, **others):
        seen.extend((config, others))
        raise InterruptedError

    monkeypatch.setattr(pipeline, "score", stop)
    options = {"precision": "fast", "references": 2, "seed": 7, "implementation": "plain", "recurring": "report"}
    with pytest.raises(InterruptedError):
        score(raw("rgb"), skip_bad=True, memory_bytes=5, **options)
    own, others = seen
    assert (own.scoring.precision, own.scoring.references, own.scoring.seed) == ("fast", 2, 7)
    assert (own.implementation, own.scoring.recurring) == ("plain", "report")
    assert (others["skip_bad"], others["memory_bytes"]) == (True, 5)


def test_aggregated_tokens_are_scored_as_they_are():
    """SNAMD beforehand, mapped over the samples, is what the call does otherwise; sums may round in another order."""
    given = raw("rgb+points")
    grid = jax.jit(jax.vmap(musc_jax.snamd_grid))
    groups = jax.jit(jax.vmap(musc_jax.snamd_points))
    centers = np.stack([m.reshape(-1, 3)[p] for m, p in zip(given["clouds"], given["pixels"], strict=True)])
    mine = given | {
        "tokens": [grid(stage) for stage in given["tokens"]],
        "points": [groups(stage, centers, given["curvature"]) for stage in given["points"]],
    }
    want = score(given)
    got = score(mine, aggregated=True)
    # Ranks of nearly equal scores may swap on a rounding.
    np.testing.assert_allclose(got.anomaly_maps, want.anomaly_maps, atol=2e-3 * want.anomaly_maps.max())
    twice = score(mine)
    assert np.abs(twice.anomaly_maps - want.anomaly_maps).max() > 1e-2 * want.anomaly_maps.max()


def test_aggregated_groups_may_be_fewer_than_degrees():
    given = {"points": _f(2, 4, 3), "clouds": _f(2, 8, 8, 3), "pixels": np.array([[0, 7, 9, 60]] * 2)}
    given["points"][1, 2] = 0
    # All but one of the tokens are the same, so only the sample that has the other one stands out.
    alike, odd = musc_jax.score_features(None, **given, aggregated=True).max_scores
    assert 0 <= alike < 0.1 < odd


def test_features_that_do_not_fit_into_memory_give_the_same(tmp_path):
    given, kept = {"tokens": [np.tile(stage, 64) for stage in raw("rgb")["tokens"]]}, set()
    progress = lambda stage, *_: kept.add((stage, any(tmp_path.iterdir())))  # noqa: E731
    got = score(given, memory_bytes=108_300_000, scratch_dir=tmp_path, progress=progress)
    np.testing.assert_allclose(got.max_scores, score(given).max_scores, rtol=1e-5)
    assert {("features", True), ("maps", True)} <= kept
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_types_count_as_the_float32_that_they_are(dtype):
    (stage, *_) = raw("rgb")["tokens"]
    narrow = stage.astype(jnp.dtype(dtype))
    assert_equal(score({"tokens": narrow}), score({"tokens": narrow.astype(np.float32)}))


def test_a_category_of_tokens_alone_needs_no_size():
    rng = np.random.default_rng(0)
    tokens = (rng.normal(size=(49, 8)) + 0.1 * rng.normal(size=(4, 49, 8))).astype(np.float32)
    tokens[2, 24] += 9
    results = musc_jax.score_features(tokens, names=["a", "b", "c", "d"])
    assert results.anomaly_maps.shape == (4, 224, 224)
    assert results.max_scores.argmax() == 2
    assert [sample.name for sample in results.samples] == ["a", "b", "c", "d"]


def test_stages_may_differ_in_their_channels():
    """As those of a convolutional network; a channel of zeros more changes nothing."""
    first, *others = raw("rgb")["tokens"]
    got = score({"tokens": [np.pad(first, ((0, 0), (0, 0), (0, 8))), *others]})
    np.testing.assert_allclose(got.anomaly_maps, score({"tokens": [first, *others]}).anomaly_maps, atol=1e-5)


def test_a_group_where_no_point_is_names_its_sample():
    given = raw("points")
    pixels = given["pixels"].copy()
    pixels[3, 7] = 5  # the first two rows are empty
    with pytest.raises(SampleError, match=r"^sample 3: group 7 of its tokens lies at pixel 5, where .* no point"):
        score(given | {"pixels": pixels})
    left = score(given | {"pixels": pixels}, skip_bad=True)
    assert [error.name for error in left.skipped] == ["3"]


def test_values_that_are_not_finite_name_their_sample():
    tokens = raw("rgb")["tokens"][0].copy()
    tokens[1, 3, 5] = np.nan
    with pytest.raises(SampleError, match=r"^sample 1: features of its image are not finite"):
        score({"tokens": tokens})


def _f(*shape):
    return np.ones(shape, np.float32)


CLOUD = {"points": _f(2, 5, 3), "clouds": _f(2, 8, 8, 3), "pixels": np.zeros((2, 5), int)}
WRONG = {
    "nothing": ((None,), {}, "expected tokens of images, of points or of both"),
    "a class token": ((_f(2, 197, 8),), {}, "197 tokens are 14 x 14 patches and 1 more; leave out the class token"),
    "registers": ((_f(2, 201, 8),), {}, "14 x 14 patches and 5 more; leave out class and register tokens"),
    "no square": ((_f(2, 12, 8),), {}, "12 tokens are no square grid of patches"),
    "one sample's": ((_f(16, 8),), {}, r"\(samples, tokens, channels\) for each stage, .*; received \(16, 8\)$"),
    "stages that differ": (([_f(2, 4, 8), _f(2, 9, 8)],), {}, "as many samples and tokens in all of them"),
    "no stages": (([],), {}, "received none"),
    "no samples": ((_f(0, 4, 8),), {}, "for each stage"),
    "one": ((_f(1, 4, 8),), {}, "N = 1: samples score each other"),
    "integers": ((np.ones((2, 4, 8), int),), {}, "tokens: expected floating point values, received int64"),
    "points without clouds": ((None,), {"points": _f(2, 5, 3)}, "clouds: points need them"),
    "clouds without points": ((_f(2, 4, 8),), {"clouds": _f(2, 8, 8, 3)}, "clouds: belongs to points"),
    "other samples": ((_f(3, 4, 8),), CLOUD, "points: expected those of 3 samples"),
    "pixels outside": ((None,), CLOUD | {"pixels": np.full((2, 5), 64)}, "pixels: expected indices from 0 to 63"),
    "pixels of others": ((None,), CLOUD | {"pixels": np.zeros((2, 4), int)}, r"pixels: expected shape \(2, 5\)"),
    "another size": ((None,), CLOUD | {"size": 9}, r"clouds: expected \(2, 9, 9, 3\), received \(2, 8, 8, 3\)"),
    "a grid that meets no pixels": ((_f(2, 9, 8),), CLOUD, "a multiple of 3, received 8; for example 9"),
    "stages apart": (([_f(2, 4, 8)] * 2,), CLOUD, "expected 1 image blocks, received 2"),
    "degrees": ((None,), CLOUD | {"degrees": (7,)}, "degrees: expected numbers up to num_groups = 5"),
    "version 1": ((_f(2, 4, 8),), {"variant": "v1"}, "an embedding of each image, received none"),
    "grouping": ((None,), CLOUD | {"ablate": ("ipg",)}, "'ipg' changes nothing"),
    "pooling": ((_f(2, 4, 8),), {"ablate": ("swpooling",), "aggregated": True}, "'swpooling' changes nothing"),
    "names": ((_f(2, 4, 8),), {"names": ["a", "a"]}, "names: expected 2 different ones"),
    "a region of other pixels": ((_f(2, 4, 8),), {"roi": np.ones((9, 9), bool)}, r"roi: expected \(2, 224, 224\) or"),
    "a region of numbers": ((_f(2, 4, 8),), {"roi": np.ones((224, 224), int)}, "roi: expected True or False, received"),
    "interval": ((_f(2, 4, 8),), {"interval": 2.0}, "interval: expected a share"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name):
    args, options, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        musc_jax.score_features(*args, **options)


def test_tensors_that_are_no_arrays_are_refused_with_the_way_out(unchecked):
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    with pytest.raises(ValueError, match=r"^tokens: .*cuda.*; pass tensor\.detach\(\)\.float\(\)\.cpu\(\)\.numpy\(\)$"):
        musc_jax.score_features(Tensor())


def test_a_sample_without_the_tokens_that_the_config_speaks_of_is_named():
    given = musc_jax.models.GivenTokens(num_tokens=4, widths=(8,), image_size=32)
    own = Config(modality="rgb", image_backbone=given)
    tokens = [SampleTokens(image=(_f(4, 8),)), SampleTokens(image=(_f(4, 7),))]
    there = [dataclasses.replace(s, tokens=t) for s, t in zip(samples(), tokens, strict=False)]
    with pytest.raises(SampleError, match=r"^sample 001: .*expected stages \(4, 8\), received \(4, 7\)"):
        pipeline.score(there, own)
    with pytest.raises(SampleError, match=r"^sample 000: .*received none"):
        pipeline.score(samples(), own)
    with pytest.raises(ConfigError, match="blocks: given tokens has blocks 0 to 0"):
        dataclasses.replace(own, blocks=(1,)).resolved()
