"""Matching by rank with few sorts (operations `rank_match` and `enhance_by_rank`)."""

import jax
import jax.numpy as jnp

from musc_jax.kernels.sorting import sort_by_key


def _order(values: jax.Array) -> jax.Array:
    """Stable argsort of all values; no gradient."""
    flat = jax.lax.stop_gradient(values).reshape(-1)
    return sort_by_key(flat, jnp.arange(flat.size, dtype=jnp.int32))[1]


def _in_order_of(target: jax.Array, ascending: jax.Array) -> jax.Array:
    """Ascending values put to the places where `target` has the same ranks."""
    matched = jnp.zeros(ascending.shape, ascending.dtype).at[_order(target)].set(ascending, unique_indices=True)
    return matched.reshape(target.shape)


def _among(own: jax.Array, order: jax.Array, target: jax.Array, marked: jax.Array) -> jax.Array:
    """`own` matched to `target` over the marked values alone; the others stay as they are.

    Values left out sort behind all others on both sides, so the ranks among the marked ones stay 0, 1, 2, ... `order`
    is that of all of `own`: moving the marked values up in it is a running count, not another sort.
    """
    kept = marked.reshape(-1)[order]
    slot = jnp.where(kept, jnp.cumsum(kept, dtype=jnp.int32) - 1, own.size)
    ascending = jnp.full(own.size, jnp.inf, own.dtype).at[slot].set(own.reshape(-1)[order], mode="drop")
    return jnp.where(marked, _in_order_of(jnp.where(marked, target, jnp.inf), ascending), target)


def by_two_sorts(source: jax.Array, target: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """`rank_match`: one sort of each side, by whole numbers on a CPU."""
    if where is None:
        return _in_order_of(target, source.reshape(-1)[_order(source)])
    return _among(source.reshape(target.shape), _order(source), target, where)


def with_one_order(
    own: jax.Array,
    other: jax.Array,
    weight: jax.Array,
    seen: jax.Array | None = None,
    valid: jax.Array | None = None,
) -> jax.Array:
    """`enhance_by_rank` with the own scores sorted once for both matches: three sorts instead of four."""
    order = _order(own)
    ascending = own.reshape(-1)[order]

    def matched(target: jax.Array, rows: jax.Array | None) -> jax.Array:
        if rows is None:
            return _in_order_of(target, ascending)
        return _among(own, order, target, jnp.broadcast_to(rows[:, None], own.shape))

    other = jnp.maximum(matched(other, seen), own) * weight[:, None]
    return (own + matched(other, valid)) / 2
