"""Farthest point sampling: the centres of the point groups (paper III-A)."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from musc_jax._arrays import Array, expect_shape, points_and_mask

# XLA:CPU reduces to a maximum in vector registers but walks an argmax one element at a time. Maxima of rows first, then
# the argmax of the row maxima and of one row: forty times faster on 50,000 points, the same index.
_ROW = 256


def farthest_point_sampling(
    points: Float[Array, "P 3"],
    num: int,
    *,
    candidates: Bool[Array, "P"] | None = None,
    start: int | Int[Array, ""] = 0,
) -> Int[jax.Array, "num"]:
    """Picks `num` points, each the farthest from those picked before.

    Args:
        points: Coordinates, any unit. Those that are neither candidate nor start may hold anything, NaN included.
        num: How many to pick (static).
        candidates: Which points may be picked; all by default. The released program never picks a point whose squared
            norm is at most 1e-3 after a cloud was brought to the unit sphere; that rule is the caller's to state here.
        start: Index of the first pick. It is picked whether it is a candidate or not.

    Returns:
        Indices into `points`, in the order of picking. Ties go to the lowest index. When the candidates run out, the
        lowest-index candidate repeats; with no candidate at all, the start does.

    Raises:
        ValueError: Wrong shapes, `num` below 1, no points.
    """
    count = jnp.shape(points)[0] if jnp.ndim(points) else 0
    if num < 1:
        raise ValueError(f"num: expected at least 1, received {num}")
    start = jnp.asarray(start, jnp.int32)
    expect_shape("start", start, ())
    if candidates is None:
        candidates = jnp.ones(count, bool)
    expect_shape("candidates", candidates, (count,))
    candidates = jnp.asarray(candidates).astype(bool)
    points, _ = points_and_mask(points, candidates | (jnp.arange(count, dtype=jnp.int32) == start))
    points = jax.lax.stop_gradient(points)

    rows = -(-count // _ROW)
    pad = rows * _ROW - count
    axes = jnp.pad(points, ((0, pad), (0, 0))).T.reshape(3, rows, _ROW)
    open_ = jnp.pad(candidates, (0, pad)).reshape(rows, _ROW)
    distance = jnp.where(open_, jnp.inf, -1).astype(points.dtype)

    def pick_next(state: tuple, _: None) -> tuple:
        distance, last = state
        x, y, z = points[last]
        to_last = (axes[0] - x) ** 2 + (axes[1] - y) ** 2 + (axes[2] - z) ** 2
        distance = jnp.where(open_, jnp.minimum(distance, to_last), -1)
        row = jnp.argmax(distance.max(axis=1))
        chosen = (row * _ROW + jnp.argmax(distance[row])).astype(jnp.int32)
        chosen = jnp.where(distance[row].max() < 0, start, chosen)
        return (distance, chosen), chosen

    rest: jax.Array
    _, rest = jax.lax.scan(pick_next, (distance, start), None, length=num - 1)
    return jnp.concatenate([start[None], rest])
