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


def even_thresholds(maps):
    """200 in float64 from the lowest score on, a step apart that is rounded in the type of the maps.

    One more where, rounded in that type, too, more than 200 steps fit between the lowest and the highest.
    """
    low, high = maps.min(), maps.max()
    step = (high - low) / maps.dtype.type(200)
    count = int(np.ceil((high - low) / step))
    return np.float64(low) + np.arange(count) * (np.float64(low + step) - np.float64(low))


def naive_pro_200(masks, maps, limit=0.3):
    """The usual program, region by region and threshold by threshold; None where it would divide by 0."""
    rates, overlaps = [], []
    for threshold in even_thresholds(maps):
        found = maps.astype(np.float64) > threshold
        overlaps.append([])
        for mask, detected in zip(masks, found, strict=True):
            regions, count = ndimage.label(mask, np.ones((3, 3)))
            for region in range(1, count + 1):
                overlaps[-1].append(detected[regions == region].sum() / (regions == region).sum())
        rates.append((found & ~masks).sum() / (~masks).sum())
    rates, overlaps = np.array(rates), np.mean(overlaps, axis=1)
    kept = rates < limit
    rates, overlaps = rates[kept], overlaps[kept]
    if len(set(rates)) < 2:
        return None
    rates = (rates - rates.min()) / (rates.max() - rates.min())
    return -np.trapezoid(overlaps, rates)


def naive_ranking(positive, scores):
    """AUROC by all pairs, F1-max and AP by a sweep over all thresholds, in float64."""
    positive, scores = positive.reshape(-1), scores.reshape(-1).astype(np.float64)
    pairs = scores[positive][:, None] - scores[~positive][None]
    thresholds = np.unique(scores)[::-1]
    hits = np.array([(scores >= t)[positive].sum() for t in thresholds])
    precision, recall = hits / [(scores >= t).sum() for t in thresholds], hits / positive.sum()
    f1 = [2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True) if p + r]
    return {
        "AUROC": ((pairs > 0) + 0.5 * (pairs == 0)).mean(),
        "F1Max": max(f1),
        "AP": (np.diff(recall, prepend=0) * precision).sum(),
    }


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
    assert pixel["PRO_200"] == pytest.approx(float(z["pro_200_64"]), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2, 8])
def test_pro_agrees_with_a_sweep(rng, levels):
    masks, maps = example(rng, levels)
    assert metrics.pro(masks, maps) == pytest.approx(naive_pro(masks, maps), abs=1e-9)
    assert metrics.pro(masks, maps, limit=1.0) == pytest.approx(naive_pro(masks, maps, 1.0), abs=1e-9)


def adversarial_maps():
    """Maps on which PRO_200 changes with each of its rules."""
    rng = np.random.default_rng(5)
    masks = example(rng)[0][:, :12, :12].copy()
    masks[1, 2:5, 2:5] = masks[2, 7:, 7:9] = True
    uniform = rng.random(masks.shape) + 0.35 * masks
    hot = uniform.copy()
    hot[0, 0, :3] = uniform.max()  # good pixels, found at every threshold
    # 0.057 / (0.057 / 200) is above 200 in both types; the last threshold parts the hottest pixel from the next.
    one_more = 0.05 * uniform / uniform.max()
    one_more[0, 0, :3] = 0.057, 0.0569, 0
    flat = np.where(masks, 1.15, uniform)  # regions that are found at once
    # Multiples of the step, a power of two: all is exact, and a score lies on each threshold.
    on_thresholds = rng.integers(0, 150, masks.shape) + 50 * masks
    on_thresholds[0, 0, 0], on_thresholds[1, 2, 2] = 0, 200
    halves = np.where(masks, 0.5, rng.permuted(np.arange(masks.size) % 10).reshape(masks.shape) / 10)
    maps = {
        "plain": uniform,
        "decimals": np.round(uniform, 2),
        "far from 0": 1000 + uniform,
        "heavy tail": uniform**8,
        "below 0": -uniform,
        "good pixels hottest": hot,
        "201 thresholds": one_more,
        "flat regions": flat,
        "scores on thresholds": on_thresholds / 128,
        "few levels": halves,
    }
    return masks, maps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", adversarial_maps()[1])
def test_pro_200_is_the_usual_program(name, dtype):
    masks, maps = adversarial_maps()
    for limit in (0.3, 1.0):
        want = naive_pro_200(masks, maps[name].astype(dtype), limit)
        assert metrics.pro_200(masks, maps[name].astype(dtype), limit=limit) == pytest.approx(want, abs=1e-12)


