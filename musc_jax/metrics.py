"""How well scores and maps find the defects: AUROC, F1-max, average precision, PRO. Host side: NumPy and scikit-learn.

Every function returns every key. What is undefined - one class only, no masks, a constant map - is None: never 0, which
would be a result, and never NaN.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Num, Shaped
from scipy import ndimage

Metrics = dict[str, float | None]

_IMAGE_KEYS = ("AUROC", "F1Max", "AP")
_PIXEL_KEYS = (*_IMAGE_KEYS, "PRO", "PRO_200")
_EIGHT_CONNECTED = np.ones((3, 3), bool)


def _ranking_metrics(positive: np.ndarray, scores: np.ndarray) -> Metrics:
    """AUROC, F1-max and AP of flat arrays; None for each if only one class is there."""
    if positive.all() or not positive.any():
        return dict.fromkeys(_IMAGE_KEYS)
    # Takes a second to import, nearly as long as all else that a command needs before it starts.
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    precision, recall, _ = precision_recall_curve(positive, scores)
    total = precision + recall
    # 0 / 0 where nothing is found: no F1 at that threshold.
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return {
        "AUROC": float(roc_auc_score(positive, scores)),
        "F1Max": float(f1.max()),
        "AP": float(average_precision_score(positive, scores)),
    }


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(f"{name}: expected finite values, sample {np.argwhere(~finite)[0, 0]} holds NaN or infinity")
    return values


def image_metrics(labels: Num[np.ndarray | jax.Array, "N"] | None, scores: Num[np.ndarray | jax.Array, "N"]) -> Metrics:
    """Metrics of sample scores.

    Args:
        labels: 1 (or any non-zero value) for defective samples; None where unknown.
        scores: Higher is more defective.

    Returns:
        AUROC, F1Max (over the precision-recall curve) and AP as fractions, by scikit-learn's definitions; None where
        labels are missing or of one class only.

    Raises:
        ValueError: Different lengths; labels or scores that are not finite (the message names the first such sample).
    """
    scores = _finite("scores", np.asarray(scores, np.float64))
    if labels is None:
        return dict.fromkeys(_IMAGE_KEYS)
    if scores.ndim != 1 or np.shape(labels) != scores.shape:
        raise ValueError(f"labels, scores: expected equal shapes (N,), received {np.shape(labels)} and {scores.shape}")
    return _ranking_metrics(_finite("labels", np.asarray(labels)) != 0, scores)


def pixel_metrics(
    masks: Shaped[np.ndarray | jax.Array, "N H W"] | None,
    maps: Num[np.ndarray | jax.Array, "N H W"],
    *,
    inside: Bool[np.ndarray, "N H W"] | None = None,
) -> Metrics:
    """Metrics of anomaly maps over all pixels of all samples.

    Args:
        masks: Non-zero on defects; None where there are none.
        maps: Anomaly maps, higher is more defective.
        inside: The pixels that count; default all. Others are left out, and what of a region is outside is none of it.

    Returns:
        AUROC, F1Max, AP, PRO (exact) and PRO_200 (as the released program) as fractions; None where undefined.

    Raises:
        ValueError: Different shapes; masks or maps that are not finite (the message names the first such sample).
    """
    maps = _expect_maps(maps)
    if masks is None:
        return dict.fromkeys(_PIXEL_KEYS)
    positive = _expect_masks(masks, maps)
    if inside is not None and inside.shape != maps.shape:
        raise ValueError(f"inside: expected the shape of the maps, {maps.shape}, received {inside.shape}")
    ranking = _rank(positive, maps, inside)
    if ranking is None:
        return dict.fromkeys(_PIXEL_KEYS)
    # scikit-learn sorts in each of its functions, which is most of their time; on sorted scores that costs little.
    flat = _ranking_metrics(ranking.positive.reshape(-1)[ranking.order], ranking.scores)
    curve = _region_curve(ranking)
    return flat | {"PRO": _area(curve, 0.3), "PRO_200": _area_200(curve, 0.3)}


def pro(
    masks: Shaped[np.ndarray | jax.Array, "N H W"],
    maps: Num[np.ndarray | jax.Array, "N H W"],
    *,
    limit: float = 0.3,
) -> float | None:
    """Per-region overlap, exact: every distinct score is a threshold.

    The mean over all ground-truth regions (8-connected) of their covered share, integrated over the false positive rate
    from 0 to `limit`, linear at the limit, divided by it.

    Args:
        masks: Non-zero on defects.
        maps: Anomaly maps.
        limit: Highest false positive rate, above 0 and up to 1.

    Returns:
        0 to 1; None without a region or without a normal pixel.

    Raises:
        ValueError: Different shapes; masks or maps that are not finite; a limit out of range.
    """
    _expect_limit(limit)
    maps = _expect_maps(maps)
    ranking = _rank(_expect_masks(masks, maps), maps)
    return None if ranking is None else _area(_region_curve(ranking), limit)


def pro_200(
    masks: Shaped[np.ndarray | jax.Array, "N H W"],
    maps: Num[np.ndarray | jax.Array, "N H W"],
    *,
    limit: float = 0.3,
) -> float | None:
    """Per-region overlap as the released program computes it, for comparison with published figures.

    Thresholds are `np.arange(low, high, (high - low) / 200)`, with the lowest and the highest score as scalars in the
    dtype of the maps: 200, sometimes 201 by rounding. A pixel is found if it scores above the threshold. Points with a
    false positive rate below `limit` are kept, their rates stretched from [lowest kept, highest kept] to [0, 1], and
    the area is taken by trapezoids. Heavy-tailed maps have few thresholds in that range, and the figure collapses;
    `pro` does not.

    With float32 maps the range, the step and the second threshold are rounded to float32, which can put a threshold on
    the other side of a score. The same scores in float64 then give another figure: for scores of three decimals it
    differs by some 1e-5.

    Args:
        masks: Non-zero on defects.
        maps: Anomaly maps; float32, as in the released program, or float64, to which other dtypes are cast.
        limit: False positive rate below which points are kept, above 0 and up to 1.

    Returns:
        0 to 1; None without a region or a normal pixel, for a constant map, where fewer than two different rates are
        left, and where the step overflows or underflows in the dtype of the maps.

    Raises:
        ValueError: Different shapes; masks or maps that are not finite; a limit out of range.
    """
    _expect_limit(limit)
    maps = _expect_maps(maps)
    ranking = _rank(_expect_masks(masks, maps), maps)
    return None if ranking is None else _area_200(_region_curve(ranking), limit)


def mean_metrics(categories: Mapping[str, Mapping[str, float | None]]) -> tuple[Metrics, dict[str, int]]:
    """Arithmetic means over the categories where a metric is defined.

    Args:
        categories: The metrics of each, None where undefined.

    Returns:
        (means, counts): the mean of each metric, None where no category has it, and over how many categories it runs.
    """
    keys = dict.fromkeys(key for category in categories.values() for key in category)
    values = {key: [v for v in (c.get(key) for c in categories.values()) if v is not None] for key in keys}
    means = {key: float(np.mean(found)) if found else None for key, found in values.items()}
    return means, {key: len(found) for key, found in values.items()}


def deviation_of_metrics(repetitions: Sequence[Mapping[str, float | None]]) -> Metrics:
    """Standard deviation of each metric over repetitions: of these, not an estimate for more.

    Args:
        repetitions: The metrics of each, None where undefined.

    Returns:
        The deviations, None where no repetition has the metric.
    """
    keys = dict.fromkeys(key for repetition in repetitions for key in repetition)
    values = {key: [v for v in (r.get(key) for r in repetitions) if v is not None] for key in keys}
    return {key: float(np.std(found)) if found else None for key, found in values.items()}


def _expect_maps(maps: np.ndarray | jax.Array) -> np.ndarray:
    maps = np.asarray(maps)
    # Half precision and integers are widened: scikit-learn knows no bfloat16, and differences of integers can overflow.
    return _finite("maps", maps if maps.dtype in (np.float32, np.float64) else maps.astype(np.float64))


def _expect_masks(masks: np.ndarray | jax.Array, maps: np.ndarray) -> np.ndarray:
    masks = np.asarray(masks)
    if maps.ndim != 3 or masks.shape != maps.shape:
        raise ValueError(f"masks, maps: expected equal shapes (N, H, W), received {masks.shape} and {maps.shape}")
    return _finite("masks", masks) != 0


def _expect_limit(limit: float) -> None:
    if not 0 < limit <= 1:
        raise ValueError(f"limit: expected a rate above 0 and up to 1, received {limit}")


class _Ranking(NamedTuple):
    """The one sort that all pixel metrics share."""

    positive: np.ndarray
    """(N, H, W) True on defects."""
    order: np.ndarray
    """Flat indices of the pixels that count in the order of falling scores."""
    scores: np.ndarray
    """The scores in that order."""


class _RegionCurve(NamedTuple):
    """One point for each distinct score: what is found when everything that scores at least as high counts as found."""

    thresholds: np.ndarray
    """Falling scores, in the dtype of the maps."""
    rates: np.ndarray
    """Share of the normal pixels found, ends at 1."""
    overlaps: np.ndarray
    """Mean over the regions of their found share, ends at 1."""


def _rank(positive: np.ndarray, maps: np.ndarray, inside: np.ndarray | None = None) -> _Ranking | None:
    """None where nothing can be ranked: no region, or nothing but regions."""
    positive = positive if inside is None else positive & inside
    if (positive if inside is None else positive[inside]).all() or not positive.any():
        return None
    order = np.argsort(maps.reshape(-1), kind="stable")[::-1]
    if inside is not None:
        order = order[inside.reshape(-1)[order]]
    return _Ranking(positive, order, maps.reshape(-1)[order])


def _region_curve(ranking: _Ranking) -> _RegionCurve:
    # Each pixel of a region adds 1 / (its size * number of regions) to the mean overlap.
    gain = np.zeros(ranking.positive.shape, np.float64)
    count = 0
    for mask, target in zip(ranking.positive, gain, strict=True):
        labels, found = ndimage.label(mask, structure=_EIGHT_CONNECTED)
        sizes = np.bincount(labels.reshape(-1))
        count += found
        inside = labels > 0
        target[inside] = 1 / sizes[labels[inside]]
    # Pixels of equal score are found together: only the last of each run is a point of the curve.
    last = np.flatnonzero(np.append(ranking.scores[1:] != ranking.scores[:-1], True))
    found_normal = np.cumsum(~ranking.positive.reshape(-1)[ranking.order])[last]
    found_share = np.cumsum(gain.reshape(-1)[ranking.order])[last]
    return _RegionCurve(
        thresholds=ranking.scores[last],
        rates=found_normal / found_normal[-1],
        # The running sum of rounded shares can end a little above the number of regions.
        overlaps=np.minimum(found_share / count, 1),
    )


def _area(curve: _RegionCurve, limit: float) -> float:
    rates, overlaps = np.append(0, curve.rates), np.append(0, curve.overlaps)
    inside = rates <= limit
    at_limit = np.interp(limit, rates, overlaps)
    x, y = np.append(rates[inside], limit), np.append(overlaps[inside], at_limit)
    return float(min(1, np.trapezoid(y, x) / limit))


def _area_200(curve: _RegionCurve, limit: float) -> float | None:
    # Scalars in the dtype of the maps, not Python floats: float32 must round the range, the step, the second threshold.
    low, high = curve.thresholds[-1], curve.thresholds[0]
    with np.errstate(over="ignore"):
        step = (high - low) / 200
    if not 0 < step < np.inf:
        return None
    thresholds = np.arange(low, high, step, dtype=np.float64)
    # How many distinct scores lie above each threshold; the curve is at the last of them.
    above = np.searchsorted(-curve.thresholds.astype(np.float64), -thresholds, side="left") - 1
    rates, overlaps = (np.where(above >= 0, values[above], 0) for values in (curve.rates, curve.overlaps))
    kept = rates < limit
    rates, overlaps = rates[kept][::-1], overlaps[kept][::-1]
    if len(rates) < 2 or rates[-1] == rates[0]:
        return None
    # Rounding in the stretched rates can carry a perfect 1 a last digit too far.
    return float(min(1, np.trapezoid(overlaps, (rates - rates[0]) / (rates[-1] - rates[0]))))
