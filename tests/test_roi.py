"""Region of interest: what is outside never counts, neither as a defect nor as a match, in any step."""

import dataclasses
import re

import numpy as np
import pytest
import tiny
from sklearn.metrics import roc_auc_score
from statement import margins
from statement.whole import Options, Outcome, run
from switches import BASES

from launch.evaluation import _metrics
from musc_jax import pipeline
from musc_jax.data import SampleError
from musc_jax.execution.extraction import Features
from musc_jax.execution.image_extraction import ImageFeatures
from musc_jax.execution.inside import Inside, patches_inside
from musc_jax.execution.memory import BudgetError
from musc_jax.execution.scoring import PatchScores, salient_features
from musc_jax.report import color_scale

SIZE = 32
CASES = BASES | {
    "nearest": ({"modality": "rgb", "scoring.nearest_images": 2}, {"points": False, "nearest_images": 2}),
}


def regions():
    """One a sample, of other shapes; the last one but one has none."""
    y, x = np.mgrid[:SIZE, :SIZE]
    found = [(x < 18 + 2 * i) & (y > 5 + i) & ~((x > 10) & (y > 24)) for i in range(tiny.COUNT)]
    return [*found[:-2], None, found[-1]]


def with_regions(samples, rois=None):
    return [dataclasses.replace(s, roi=roi) for s, roi in zip(samples, rois or regions(), strict=True)]


def found_inside(samples):
    return [np.ones((SIZE, SIZE), bool) if sample.roi is None else sample.roi for sample in samples]


def scored(base, samples=None, **options):
    config = tiny.make_config(**CASES[base][0])
    tiny.PROGRAMS.salient = None
    samples = with_regions(tiny.samples(SIZE)) if samples is None else samples
    results = pipeline.score(samples, config, programs=tiny.PROGRAMS, **options)
    patches = (None if scores is None else np.asarray(scores) for scores in results.patch_scores)
    outcome = Outcome(results.anomaly_maps, results.pred_scores, results.max_scores, *patches, tiny.PROGRAMS.salient)
    return outcome._asdict()


def stated(base):
    with margins.measured() as gaps:
        options = Options(**CASES[base][1])
        samples = with_regions(tiny.samples(SIZE))
        outcome = run(samples, tiny.image_backbone(), tiny.point_backbone(), options)
    assert not margins.too_small(gaps), "take other regions: float32 could decide otherwise here"
    return outcome._asdict()


@pytest.mark.parametrize("base", ["rgb", "points", "both", "paper", "v1", "few of both", "nearest"])
def test_scores_are_as_stated(base):
    got = scored(base)
    tiny.assert_same(got, stated(base))
    for roi, anomaly_map in zip(regions(), got["anomaly_maps"], strict=True):
        assert roi is None or not anomaly_map[~roi].any()
    plain = tiny.score(tuple(sorted(CASES[base][0].items()))).outcome.anomaly_maps
    inside = np.stack(found_inside(with_regions(tiny.samples(SIZE))))
    assert np.abs(plain - got["anomaly_maps"])[inside].max() > 1e-2 * plain.max()


@pytest.mark.parametrize("base", ["both", "nearest"])
def test_features_on_disk_are_scored_likewise(base, tmp_path):
    with pytest.raises(BudgetError) as refused:
        scored(base, memory_bytes=1)
    least = float(re.search(r"--memory_gb to ([\d.]+)", str(refused.value))[1])
    tiny.assert_same(scored(base, memory_bytes=int(least * 1e9), scratch_dir=tmp_path), stated(base))


def test_subsets_are_scored_with_their_own_regions():
    """Part by part, in whatever order they are drawn."""
    samples = with_regions(tiny.samples(SIZE))
    parts = pipeline.divide(len(samples), subsets=2, batch_size=None, seed=0)
    got = scored("rgb", subsets=2)
    for part in parts:
        alone = scored("rgb", [samples[i] for i in part])
        np.testing.assert_allclose(got["anomaly_maps"][part], alone["anomaly_maps"], atol=1e-6)


