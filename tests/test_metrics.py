"""Metrics against golden vectors, plain sweeps over all thresholds, and properties."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from musc_jax import metrics

PIXEL_KEYS = {"AUROC", "F1Max", "AP", "PRO", "PRO_200"}


def naive_curve(masks, maps, thresholds):
    """(false positive rates, mean overlaps) by one sweep for each threshold."""
    regions = []
    for i, mask in enumerate(masks):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [(i, labels == k + 1) for k in range(count)]
    rates = [(maps[~masks] > t).mean() for t in thresholds]
    overlaps = [np.mean([(maps[i][region] > t).mean() for i, region in regions]) for t in thresholds]
    return np.array(rates), np.array(overlaps)


def naive_pro(masks, maps, limit=0.3):
    thresholds = np.sort(np.append(np.unique(maps), maps.min() - 1))[::-1]
    rates, overlaps = naive_curve(masks, maps, thresholds)
    inside = rates <= limit
    x = np.append(rates[inside], limit)
    y = np.append(overlaps[inside], np.interp(limit, rates, overlaps))
    return np.trapezoid(y, x) / limit


def naive_pro_200(masks, maps, limit=0.3):
    low, high = float(maps.min()), float(maps.max())
    rates, overlaps = naive_curve(masks, maps.astype(np.float64), np.arange(low, high, (high - low) / 200))
    kept = rates < limit
    rates, overlaps = rates[kept], overlaps[kept]
    rates = (rates - rates.min()) / (rates.max() - rates.min())
    return np.trapezoid(overlaps[::-1], rates[::-1])


def example(rng, levels=None):
    masks = np.zeros((4, 24, 24), bool)
    masks[0, 3:9, 4:7] = masks[1, 15:20, 15:23] = masks[1, 2, 2] = masks[3, 20:, :3] = True
    maps = rng.normal(size=masks.shape) + 1.5 * masks
    if levels:
        maps = np.round(maps * levels) / levels
    return masks, maps.astype(np.float32)


def test_golden(golden):
    z = golden("metrics")
    image = metrics.image_metrics(z["labels"], z["scores"])
    np.testing.assert_allclose([image[k] for k in ("AUROC", "F1Max", "AP")], z["image_64"], atol=1e-6)
    pixel = metrics.pixel_metrics(z["masks"], z["maps"])
    np.testing.assert_allclose([pixel[k] for k in ("AUROC", "F1Max", "AP")], z["pixel_64"], atol=1e-6)
    assert pixel["PRO"] == pytest.approx(float(z["pro_exact_64"]), abs=1e-6)
    assert pixel["PRO_200"] == pytest.approx(float(z["pro_200_64"]), abs=1e-5)


@pytest.mark.parametrize("levels", [None, 2, 8])
def test_pro_agrees_with_a_sweep(rng, levels):
    masks, maps = example(rng, levels)
    assert metrics.pro(masks, maps) == pytest.approx(naive_pro(masks, maps), abs=1e-9)
    assert metrics.pro_200(masks, maps) == pytest.approx(naive_pro_200(masks, maps), abs=1e-9)
    assert metrics.pro(masks, maps, limit=1.0) == pytest.approx(naive_pro(masks, maps, 1.0), abs=1e-9)


def test_perfect_and_opposite_maps(rng):
    masks, _ = example(rng)
    perfect = metrics.pixel_metrics(masks, masks.astype(np.float32))
    assert all(perfect[k] == pytest.approx(1) for k in ("AUROC", "F1Max", "AP", "PRO"))
    assert metrics.pro(masks, -masks.astype(np.float32)) == 0  # all that is normal is found first


def test_touching_corners_are_one_region():
    masks = np.zeros((1, 6, 6), bool)
    masks[0, 1, 1] = masks[0, 2, 2] = True
    maps = np.zeros((1, 6, 6), np.float32)
    maps[0, 1, 1] = 2
    assert metrics.pro(masks, maps, limit=1.0) == pytest.approx(
        (0.5 + 1) / 2
    )  # half found at once, the rest at the end


def test_monotone_transforms_and_order_change_nothing(rng):
    masks, maps = example(rng)
    plain, order = metrics.pixel_metrics(masks, maps), rng.permutation(4)
    for other in (metrics.pixel_metrics(masks, np.exp(2 * maps)), metrics.pixel_metrics(masks[order], maps[order])):
        for key in ("AUROC", "F1Max", "AP", "PRO"):
            assert other[key] == pytest.approx(plain[key], abs=1e-6)


MASKS = hnp.arrays(bool, (2, 5, 5))
# Quarters: many ties, and sums of them are exact.
MAPS = hnp.arrays(np.float32, (2, 5, 5), elements=st.integers(-8, 8).map(lambda n: n / 4))


@settings(max_examples=50, deadline=None)
@given(MASKS, MAPS)
def test_pro_is_the_sweep_for_any_map(masks, maps):
    value = metrics.pro(masks, maps)
    if value is None:
        assert masks.all() or not masks.any()
    else:
        assert value == pytest.approx(naive_pro(masks, maps), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(MASKS, MAPS, st.sampled_from([lambda x: 4 * x - 3, np.exp, lambda x: x**3 + x]))
def test_only_the_order_of_scores_matters(masks, maps, monotone):
    plain, other = metrics.pixel_metrics(masks, maps), metrics.pixel_metrics(masks, monotone(maps))
    for key in ("AUROC", "F1Max", "AP", "PRO"):
        assert other[key] == plain[key], key


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(bool, 8), hnp.arrays(np.float64, 8, elements=st.integers(0, 4).map(float)), st.permutations(range(8)))
def test_order_of_samples_does_not_matter(labels, scores, order):
    assert metrics.image_metrics(labels[order].astype(int), scores[order]) == metrics.image_metrics(
        labels.astype(int), scores
    )


def test_image_metrics_are_their_definitions(rng):
    labels, scores = rng.integers(0, 2, 40), np.round(rng.normal(size=40), 1)
    found = metrics.image_metrics(labels, scores)
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
    assert found["AUROC"] == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean(), abs=1e-12)
    thresholds = np.unique(scores)[::-1]
    hits = np.array([(scores >= t)[labels == 1].sum() for t in thresholds])
    precision, recall = hits / [(scores >= t).sum() for t in thresholds], hits / labels.sum()
    f1 = [2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True) if p + r]
    assert found["F1Max"] == pytest.approx(max(f1), abs=1e-12)
    assert found["AP"] == pytest.approx((np.diff(recall, prepend=0) * precision).sum(), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(bool, (2, 5, 5)),
    hnp.arrays(np.float32, (2, 5, 5), elements=st.floats(-3, 3, width=16)),
)
def test_bounds_and_absence(masks, maps):
    result = metrics.pixel_metrics(masks, maps)
    assert set(result) == PIXEL_KEYS
    defined = masks.any() and not masks.all()
    for key, value in result.items():
        if key != "PRO_200":
            assert (value is not None) == defined
        assert value is None or 0 <= value <= 1


def test_undefined_is_none(rng):
    masks, maps = example(rng)
    assert set(metrics.pixel_metrics(None, maps).values()) == {None}
    assert set(metrics.pixel_metrics(np.zeros_like(masks), maps).values()) == {None}
    assert set(metrics.pixel_metrics(np.ones_like(masks), maps).values()) == {None}
    constant = metrics.pixel_metrics(masks, np.ones_like(maps))
    assert constant["PRO_200"] is None
    assert constant["AUROC"] == 0.5
    assert set(metrics.image_metrics(np.zeros(4), rng.normal(size=4)).values()) == {None}
    assert set(metrics.image_metrics(None, rng.normal(size=4)).values()) == {None}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_masks_and_maps_of_any_type(rng, dtype):
    masks, maps = example(rng, levels=4)
    plain = metrics.pixel_metrics(masks, maps)
    assert metrics.pixel_metrics(masks.astype(dtype) * 3, maps) == plain
    assert metrics.pixel_metrics(masks, maps.astype(np.float64)) == plain
    assert metrics.pixel_metrics(masks, (4 * maps).astype(np.int8))["PRO"] == plain["PRO"]
    assert metrics.pixel_metrics(jnp.asarray(masks), jnp.asarray(maps, jnp.bfloat16))["PRO"] == plain["PRO"]


def test_extreme_values_warn_of_nothing():
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 0] = True
    assert metrics.pixel_metrics(masks, np.where(masks, 8e307, -8e307))["PRO"] == 1
    assert metrics.pro_200(masks, np.where(masks, 1.7e308, -1.7e308)) is None, "the range is not finite"
    maps = np.where(masks, np.nextafter(1, 2), 1.0)
    assert metrics.pixel_metrics(masks, maps)["AUROC"] == 1
    assert metrics.image_metrics(np.zeros(0), np.zeros(0)) == dict.fromkeys(("AUROC", "F1Max", "AP"))


def test_one_hot_pixel_collapses_only_the_released_pro(rng):
    masks, maps = example(rng)
    hot = maps.copy()
    hot[2, 0, 0] = 1e6
    assert metrics.pro(masks, hot) == pytest.approx(metrics.pro(masks, maps), abs=0.02)
    assert metrics.pro_200(masks, hot) is None, "one threshold below the limit is no curve"


def test_large_sets_of_many_regions(rng):
    masks = np.zeros((40, 112, 112), bool)
    masks[::2, 8:104:8, 8:104:8] = True
    maps = rng.normal(size=masks.shape).astype(np.float32) + masks
    found = metrics.pixel_metrics(masks, maps)
    # Regions of one pixel: overlap is recall, so PRO up to 1 is the AUROC.
    assert metrics.pro(masks, maps, limit=1.0) == pytest.approx(found["AUROC"], abs=1e-9)
    assert 0 < found["PRO"] < found["AUROC"]


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(rng):
    masks, maps = example(rng)
    maps[2, 0, 0] = np.nan
    with pytest.raises(ValueError, match="sample 2"):
        metrics.pixel_metrics(masks, maps)
    with pytest.raises(ValueError, match="equal shapes"):
        metrics.pixel_metrics(masks[:2], np.ones((4, 24, 24), np.float32))
    with pytest.raises(ValueError, match="limit"):
        metrics.pro(masks, np.ones_like(maps), limit=0.0)
    with pytest.raises(ValueError, match=r"masks: .* sample 1 "):
        metrics.pixel_metrics(np.where(np.arange(4)[:, None, None] == 1, np.nan, masks), np.ones_like(maps))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=r"scores: .* sample 3 "):
            metrics.image_metrics(None, np.array([0, 1, 2, bad, bad]))
    with pytest.raises(ValueError, match=r"labels: .* sample 0 "):
        metrics.image_metrics(np.array([np.nan, 1]), np.ones(2))
    with pytest.raises(ValueError, match="equal shapes"):
        metrics.image_metrics(np.ones(3), np.ones(4))


def test_means_skip_what_is_absent():
    mean, counts = metrics.mean_metrics(
        {"a": {"x": 0.5, "y": None}, "b": {"x": 1.0, "y": None}, "c": {"x": None, "y": None}}
    )
    assert mean == {"x": 0.75, "y": None}
    assert counts == {"x": 2, "y": 0}
    assert metrics.mean_metrics({}) == ({}, {})
    assert metrics.mean_metrics({"a": {}, "b": {"x": 0.5}}) == ({"x": 0.5}, {"x": 1})
