"""Who voted: the samples that matched one place best and worst, answered from the features that scoring used."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from musc_jax.data.sample import Sample
from musc_jax.execution.extraction import Features, Progress, extract
from musc_jax.execution.feature_store import FeatureStore, StoredArray
from musc_jax.execution.inside import Inside, inside_of
from musc_jax.execution.memory import Plan
from musc_jax.execution.programs import Programs
from musc_jax.execution.schedule import Stage
from musc_jax.execution.scoring import devices_for
from musc_jax.execution.similar import choose_references
from musc_jax.mutual import interval_count
from musc_jax.resolved import Resolved
from musc_jax.votes import token_votes

# References at a time: of features on disk no more are read at once.
_AT_ONCE = 8


class Question(NamedTuple):
    """A place that is asked about.

    Attributes:
        sample: The sample's name.
        pixel: (row, column) at the working size.
    """

    sample: str
    pixel: tuple[int, int]


class Voter(NamedTuple):
    """A reference and its match.

    Attributes:
        sample: Its name.
        distance: Mean over the stages of the distance to its nearest token.
        place: (row, column) of the middle of that token, of the last stage, at the working size.
    """

    sample: str
    distance: float
    place: tuple[float, float]


class Vote(NamedTuple):
    """Who scored a place, by one modality.

    Attributes:
        question: What was asked.
        modality: "image" or "points".
        place: (row, column) of the middle of the token that the place belongs to, at the working size.
        lowest: The references at the smallest distances, the smallest first.
        highest: Those at the largest, the largest first.
        num_references: How many score the place.
        averaged: How many of the lowest distances of each stage a patch score is the mean of.
    """

    question: Question
    modality: str
    place: tuple[float, float]
    lowest: tuple[Voter, ...]
    highest: tuple[Voter, ...]
    num_references: int
    averaged: int

    @classmethod
    def of(cls, facts: Sequence[Any]) -> "Vote":
        """From what JSON makes of it."""
        (name, (row, column)), modality, place, lowest, highest, *counts = facts

        def voters(side: Sequence[Any]) -> tuple[Voter, ...]:
            return tuple(Voter(sample, distance, (at[0], at[1])) for sample, distance, at in side)

        return cls(
            Question(name, (row, column)), modality, (place[0], place[1]), voters(lowest), voters(highest), *counts
        )


class Inquiry(NamedTuple):
    """What is asked about a batch once it is scored.

    Attributes:
        questions: From names, scores (N,) and maps (N, S, S) to what is asked.
        k: So many of the lowest and of the highest are named.
    """

    questions: Callable[[Sequence[str], np.ndarray, np.ndarray], Sequence[Question]]
    k: int


def inquire(
    inquiry: Inquiry | None,
    features: Features,
    samples: Sequence[Sample],
    pred_scores: np.ndarray,
    maps: np.ndarray,
    config: Resolved,
    programs: Programs,
) -> tuple[Vote, ...]:
    """Answers what is asked about samples that have just been scored by each other, all of them in one part."""
    if inquiry is None or len(pred_scores) != features.num_samples:
        return ()
    questions = inquiry.questions([sample.name for sample in samples], pred_scores, maps)
    return answer(features, samples, config, programs, questions, k=inquiry.k)


def explain(
    samples: Iterable[Sample],
    config: Resolved,
    questions: Sequence[Question],
    programs: Programs,
    *,
    k: int,
    total: int | None = None,
    plan: Plan | None = None,
    store: FeatureStore | None = None,
    mesh: Mesh | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> tuple[Vote, ...]:
    """Who matched some places of samples that are scored already: features anew, and no scores.

    Args:
        samples: All of them.
        config: As they were scored.
        questions: What is asked.
        programs: Compiles and times.
        k: How many of the lowest and the highest are wanted.
        total: See `musc_jax.pipeline.score_divisions`; so are those that follow.
        plan: Where features stay.
        store: Where features go that the plan puts on disk.
        mesh: The devices that share the work.
        skip_bad: Leave out samples that cannot be scored.
        progress: Called with (stage, done, total).
    """
    features, seen = extract(
        samples,
        config,
        programs,
        total=total,
        progress=progress,
        store=store,
        mesh=devices_for(plan, mesh),
        skipped=[] if skip_bad else None,
    )
    return answer(features, seen, config, programs, questions, k=k)


def answer(
    features: Features,
    samples: Sequence[Sample],
    config: Resolved,
    programs: Programs,
    questions: Sequence[Question],
    *,
    k: int,
) -> tuple[Vote, ...]:
    """Votes on each place, of each modality.

    A place belongs to the image patch that counts most in the map there, and to the group of points whose centre lies
    nearest in the scan's picture. The references are those that scored the sample; the distances are those before
    modalities enhance each other, in full precision.

    Args:
        features: As they were scored.
        samples: In their order.
        config: A resolved config.
        programs: Compiles and times.
        questions: About samples that are among them; others are passed over.
        k: How many of the lowest and the highest are wanted.
    """
    index = {sample.name: i for i, sample in enumerate(samples)}
    known = [question for question in questions if question.sample in index]
    if not known:
        return ()
    rows = np.array([index[question.sample] for question in known])
    inside = inside_of(
        samples,
        size=config.size,
        num_patches=None if features.image is None else features.image.stages[0].shape[1],
        center_pixels=None if features.points is None else np.asarray(features.points.center_pixels),
    )
    vouch = np.array([sample.vouches for sample in samples])
    may = None if vouch.all() else vouch
    references = choose_references(features, config.scoring, programs, inside=inside, vouch=may)
    found: list[Vote] = []
    for modality in _modalities(features, config, [question.pixel for question in known], rows, inside):
        distances, nearest = _votes(modality, features, rows, references.samples, programs)
        for q, question in enumerate(known):
            # Units are samples here; columns count among those that score.
            columns = references.columns[rows[q]]
            order = columns[np.argsort(distances[q, columns], kind="stable")]
            voters = []
            for column in order:
                who = int(references.samples[column])
                place = modality.place(who, int(nearest[q, column]))
                voters.append(Voter(samples[who].name, float(distances[q, column]), place))
            averaged = interval_count(len(voters), config.scoring.interval)
            place = modality.place(int(rows[q]), int(modality.own[q]))
            sides = tuple(voters[:k]), tuple(voters[::-1][:k])
            found.append(Vote(question, modality.name, place, *sides, len(voters), averaged))
    order_of = {question: i for i, question in enumerate(known)}
    return tuple(sorted(found, key=lambda vote: order_of[vote.question]))


class _Modality(NamedTuple):
    """Features of one modality, and where their tokens are."""

    name: str
    stages: Sequence[Stage]
    middles: Float[np.ndarray, "_ M 2"]
    """(row, column) of the tokens' middles, of each sample, or the same for all."""
    own: Int[np.ndarray, "Q"]
    """The token of each question."""
    counts: Bool[np.ndarray, "N M"] | None = None
    """The tokens that score others; None: all."""

    def place(self, sample: int, token: int) -> tuple[float, float]:
        row, column = self.middles[sample % len(self.middles), token]
        return float(row), float(column)


