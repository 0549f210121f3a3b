"""How well scores and maps find the defects: AUROC, F1-max, average precision, PRO. Host side: NumPy and scikit-learn.

Every function returns every key. What is undefined - one class only, no masks, a constant map - is None: never 0, which
would be a result, and never NaN.
"""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Num, Shaped
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

Metrics = dict[str, float | None]

_IMAGE_KEYS = ("AUROC", "F1Max", "AP")
_PIXEL_KEYS = (*_IMAGE_KEYS, "PRO", "PRO_200")
_EIGHT_CONNECTED = np.ones((3, 3), bool)


def _ranking_metrics(positive: np.ndarray, scores: np.ndarray) -> Metrics:
    """AUROC, F1-max and AP of flat arrays; None for each if only one class is there."""
    if positive.all() or not positive.any():
        return dict.fromkeys(_IMAGE_KEYS)
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
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name}: expected finite values, sample {int(np.argmin(finite))} holds NaN or infinity")
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
        ValueError: Different lengths, scores that are not finite.
    """
    scores = _finite("scores", np.asarray(scores, np.float64))
    if labels is None:
        return dict.fromkeys(_IMAGE_KEYS)
    if np.shape(labels) != scores.shape:
        raise ValueError(f"labels: expected shape {scores.shape}, received {np.shape(labels)}")
    return _ranking_metrics(np.asarray(labels) != 0, scores)


def pixel_metrics(
    masks: Shaped[np.ndarray | jax.Array, "N H W"] | None, maps: Num[np.ndarray | jax.Array, "N H W"]
) -> Metrics:
    """Metrics of anomaly maps over all pixels of all samples.

    Args:
        masks: Non-zero on defects; None where there are none.
        maps: Anomaly maps, higher is more defective.

    Returns:
        AUROC, F1Max, AP, PRO (exact) and PRO_200 (as the released program) as fractions; None where undefined.

    Raises:
        ValueError: Different shapes, maps that are not finite.
    """
    maps = _finite("maps", np.asarray(maps))
    if masks is None:
        return dict.fromkeys(_PIXEL_KEYS)
    positive = _expect_masks(masks, maps)
    flat = _ranking_metrics(positive.reshape(-1), maps.reshape(-1))
    regions = _Regions(positive, maps)
    return flat | {"PRO": regions.exact(0.3), "PRO_200": regions.by_200_thresholds(0.3)}


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
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit: expected a rate above 0 and up to 1, received {limit}")
    maps = _finite("maps", np.asarray(maps))
    return _Regions(_expect_masks(masks, maps), maps).exact(limit)


def pro_200(
    masks: Shaped[np.ndarray | jax.Array, "N H W"],
    maps: Num[np.ndarray | jax.Array, "N H W"],
    *,
    limit: float = 0.3,
) -> float | None:
    """Per-region overlap as the released program computes it, for comparison with published figures.

    200 thresholds evenly spaced in score from the lowest to the highest; points with a false positive rate below
    `limit`, whose rates are then stretched to [0, 1]. Heavy-tailed maps have few thresholds in that range, and the
    figure collapses; `pro` does not.

    Returns:
        0 to 1; None without a region or a normal pixel, for a constant map, and where fewer than two thresholds are
        left.
    """
    maps = _finite("maps", np.asarray(maps))
    return _Regions(_expect_masks(masks, maps), maps).by_200_thresholds(limit)


def mean_metrics(categories: Mapping[str, Mapping[str, float | None]]) -> tuple[Metrics, dict[str, int]]:
    """Arithmetic means over the categories where a metric is defined.

    Returns:
        (means, counts): the mean of each metric, None where no category has it, and over how many categories it runs.
    """
    keys = next(iter(categories.values()), {}).keys()
    values = {key: [v for v in (c[key] for c in categories.values()) if v is not None] for key in keys}
    means = {key: float(np.mean(found)) if found else None for key, found in values.items()}
    return means, {key: len(found) for key, found in values.items()}


def _expect_masks(masks: np.ndarray | jax.Array, maps: np.ndarray) -> np.ndarray:
    masks = np.asarray(masks)
    if maps.ndim != 3 or masks.shape != maps.shape:
        raise ValueError(f"masks, maps: expected equal shapes (N, H, W), received {masks.shape} and {maps.shape}")
    return masks != 0


class _Regions:
    """Scores in falling order, with what each pixel adds to the false positive rate and to the mean overlap.

    One sort serves both ways of computing PRO.
    """

    def __init__(self, positive: np.ndarray, maps: np.ndarray) -> None:
        self.defined = bool(positive.any()) and not positive.all()
        if not self.defined:
            return
        # Each pixel of a region adds 1 / (its size * number of regions) to the mean overlap.
        gain = np.zeros(maps.shape, np.float64)
        count = 0
        for mask, target in zip(positive, gain, strict=True):
            labels, found = ndimage.label(mask, structure=_EIGHT_CONNECTED)
            sizes = np.bincount(labels.reshape(-1))
            count += found
            inside = labels > 0
            target[inside] = 1 / sizes[labels[inside]]
        order = np.argsort(maps.reshape(-1), kind="stable")[::-1]
        scores = maps.reshape(-1)[order]
        # Pixels of equal score are found together: only the last of each run is a point of the curve.
        last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
        normal = ~positive.reshape(-1)[order]
        self.thresholds = scores[last].astype(np.float64)
        self.rates = np.cumsum(normal)[last] / normal.sum()
        self.overlaps = np.minimum(np.cumsum(gain.reshape(-1)[order])[last] / count, 1)

    def exact(self, limit: float) -> float | None:
        if not self.defined:
            return None
        rates, overlaps = np.append(0, self.rates), np.append(0, self.overlaps)
        inside = rates <= limit
        at_limit = np.interp(limit, rates, overlaps)
        x, y = np.append(rates[inside], limit), np.append(overlaps[inside], at_limit)
        return float(min(1, np.trapezoid(y, x) / limit))

    def by_200_thresholds(self, limit: float) -> float | None:
        if not self.defined:
            return None
        low, high = self.thresholds[-1], self.thresholds[0]
        step = (high - low) / 200
        if not step > 0:
            return None
        thresholds = np.arange(low, high, step)
        # How many distinct scores lie above each threshold; the curve is at the last of them.
        above = np.searchsorted(-self.thresholds, -thresholds, side="left") - 1
        rates, overlaps = (np.where(above >= 0, curve[above], 0) for curve in (self.rates, self.overlaps))
        kept = rates < limit
        rates, overlaps = rates[kept][::-1], overlaps[kept][::-1]
        if len(rates) < 2 or rates[-1] == rates[0]:
            return None
        return float(np.trapezoid(overlaps, (rates - rates[0]) / (rates[-1] - rates[0])))
