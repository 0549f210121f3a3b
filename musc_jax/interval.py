"""The interval average: the mean of the lowest share of a patch's scores (paper eq. 8)."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from musc_jax._arrays import Array, as_float

# Rows of scores that are averaged at once: few enough to stay in a core's cache.
_ROWS_AT_ONCE = 112


def interval_count(num_scores: int, interval: float) -> int:
    """How many of the lowest scores are averaged: max(1, floor(num_scores * interval)), in Python's float64."""
    if num_scores < 1:
        raise ValueError("scores: expected at least one reference sample, received none")
    if not 0 < interval <= 1:
        raise ValueError(f"interval: expected a share above 0 and up to 1, received {interval}")
    return max(1, int(num_scores * interval))


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
