"""Decisions without labels: thresholds on the scores of one batch, each with what it assumes.

Scores rank; a decision needs an assumption besides. Every rule here states its own and how much its outcome hangs on
single samples, and none of them changes a score. A sample is called defective where its score lies above the threshold.
None of this is in the paper, which reports metrics that need no threshold.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

DEFAULT_RULE = "gap"
"""What decides unless told otherwise: the only rule that may find nothing."""

BY_VERDICTS = "verdicts"
"""The rule that takes a person's word for some samples, see `decide_by_verdicts`."""

SHOWN_RULES = ("gap", "mad:3.5", "rate:0.05")
"""What is shown side by side, whichever decides."""

# A batch of one population with an exponential tail is taken for two in this share of cases, others less often.
_FALSE_GAPS = 0.05
# Of fewer scores none stands out.
_FEWEST = 4
# Batches that the comparison of gaps is simulated with.
_DRAWS = 4000
# A gap is at least this share of the whole range of the scores below it.
_LEAST_GAP = 0.15
_VALUE = "scores mean what they meant where the value was chosen; re-scored ones are relative to their batch"
# Leaving out one sample after the other is as good as said by this many of them.
_MOST_LEFT_OUT = 200


class Decision(NamedTuple):
    """What a rule makes of the scores of a batch.

    Attributes:
        rule: the rule as `decide` takes it, or another name of what decided.
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

    In a tail that falls off exponentially, the gap below the j-th highest score times j is distributed like an
    exponential variable, independent of the other gaps (Rényi). So a gap stands out if it is many times as large as the
    median of the others, more often than `_critical` says. Tails that fall off faster have smaller gaps at their ends.
    """
    ranked = np.sort(scores)[::-1]
    count = len(ranked)
    if count < _FEWEST:
        return None
    upper, compared = count // 2, _compared(count)
    gaps = ranked[:compared] - ranked[1 : compared + 1]
    weighted = np.arange(1, compared + 1) * gaps
    limit = _critical(count, chance)
    # The gaps themselves as well: in a tail that ends abruptly they are alike, and the weighted ones grow inwards.
    clear = (gaps[:upper] > 0) & (gaps[:upper] > _LEAST_GAP * (ranked[1 : upper + 1] - ranked[-1]))
    for values in (weighted, gaps):
        clear &= values[:upper] > limit * _medians_of_others(values[None])[0, :upper]
    if not clear.any():
        return None
    at = int(np.argmax(np.where(clear, weighted[:upper], 0)))
    return _between(ranked[at + 1], ranked[at])


def _compared(count: int) -> int:
    """How many gaps, from the top, a gap is compared with: those of the upper half, and of few scores a few more."""
    return max(count // 2, min(count - 1, 8))


@lru_cache(maxsize=64)
def _critical(count: int, chance: float) -> float:
    """How many times the median of the others the largest weighted gap is in a share `chance` of batches.

    Simulated for an exponential tail, always by the same draws. Above 400 scores it hardly changes.
    """
    count = min(count, 400)
    draws = np.random.default_rng(0).exponential(size=(_DRAWS, _compared(count)))
    ratios = draws / _medians_of_others(draws)
    return float(np.quantile(ratios[:, : count // 2].max(axis=1), 1 - chance))


def _medians_of_others(values: Float[np.ndarray, "rows gaps"]) -> Float[np.ndarray, "rows gaps"]:
    """For each value the median of the others in its row."""
    ranked, place = (
        np.sort(values, axis=1),
        np.argsort(np.argsort(values, axis=1, kind="stable"), axis=1, kind="stable"),
    )

    def other(number: int) -> np.ndarray:
        """The others' value of that number from below."""
        return np.where(place <= number, ranked[:, [number + 1]], ranked[:, [number]])

    others = values.shape[1] - 1
    return (other((others - 1) // 2) + other(others // 2)) / 2


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


def decide_by_verdicts(scores: Float[np.ndarray, "N"] | Sequence[float], verdicts: Sequence[int | None]) -> Decision:
    """Decide by what a person has said of some samples: the threshold with the highest F1 on these.

    Args:
        scores: of N samples that were scored together, finite.
        verdicts: of each sample 1, defective, 0, good, or None.

    Returns:
        The decision; its count hangs on single verdicts.

    Raises:
        ValueError: not one for each score, or not both kinds of verdicts.
    """
    values = _checked(scores)
    if len(verdicts) != len(values):
        raise ValueError(f"verdicts: expected one for each of {len(values)} scores, received {len(verdicts)}")
    known = np.flatnonzero([verdict is not None for verdict in verdicts])
    labels = np.array([verdict == 1 for verdict in verdicts if verdict is not None])
    threshold = best_threshold(values[known], labels) if len(known) else None
    if threshold is None:
        raise ValueError("verdicts: expected some, both good and defective, received none")
    counts = [_count(values, threshold)]
    for i in range(min(len(known), _MOST_LEFT_OUT)):
        rest = np.delete(labels, i)
        if rest.any() and not rest.all():
            counts.append(_count(values, best_threshold(values[np.delete(known, i)], rest)))
    assumes = "samples without a verdict score like those with the same one would"
    return Decision(BY_VERDICTS, threshold, counts[0], min(counts), max(counts), assumes)


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
        return (
            lambda _: value,
            _VALUE,
        )
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
