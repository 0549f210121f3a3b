"""Decisions without labels: thresholds on the scores of one batch, each with what it assumes.

Scores rank; a decision needs an assumption besides. Every rule here states its own and how much its outcome hangs on
single samples, and none of them changes a score. A sample is called defective where its score lies above the threshold.
None of this is in the paper, which reports metrics that need no threshold.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

DEFAULT_RULE = "gap"
"""What decides unless told otherwise: the only rule that may find nothing."""

SHOWN_RULES = ("gap", "mad:3.5", "rate:0.05")
"""What is shown side by side, whichever decides."""

# A batch of one population is taken for two once in so many.
_FALSE_GAPS = 0.01
# A gap is at least this share of the whole range of the scores below it.
_LEAST_GAP = 0.15
# Leaving out one sample after the other is as good as said by this many of them.
_MOST_LEFT_OUT = 200


class Decision(NamedTuple):
    """What a rule makes of the scores of a batch.

    Attributes:
        rule: the rule as `decide` takes it.
        threshold: scores above it are called defective; None where the rule finds no clear defects.
        num_defective: how many scores lie above it.
        lowest, highest: the same count, over all scores, with thresholds from all samples but one: how much it hangs on
            a single sample.
        assumes: what has to be true of the batch for this to be right, in a sentence.
    """

    rule: str
    threshold: float | None
    num_defective: int
    lowest: int
    highest: int
    assumes: str

    def labels(self, scores: Float[np.ndarray, "N"]) -> Bool[np.ndarray, "N"]:
        """Which scores are called defective."""
        return np.zeros(len(scores), bool) if self.threshold is None else scores > self.threshold


class _Rule(NamedTuple):
    threshold: Callable[[np.ndarray, float], float | None]
    assumes: str
    usual: float | None = None
    """Parameter where none is given; None: it needs one."""
    lowest: float = 0.0
    highest: float = math.inf


def _by_rate(scores: np.ndarray, rate: float) -> float | None:
    ranked = np.sort(scores)[::-1]
    count = round(rate * len(ranked))
    if count == 0:
        return float(ranked[0])
    if count == len(ranked):
        return float(np.nextafter(ranked[-1], -np.inf))
    return _between(ranked[count], ranked[count - 1])


def _by_deviation(scores: np.ndarray, factor: float) -> float | None:
    middle = np.median(scores)
    return float(middle + factor * np.median(np.abs(scores - middle)))


def _by_gap(scores: np.ndarray, chance: float) -> float | None:
    """Middle of the largest gap in the upper half that one population would hardly have.

    In a tail that falls off exponentially, or faster, the gap below the j-th highest score times j is distributed as an
    exponential variable, independent of the other gaps (Rényi), so that the largest of them is known. Their scale is
    taken from their median, which a few defects do not move.
    """
    ranked = np.sort(scores)[::-1]
    upper = len(ranked) // 2
    if upper < 2:
        return None
    gaps = ranked[:upper] - ranked[1 : upper + 1]
    limit = -math.log(1 - (1 - chance) ** (1 / upper))
    weighted = np.arange(1, upper + 1) * gaps

    def stands_out(values: np.ndarray) -> np.ndarray:
        return values > limit * np.median(values) / math.log(2)

    # The gaps themselves as well: in a tail that ends abruptly they are alike, and the weighted ones grow inwards.
    clear = stands_out(weighted) & stands_out(gaps) & (gaps > _LEAST_GAP * (ranked[1 : upper + 1] - ranked[-1]))
    if not clear.any():
        return None
    at = int(np.argmax(np.where(clear, weighted, 0)))
    return _between(ranked[at + 1], ranked[at])


def _between(low: float, high: float) -> float:
    """The middle of two scores; where there is no number between them, the lower one."""
    middle = float(low) + (float(high) - float(low)) / 2
    return middle if middle < high else float(low)


_RULES = {
    "gap": _Rule(
        _by_gap,
        "at most half of the samples are defective, and their scores are set apart from the others' by a gap; "
        "otherwise none is called defective",
        usual=_FALSE_GAPS,
        highest=0.5,
    ),
    "mad": _Rule(
        _by_deviation,
        "most samples are good, and a good one's score exceeds the median by no more than {0:g} times the median "
        "deviation from it (MAD)",
        usual=3.5,
    ),
    "rate": _Rule(_by_rate, "{0:.4g} of the samples are defective, whatever their scores", highest=1.0),
}


def decide(scores: Float[np.ndarray, "N"] | Sequence[float], rule: str = DEFAULT_RULE) -> Decision:
    """Decide which samples of a batch are defective.

    Args:
        scores: of N samples that were scored together, finite.
        rule: "gap" (the largest clear gap in the upper half; "gap:P" with the share P of batches without defects in
            which one is seen all the same, 0.01 otherwise), "mad:K" (median + K MAD, the median absolute deviation,
            which of a normal distribution is 0.67 standard deviations), "rate:P" (the share P with the highest scores)
            or a number, the threshold itself.

    Returns:
        The decision. A number's and a rate's count does not hang on any sample.

    Raises:
        ValueError: no such rule, a parameter out of its range, no scores or some that are not finite.
    """
    values = _checked(scores)
    threshold, assumes = _parse(rule)
    found = threshold(values)
    counts = [_count(values, found)]
    if len(values) > 1:
        left_out = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST_LEFT_OUT)).astype(int))
        order = np.argsort(values, kind="stable")
        counts += [_count(values, threshold(np.delete(values, order[i]))) for i in left_out]
    return Decision(rule, found, counts[0], min(counts), max(counts), assumes)


def side_by_side(scores: Float[np.ndarray, "N"] | Sequence[float], rule: str = DEFAULT_RULE) -> list[Decision]:
    """What the rule that decides and the others that are usual make of the same scores; the former comes first."""
    return [decide(scores, name) for name in dict.fromkeys((rule, *SHOWN_RULES))]


def check_rule(rule: str) -> str:
    """The rule, if `decide` takes it.

    Raises:
        ValueError: it does not.
    """
    _parse(rule)
    return rule


def best_threshold(scores: Float[np.ndarray, "N"] | Sequence[float], labels: Bool[np.ndarray, "N"]) -> float:
    """The threshold with the highest F1 on samples whose labels are known, the middle between two scores.

    Raises:
        ValueError: not one label for each score, or not both kinds of them.
    """
    values, defective = _checked(scores), np.asarray(labels, bool)
    if defective.shape != values.shape or defective.all() or not defective.any():
        raise ValueError(
            f"labels: expected one for each of {len(values)} scores, both good and defective, received "
            f"{defective.sum()} defective of {defective.size}"
        )
    order = np.argsort(-values, kind="stable")
    ranked, hits = values[order], np.cumsum(defective[order])
    called = np.arange(1, len(values) + 1)
    quality = 2 * hits / (called + defective.sum())
    # Equal scores are called the same, so only the last of them is a place to cut.
    quality[:-1][ranked[:-1] == ranked[1:]] = 0
    at = int(np.argmax(quality))
    if at + 1 == len(values):
        return float(np.nextafter(ranked[-1], -np.inf))
    return _between(ranked[at + 1], ranked[at])


def pixel_threshold(
    max_scores: Float[np.ndarray, "N"], defective: Bool[np.ndarray, "N"], *, share: float = 0.95
) -> float:
    """The threshold of pixel masks, one for a batch.

    It assumes that of the samples called good all but a few show no defect anywhere: it is the highest pixel that
    `share` of them stay below. Where none is called good it is the lowest of all peaks, so that each has a mask.

    Args:
        max_scores: the highest pixel of each sample's map.
        defective: which samples are called defective.
        share: 0 to 1.

    Raises:
        ValueError: not one label for each score, or a share out of its range.
    """
    peaks = _checked(max_scores)
    if np.shape(defective) != peaks.shape:
        raise ValueError(f"defective: expected one for each of {len(peaks)} scores, received {np.shape(defective)}")
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected 0 to 1, received {share}")
    good = peaks[~np.asarray(defective, bool)]
    # A peak itself, none between two: few samples have no finer quantiles.
    return float(np.quantile(good, share, method="higher")) if len(good) else float(np.nextafter(peaks.min(), -np.inf))


def _checked(scores: Float[np.ndarray, "N"] | Sequence[float]) -> np.ndarray:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"scores: expected finite numbers, one a sample, received an array of shape {values.shape}")
    return values


def _parse(rule: str) -> tuple[Callable[[np.ndarray], float | None], str]:
    """The threshold as a function of scores, and what it assumes."""
    name, colon, given = str(rule).partition(":")
    expected = "a number, gap, mad:K (such as mad:3.5) or rate:P (such as rate:0.05)"
    if name not in _RULES:
        try:
            value = float(rule)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"threshold: expected {expected}, received {rule!r}")
        return lambda _: value, "scores are comparable with those that the value was chosen on"
    own = _RULES[name]
    try:
        parameter = float(given) if colon else own.usual
    except ValueError:
        parameter = math.nan
    if parameter is None or not (math.isfinite(parameter) and own.lowest <= parameter <= own.highest):
        range_of = f"{own.lowest:g} to {own.highest:g}" if math.isfinite(own.highest) else f"at least {own.lowest:g}"
        raise ValueError(f"threshold: {name}: expected {range_of}, as in {expected}, received {rule!r}")
    return lambda values: own.threshold(values, parameter), own.assumes.format(parameter)


def _count(scores: np.ndarray, threshold: float | None) -> int:
    return 0 if threshold is None else int((scores > threshold).sum())
