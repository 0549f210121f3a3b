"""Thresholds without labels: each rule against its definition, and what it says of batches that are known."""

import math

import numpy as np
import pytest

from musc_jax import decisions
from musc_jax.decisions import best_threshold, decide, pixel_threshold, side_by_side

TWO = np.r_[np.linspace(0.30, 0.34, 17), 0.8, 0.9, 0.7]


@pytest.mark.parametrize("rule", ["gap", "mad:3.5", "rate:0.15", "0.5"])
def test_what_stands_apart_is_found_by_every_rule(rule):
    found = decide(TWO, rule)
    assert found.rule == rule
    np.testing.assert_array_equal(found.labels(TWO), TWO > 0.5)
    assert found.num_defective == 3
    assert found.lowest <= 3 <= found.highest


def test_each_is_as_defined():
    scores = np.array([3.0, 1.0, 2.0, 10.0, 4.0])
    assert decide(scores, "mad:2").threshold == 3 + 2 * 1
    assert decide(scores, "mad").threshold == 3 + 3.5 * 1
    assert decide(scores, "rate:0.4").threshold == 3.5
    assert decide(scores, "-1e3").threshold == -1000
    assert decide(TWO, "gap").threshold == pytest.approx((0.34 + 0.7) / 2)


def test_rates_call_as_many_as_they_say():
    scores = np.random.default_rng(0).normal(size=40)
    for rate in (0, 0.05, 0.5, 1):
        assert decide(scores, f"rate:{rate}").num_defective == 40 * rate
    # Equal scores are called the same, and rather none of them than too many.
    assert decide(np.ones(8), "rate:0.5").num_defective == 0


def test_one_population_has_no_clear_defects():
    """Whatever its tail: 1 in 20 for an exponential one, of 50 batches at most 6 but once in a hundred."""
    rng = np.random.default_rng(0)
    populations = {
        "normal": rng.normal,
        "skewed": lambda size: np.exp(0.3 * rng.normal(size=size)),
        "flat": rng.uniform,
        "long": lambda size: rng.gamma(2, size=size),
    }
    for name, draw in populations.items():
        for count in (5, 12, 40, 150):
            # Not by `decide`, which leaves out each sample besides.
            found = [decisions._RULES["gap"].threshold(draw(size=count), 0.05) is not None for _ in range(50)]
            assert sum(found) <= 6, (name, count)


def test_the_comparison_of_gaps_is_what_it_says():
    """Of an exponential population the share of batches with a gap is the one asked for, or less: gaps count twice."""
    rng, gap = np.random.default_rng(3), decisions._RULES["gap"].threshold
    for count in (6, 30):
        found = [gap(rng.exponential(size=count), 0.2) is not None for _ in range(200)]
        assert 5 <= sum(found) <= 60
    values = rng.exponential(size=(3, 7))
    for gaps in (values, values[:, :6]):
        others = [[np.median(np.delete(row, i)) for i in range(len(row))] for row in gaps]
        np.testing.assert_allclose(decisions._medians_of_others(gaps), others)


def test_the_gap_finds_few_and_many_defects():
    rng = np.random.default_rng(1)
    for share in (1, 4, 12, 20):
        scores = np.r_[rng.normal(0.3, 0.01, 60 - share), rng.normal(0.5, 0.02, share)]
        assert decide(scores, "gap").num_defective == share


def test_units_and_order_change_nothing():
    scores = np.random.default_rng(2).permutation(TWO)
    for rule in decisions.SHOWN_RULES:
        first, scaled = decide(TWO, rule), decide(1e3 * scores - 7, rule)
        assert scaled.threshold == pytest.approx(1e3 * first.threshold - 7)
        assert scaled[2:5] == first[2:5]


def test_how_much_hangs_on_single_samples():
    # Without one of its two defects the deviations are others, and 1.5 counts or does not.
    scores = np.array([0.0, 0.1, 0.2, 0.9, 1.0, 1.5, 9.0])
    found = decide(scores, "mad:2")
    each = [decide(np.delete(scores, i), "mad:2").threshold for i in range(len(scores))]
    counts = [found.num_defective, *(int((scores > threshold).sum()) for threshold in each)]
    assert (found.lowest, found.highest) == (min(counts), max(counts))
    assert found.lowest < found.highest
    assert decide(scores, "5").lowest == decide(scores, "5").highest == 1


@pytest.mark.parametrize("count", range(1, 9))
def test_small_and_equal_batches_are_defined(count):
    for scores in (np.arange(count, dtype=np.float32), np.zeros(count)):
        for decision in side_by_side(scores):
            assert decision.threshold is None or math.isfinite(decision.threshold)
            assert 0 <= decision.lowest <= decision.num_defective <= decision.highest <= count
    assert decide(np.zeros(count), "gap").threshold is None


def test_large_batches_take_no_time_for_each_of_their_samples(monkeypatch):
    calls = []
    rule = decisions._RULES["mad"]
    counted = rule._replace(threshold=lambda *given: calls.append(0) or rule.threshold(*given))
    monkeypatch.setitem(decisions._RULES, "mad", counted)
    decide(np.arange(5000.0), "mad:3")
    assert len(calls) == 201


def test_side_by_side_begins_with_the_one_that_decides():
    assert [decision.rule for decision in side_by_side(TWO, "0.7")] == ["0.7", "gap", "mad:3.5", "rate:0.05"]
    assert [decision.rule for decision in side_by_side(TWO, "mad:3.5")] == ["mad:3.5", "gap", "rate:0.05"]


@pytest.mark.parametrize(
    "rule",
    ["", "nan", "inf", "best", "rate", "rate:", "rate:1.1", "rate:-0.1", "mad:x", "mad:-1", "mad:inf", "gap:0.7"],
)
def test_rules_that_are_none_are_refused(rule):
    with pytest.raises(ValueError, match=r"threshold: .*expected .*received"):
        decide(TWO, rule)
    with pytest.raises(ValueError, match="threshold"):
        decisions.check_rule(rule)


@pytest.mark.parametrize("scores", [[], [[1.0]], [1.0, math.nan]])
@pytest.mark.usefixtures("unchecked")
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(ValueError, match="expected finite numbers"):
        decide(scores)


def test_with_labels_the_best_f1_decides():
    scores = np.array([0.1, 0.5, 0.3, 0.9, 0.4])
    labels = np.array([False, True, False, True, False])
    assert best_threshold(scores, labels) == pytest.approx(0.45)
    # Every cut, by its definition; equal scores among them.
    rng = np.random.default_rng(3)
    for _ in range(50):
        scores, labels = rng.integers(0, 6, 12) / 4, np.arange(12) < 5

        def quality(threshold, scores=scores, labels=labels):
            called = scores > threshold
            return 2 * (called & labels).sum() / (called.sum() + labels.sum())

        assert quality(best_threshold(scores, labels)) == max(map(quality, [-1, *scores]))
    with pytest.raises(ValueError, match="both good and defective"):
        best_threshold(scores, np.zeros(12, bool))


@pytest.mark.usefixtures("unchecked")
def test_masks_of_good_samples_stay_empty():
    peaks, defective = np.array([1.0, 2.0, 3.0, 9.0]), np.array([False, False, False, True])
    assert pixel_threshold(peaks, defective) == 3
    assert pixel_threshold(peaks, defective, share=0.5) == 2
    assert pixel_threshold(peaks, np.ones(4, bool)) < 1
    with pytest.raises(ValueError, match="share"):
        pixel_threshold(peaks, defective, share=2.0)
    with pytest.raises(ValueError, match="expected one for each"):
        pixel_threshold(peaks, defective[:2])
