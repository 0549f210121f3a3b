"""Nearest group centres, of points and of each other (operations `nearest_centers` and `nearest_groups`)."""

import jax
import jax.numpy as jnp

from musc_jax._arrays import smallest
from musc_jax.kernels.nearest_points import box_distances, spatial_blocks

# Blocks of points look at so many centres; a block that is not certified looks at all of them.
_VISITED_CENTERS = 48
_GROUPS_AT_ONCE = 128


def by_blocks_of_points(points: jax.Array, valid: jax.Array, centers: jax.Array, *, k: int) -> jax.Array:
    """`nearest_centers`: each block of points looks at the centres nearest to it.

    The dual of the neighbour search: a block's box bounds the distance of its points to every centre, so a block looks
    only at the centres nearest to its box.
    """
    blocks = spatial_blocks(points, valid)
    num_centers = len(centers)
    visited = min(_VISITED_CENTERS, num_centers)

    def nearest(points: jax.Array, among: jax.Array) -> tuple[jax.Array, jax.Array]:
        difference = points[:, None] - centers[among][None]
        squared = difference[..., 0] ** 2 + difference[..., 1] ** 2 + difference[..., 2] ** 2
        slots, last = [], squared[:, :1]
        # Three passes of a plain minimum beat a top_k of so few out of so few.
        for _ in range(k):
            last = squared.min(axis=1, keepdims=True)
            slot = jnp.min(jnp.where(squared == last, jnp.arange(len(among))[None], len(among)), axis=1)
            slots.append(slot)
            squared = jnp.where(jnp.arange(len(among))[None] == slot[:, None], jnp.inf, squared)
        return among[jnp.stack(slots, axis=-1)], last[:, 0]

    def one_block(block: tuple) -> tuple[jax.Array, jax.Array]:
        points, valid, bounds = block
        bound, among = smallest(bounds, min(visited + 1, num_centers))
        index, third = nearest(points, jnp.sort(among[:visited]))
        if visited == num_centers:
            return index, jnp.array(True)
        return index, jnp.all(jnp.where(valid, third * (1 + 1e-5) < bound[visited], True))

    bounds = box_distances(centers, blocks).T
    index, certified = jax.lax.map(one_block, (blocks.points, blocks.valid, bounds), batch_size=16)
    todo = jnp.argsort(certified)

    def repeat(state: tuple) -> tuple:
        done, index = state
        row = todo[done]
        return done + 1, index.at[row].set(nearest(blocks.points[row], jnp.arange(num_centers, dtype=index.dtype))[0])

    open_ = jnp.sum(~certified)
    by_block = jax.lax.while_loop(lambda s: s[0] < open_, repeat, (jnp.zeros_like(open_), index))[1]
    # The last block may hold the last point again, where it does not count and nobody has certified its answer.
    place = jnp.where(blocks.valid, blocks.positions, len(points)).reshape(-1)
    return jnp.zeros((len(points), k), by_block.dtype).at[place].set(by_block.reshape(-1, k), mode="drop")


def in_batches(centers: jax.Array, *, k: int) -> jax.Array:
    """`nearest_groups`: some rows of the distances at a time."""
    count = len(centers)

    def one(index: jax.Array) -> jax.Array:
        difference = centers - centers[index][None]
        squared = difference[:, 0] ** 2 + difference[:, 1] ** 2 + difference[:, 2] ** 2
        return smallest(squared.at[index].set(-1), k)[1]

    return jax.lax.map(one, jnp.arange(count), batch_size=min(_GROUPS_AT_ONCE, count))
