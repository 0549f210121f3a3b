"""Pair scores of several samples by several others in one product: what accelerators take (paper III-C, eq. 7).

A product of two samples is over before a large device has begun; one of 8 by 8 samples keeps it busy. On a CPU the
scores of a single pair stay in the cache, so there it goes pair by pair, see `musc_jax.pairs`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from musc_jax._arrays import Array
from musc_jax.kernels import operation


@operation("block_minima")
def block_minima(
    a: jax.Array,
    b: jax.Array,
    valid_a: jax.Array | None = None,
    valid_b: jax.Array | None = None,
    *,
    precision: str = "full",
) -> tuple[jax.Array, jax.Array]:
    """Squared distance of each token of some samples to the nearest token of each of others, in both directions.

    Args:
        a: Tokens (A, M, C).
        b: Tokens (B, M', C) of the same type.
        valid_a: (A, M) tokens of `a` that may be the nearest one; default all. Others may hold anything.
        valid_b: (B, M') the same for `b`.
        precision: See `PRECISIONS`; differences, as taken here, have no need of it.

    Returns:
        (A, B, M) and (B, A, M') squared distances in at least float32; infinite where nothing is valid.
    """
    del precision
    a, b = (x.astype(jnp.float32) if x.dtype.itemsize == 2 else x for x in (a, b))

    def to_nearest(samples: jax.Array, others: jax.Array, valid: jax.Array | None) -> jax.Array:
        def one(token: jax.Array) -> jax.Array:
            squared = jnp.sum((token[None, None] - others) ** 2, axis=2)
            return jnp.min(squared if valid is None else jnp.where(valid, squared, jnp.inf), axis=1)

        return jax.lax.map(lambda tokens: jax.lax.map(one, tokens).T, samples)

    return to_nearest(a, b, valid_b), to_nearest(b, a, valid_a)


def samples_of_block(tokens: int, tokens_at_once: int) -> int:
    """How many samples of so many tokens go into one side of a product; 1: pair by pair."""
    return max(1, tokens_at_once // tokens)


def in_blocks(x: Any, size: int) -> Any:
    """Samples (N, ...) filled up with zeros to whole blocks; of a mask with what does not count; None is None."""
    if x is None:
        return None
    missing = -len(x) % size
    return jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else x


def _block(x: Any, at: jax.Array, size: int) -> Any:
    return None if x is None else jax.lax.dynamic_slice_in_dim(x, at * size, size)


def scores_into(
    table: jax.Array,
    tokens: jax.Array,
    valid: jax.Array | None,
    rows: jax.Array,
    columns: jax.Array,
    *,
    size: int,
    **options: Any,
) -> jax.Array:
    """A table (N, N, M) with the squared scores of some pairs of blocks in it, in both directions.

    Args:
        table: N is a multiple of the block.
        tokens: (N, M, C).
        valid: (N, M) tokens that may be the nearest one; None: all.
        rows: (pairs,) the one block of each pair.
        columns: (pairs,) the other.
        size: Samples of a block.
        options: Of `block_minima`.
    """

    def one(table: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        i, j = pair
        parts = [_block(x, at, size) for x in (tokens, valid) for at in (i, j)]
        there, back = block_minima(*parts, **options)
        zero = jnp.zeros_like(i)
        table = jax.lax.dynamic_update_slice(table, there, (i * size, j * size, zero))
        return jax.lax.dynamic_update_slice(table, back, (j * size, i * size, zero)), None

    return jax.lax.scan(one, table, (rows, columns))[0]


def scores_of_all(
    a: jax.Array,
    b: jax.Array,
    valid_a: Array | None = None,
    valid_b: Array | None = None,
    *,
    size: int,
    **options: Any,
) -> tuple[jax.Array, jax.Array]:
    """`block_minima` of many samples, `size` by `size` at a time: no more of the products is there at once."""
    (first, valid_first), (second, valid_second) = (
        tuple(in_blocks(x, min(size, len(tokens))) for x in (tokens, valid))
        for tokens, valid in ((a, valid_a), (b, valid_b))
    )
    height, width = min(size, len(a)), min(size, len(b))

    def by_row(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        def one(j: jax.Array) -> tuple[jax.Array, jax.Array]:
            own = [_block(first, i, height), _block(second, j, width)]
            masks = [_block(valid_first, i, height), _block(valid_second, j, width)]
            return block_minima(*own, *masks, **options)

        return jax.lax.map(one, _count(second, width))

    there, back = jax.lax.map(by_row, _count(first, height))
    # (row of blocks, column of blocks, sample of a, sample of b, tokens), and b before a.
    there = there.swapaxes(1, 2).reshape(len(first), len(second), -1)
    back = back.transpose(1, 2, 0, 3, 4).reshape(len(second), len(first), -1)
    return there[: len(a), : len(b)], back[: len(b), : len(a)]


def scores_among(tokens: jax.Array, valid: jax.Array | None = None, *, size: int, **options: Any) -> jax.Array:
    """Squared scores (N, N, M) of samples by each other; each pair of blocks is multiplied once."""
    count = len(tokens)
    size = min(size, count)
    filled, mask = in_blocks(tokens, size), in_blocks(valid, size)
    blocks = len(filled) // size
    rows, columns = (x.astype(np.int32) for x in np.triu_indices(blocks))

    def one(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return block_minima(*(_block(x, at, size) for x in (filled, mask) for at in pair), **options)

    there, back = jax.lax.map(one, (jnp.asarray(rows), jnp.asarray(columns)))
    table = jnp.zeros((blocks, blocks, *there.shape[1:]), there.dtype)
    table = table.at[columns, rows].set(back).at[rows, columns].set(there)
    return table.swapaxes(1, 2).reshape(blocks * size, blocks * size, -1)[:count, :count]


def _count(x: jax.Array, size: int) -> jax.Array:
    return jnp.arange(len(x) // size, dtype=jnp.int32)