def _modalities(
    features: Features,
    config: Resolved,
    pixels: Sequence[tuple[int, int]],
    rows: Int[np.ndarray, "Q"],
    inside: Inside | None,
) -> Iterator[_Modality]:
    if features.image is not None:
        stages, size = features.image.stages, config.size
        side = math.isqrt(stages[0].shape[1])
        # The patch that weighs most in the map there, see `musc_jax.maps.upsample_grid`.
        at = np.rint(np.array(pixels) * (side - 1) / max(1, size - 1)).astype(np.int64)
        middles = (np.arange(side) + 0.5) * size / side
        grid = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(1, -1, 2)
        counts = None if inside is None else inside.patches
        yield _Modality("image", stages, grid, at[:, 0] * side + at[:, 1], counts)
    if features.points is not None:
        middles = np.stack(np.divmod(np.asarray(features.points.center_pixels), config.size), axis=-1) + 0.5
        apart = np.square(middles[rows] - (np.array(pixels)[:, None] + 0.5)).sum(axis=2)
        counts = None if inside is None else inside.groups
        yield _Modality("points", features.points.stages, middles, apart.argmin(axis=1), counts)


def _votes(
    modality: _Modality,
    features: Features,
    rows: Int[np.ndarray, "Q"],
    scorers: Int[np.ndarray, "T"],
    programs: Programs,
) -> tuple[Float[np.ndarray, "Q T"], Int[np.ndarray, "Q T"]]:
    """Distances, the mean over the stages, and the nearest tokens of the last stage; some references at a time."""
    members = None if features.spread is None else features.spread.members
    total = np.zeros((len(rows), len(scorers)))
    nearest = np.zeros(total.shape, np.int64)
    size = min(_AT_ONCE, len(scorers))
    for stage in modality.stages:
        tokens = np.stack([_read(stage, members, rows[q : q + 1])[0, token] for q, token in enumerate(modality.own)])
        for start in range(0, len(scorers), size):
            # Filled up with the last one, so that one program serves all.
            part = scorers[np.minimum(np.arange(start, start + size), len(scorers) - 1)]
            others = _read(stage, members, part)
            if modality.counts is not None:
                # One that does not count is as if it were the first that does, and so is its place.
                others = np.take_along_axis(others, _that_count(modality.counts[part])[..., None], axis=1)
            votes = programs.run("explaining", token_votes, tokens, others)
            stop = min(start + size, len(scorers))
            total[:, start:stop] += np.asarray(votes.distances)[:, : stop - start]
            places = np.asarray(votes.nearest)
            if modality.counts is not None:
                places = _that_count(modality.counts[part])[np.arange(size)[None], places]
            nearest[:, start:stop] = places[:, : stop - start]
    return total / len(modality.stages), nearest


def _that_count(counts: Bool[np.ndarray, "k M"]) -> Int[np.ndarray, "k M"]:
    """The tokens themselves; in the place of each that does not count the first one that does."""
    return np.where(counts, np.arange(counts.shape[1])[None], counts.argmax(axis=1)[:, None])


def _read(stage: Stage, members: np.ndarray | None, index: Int[np.ndarray, " k"]) -> np.ndarray:
    """Tokens of some samples, wherever they lie."""
    if isinstance(stage, StoredArray):
        return stage.rows(index)
    return np.asarray(stage[index if members is None else members[index]])