def test_pro_200_takes_its_step_in_the_type_of_the_maps():
    """Three decimals, as vectors of results are often stored: a score on every fourth threshold."""
    rng = np.random.default_rng(6)
    masks = np.zeros((1, 40, 40), bool)
    masks[0, 5:20, 5:20] = True
    maps = np.round(rng.random(masks.shape) + 0.35 * masks, 3)
    maps[0, 10, 10], maps[0, 0, 0] = 1.35, 0
    single = maps.astype(np.float32)
    double = single.astype(np.float64)
    found = [metrics.pro_200(masks, scores) for scores in (single, double)]
    assert found == pytest.approx([naive_pro_200(masks, scores) for scores in (single, double)], abs=1e-12)
    assert found[0] != pytest.approx(found[1], rel=1e-5)


def test_a_false_positive_rate_at_the_limit_is_left_out():
    """Of 6 good pixels 3 lie above the thresholds from 0.25 to 0.5."""
    masks = np.zeros((1, 4, 4), bool)
    masks[0, :, :2] = masks[0, 3] = True
    maps = np.where(masks, 0.75, 0.25)
    maps[~masks] = [1.0, 0.5, 0.5, 0.25, 0.25, 0.0]
    assert metrics.pro_200(masks, maps, limit=0.5) == pytest.approx(naive_pro_200(masks, maps, 0.5), abs=1e-12)
    assert metrics.pro_200(masks, maps, limit=0.5) is None, "rates are 1/6, then the limit itself"
    assert metrics.pro_200(masks, maps, limit=0.51) == pytest.approx(naive_pro_200(masks, maps, 0.51), abs=1e-12)


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
@given(MASKS, MAPS, st.sampled_from([np.float32, np.float64]))
def test_pixel_metrics_are_their_definitions(masks, maps, dtype):
    found = metrics.pixel_metrics(masks, maps.astype(dtype))
    if masks.all() or not masks.any():
        assert set(found.values()) == {None}
        return
    for key, want in naive_ranking(masks, maps).items():
        assert found[key] == pytest.approx(want, abs=1e-12), key
    assert found["PRO"] == pytest.approx(naive_pro(masks, maps), abs=1e-12)
    want = None if np.ptp(maps) == 0 else naive_pro_200(masks, maps.astype(dtype))
    assert found["PRO_200"] == (want if want is None else pytest.approx(want, abs=1e-12))


@settings(max_examples=30, deadline=None)
@given(MASKS, st.floats(-(2.0**100), 2.0**100, width=32))
def test_a_constant_map_knows_nothing(masks, value):
    """Everything is found at once: AUROC of a guess, precision of the prevalence, a straight line for PRO."""
    found = metrics.pixel_metrics(masks, np.full(masks.shape, value, np.float32))
    assert found["PRO_200"] is None
    if masks.any() and not masks.all():
        share = masks.mean()
        assert found["AUROC"] == 0.5
        assert found["AP"] == pytest.approx(share)
        assert found["F1Max"] == pytest.approx(2 * share / (1 + share))
        assert found["PRO"] == pytest.approx(0.3 / 2)


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
    assert found == pytest.approx(naive_ranking(labels == 1, scores), abs=1e-12)


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
    # Quarters: the step of PRO_200 is rounded to the type of the maps, and the scores lie on thresholds.
    assert metrics.pixel_metrics(masks, maps.astype(np.float64)) | {"PRO_200": plain["PRO_200"]} == plain
    assert metrics.pixel_metrics(masks, (4 * maps).astype(np.int8))["PRO"] == plain["PRO"]
    assert metrics.pixel_metrics(jnp.asarray(masks), jnp.asarray(maps, jnp.bfloat16))["PRO"] == plain["PRO"]


def test_extreme_values_warn_of_nothing():
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 0] = True
    assert metrics.pixel_metrics(masks, np.where(masks, 8e307, -8e307))["PRO"] == 1
    assert metrics.pro_200(masks, np.where(masks, 1.7e308, -1.7e308)) is None, "the range is not finite"
    assert metrics.pro_200(masks, np.where(masks, 3e38, -3e38).astype(np.float32)) is None, "nor is it in float32"
    assert metrics.pro_200(masks, np.where(masks, 1e-44, 0).astype(np.float32)) is None, "the step is 0"
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


def test_pixels_outside_are_left_out(unchecked):
    """As if each picture ended there: a column that is cut off everywhere."""
    rng = np.random.default_rng(0)
    masks, maps = rng.random((3, 8, 8)) < 0.2, rng.random((3, 8, 8))
    inside = np.broadcast_to(np.arange(8) < 5, masks.shape)
    spoilt = np.where(inside, maps, 99.0)
    assert metrics.pixel_metrics(masks, spoilt, inside=inside) == metrics.pixel_metrics(masks[..., :5], maps[..., :5])
    assert metrics.pixel_metrics(masks, maps, inside=np.ones_like(masks)) == metrics.pixel_metrics(masks, maps)
    # Nothing but a region is left, or none.
    for own in (masks, ~masks):
        assert set(metrics.pixel_metrics(masks, maps, inside=own).values()) == {None}
    with pytest.raises(ValueError, match="inside: expected the shape of the maps"):
        metrics.pixel_metrics(masks, maps, inside=np.ones((3, 8, 5), bool))
