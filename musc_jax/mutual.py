"""Mutual scoring: unlabeled samples score each other's patches (paper III-C, eq. 7-9).

A patch's score by another sample is the distance to the nearest patch there. A normal patch finds a close match in most
samples, a defect in hardly any, so the mean of a patch's lowest scores tells them apart.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from musc_jax._arrays import PRECISION, Array, as_float, expect_shape, safe_sqrt, same_dtype

# Rows of scores that are averaged at once: few enough to stay in a core's cache.
_ROWS_AT_ONCE = 112


def interval_count(num_scores: int, interval: float) -> int:
    """How many of the lowest scores are averaged: max(1, floor(num_scores * interval)), in Python's float64."""
    if num_scores < 1:
        raise ValueError("scores: expected at least one reference sample, received none")
    if not 0 < interval <= 1:
        raise ValueError(f"interval: expected a share above 0 and up to 1, received {interval}")
    return max(1, int(num_scores * interval))


def _half_norms(tokens: jax.Array) -> jax.Array:
    return 0.5 * jnp.sum(tokens * tokens, axis=-1)


# Recomputed on the way back: the reverse pass would otherwise keep the products of all pairs, as large as all pairs of
# tokens.
@jax.checkpoint
def _two_way_minima(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Squared distance of each row of `a` to the nearest row of `b`, and of each row of `b` to the nearest of `a`.

    One product serves both. The minimum is taken of |b|^2/2 - ab, so that XLA folds it into the product and the
    distances themselves are never written down.
    """
    half_a, half_b = _half_norms(a), _half_norms(b)
    product = jnp.matmul(a, b.T, precision=PRECISION)
    to_b = half_a + jnp.min(half_b[None, :] - product, axis=1)
    to_a = half_b + jnp.min(half_a[:, None] - product, axis=0)
    return 2 * to_b, 2 * to_a


def _centered(reference: jax.Array, *others: jax.Array) -> tuple[jax.Array, ...]:
    """Shifts all by the mean token of `reference`. Distances stay; the cancellation in |a|^2 + |b|^2 - 2ab shrinks."""
    mean = jax.lax.stop_gradient(reference.reshape(-1, reference.shape[-1]).mean(axis=0))
    return tuple(x - mean.reshape((1,) * (x.ndim - 1) + (-1,)) for x in (reference, *others))


def pair_scores(query: Float[Array, "M C"], references: Float[Array, "R N C"]) -> Float[jax.Array, "M R"]:
    """Scores of one sample's patches by each of R other samples (paper eq. 7).

    Args:
        query: Tokens of the sample to be scored.
        references: Tokens of the samples that score it; their number of tokens may differ from the query's.

    Returns:
        a[m, j] = min over n of ||query(m) - references_j(n)||_2, not squared, >= 0, in the dtype of `query`.
        Differentiable: where two tokens are equal the gradient is 0.

    Raises:
        ValueError: Wrong shapes, no reference.
    """
    expect_shape("query", query, (None, None))
    expect_shape("references", references, (None, None, query.shape[1]))
    if references.shape[0] < 1:
        raise ValueError("references: expected at least one sample, received none")
    dtype = as_float(query)[1]
    query, references = _centered(*same_dtype(query, references))

    def by_one(_: None, reference: jax.Array) -> tuple[None, jax.Array]:
        return None, _two_way_minima(query, reference)[0]

    _, squared = jax.lax.scan(by_one, None, references)
    return safe_sqrt(squared).T.astype(dtype)


def all_pair_scores(features: Float[Array, "N M C"]) -> Float[jax.Array, "N R M"]:
    """Scores of every sample's patches by every other sample, R = N - 1 (paper eq. 7).

    Each unordered pair of samples is multiplied once and gives both directions. Memory: the result, and one
    (M, M) product at a time.

    Args:
        features: Tokens of N >= 2 samples.

    Returns:
        a[i, r, m]: patch m of sample i by the r-th of the other samples, in their order. In at least float32.

    Raises:
        ValueError: Wrong shapes, fewer than 2 samples.
    """
    expect_shape("features", features, (None, None, None))
    if 0 in features.shape[1:]:
        raise ValueError(f"features: expected at least one token and channel, received shape {features.shape}")
    count = features.shape[0]
    if count < 2:
        raise ValueError(f"features: N = {count}: samples score each other, so at least 2 are needed")
    (features,) = _centered(as_float(features)[0])
    first, second = np.triu_indices(count, k=1)

    def one_pair(_: None, pair: tuple) -> tuple[None, jax.Array]:
        i, j = pair
        return None, jnp.stack(_two_way_minima(features[i], features[j]))

    pairs = (jnp.asarray(first, jnp.int32), jnp.asarray(second, jnp.int32))
    _, squared = jax.lax.scan(one_pair, None, pairs)
    # Row 2p holds pair p seen from its first sample, row 2p + 1 from its second.
    row = np.zeros((count, count), np.int32)
    row[first, second] = 2 * np.arange(len(first))
    row[second, first] = 2 * np.arange(len(first)) + 1
    others = row[~np.eye(count, dtype=bool)].reshape(count, count - 1)
    return safe_sqrt(squared.reshape(-1, features.shape[1])[others])


def _ordered_bits(x: jax.Array) -> jax.Array:
    """The float bits as signed integers in the same order as the floats."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int64 if x.dtype == jnp.float64 else jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


def mean_of_lowest(values: jax.Array, count: int, axis: int) -> jax.Array:
    """Mean of the `count` lowest values along one axis, exact, ties included.

    A sort of each row is the slow part of scoring many samples. Instead a threshold is found that `count` values do not
    exceed, by bisection on the bits of the floats between the row's lowest and highest: counting passes, which end as
    soon as all rows have theirs. Equal values at the threshold share what is left of the count, so that none of them
    is favoured by its position.
    """
    axis %= values.ndim
    if count == values.shape[axis]:
        return values.mean(axis=axis)
    bits = _ordered_bits(jax.lax.stop_gradient(values))

    def narrow(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        low, high, searching = state
        middle = (low & high) + ((low ^ high) >> 1)  # the mean, without the overflow of a sum
        found = jnp.sum(bits <= jnp.expand_dims(middle, axis), axis=axis, dtype=jnp.int32)
        high = jnp.where(searching & (found >= count), middle, high)
        low = jnp.where(searching & (found < count), middle + 1, low)
        return low, high, searching & (found != count) & (low < high)

    low, high = bits.min(axis=axis), bits.max(axis=axis)
    _, threshold, _ = jax.lax.while_loop(lambda state: jnp.any(state[2]), narrow, (low, high, low < high))
    threshold = jnp.expand_dims(threshold, axis)
    below, equal = bits < threshold, bits == threshold
    num_below = below.sum(axis=axis, dtype=jnp.int32)
    num_equal = equal.sum(axis=axis, dtype=jnp.int32)  # 0 where the threshold lies between two values
    share = (count - num_below).astype(values.dtype) / jnp.maximum(num_equal, 1).astype(values.dtype)
    total = jnp.where(below, values, 0).sum(axis=axis)
    return (total + share * jnp.where(equal, values, 0).sum(axis=axis)) / count


def interval_average(scores: Float[Array, "*batch R"], *, interval: float = 0.3) -> Float[jax.Array, "*batch"]:
    """Mean of the lowest share of the scores (paper eq. 8).

    Args:
        scores: Scores of a patch by R >= 1 samples along the last axis.
        interval: Share that is averaged; K = max(1, floor(R * interval)) values. The released program has no max and
            returns NaN for fewer than 5 samples of a single modality; here every R >= 1 is defined.

    Returns:
        The mean of the K lowest, in the dtype of `scores`.

    Raises:
        ValueError: No scores, an interval outside (0, 1].
    """
    wide, dtype = as_float(scores)
    if wide.ndim < 1:
        raise ValueError("scores: expected at least one axis, received a scalar")
    count = interval_count(wide.shape[-1], interval)
    rows = wide.reshape(-1, wide.shape[-1])
    # Turned, so that a step counts many rows side by side, and in parts that stay in the cache meanwhile.
    whole = len(rows) // _ROWS_AT_ONCE * _ROWS_AT_ONCE
    parts = rows[:whole].reshape(-1, _ROWS_AT_ONCE, rows.shape[-1])
    averages = [jax.lax.map(lambda part: mean_of_lowest(part.T, count, axis=0), parts).reshape(-1)] if whole else []
    averages += [mean_of_lowest(rows[whole:].T, count, axis=0)] if whole < len(rows) or not whole else []
    return jnp.concatenate(averages).reshape(wide.shape[:-1]).astype(dtype)


def mutual_scores(features: Float[Array, "N M C"], *, interval: float = 0.3) -> Float[jax.Array, "N M"]:
    """Scores of every patch of N samples by the other samples, one stage (paper eq. 7-8).

    Args:
        features: Aggregated tokens of N >= 2 samples.
        interval: Share of the lowest scores that is averaged.

    Returns:
        Patch scores >= 0 in the dtype of `features`; the mean over the stages (eq. 9) is the caller's. Differentiable.

    Raises:
        ValueError: Wrong shapes, fewer than 2 samples, an interval outside (0, 1].
    """
    expect_shape("features", features, (None, None, None))
    dtype = as_float(features)[1]
    scores = all_pair_scores(features)
    average = partial(mean_of_lowest, count=interval_count(scores.shape[1], interval), axis=0)
    # One sample after the other: its scores stay in the cache while they are counted over and over.
    return jax.lax.map(average, scores).astype(dtype)
