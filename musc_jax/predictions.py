"""What a batch's scores and maps say about each of its samples: ranks, decisions, hot regions; a result to look at."""

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from musc_jax import decisions
from musc_jax.data.health import Finding
from musc_jax.decisions import DEFAULT_RULE, Decision
from musc_jax.pipeline import Results
from musc_jax.report.regions import Region, enlarge_inside, find_regions

# A region of fewer pixels of a map is a rounding of its threshold.
_LEAST_AREA = 4
_SHOWN = 10
_CARRIED = "carried"


@dataclass(frozen=True)
class Prediction:
    """One sample of a batch.

    Attributes:
        name: the sample's.
        path: its file.
        pred_score, max_score: see `musc_jax.pipeline.Results`.
        percentile: 0 to 100, the share of the others with lower scores; equal ones count half.
        rank: 1 for the highest score; equal ones share the lower number.
        pred_label: whether it is called defective.
        gt_label: 1 defective, 0 good; None where unknown.
        verdict: likewise, by a person who has looked at this batch before.
    """

    name: str
    path: Path
    pred_score: float
    max_score: float
    percentile: float
    rank: int
    pred_label: bool
    gt_label: int | None
    verdict: int | None = None


@dataclass(frozen=True, eq=False)
class Predictions:
    """A batch that was scored, with what was decided about it; iterates over its samples in their order.

    Attributes:
        results: scores and maps.
        decisions: what each rule makes of the scores; the first is the one that decides.
        pixel_threshold: map pixels above it are hot, in all samples; see `musc_jax.decisions.pixel_threshold`.
        samples: one for each sample.
        inputs: what the files were read as, where they came from a folder.
        warnings: what is odd about them.
        unreadable: names of samples that were left out because their files cannot be read.
        health: what is odd about the samples as a batch.
    """

    results: Results
    decisions: tuple[Decision, ...]
    pixel_threshold: float
    samples: tuple[Prediction, ...]
    inputs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    health: tuple[Finding, ...] = ()
    _found: dict[int, list[Region]] = field(default_factory=dict, init=False, repr=False)

    def with_inputs(
        self,
        *,
        inputs: tuple[str, ...],
        warnings: tuple[str, ...],
        unreadable: tuple[str, ...],
        health: tuple[Finding, ...] = (),
    ) -> "Predictions":
        """The same with what is known about the files."""
        return replace(self, inputs=inputs, warnings=warnings, unreadable=unreadable, health=health)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.samples)

    @property
    def decision(self) -> Decision:
        """The one that decides."""
        return self.decisions[0]

    @property
    def map_threshold(self) -> float | None:
        """The threshold in units of the maps, which are the same in every batch; None where there is none.

        Re-scored scores are relative to the lowest and the highest map maximum of their own batch.
        """
        threshold = self.decision.threshold
        return None if threshold is None else _unit(self.results).to_map(threshold)

    @property
    def pred_labels(self) -> Bool[np.ndarray, "N"]:
        """Which samples are called defective."""
        return np.array([sample.pred_label for sample in self.samples], bool)

    def worst_first(self) -> list[Prediction]:
        """The samples by their scores, the highest first."""
        return sorted(self.samples, key=lambda sample: sample.rank)

    def full_map(self, index: int) -> Float[np.ndarray, "height width"]:
        """A sample's map on its picture as it is shown; at the working size where the sample has no pixels.

        0 outside of its region of interest.
        """
        sample = self.results.samples[index]
        place: dict[str, Any] = {"full_size": self._full_size(index), "fit": sample.fit}
        return enlarge_inside(self.results.anomaly_maps[index], sample.roi, **place)[0]

    def mask(self, index: int) -> Bool[np.ndarray, "height width"]:
        """A sample's hot pixels on its picture as it is shown; none outside of its region of interest."""
        if self._is_cold(index):
            return np.zeros(self._full_size(index), bool)
        hot, inside = self.full_map(index) > self.pixel_threshold, self._inside(index)
        return hot if inside is None else hot & inside

    def _inside(self, index: int) -> Bool[np.ndarray, "height width"] | None:
        """A sample's region of interest on its picture as it is shown; None where it has none."""
        sample = self.results.samples[index]
        place: dict[str, Any] = {"full_size": self._full_size(index), "fit": sample.fit}
        return None if sample.roi is None else enlarge_inside(self.results.anomaly_maps[index], sample.roi, **place)[1]

    def regions(self, index: int) -> list[Region]:
        """A sample's hot regions in pixels of its picture, the hottest first; found once.

        Regions smaller than four pixels of the working size are left out.
        """
        if index not in self._found:
            self._found[index] = [] if self._is_cold(index) else self._find_regions(index)
        return self._found[index]

    def _find_regions(self, index: int) -> list[Region]:
        whole = self.full_map(index)
        scale = whole.size / self.results.anomaly_maps[index].size
        least = max(1, round(_LEAST_AREA * scale))
        return find_regions(whole, self.pixel_threshold, least_area=least, inside=self._inside(index))

    def _is_cold(self, index: int) -> bool:
        """Whether nothing of a map is hot, so that it need not be enlarged: that makes no value higher."""
        return not float(self.results.anomaly_maps[index].max()) > self.pixel_threshold

    def _full_size(self, index: int) -> tuple[int, int]:
        anomaly_map = self.results.anomaly_maps[index]
        return self.results.samples[index].full_size or (anomaly_map.shape[0], anomaly_map.shape[1])

    def __repr__(self) -> str:
        decision = self.decision
        return f"<{len(self)} samples, {decision.num_defective} called defective by {decision.rule}>"

    def _repr_html_(self) -> str:
        """A table for notebooks: the decisions, and the samples with the highest scores."""
        rules = "".join(
            f"<tr><td>{html.escape(d.rule)}</td><td>{_shown(d.threshold)}</td><td>{d.num_defective}</td>"
            f"<td>{html.escape(d.assumes)}</td></tr>"
            for d in self.decisions
        )
        rows = "".join(
            f"<tr><td>{sample.rank}</td><td>{html.escape(sample.name)}</td><td>{sample.pred_score:.4g}</td>"
            f"<td>{'defective' if sample.pred_label else 'good'}</td></tr>"
            for sample in self.worst_first()[:_SHOWN]
        )
        return (
            f"<p>{html.escape(repr(self)[1:-1])}</p>"
            "<table><thead><tr><th>rule</th><th>threshold</th><th>defective</th><th>assumes</th></tr></thead>"
            f"<tbody>{rules}</tbody></table>"
            "<table><thead><tr><th>rank</th><th>sample</th><th>pred_score</th><th>called</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )


class _Unit(NamedTuple):
    """How the scores of a batch follow from values in units of its maps: score = (value - low) / span."""

    low: float
    span: float

    def to_map(self, score: float) -> float:
        return self.low + self.span * score

    def from_map(self, value: float) -> float:
        return (value - self.low) / self.span


def _unit(results: Results) -> _Unit:
    peaks = np.asarray(results.max_scores, np.float64)
    span = float(peaks.max() - peaks.min())
    if span == 0 or np.array_equal(results.pred_scores, results.max_scores):
        return _Unit(0.0, 1.0)  # without re-scoring they are the same
    return _Unit(float(peaks.min()), span)


def predict(
    results: Results,
    *,
    threshold: str = DEFAULT_RULE,
    map_threshold: float | None = None,
    pixel_threshold: float | None = None,
    verdicts: Mapping[str, int] | None = None,
) -> Predictions:
    """Decide about a batch that was scored.

    Args:
        results: what `musc_jax.pipeline.score` gave.
        threshold: the rule that decides, see `musc_jax.decisions.decide`; or "verdicts".
        map_threshold: instead: the threshold of another batch (`Predictions.map_threshold`); its rule is "carried".
        pixel_threshold: of the maps; default one for the batch, see `musc_jax.decisions.pixel_threshold`.
        verdicts: by name, what a person has said of samples: 1 defective, 0 good. They are listed, and with the rule
            "verdicts" they decide.

    Raises:
        ValueError: no such rule, scores that are not finite, or verdicts of one kind only that are to decide.
    """
    scores = np.asarray(results.pred_scores, np.float64)
    said = [(verdicts or {}).get(sample.name) for sample in results.samples]
    if map_threshold is not None:
        threshold = repr(_unit(results).from_map(map_threshold))
    if threshold == decisions.BY_VERDICTS:
        found = (decisions.decide_by_verdicts(scores, said), *decisions.side_by_side(scores))
    else:
        found = tuple(decisions.side_by_side(scores, threshold))
    if map_threshold is not None:
        assumes = "maps mean what they meant in the batch that the threshold is from: the same parts, camera and light"
        found = (found[0]._replace(rule=_CARRIED, assumes=assumes), *found[1:])
    defective = found[0].labels(scores)
    if pixel_threshold is None:
        pixel_threshold = decisions.pixel_threshold(np.asarray(results.max_scores, np.float64), defective)
    ranks, percentiles = _places(scores)
    samples = tuple(
        Prediction(
            name=sample.name,
            path=sample.image_path,
            pred_score=float(scores[i]),
            max_score=float(results.max_scores[i]),
            percentile=float(percentiles[i]),
            rank=int(ranks[i]),
            pred_label=bool(defective[i]),
            gt_label=sample.gt_label,
            verdict=said[i],
        )
        for i, sample in enumerate(results.samples)
    )
    return Predictions(results, found, float(pixel_threshold), samples)


def _places(scores: Float[np.ndarray, "N"]) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Rank and percentile of each score."""
    ranked = np.sort(scores)
    below, above = np.searchsorted(ranked, scores, "left"), len(scores) - np.searchsorted(ranked, scores, "right")
    others = max(len(scores) - 1, 1)
    equal = len(scores) - 1 - below - above
    return above + 1, 100 * (below + equal / 2) / others


def _shown(threshold: float | None) -> str:
    return "no clear defects" if threshold is None else f"{threshold:.4g}"
