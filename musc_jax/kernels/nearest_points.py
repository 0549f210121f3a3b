"""Exact nearest neighbours in a cloud of 3-D points, without all distances (operation `nearest_points`).

Points are cut into blocks of 64 that lie near each other, each with its bounding box. A query looks only at the blocks
whose boxes are nearest. The distance to the next box bounds everything left out, so the answer is either certified or
the query is repeated against all points. 3-D distances are direct differences throughout: on an organised grid the
expanded form |a|^2 + |b|^2 - 2ab picks other points.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from musc_jax._arrays import smallest
from musc_jax.kernels.sorting import sort_by_key

BLOCK = 64
# Ties at the k-th distance are broken by index; so many more than k are kept to see them all.
_TIE_MARGIN = 16
_QUERIES_AT_ONCE = 64
_RETRIES_AT_ONCE = 16
_MIN_VISITED = 12


class Blocks(NamedTuple):
    """A cloud cut into B blocks of 64 points that lie near each other."""

    positions: Int[jax.Array, "B 64"]
    """Position of each point in the cloud."""
    points: Float[jax.Array, "B 64 3"]
    valid: Bool[jax.Array, "B 64"]
    low: Float[jax.Array, "B 3"]
    """Lower corner of the box of the block's valid points; +inf for a block without any."""
    high: Float[jax.Array, "B 3"]
    """Upper corner; -inf for a block without any."""


