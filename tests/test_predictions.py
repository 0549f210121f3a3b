"""What is said of each sample of a batch, from scores and maps that are known."""

from pathlib import Path

import numpy as np
import pytest

from musc_jax.data import Sample
from musc_jax.decisions import decide
from musc_jax.execution.scoring import PatchScores
from musc_jax.pipeline import Results
from musc_jax.predictions import predict

SIZE = 16


def batch(scores, maps=None, full_size=(32, 48), names=None):
    names = names or [f"{i:03d}" for i in range(len(scores))]
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    samples = [Sample(name, image, None, None, None, Path(f"{name}.png"), full_size) for name in names]
    if maps is None:
        maps = np.zeros((len(scores), SIZE, SIZE), np.float32)
        maps[:, 3, 4] = scores
    scores = np.asarray(scores, np.float32)
    return Results(samples, scores, maps.max(axis=(1, 2)), maps, PatchScores(None, None))


SCORES = [0.1, 0.11, 0.12, 0.1, 0.9, 0.115, 0.105, 0.118]


def test_ranks_and_percentiles():
    found = predict(batch(SCORES))
    assert [sample.rank for sample in found] == [7, 5, 2, 7, 1, 4, 6, 3]
    np.testing.assert_allclose([s.percentile for s in found], 100 * np.array([0.5, 3, 6, 0.5, 7, 4, 2, 5]) / 7)
    assert [sample.name for sample in found.worst_first()][:3] == ["004", "002", "007"]
    assert [sample.pred_score for sample in found] == pytest.approx(SCORES)


@pytest.mark.parametrize("rule", ["gap", "rate:0.25", "0.1"])
def test_labels_are_those_of_the_rule(rule):
    found = predict(batch(SCORES), threshold=rule)
    scores = np.asarray(np.float32(SCORES), np.float64)
    assert found.decision == decide(scores, rule)
    np.testing.assert_array_equal(found.pred_labels, found.decision.labels(scores))
    assert found.decision.rule == rule
    assert f"called defective by {rule}" in repr(found)


def test_regions_lie_on_the_picture_as_it_is_shown():
    maps = np.full((8, SIZE, SIZE), 0.1, np.float32)
    maps[4, 4:8, 2:6] = 5.0
    found = predict(batch(SCORES, maps))
    assert found.full_map(4).shape == (32, 48)
    (region,) = found.regions(4)
    left, top, right, bottom = region.box
    # Twice as high, three times as wide; the filter takes its edge along.
    assert (left, top, right, bottom) == pytest.approx((6, 8, 18, 16), abs=2)
    assert region.peak == 5.0
    assert found.regions(0) == []


def test_maps_without_a_picture_keep_their_size():
    found = predict(batch(SCORES, full_size=None))
    np.testing.assert_array_equal(found.full_map(4), found.results.anomaly_maps[4])


def test_a_given_pixel_threshold_counts():
    maps = np.zeros((8, SIZE, SIZE), np.float32)
    maps[:, :4, :4] = np.linspace(1, 8, 8)[:, None, None]
    counts = [len(found.regions(i)) for found in [predict(batch(SCORES, maps), pixel_threshold=4.5)] for i in range(8)]
    assert counts == [0, 0, 0, 0, 1, 1, 1, 1]


def test_notebooks_show_names_as_text():
    names = [f"<b>{i}</b>" for i in range(8)]
    shown = predict(batch(SCORES, names=names))._repr_html_()
    assert "<b>" not in shown
    assert "&lt;b&gt;4&lt;/b&gt;" in shown
    assert "no clear defects" in predict(batch([0.1] * 8))._repr_html_()


@pytest.mark.parametrize("count", range(2, 9))
def test_small_batches(count):
    found = predict(batch(SCORES[:count]))
    assert len(found) == count == len(list(found))
    assert sorted(sample.rank for sample in found)[0] == 1


def test_a_threshold_means_the_same_in_another_batch():
    """Scores that were re-scored are relative to their own batch; maps are not."""

    def rescored(peaks):
        results = batch(peaks)
        peaks = np.float32(peaks)
        return results._replace(pred_scores=(peaks - peaks.min()) / (peaks.max() - peaks.min()))

    first = predict(rescored([1.0, 1.1, 1.2, 1.05, 9.0]), threshold="0.5")
    assert first.map_threshold == pytest.approx(5.0)
    calm, wild = (rescored(peaks) for peaks in ([1.0, 1.1, 1.2, 1.3], [1.0, 4.9, 5.1, 20.0]))
    assert not predict(calm, map_threshold=first.map_threshold).pred_labels.any()
    carried = predict(wild, map_threshold=first.map_threshold)
    np.testing.assert_array_equal(carried.pred_labels, [False, False, True, True])
    assert carried.map_threshold == pytest.approx(5.0)
    # Without re-scoring they are in units of the maps.
    assert predict(batch([1.0, 2.0, 3.0]), threshold="2.5").map_threshold == 2.5
    assert predict(batch([1.0] * 5)).map_threshold is None


def test_maps_without_hot_pixels_are_not_enlarged(monkeypatch):
    """Of millions of pixels each; what is found is found once."""
    maps = np.zeros((4, SIZE, SIZE), np.float32)
    maps[:, 3:6, 4:8] = np.array([1, 2, 3, 40])[:, None, None]
    found = predict(batch([1.0, 2.0, 3.0, 40.0], maps), pixel_threshold=30.0)
    enlarged = []
    monkeypatch.setattr(
        type(found), "full_map", lambda self, i: enlarged.append(i) or np.asarray(self.results.anomaly_maps[i])
    )
    assert [len(found.regions(i)) > 0 for i in range(4)] == [False, False, False, True]
    assert [bool(found.mask(i).any()) for i in range(4)] == [False, False, False, True]
    found.regions(3)
    assert enlarged == [3, 3]
