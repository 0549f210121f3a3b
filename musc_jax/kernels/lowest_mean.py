"""Mean of the lowest values of a row without a sort (operation `lowest_mean`)."""

import jax
import jax.numpy as jnp


def _ordered_bits(x: jax.Array) -> jax.Array:
    """The float bits as signed integers in the same order as the floats, NaN above all."""
    x = jnp.where(jnp.isnan(x), jnp.nan, x)  # of either sign: a NaN with its sign bit set would come first
    bits = jax.lax.bitcast_convert_type(x, jnp.int64 if x.dtype == jnp.float64 else jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


# Rows that are averaged at once where they lie along the last axis: few enough to stay in a core's cache.
_ROWS_AT_ONCE = 112


def by_bisection(values: jax.Array, *, count: int, axis: int) -> jax.Array:
    """Mean of the `count` lowest values along one axis, exact, ties included.

    Rows along the last axis are turned, so that a step counts many of them side by side, in parts that stay in the
    cache meanwhile.
    """
    if axis % values.ndim != values.ndim - 1 or count == values.shape[-1]:
        return _along(values, count=count, axis=axis)
    rows = values.reshape(-1, values.shape[-1])
    whole = len(rows) // _ROWS_AT_ONCE * _ROWS_AT_ONCE
    means = []
    if whole:
        parts = rows[:whole].reshape(-1, _ROWS_AT_ONCE, rows.shape[-1])
        means.append(jax.lax.map(lambda part: _along(part.T, count=count, axis=0), parts).reshape(-1))
    if whole < len(rows) or not whole:
        means.append(_along(rows[whole:].T, count=count, axis=0))
    return jnp.concatenate(means).reshape(values.shape[:-1])


def _along(values: jax.Array, *, count: int, axis: int) -> jax.Array:
    """The same along any axis.

    A threshold is found that `count` values do not exceed, by bisection on the bits of the floats between the row's
    lowest and highest: counting passes, which end as soon as all rows have theirs. Equal values at the threshold share
    what is left of the count, so that none of them is favoured by its position, in the gradient either.
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
    at_threshold = jnp.where(equal, values, 0).sum(axis=axis)
    # Nothing is taken of the values at the threshold where enough lie below it; they may be infinite.
    return (total + jnp.where(share > 0, share * at_threshold, 0)) / count
