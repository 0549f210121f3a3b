"""Pair scores: each patch's distance to the nearest patch of another sample (paper III-C, eq. 7)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from musc_jax._arrays import Array, as_float, expect_shape, safe_sqrt, same_dtype
from musc_jax.kernels import operation
from musc_jax.kernels.rounding import expect_precision, in_half, is_rounded
from musc_jax.pair_blocks import samples_of_block, scores_of_all
from musc_jax.references import draw_references


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
        precision: One of `musc_jax.kernels.rounding.PRECISIONS`; this statement takes differences and ignores it.

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
        precision: One of `musc_jax.kernels.rounding.PRECISIONS`.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        a[i, r, m]: patch m of sample i by the r-th of the other samples, in their order. In at least float32.

    Raises:
        ValueError: Wrong shapes, fewer than 2 samples, an unknown precision or implementation.
    """
    expect_features(features)
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
    tokens_at_once: int = 0,
) -> Float[jax.Array, "B T M"]:
    """Scores of the patches of a few samples by T samples, in one direction (paper eq. 7).

    For where all pairs at once are too many; callers subtract a common mean first.

    Args:
        queries: Tokens of the samples to be scored.
        references: Tokens of the samples that score them.
        valid: The references' tokens that count; default all.
        precision: One of `musc_jax.kernels.rounding.PRECISIONS`.
        half_type: The type that "fast" rounds to; default by platform.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.
        tokens_at_once: Rows of a product at the most, of as many samples as have no more; default those of one.

    Raises:
        ValueError: Wrong shapes, an unknown precision or implementation.
    """
    expect_shape("queries", queries, (None, None, None))
    expect_shape("references", references, (None, *queries.shape[1:]))
    expect_precision(precision)
    queries, references = same_dtype(queries, references)
    size = samples_of_block(queries.shape[1], tokens_at_once)

    def run(queries: jax.Array, references: jax.Array, *, precision: str = "full") -> jax.Array:
        options: dict[str, Any] = {"precision": precision, "implementation": implementation}
        if size > 1:
            return scores_of_all(queries, references, None, valid, size=size, **options)[0]
        return _squared_by(queries, references, valid=valid, **options)

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
    tokens_at_once: int = 0,
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

    size = samples_of_block(first.shape[1], tokens_at_once)

    def run(a: jax.Array, b: jax.Array, *, precision: str = "full") -> jax.Array:
        options: dict[str, Any] = {"precision": precision, "implementation": implementation}
        if size > 1:
            there, back = scores_of_all(a, b, valid_first, valid_second, size=size, **options)
            return jnp.stack([there, back.swapaxes(0, 1)])
        return jnp.stack(squared_of_pairs(a, b, rows, columns, valid_first, valid_second, **options))

    if is_rounded(first, precision):
        squared = in_half(run, first, second, half_type=half_type)
    else:
        squared = run(first, second, precision=precision)
    both = safe_sqrt(squared).reshape(2, first.shape[0], second.shape[0], -1)
    return both[0], both[1].swapaxes(0, 1)


def expect_features(features: Array) -> None:
    """Refuses what are not the tokens of at least two samples."""
    expect_shape("features", features, (None, None, None))
    if 0 in features.shape[1:]:
        raise ValueError(f"features: expected at least one token and channel, received shape {features.shape}")
    if features.shape[0] < 2:
        raise ValueError(f"features: N = {features.shape[0]}: samples score each other, so at least 2 are needed")
