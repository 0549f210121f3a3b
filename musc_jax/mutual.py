"""Mutual scoring: unlabeled samples score each other's patches (paper III-C, eq. 8).

A patch's score by another sample is the distance to the nearest patch there. A normal patch finds a close match in most
samples, a defect in hardly any, so the mean of a patch's lowest scores tells them apart.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from musc_jax._arrays import Array, as_float, safe_sqrt
from musc_jax.kernels import expect_implementation, operation
from musc_jax.kernels.rounding import expect_precision
from musc_jax.pairs import centered, expect_features, pair_rows, pair_table, panel_scores
from musc_jax.references import References, as_references

Masks = Sequence[Array | None] | None
"""For each modality a mask (N, M) over tokens, or None where all count."""


# ---- Interval average (eq. 8)


@operation("lowest_mean")
def lowest_mean(values: jax.Array, *, count: int, axis: int) -> jax.Array:
    """Mean of the `count` lowest values along an axis (eq. 8); NaN counts as higher than all others."""
    return jax.lax.slice_in_dim(jnp.sort(values, axis=axis), 0, count, axis=axis).mean(axis=axis)


def interval_count(num_scores: int, interval: float) -> int:
    """How many of the lowest scores are averaged: max(1, floor(num_scores * interval)), in Python's float64."""
    if num_scores < 1:
        raise ValueError("scores: expected at least one reference sample, received none")
    if not 0 < interval <= 1:
        raise ValueError(f"interval: expected a share above 0 and up to 1, received {interval}")
    return max(1, int(num_scores * interval))


def interval_average(
    scores: Float[Array, "*batch R"], *, interval: float = 0.3, implementation: str = "auto"
) -> Float[jax.Array, "*batch"]:
    """Mean of the lowest share of the scores (paper eq. 8).

    Args:
        scores: Scores of a patch by R >= 1 samples along the last axis.
        interval: Share that is averaged; K = max(1, floor(R * interval)) values. The released program has no max and
            returns NaN for fewer than 5 samples of a single modality; here every R >= 1 is defined.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        The mean of the K lowest, in the dtype of `scores`. Equal values share what is left of the count.

    Raises:
        ValueError: No scores, an interval outside (0, 1], an unknown implementation.
    """
    wide, dtype = as_float(scores)
    if wide.ndim < 1:
        raise ValueError("scores: expected at least one axis, received a scalar")
    count = interval_count(wide.shape[-1], interval)
    return lowest_mean(wide, count=count, axis=-1, implementation=implementation).astype(dtype)


# ---- Mutual scores


Finish = Callable[..., tuple[jax.Array, ...]]
"""What becomes of one sample's scores: `finish(scores, query_mask, *extra)`; hashable, as programs are compiled for it.

| argument | shape | meaning |
|---|---|---|
| scores | (R, M) for each modality | by each of R references, in the order of its columns |
| query_mask | (M,) or None for each modality | tokens that are scored |
| extra | any | the sample's own part of whatever the schedule was given |
| returns | (M,) for each modality | patch scores of the stage; then, as often as it likes, more of each modality |
"""


@dataclasses.dataclass(frozen=True)
class AverageInterval:
    """The `Finish` of one modality: the interval average (eq. 8).

    Attributes:
        interval: Share of the lowest scores that is averaged.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.
    """

    interval: float
    implementation: str = "auto"

    def __call__(self, scores: Sequence[jax.Array], query_mask: Sequence[jax.Array | None]) -> tuple[jax.Array]:
        """((R, M),) to ((M,),)."""
        del query_mask  # tokens do not meet each other here
        (own,) = scores
        return (self.of_each(own),)

    def of_each(self, scores: Float[jax.Array, "R M"]) -> Float[jax.Array, "M"]:
        """The average of each token's scores."""
        count = interval_count(len(scores), self.interval)
        return lowest_mean(scores, count=count, axis=0, implementation=self.implementation)


class Scorers(NamedTuple):
    """`References` as arrays of a program."""

    columns: jax.Array
    """(R,) of one sample, or (N, R)."""
    units: jax.Array | None

    @classmethod
    def of(cls, references: References) -> "Scorers":
        """The columns of all samples."""
        units = None if references.units is None else jnp.asarray(references.units, jnp.int32)
        return cls(jnp.asarray(references.columns, jnp.int32), units)


def finish_sample(
    finish: Finish,
    num_units: int,
    scores: Sequence[jax.Array],
    columns: jax.Array,
    units: jax.Array | None,
    query_mask: Sequence[jax.Array | None],
    extra: Sequence[Any],
) -> tuple[jax.Array, ...]:
    """One sample's patch scores.

    Args:
        finish: See `Finish`.
        num_units: U.
        scores: (T, M) for each modality, by all samples that score.
        columns: (R,) the units that score this sample.
        units: (T,) the unit each sample that scores belongs to; None: its own.
        query_mask: (M,) or None for each modality.
        extra: Of this sample.

    Returns:
        (M,) for each modality; 0 for tokens that are not scored.
    """
    if units is not None:
        scores = [jax.ops.segment_min(x, units, num_units) for x in scores]
    found = finish([x[columns] for x in scores], query_mask, *extra)
    # More than patch scores, where a finish gives more, is of the modalities in turn.
    return tuple(x if mask is None else jnp.where(mask, x, 0) for x, mask in zip(found, itertools.cycle(query_mask)))