def test_what_is_outside_changes_nothing():
    """Bit by bit, whatever is there."""
    rng = np.random.default_rng(0)
    plain = scored("both")
    others = []
    for sample in with_regions(tiny.samples(SIZE)):
        keep = np.ones((SIZE, SIZE), bool) if sample.roi is None else sample.roi
        image = np.where(keep[..., None], sample.image, rng.integers(0, 256, sample.image.shape).astype(np.uint8))
        points = np.where(keep[..., None], sample.points, rng.normal(size=sample.points.shape).astype(np.float32))
        others.append(dataclasses.replace(sample, image=image, points=points))
    for name, values in scored("both", others).items():
        np.testing.assert_array_equal(values, plain[name], err_msg=name)


def test_a_region_of_everything_is_none(monkeypatch):
    """The same programs, no mask among what they are given."""
    seen = []

    def watch(stage, function, *args, **options):
        seen.append((stage, function, args))
        return type(tiny.PROGRAMS).run(tiny.PROGRAMS, stage, function, *args, **options)

    samples = tiny.samples(SIZE)
    plain = scored("both", samples)
    compiled = tiny.PROGRAMS.count
    monkeypatch.setattr(tiny.PROGRAMS, "run", watch)
    whole = [np.ones((SIZE, SIZE), bool)] * tiny.COUNT
    for name, values in scored("both", with_regions(samples, whole)).items():
        np.testing.assert_array_equal(values, plain[name], err_msg=name)
    assert tiny.PROGRAMS.count == compiled
    mutual = [args for stage, _, args in seen if stage == "mutual scoring"]
    assert mutual
    assert not [x for args in mutual for x in tiny.jax.tree.leaves(args) if x.dtype == bool]
    assert not [function for _, function, _ in seen if "inside" in function.__name__]
    seen.clear()
    scored("both")
    assert [function for _, function, _ in seen if "inside" in function.__name__]


def test_metrics_and_colours_are_those_of_what_is_inside():
    samples = with_regions(tiny.samples(SIZE))
    maps = np.stack([np.where(~inside, 99, np.arange(SIZE)[:, None] / SIZE) for inside in found_inside(samples)])
    maps = maps.astype(np.float32)
    found = pipeline.Results(samples, maps.max((1, 2)), maps.max((1, 2)), maps, pipeline.PatchScores(None, None))
    inside = np.stack(found_inside(samples))
    np.testing.assert_array_equal(found.inside, inside)
    truth = np.stack([sample.gt_mask for sample in samples])
    got = _metrics(found)["pixel_AUROC"]
    assert got == pytest.approx(roc_auc_score(truth[inside], maps[inside]))
    assert color_scale(maps, inside)[0] < 1 < color_scale(maps)[0]
    assert pipeline.Results(tiny.samples(SIZE), *found[1:]).inside is None


def test_the_salient_token_is_one_inside():
    """Also where all that count score 0, as those outside do."""
    stage = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3)
    pixels = np.ones((2, 4, 4), bool)
    pixels[0, :2, :2] = pixels[1, :2] = False
    inside = Inside(pixels, patches_inside(pixels, 2), None)
    features, scores = Features(ImageFeatures([stage], None), None), PatchScores(np.zeros((2, 4), np.float32), None)
    found = salient_features(features, scores, tiny.PROGRAMS, inside=inside)
    np.testing.assert_array_equal(found, [stage[0, 1], stage[1, 2]])


def test_a_patch_counts_if_any_of_its_pixels_does():
    roi = np.zeros((1, 6, 6), bool)
    roi[0, 1, 4] = True
    np.testing.assert_array_equal(np.flatnonzero(patches_inside(roi, 3)), [2])
    # Where patches share pixels, all that have a part of it; more patches than pixels have a part of one each.
    np.testing.assert_array_equal(np.flatnonzero(patches_inside(roi, 4)), [2, 3, 6, 7])
    assert patches_inside(roi, 12).reshape(12, 12)[2:4, 8:10].all()
    assert patches_inside(roi, 12).sum() == 4


@pytest.mark.parametrize(
    ("roi", "problem"),
    [
        (np.ones((8, 8), bool), "region of interest: expected (32, 32) of bool, received (8, 8) of bool"),
        (np.zeros((SIZE, SIZE), bool), "its region of interest is empty"),
        (np.arange(SIZE)[:, None] + np.arange(SIZE)[None] < 2, "has no points inside of its region of interest"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_region_that_is_none_is_refused_by_name(roi, problem):
    samples = with_regions(tiny.samples(SIZE), [None, None, roi, None, None])
    with pytest.raises(SampleError, match=f"sample 2: {re.escape(problem)}"):
        scored("both", samples)
