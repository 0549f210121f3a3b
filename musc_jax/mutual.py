"""Mutual scoring: unlabeled samples score each other's patches (paper III-C, eq. 7-9).

A patch's score by another sample is the distance to the nearest patch there. A normal patch finds a close match in most
samples, a defect in hardly any, so the mean of a patch's lowest scores tells them apart.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from musc_jax._arrays import Array, as_float, expect_shape, safe_sqrt, same_dtype
from musc_jax.kernels import expect_implementation, operation
from musc_jax.kernels.rounding import PRECISIONS, expect_precision, in_half, is_rounded
from musc_jax.references import References, draw_references

__all__ = ["PRECISIONS", "all_pair_scores", "interval_average", "mutual_scores", "pair_scores"]

Masks = Sequence[Array | None] | None
"""For each modality a mask (N, M) over tokens, or None where all count."""


# ---- The operations of eq. 7 and 8, plainly


@operation("pair_minima")
def pair_minima(
    a: jax.Array,
    b: jax.Array,
    valid_a: jax.Array | None = None,
    valid_b: jax.Array | None = None,
    *,
    precision: str = "full",
) -> tuple[jax.Array, jax.Array]:
    """Squared distance of each token of `a` to the nearest of `b`, and of each token of `b` to the nearest of `a`.

    Args:
        a: Tokens (M, C).
        b: Tokens (M', C) of the same type.
        valid_a: (M,) tokens of `a` that may be the nearest one; default all. Others may hold anything.
        valid_b: (M',) the same for `b`.
        precision: See `PRECISIONS`; differences, as taken here, have no need of it.

    Returns:
        (M,) and (M',) squared distances in at least float32; infinite where nothing is valid.
    """
    del precision
    a, b = (x.astype(jnp.float32) if x.dtype.itemsize == 2 else x for x in (a, b))

    def to_nearest(tokens: jax.Array, others: jax.Array, valid: jax.Array | None) -> jax.Array:
        def one(token: jax.Array) -> jax.Array:
            squared = jnp.sum((token[None] - others) ** 2, axis=1)
            return jnp.min(squared if valid is None else jnp.where(valid, squared, jnp.inf))

        return jax.lax.map(one, tokens)

    return to_nearest(a, b, valid_b), to_nearest(b, a, valid_a)


@operation("lowest_mean")
def lowest_mean(values: jax.Array, *, count: int, axis: int) -> jax.Array:
    """Mean of the `count` lowest values along an axis."""
    return jax.lax.slice_in_dim(jnp.sort(values, axis=axis), 0, count, axis=axis).mean(axis=axis)


# ---- Pair scores


def pair_scores(
    query: Float[Array, "M C"], references: Float[Array, "R N C"], *, implementation: str = "auto"
) -> Float[jax.Array, "M R"]:
    """Scores of one sample's patches by each of R other samples (paper eq. 7).

    Args:
        query: Tokens of the sample to be scored.
        references: Tokens of the samples that score it; their number of tokens may differ from the query's.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        a[m, j] = min over n of ||query(m) - references_j(n)||_2, not squared, >= 0, in the dtype of `query`.
        Differentiable: where two tokens are equal the gradient is 0.

    Raises:
        ValueError: Wrong shapes, no reference, an unknown implementation.
    """
    expect_shape("query", query, (None, None))
    expect_shape("references", references, (None, None, query.shape[1]))
    if references.shape[0] < 1:
        raise ValueError("references: expected at least one sample, received none")
    dtype = as_float(query)[1]
    query, references = centered(*same_dtype(query, references))
    squared = _squared_by(query[None], references, implementation=implementation)[0]
    return safe_sqrt(squared).T.astype(dtype)


def all_pair_scores(
    features: Float[Array, "N M C"], *, precision: str = "full", implementation: str = "auto"
) -> Float[jax.Array, "N R M"]:
    """Scores of every sample's patches by every other sample, R = N - 1 (paper eq. 7).

    Each unordered pair of samples is multiplied once and gives both directions. Memory: the result, and one
    (M, M) product at a time.

    Args:
        features: Tokens of N >= 2 samples.
        precision: One of `PRECISIONS`.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        a[i, r, m]: patch m of sample i by the r-th of the other samples, in their order. In at least float32.

    Raises:
        ValueError: Wrong shapes, fewer than 2 samples, an unknown precision or implementation.
    """
    _expect_features(features)
    expect_precision(precision)
    references = draw_references(features.shape[0])
    (wide,) = centered(as_float(features)[0])
    table = pair_table((wide,), (None,), precision=precision, half_type=None, implementation=implementation)[0]
    rows = pair_rows(features.shape[0])
    return safe_sqrt(table[np.take_along_axis(rows, references.columns, axis=1)])


def centered(reference: jax.Array, *others: jax.Array) -> tuple[jax.Array, ...]:
    """Shifts all by the mean token of `reference`. Distances stay; the cancellation in |a|^2 + |b|^2 - 2ab shrinks."""
    mean = jax.lax.stop_gradient(reference.reshape(-1, reference.shape[-1]).mean(axis=0))
    return tuple(x - mean.reshape((1,) * (x.ndim - 1) + (-1,)) for x in (reference, *others))


def squared_of_pairs(
    a: jax.Array,
    b: jax.Array,
    first: jax.Array,
    second: jax.Array,
    valid_a: Array | None = None,
    valid_b: Array | None = None,
    *,
    precision: str = "full",
    implementation: str = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Squared scores of the pairs (a[first], b[second]), seen from `a` and from `b`, each (pairs, M).

    One product at a time; `first` and `second` are the indices of the pairs' samples.
    """

    def at(mask: Array | None, index: jax.Array) -> jax.Array | None:
        return None if mask is None else jnp.asarray(mask)[index]

    def one_pair(_: None, pair: tuple[jax.Array, jax.Array]) -> tuple[None, tuple[jax.Array, jax.Array]]:
        i, j = pair
        minima = pair_minima(
            a[i], b[j], at(valid_a, i), at(valid_b, j), precision=precision, implementation=implementation
        )
        return None, minima

    return jax.lax.scan(one_pair, None, (first, second))[1]


def pair_rows(count: int, pairs: int | None = None) -> np.ndarray:
    """(N, N): row of a table of pair scores that holds those of sample i by sample j; 0 on the diagonal.

    Args:
        count: N.
        pairs: Rows of the table's first direction, behind which the second begins; default the number of pairs.
    """
    first, second = np.triu_indices(count, k=1)
    rows = np.zeros((count, count), np.int32)
    rows[first, second] = np.arange(len(first))
    rows[second, first] = (len(first) if pairs is None else pairs) + np.arange(len(first))
    return rows


def pair_table(
    features: Sequence[jax.Array],
    reference_mask: Sequence[jax.Array | None],
    *,
    precision: str,
    half_type: str | None,
    implementation: str,
) -> tuple[jax.Array, ...]:
    """Squared scores of all unordered pairs in both directions, (2 * pairs, M) for each modality; see `pair_rows`."""

    def of_one(tokens: jax.Array, *, mask: jax.Array | None, precision: str = "full") -> jax.Array:
        first, second = (jnp.asarray(x, jnp.int32) for x in np.triu_indices(len(tokens), k=1))
        both = squared_of_pairs(
            tokens, tokens, first, second, mask, mask, precision=precision, implementation=implementation
        )
        return jnp.concatenate(both)

    return tuple(
        in_half(partial(of_one, mask=mask), x, half_type=half_type)
        if is_rounded(x, precision)
        else of_one(x, mask=mask, precision=precision)
        for x, mask in zip(features, reference_mask, strict=True)
    )


def _squared_by(
    queries: jax.Array,
    references: jax.Array,
    *,
    valid: Array | None = None,
    precision: str = "full",
    implementation: str = "auto",
) -> jax.Array:
    """Squared scores (B, T, M) in one direction; `valid` (T, M') are the references' tokens that count."""

    def one(query: jax.Array) -> jax.Array:
        def by_one(reference: tuple[jax.Array, Array | None]) -> jax.Array:
            tokens, mask = reference
            return pair_minima(query, tokens, None, mask, precision=precision, implementation=implementation)[0]

        return jax.lax.map(by_one, (references, valid))

    return jax.lax.map(one, queries)


def panel_scores(
    queries: Float[Array, "B M C"],
    references: Float[Array, "T M C"],
    *,
    valid: Bool[Array, "T M"] | None = None,
    precision: str = "full",
    half_type: str | None = None,
    implementation: str = "auto",
) -> Float[jax.Array, "B T M"]:
    """Scores of the patches of a few samples by T samples, in one direction (paper eq. 7).

    For where all pairs at once are too many; callers subtract a common mean first.

    Args:
        queries: Tokens of the samples to be scored.
        references: Tokens of the samples that score them.
        valid: The references' tokens that count; default all.
        precision: One of `PRECISIONS`.
        half_type: The type that "fast" rounds to; default by platform.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Raises:
        ValueError: Wrong shapes, an unknown precision or implementation.
    """
    expect_shape("queries", queries, (None, None, None))
    expect_shape("references", references, (None, *queries.shape[1:]))
    expect_precision(precision)
    queries, references = same_dtype(queries, references)
    run = partial(_squared_by, valid=valid, implementation=implementation)
    if is_rounded(queries, precision):
        return safe_sqrt(in_half(run, queries, references, half_type=half_type))
    return safe_sqrt(run(queries, references, precision=precision))


def block_scores(
    first: Float[Array, "B M C"],
    second: Float[Array, "T M C"],
    *,
    valid_first: Bool[Array, "B M"] | None = None,
    valid_second: Bool[Array, "T M"] | None = None,
    precision: str = "full",
    half_type: str | None = None,
    implementation: str = "auto",
) -> tuple[Float[jax.Array, "B T M"], Float[jax.Array, "T B M"]]:
    """Scores of a few samples by T others, and of these by those; each pair is multiplied once (paper eq. 7).

    Arguments as in `panel_scores`; both sides score, so both have tokens that count or not.

    Raises:
        ValueError: Wrong shapes, an unknown precision or implementation.
    """
    expect_shape("first", first, (None, None, None))
    expect_shape("second", second, (None, *first.shape[1:]))
    expect_precision(precision)
    first, second = same_dtype(first, second)
    rows, columns = (
        jnp.asarray(x.reshape(-1), jnp.int32) for x in np.mgrid[: first.shape[0], : second.shape[0]].reshape(2, -1)
    )

    def run(a: jax.Array, b: jax.Array, *, precision: str = "full") -> jax.Array:
        options: dict[str, Any] = {"precision": precision, "implementation": implementation}
        return jnp.stack(squared_of_pairs(a, b, rows, columns, valid_first, valid_second, **options))

    if is_rounded(first, precision):
        squared = in_half(run, first, second, half_type=half_type)
    else:
        squared = run(first, second, precision=precision)
    both = safe_sqrt(squared).reshape(2, first.shape[0], second.shape[0], -1)
    return both[0], both[1].swapaxes(0, 1)


# ---- Interval average (eq. 8)


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
| returns | (M,) for each modality | patch scores of the stage |
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
        count = interval_count(len(own), self.interval)
        return (lowest_mean(own, count=count, axis=0, implementation=self.implementation),)


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
    return tuple(x if mask is None else jnp.where(mask, x, 0) for x, mask in zip(found, query_mask, strict=True))


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
        precision: One of `PRECISIONS`.
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
    scorers = [(x[references.samples], None if v is None else v[references.samples]) for x, v in zip(clean, valid)]

    def by_panel(sample: tuple) -> tuple[jax.Array, ...]:
        own, *rest = sample
        pairs = zip(own, scorers, strict=True)
        return one([panel_scores(o[None], tokens, valid=mask, **options)[0] for o, (tokens, mask) in pairs], *rest)

    return jax.lax.map(by_panel, (tuple(clean), columns, tuple(queries), tuple(extra)))


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
    references: int | None = None,
    seed: int = 0,
    implementation: str = "auto",
) -> Float[jax.Array, "N M"]:
    """Scores of every patch of N samples by the other samples, one stage (paper eq. 7-8).

    Args:
        features: Aggregated tokens of N >= 2 samples.
        interval: Share of the lowest scores that is averaged.
        precision: One of `PRECISIONS`.
        references: Score each sample by so many others, at least 1, see `draw_references`; N - 1 and above, and the
            default, mean all. (Not in the paper.)
        seed: Of their draw.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        Patch scores >= 0 in the dtype of `features`; the mean over the stages (eq. 9) is the caller's. Differentiable.

    Raises:
        ValueError: Wrong shapes, fewer than 2 samples, an interval outside (0, 1], an unknown precision or
            implementation, fewer than one reference.
    """
    _expect_features(features)
    expect_precision(precision)
    expect_implementation(implementation)
    interval_count(1, interval)
    wide, dtype = as_float(features)
    drawn = draw_references(features.shape[0], references, seed=seed)
    finish = AverageInterval(interval, implementation)
    (scores,) = score_samples((wide,), finish, drawn, precision=precision, implementation=implementation)
    return scores.astype(dtype)


def _expect_features(features: Array) -> None:
    expect_shape("features", features, (None, None, None))
    if 0 in features.shape[1:]:
        raise ValueError(f"features: expected at least one token and channel, received shape {features.shape}")
    if features.shape[0] < 2:
        raise ValueError(f"features: N = {features.shape[0]}: samples score each other, so at least 2 are needed")