def score_samples(
    features: Sequence[jax.Array],
    finish: Finish,
    references: References,
    *,
    extra: Sequence[Any] = (),
    query_mask: Masks = None,
    reference_mask: Masks = None,
    precision: str = "full",
    half_type: str | None = None,
    implementation: str = "auto",
) -> tuple[jax.Array, ...]:
    """Patch scores of one stage, all samples at once: the definition that every schedule keeps to.

    Args:
        features: Tokens (N, M, C) of each modality, in at least float32.
        finish: From one sample's scores to its patch scores, see `Finish`.
        references: Who scores whom, and what counts as one.
        extra: Trees of arrays, one row a sample, whose rows `finish` gets.
        query_mask: (N, M) for each modality: tokens that are scored; others get 0 and may hold anything.
        reference_mask: (N, M) for each modality: tokens that score others. A sample without any is at infinite
            distance.
        precision: One of `musc_jax.kernels.rounding.PRECISIONS`.
        half_type: The type that "fast" rounds to; default by platform.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        (N, M) patch scores of each modality.
    """
    queries, valid = masks_or_none(query_mask, len(features)), masks_or_none(reference_mask, len(features))
    clean = [without_garbage(x, q, v)[0] for x, q, v in zip(features, queries, valid, strict=True)]
    options: dict[str, Any] = {"precision": precision, "half_type": half_type, "implementation": implementation}
    columns, units = Scorers.of(references)

    def one(scores: Sequence[jax.Array], column: jax.Array, masks: Any, rest: Any) -> tuple[jax.Array, ...]:
        return finish_sample(finish, references.num_units, scores, column, units, masks, rest)

    if references.everyone:
        table = pair_table(clean, valid, **options)

        def by_table(sample: tuple) -> tuple[jax.Array, ...]:
            rows, *rest = sample
            return one([safe_sqrt(x[rows]) for x in table], *rest)

        rows = jnp.asarray(pair_rows(len(columns)))
        return jax.lax.map(by_table, (rows, columns, tuple(queries), tuple(extra)))
    if references.listed:
        slots = jnp.arange(columns.shape[1], dtype=jnp.int32)

        def by_list(sample: tuple) -> tuple[jax.Array, ...]:
            own, column, *rest = sample
            parts = zip(own, clean, valid, strict=True)
            scores = [panel_scores(o[None], x[column], valid=_at(v, column), **options)[0] for o, x, v in parts]
            return one(scores, slots, *rest)

        return jax.lax.map(by_list, (tuple(clean), columns, tuple(queries), tuple(extra)))
    scorers = [(x[references.samples], None if v is None else v[references.samples]) for x, v in zip(clean, valid)]

    def by_panel(sample: tuple) -> tuple[jax.Array, ...]:
        own, *rest = sample
        pairs = zip(own, scorers, strict=True)
        return one([panel_scores(o[None], tokens, valid=mask, **options)[0] for o, (tokens, mask) in pairs], *rest)

    return jax.lax.map(by_panel, (tuple(clean), columns, tuple(queries), tuple(extra)))


def _at(mask: jax.Array | None, index: jax.Array) -> jax.Array | None:
    return None if mask is None else mask[index]


def masks_or_none(masks: Masks, count: int) -> list[jax.Array | None]:
    """One mask, or None, for each modality."""
    if masks is None:
        return [None] * count
    return [None if mask is None else jnp.asarray(mask).astype(bool) for mask in masks]


def without_garbage(
    tokens: jax.Array, query_mask: jax.Array | None, reference_mask: jax.Array | None
) -> tuple[jax.Array, ...]:
    """Tokens about their mean; those that neither are scored nor score become the mean, whatever they hold."""
    if query_mask is None or reference_mask is None:
        return centered(tokens)
    counts = (query_mask | reference_mask)[..., None]
    total = jnp.maximum(counts.sum(), 1).astype(tokens.dtype)
    clean = jnp.where(counts, tokens, 0)
    mean = jax.lax.stop_gradient(clean.sum(axis=(0, 1)) / total)
    return (jnp.where(counts, tokens - mean[None, None], 0),)


def mutual_scores(
    features: Float[Array, "N M C"],
    *,
    interval: float = 0.3,
    precision: str = "full",
    references: int | Int[Array, "N R"] | None = None,
    seed: int = 0,
    implementation: str = "auto",
) -> Float[jax.Array, "N M"]:
    """Scores of every patch of N samples by the other samples, one stage (paper eq. 7-8).

    Args:
        features: Aggregated tokens of N >= 2 samples.
        interval: Share of the lowest scores that is averaged.
        precision: One of `musc_jax.kernels.rounding.PRECISIONS`.
        references: Score each sample by so many others, at least 1, see `draw_references`; N - 1 and above, and the
            default, mean all. Or for each sample those that score it, see `nearest_samples`. (Not in the paper.)
        seed: Of their draw.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        Patch scores >= 0 in the dtype of `features`; the mean over the stages (eq. 9) is the caller's. Differentiable.

    Raises:
        ValueError: Wrong shapes, fewer than 2 samples, an interval outside (0, 1], an unknown precision or
            implementation, fewer than one reference, lists with a sample that is not another one.
    """
    expect_features(features)
    expect_precision(precision)
    expect_implementation(implementation)
    interval_count(1, interval)
    wide, dtype = as_float(features)
    drawn = as_references(features.shape[0], references, seed=seed)
    finish = AverageInterval(interval, implementation)
    (scores,) = score_samples((wide,), finish, drawn, precision=precision, implementation=implementation)
    return scores.astype(dtype)
