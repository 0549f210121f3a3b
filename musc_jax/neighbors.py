"""Exact nearest neighbours in a cloud of 3-D points, without all distances.

Points are put in Morton order and cut into blocks of 64, each with its bounding box. A query looks only at the blocks
whose boxes are nearest. The distance to the next box bounds everything left out, so the answer is either certified or
the query is repeated against all points. 3-D distances are direct differences throughout: on an organised grid the
expanded form |a|^2 + |b|^2 - 2ab picks other points.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from musc_jax._arrays import (
    Array,
    expect_shape,
    points_and_mask,
    safe_norm,
    same_dtype,
    smallest,
)

BLOCK = 64
# Ties at the k-th distance are broken by index; so many more than k are kept to see them all.
_TIE_MARGIN = 16
_QUERIES_AT_ONCE = 64
_RETRIES_AT_ONCE = 16


class Neighbors(NamedTuple):
    """Nearest neighbours of Q queries, nearest first."""

    indices: Int[jax.Array, "Q k"]
    """Positions in `points`."""
    distances: Float[jax.Array, "Q k"]
    """Euclidean distances, in the unit of the points."""


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


def _spread_bits(x: jax.Array) -> jax.Array:
    """Moves the ten lowest bits of each number three places apart."""
    x = x.astype(jnp.uint32)
    for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        x = (x | (x << jnp.uint32(shift))) & jnp.uint32(mask)
    return x


def spatial_blocks(points: jax.Array, valid: jax.Array) -> Blocks:
    """Cuts a cloud (P, 3) with mask (P,) into blocks along a space-filling curve; invalid points come last."""
    count = points.shape[0]
    low = jnp.min(jnp.where(valid[:, None], points, jnp.inf), axis=0)
    high = jnp.max(jnp.where(valid[:, None], points, -jnp.inf), axis=0)
    # One scale for the three axes: boxes should be cubes, not slices along the cloud's longest side.
    scale = 1023 / jnp.maximum(jnp.max(high - low), jnp.finfo(points.dtype).tiny)
    cell = jnp.clip((points - low[None]) * scale, 0, 1023)
    x, y, z = (_spread_bits(cell[:, axis]) for axis in range(3))
    code = x | (y << jnp.uint32(1)) | (z << jnp.uint32(2))
    order = jnp.argsort(jnp.where(valid, code, jnp.uint32(0xFFFFFFFF))).astype(jnp.int32)

    blocks = -(-count // BLOCK)
    order = jnp.pad(order, (0, blocks * BLOCK - count), constant_values=count).reshape(-1, BLOCK)
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
    query = queries[..., None, :]
    lead = (1,) * (queries.ndim - 1)
    low, high = (corner.reshape(*lead, *corner.shape) for corner in (blocks.low, blocks.high))
    outside = jnp.maximum(jnp.maximum(low - query, query - high), 0)
    return jnp.sum(outside**2, axis=-1)


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


def _by_blocks(queries: jax.Array, points: jax.Array, valid: jax.Array, k: int) -> tuple:
    """(squared distances, indices) of the k nearest by the nearest boxes, certified or repeated."""
    blocks = spatial_blocks(points, valid)
    visited = min(max(8, 6 * -(-k // BLOCK)), len(blocks.positions) - 1)
    kept = k + _TIE_MARGIN

    def one(query: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        bounds, nearest = smallest(box_distances(query, blocks), visited + 1)
        nearest = nearest[:visited]
        distance = jnp.where(blocks.valid[nearest], _squared(query[None, None], blocks.points[nearest]), jnp.inf)
        distance, slot = smallest(distance.reshape(-1), kept)
        # A bound is a rounded number too, hence the margin. An equal distance outside would have to be
        # compared by index, hence "below", and for the same reason the last one kept must be farther than the k-th.
        certified = (distance[k - 1] * (1 + 1e-5) < bounds[visited]) & (distance[kept - 1] > distance[k - 1])
        # Fewer valid points than k: every block that holds a point has been seen.
        certified |= (bounds[visited] == jnp.inf) & (distance[kept - 1] == jnp.inf)
        return distance, blocks.positions[nearest].reshape(-1)[slot], certified

    distance, index, certified = jax.lax.map(one, queries, batch_size=min(_QUERIES_AT_ONCE, queries.shape[0]))
    # Sorting by (distance, index) costs as much as all of the above, and measured clouds rarely hold equal distances.
    tied = jnp.any((distance[:, 1:] == distance[:, :-1]) & jnp.isfinite(distance[:, 1:]))
    distance, index = jax.lax.cond(
        tied,
        lambda d, i: tuple(jax.lax.sort((d, i), num_keys=2)),
        lambda d, i: (d, i),
        distance,
        index,
    )
    distance, index = distance[:, :k], index[:, :k]

    # The uncertified come first in `todo`; the loop ends when they are done, usually at once.
    count = queries.shape[0]
    todo = jnp.argsort(certified)
    open_ = jnp.sum(~certified)
    step = min(_RETRIES_AT_ONCE, count)

    def repeat(state: tuple) -> tuple:
        done, distance, index = state
        rows = todo[jnp.minimum(done + jnp.arange(step), count - 1)]
        d, i = _brute_force(queries[rows], points, valid, k)
        return done + step, distance.at[rows].set(d), index.at[rows].set(i)

    _, distance, index = jax.lax.while_loop(
        lambda state: state[0] < open_, repeat, (jnp.zeros_like(open_), distance, index)
    )
    return distance, index


def nearest_neighbors(
    queries: Float[Array, "Q 3"],
    points: Float[Array, "P 3"],
    k: int,
    *,
    valid: Bool[Array, "P"] | None = None,
) -> Neighbors:
    """The k nearest points of each query, exact.

    Args:
        queries: Where to look from.
        points: Where to look, in any order. Invalid points may hold anything, NaN included.
        k: How many (static).
        valid: Which points count; all by default.

    Returns:
        Indices and Euclidean distances, nearest first, ties by index. With fewer than k valid points the remaining
        slots repeat slot 0. Distances are differentiable, with gradient 0 where a query meets its neighbour.

    Raises:
        ValueError: Wrong shapes, `k` below 1, an empty cloud.
    """
    expect_shape("queries", queries, (None, 3))
    if k < 1:
        raise ValueError(f"k: expected at least 1, received {k}")
    points, mask = points_and_mask(points, valid)
    queries, points = same_dtype(queries, points)
    at, among = jax.lax.stop_gradient(queries), jax.lax.stop_gradient(points)
    available = min(k, len(points))
    if at.shape[0] == 0:
        empty = np.zeros((0, k), np.int32)
        return Neighbors(jnp.asarray(empty), jnp.asarray(empty, points.dtype))
    # Below four times what the blocks would visit anyway they save nothing.
    search = _by_blocks if len(points) >= 4 * BLOCK * max(8, 6 * -(-k // BLOCK)) else _brute_force
    squared, indices = search(at, among, mask, available)
    found = jnp.isfinite(squared)
    if available < k:
        indices = jnp.pad(indices, ((0, 0), (0, k - available)))
        found = jnp.pad(found, ((0, 0), (0, k - available)))
    indices = jnp.where(found, indices, indices[:, :1])
    return Neighbors(indices, safe_norm(points[indices] - queries[:, None]))