def spatial_blocks(points: jax.Array, valid: jax.Array) -> Blocks:
    """Cuts a cloud (P, 3) with mask (P,) into blocks; invalid points come last.

    The axis along which the points spread most is cut into strips of equal count, each strip into blocks along the
    second. On a surface, which is what a depth camera sees, that gives nearly square patches, and of those fewer reach
    into a neighbourhood than of blocks along a space-filling curve.
    """
    count = points.shape[0]
    blocks = -(-count // BLOCK)
    strips = max(1, round(math.sqrt(blocks)))
    per_strip = -(-blocks // strips)
    size = strips * per_strip * BLOCK
    total = jnp.maximum(valid.sum(), 1).astype(points.dtype)
    centered = jnp.where(valid[:, None], points, 0)
    centered = jnp.where(valid[:, None], points - centered.sum(axis=0)[None] / total, 0)
    # By mean deviation: a few outliers do not turn the cut.
    axes = jnp.argsort(-jnp.abs(centered).sum(axis=0))

    def along(axis: jax.Array) -> jax.Array:
        return jnp.pad(jnp.where(valid, points[:, axis], jnp.inf), (0, size - count), constant_values=jnp.inf)

    _, order = sort_by_key(along(axes[0]), jnp.arange(size, dtype=jnp.int32))
    order = order.reshape(strips, -1)
    _, order = sort_by_key(along(axes[1])[order], order)
    order = order.reshape(-1, BLOCK)[:blocks]

    inside = order < count
    order = jnp.minimum(order, count - 1)
    kept = valid[order] & inside
    coordinates = points[order]
    return Blocks(
        positions=order,
        points=coordinates,
        valid=kept,
        low=jnp.min(jnp.where(kept[..., None], coordinates, jnp.inf), axis=1),
        high=jnp.max(jnp.where(kept[..., None], coordinates, -jnp.inf), axis=1),
    )


def box_distances(queries: jax.Array, blocks: Blocks) -> jax.Array:
    """Squared distance of each query (..., 3) to each block's box (..., B): no point of the block is nearer."""
    total = jnp.zeros((), queries.dtype)
    # One axis after the other: a last axis of 3 leaves most of a vector register empty.
    for axis in range(3):
        query = queries[..., axis, None]
        lead = (1,) * (queries.ndim - 1)
        low, high = (corner[:, axis].reshape(*lead, -1) for corner in (blocks.low, blocks.high))
        total = total + jnp.maximum(jnp.maximum(low - query, query - high), 0) ** 2
    return total


def _squared(queries: jax.Array, points: jax.Array) -> jax.Array:
    """Squared distances by direct differences, summed in the same order everywhere."""
    d = points - queries
    return d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2


def _brute_force(queries: jax.Array, points: jax.Array, valid: jax.Array, k: int) -> tuple:
    """(squared distances, indices) of the k nearest, against all points; ties by index."""

    def one(query: jax.Array) -> tuple[jax.Array, jax.Array]:
        distance = jnp.where(valid, _squared(query[None], points), jnp.inf)
        return smallest(distance, k)

    return jax.lax.map(one, queries, batch_size=min(_RETRIES_AT_ONCE, queries.shape[0]))


def _select(distance: jax.Array, positions: jax.Array, bound: jax.Array, k: int) -> tuple:
    """The k nearest of each row's candidates: (squared distances, positions, certified), sorted, ties by position.

    Args:
        distance: Squared distances (Q, S) of candidates, +inf for none.
        positions: Their positions in the cloud, (Q, S).
        bound: (Q,) below which no point is missing.
        k: How many.
    """
    # A bound is a rounded number too, hence the margin. A missing point at an equal distance would have to be compared
    # by position, hence "below".
    bound = bound * (1 - 1e-5)

    def by_threshold(distance: jax.Array, positions: jax.Array, bound: jax.Array) -> tuple:
        """Counting finds a distance that a few more than k candidates stay below; only those are sorted."""
        room = k + max(16, k // 4)
        below, certain = _threshold(distance, bound, k, room)
        slot = jnp.where(below, _running_count(below), room)
        rows = jnp.arange(len(distance), dtype=jnp.int32)[:, None]
        # One slot more than there is room for takes what is left out.
        source = jnp.full((len(distance), room + 1), -1, jnp.int32)
        source = source.at[rows, jnp.minimum(slot, room)].set(jax.lax.broadcasted_iota(jnp.int32, slot.shape, 1))
        source = source[:, :room]
        near = jnp.where(source >= 0, jnp.take_along_axis(distance, jnp.maximum(source, 0), axis=1), jnp.inf)
        near, index = sort_by_key(near, jnp.take_along_axis(positions, jnp.maximum(source, 0), axis=1))
        return near[:, :k], index[:, :k], certain

    def by_top_k(distance: jax.Array, positions: jax.Array, bound: jax.Array) -> tuple:
        near, slot = smallest(distance, k + _TIE_MARGIN)
        # Ties are broken by position, so the last one kept must be farther than the k-th: all its equals are seen.
        certain = (near[:, k - 1] < bound) & (near[:, -1] > near[:, k - 1])
        # Fewer valid points than k: every block that holds a point has been seen.
        certain |= (bound == jnp.inf) & (near[:, -1] == jnp.inf)
        near, index = jax.lax.sort((near, jnp.take_along_axis(positions, slot, axis=1)), num_keys=2)
        return near[:, :k], index[:, :k], certain

    if distance.dtype != jnp.float32:
        return by_top_k(distance, positions, bound)
    return jax.lax.platform_dependent(distance, positions, bound, cpu=by_threshold, default=by_top_k)


def _threshold(distance: jax.Array, bound: jax.Array, k: int, room: int) -> tuple[jax.Array, jax.Array]:
    """(which candidates of each row are near, certified): between k and `room` of them, all below the bound."""
    largest = np.int32(0x7F7FFFFF)  # bits of the largest finite float
    bits = jax.lax.bitcast_convert_type(distance, jnp.int32)
    start = jnp.minimum(jax.lax.bitcast_convert_type(bound, jnp.int32) - 1, largest)

    def count(limit: jax.Array) -> jax.Array:
        return jnp.sum(bits <= limit[:, None], axis=1, dtype=jnp.int32)

    def narrow(state: tuple) -> tuple:
        step, low, high, limit, found = state
        low, high = jnp.where(found < k, limit, low), jnp.where(found > room, limit, high)
        # On a surface the count grows like the squared distance; after a few such guesses halve the bits.
        share = (k + room) / 2 / jnp.maximum(found, 1).astype(distance.dtype)
        guess = jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(limit, distance.dtype) * share, jnp.int32)
        halved = low + (high - low) // 2
        guess = jnp.where((step < 4) & (guess > low) & (guess < high), guess, halved)
        limit = jnp.where((found < k) | (found > room), guess, limit)
        return step + 1, low, high, limit, count(limit)

    def searching(state: tuple) -> jax.Array:
        _, low, high, _, found = state
        return jnp.any(((found < k) | (found > room)) & (high - low > 1))

    found = count(start)
    few = found < k  # nothing to narrow
    first = (jnp.zeros((), jnp.int32), jnp.where(few, start, -1), start, start, jnp.where(few, k, found))
    _, _, _, limit, count_below = jax.lax.while_loop(searching, narrow, first)
    # Where even the bound leaves fewer than k, they are all there is only if nothing is missing.
    certain = jnp.where(few, bound == jnp.inf, (count_below >= k) & (count_below <= room))
    return bits <= limit[:, None], certain


def _running_count(marked: jax.Array) -> jax.Array:
    """For each mark of a row, how many come before it. Sums within blocks are a product with a triangle of ones."""
    blocks = marked.reshape(len(marked), -1, BLOCK).astype(jnp.float32)
    earlier = jnp.asarray(np.triu(np.ones((BLOCK, BLOCK)), 1), jnp.float32)
    within = jnp.matmul(blocks, earlier[None], precision=jax.lax.Precision.HIGHEST)
    size = blocks.sum(axis=-1)
    return (within + (jnp.cumsum(size, axis=1) - size)[..., None]).astype(jnp.int32).reshape(marked.shape)


def _by_blocks(queries: jax.Array, points: jax.Array, valid: jax.Array, k: int) -> tuple:
    """(squared distances, indices) of the k nearest by the nearest boxes, certified or repeated."""
    blocks = spatial_blocks(points, valid)
    axes = [blocks.points[..., axis] for axis in range(3)]
    count = queries.shape[0]

    def visiting(num: int) -> Callable:
        visited = min(num, len(blocks.positions) - 1)

        def some(queries: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            bounds, nearest = smallest(box_distances(queries, blocks), visited + 1)
            bounds, nearest = bounds[:, visited], nearest[:, :visited]
            # Summed in the same order as in `_squared`, one axis after the other.
            x, y, z = (axis[nearest] - queries[:, None, i, None] for i, axis in enumerate(axes))
            distance = jnp.where(blocks.valid[nearest], x**2 + y**2 + z**2, jnp.inf)
            positions = blocks.positions[nearest]
            return _select(distance.reshape(len(queries), -1), positions.reshape(len(queries), -1), bounds, k)

        return some

    def again(search: Callable, found: tuple, step: int) -> tuple:
        """Repeats the search for the rows that are not certified; the loop ends when they are done."""
        distance, index, certified = found
        todo = jnp.argsort(certified)
        wanted = jnp.sum(~certified)
        step = min(step, count)

        def some(state: tuple) -> tuple:
            done, distance, index, certified = state
            rows = todo[jnp.minimum(done + jnp.arange(step), count - 1)]
            d, i, c = search(queries[rows])
            # The last rows are some that are certified already: the answer is the same.
            return done + step, distance.at[rows].set(d), index.at[rows].set(i), certified.at[rows].set(c)

        state = (jnp.zeros_like(wanted), distance, index, certified)
        return jax.lax.while_loop(lambda state: state[0] < wanted, some, state)[1:]

    def all_points(queries: jax.Array) -> tuple:
        return *_brute_force(queries, points, valid, k), jnp.ones(len(queries), bool)

    per_neighbors = -(-k // BLOCK)
    chunk = min(_QUERIES_AT_ONCE, count)
    chunks = -(-count // chunk)
    padded = jnp.pad(queries, ((0, chunks * chunk - count), (0, 0)), mode="edge").reshape(chunks, chunk, 3)
    found = jax.lax.map(visiting(max(_MIN_VISITED, 4 * per_neighbors)), padded)
    found = tuple(x.reshape(chunks * chunk, *x.shape[2:])[:count] for x in found)
    found = again(visiting(max(2 * _MIN_VISITED, 10 * per_neighbors)), found, _RETRIES_AT_ONCE)
    return again(all_points, found, _RETRIES_AT_ONCE)[:2]


def by_boxes(queries: jax.Array, points: jax.Array, valid: jax.Array, *, k: int) -> tuple[jax.Array, jax.Array]:
    """Looks into the nearest boxes; in a cloud of few of them at all points."""
    # Below four times what the blocks would visit anyway they save nothing.
    search = _by_blocks if len(points) >= 4 * BLOCK * max(8, 6 * -(-k // BLOCK)) else _brute_force
    return search(queries, points, valid, k)
