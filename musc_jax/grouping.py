"""Iterative point grouping: point groups that lie on one surface (paper III-A, eq. 1-4)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from musc_jax import _options
from musc_jax._arrays import (
    Array,
    as_float,
    as_index,
    expect_shape,
    expect_variant,
    is_known,
    points_and_mask,
    safe_norm,
    smallest,
)
from musc_jax.neighbors import nearest_neighbors

_GROUPS_AT_ONCE = 64


class PointGroups(NamedTuple):
    """G groups of K points."""

    indices: Int[jax.Array, "G K"]
    """Positions in the cloud; a group may hold a point several times."""
    curvature: Float[jax.Array, "G"]
    """Curvature at the centre of each group, 0 (flat) to 1/3."""


def curvature(neighbors: Float[Array, "*G K 3"], center: Float[Array, "*G 3"]) -> Float[jax.Array, "*G"]:
    """Surface variation at a group's centre (paper eq. 1-2).

    The neighbours, relative to the centre, are divided by the largest norm; of their covariance (about their own mean,
    1 / (K - 1)) the smallest eigenvalue is divided by the sum of all three plus 1e-12.

    Args:
        neighbors: The nearest points, without the centre itself; K >= 2.
        center: The centre of each group.

    Returns:
        0 (flat, or all points equal) to 1/3, in the dtype of `neighbors`.

    Raises:
        ValueError: Wrong shapes, fewer than 2 neighbours.
    """
    wide, dtype = as_float(neighbors)
    if wide.ndim < 2 or wide.shape[-1] != 3 or wide.shape[-2] < 2:
        raise ValueError(f"neighbors: expected shape (..., K >= 2, 3), received {wide.shape}")
    expect_shape("center", center, (*wide.shape[:-2], 3))
    relative = wide - as_float(center)[0].astype(wide.dtype)[..., None, :]
    radius = safe_norm(relative).max(axis=-1)[..., None, None]
    relative = relative / jnp.maximum(radius, 1e-12)
    relative = relative - relative.mean(axis=-2, keepdims=True)
    # Nine sums instead of a batch of thin matrix products, which XLA:CPU runs one call at a time.
    outer = relative[..., :, None] * relative[..., None, :]
    covariance = outer.sum(axis=-3) / (wide.shape[-2] - 1)
    eigenvalues = jnp.maximum(jnp.linalg.eigvalsh(covariance), 0)
    return (eigenvalues[..., 0] / (eigenvalues.sum(axis=-1) + 1e-12)).astype(dtype)


def _steps(group_size: int, k_iter: int) -> list[int]:
    """How many points each expansion step adds."""
    size, steps = min(k_iter, group_size), []
    while size < group_size:
        steps.append(min(k_iter, group_size - size))
        size += steps[-1]
    return steps


def _squared(a: jax.Array, b: jax.Array) -> jax.Array:
    """Squared distances (A, B) by direct differences."""
    d = a[:, None] - b[None]
    return d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2


def _expand_released(pool: jax.Array, usable: jax.Array, group_size: int, k_iter: int) -> jax.Array:
    """One group by the released program's rule: (K,) slots of the pool.

    The added points come from the smallest (member, candidate) distances, one point per pair, so that a candidate can
    come several times. Repeats stay members and count. When no candidate is left, the centre (slot 0) repeats.
    """
    size = len(pool)
    members = jnp.arange(min(k_iter, group_size), dtype=jnp.int32)
    taken = jnp.arange(size) < len(members)
    for add in _steps(group_size, k_iter):
        open_ = usable & ~taken
        distance = jnp.where(open_[None], _squared(pool[members], pool), jnp.inf)
        nearest, pair = smallest(distance.reshape(-1), add)
        new = jnp.where(jnp.isfinite(nearest), pair % size, 0)
        taken = taken.at[new].set(True)
        members = jnp.concatenate([members, new])
    return members


def _expand_paper(pool: jax.Array, usable: jax.Array, group_size: int, k_iter: int) -> tuple[jax.Array, jax.Array]:
    """One group by the printed rule (eq. 3-4), out of its pool: (K,) slots, and the distance of the last one added.

    Each candidate is added at most once, by its distance to the group. The last distance, the largest over the steps,
    tells whether a point outside the pool could have come first.
    """
    members = jnp.arange(min(k_iter, group_size), dtype=jnp.int32)
    taken = jnp.arange(len(pool)) < len(members)
    new, worst = members, jnp.zeros((), pool.dtype)
    to_group = jnp.full(len(pool), jnp.inf, pool.dtype)
    for add in _steps(group_size, k_iter):
        to_group = jnp.minimum(to_group, _squared(pool[new], pool).min(axis=0))
        nearest, new = smallest(jnp.where(usable & ~taken, to_group, jnp.inf), add)
        worst = jnp.maximum(worst, nearest[-1])
        new = jnp.where(jnp.isfinite(nearest), new, 0)
        taken = taken.at[new].set(True)
        members = jnp.concatenate([members, new])
    return members, jnp.sqrt(worst)


def iterative_point_grouping(
    points: Float[Array, "P 3"],
    centers: Int[Array, "G"],
    *,
    group_size: int = 128,
    k_iter: int = 80,
    curvature_threshold: float = 0.01,
    valid: Bool[Array, "P"] | None = None,
    variant: str = "released",
    expansion: bool = True,
) -> PointGroups:
    """IPG: the points of each group, kept on one surface where the surface bends (paper eq. 1-4).

    A group of low curvature is its K nearest points. Otherwise it starts with the `k_iter` nearest and repeatedly takes
    in the points nearest to what it has, up to `k_iter` at a time, until it has K.

    Args:
        points: The cloud. Invalid points may hold anything, NaN included.
        centers: Index of each group's centre, a valid point. Behind `jit` or `vmap` an index out of range counts as the
            nearest from 0 to P - 1, and an invalid point as one at the origin.
        group_size: K >= 3.
        k_iter: Points to start with and to add a step.
        curvature_threshold: From here on a group is expanded.
        valid: Which points count; all by default.
        variant: "released": candidates are the 2K points nearest to the centre, and a point comes once for each of the
            smallest (member, candidate) distances it has. "paper": every point of the cloud is a candidate and comes
            at most once.
        expansion: False keeps every group at its K nearest points (the ablation "w/o IPG").

    Returns:
        Indices, and curvature in the dtype of `points`. A cloud with fewer than K valid points fills the groups by
        repeating centres.

    Raises:
        ValueError: Wrong shapes, sizes below their minimum, an empty cloud, centres out of range or invalid, an unknown
            variant.
    """
    expect_shape("centers", centers, (None,))
    expect_variant(variant)
    group_size = _options.whole("group_size", group_size, lowest=3)
    k_iter = _options.whole("k_iter", k_iter, lowest=1)
    dtype = as_float(points)[1]
    points, mask = points_and_mask(points, valid)
    given, centers = centers, as_index("centers", centers, len(points))
    if valid is not None and is_known(given) and is_known(valid):
        invalid = ~np.asarray(valid).astype(bool)[np.asarray(given)]
        if invalid.any():
            raise ValueError(f"centers: expected valid points, received {np.asarray(given)[invalid][0]}, which is not")
    at = points[centers]
    near = nearest_neighbors(at, points, 2 * group_size, valid=mask)
    bend = curvature(points[near.indices[:, 1:group_size]], at)
    groups = near.indices[:, :group_size]
    if expansion and k_iter < group_size and len(centers):
        fixed = jax.lax.stop_gradient(points)
        rough = bend >= curvature_threshold
        groups = _expand_groups(fixed, mask, near.indices, groups, rough, k_iter, variant)
    return PointGroups(groups, bend.astype(dtype))


def _expand_groups(
    points: jax.Array,
    mask: jax.Array,
    pools: jax.Array,
    groups: jax.Array,
    rough: jax.Array,
    k_iter: int,
    variant: str,
) -> jax.Array:
    """Replaces the groups marked rough by expanded ones; only those cost anything."""
    count, group_size = groups.shape
    pool_size = pools.shape[1]
    num_valid = mask.sum()
    # Slots beyond the valid points repeat the first and are no candidates.
    usable = jnp.arange(pool_size) < num_valid
    step = min(_GROUPS_AT_ONCE, count)
    todo = jnp.argsort(~rough)
    num_rough = rough.sum()

    def released(rows: jax.Array) -> jax.Array:
        slots = jax.vmap(lambda pool: _expand_released(points[pool], usable, group_size, k_iter))(pools[rows])
        return jnp.take_along_axis(pools[rows], slots, axis=1)

    def paper(rows: jax.Array) -> jax.Array:
        # Candidates in the order of the cloud, behind the first k_iter members: equal distances go to the lower index.
        head = pools[rows][:, :k_iter]
        tail = jnp.where(usable[None, k_iter:], pools[rows][:, k_iter:], len(points))
        tail = jnp.minimum(jnp.sort(tail, axis=1), len(points) - 1)
        ordered = jnp.concatenate([head, tail], axis=1)
        slots, last = jax.vmap(lambda pool: _expand_paper(points[pool], usable, group_size, k_iter))(ordered)
        picked = jnp.take_along_axis(ordered, slots, axis=1)
        if len(points) <= pool_size:
            return picked
        # A point outside the pool is at least `reach` from the centre, and so at least reach - spread from a member.
        center = points[pools[rows][:, 0]]
        reach = safe_norm(points[pools[rows][:, -1]] - center)
        spread = safe_norm(points[picked] - center[:, None]).max(axis=1)
        certain = (last * (1 + 1e-5) < reach - spread) | (num_valid <= pool_size)
        return jax.lax.cond(
            jnp.all(certain | ~rough[rows]),
            lambda: picked,
            lambda: _expand_in_cloud(points, mask, head, picked, ~certain & rough[rows], group_size, k_iter),
        )

    expand = released if variant == "released" else paper

    def some(state: tuple) -> tuple:
        done, groups = state
        rows = todo[jnp.minimum(done + jnp.arange(step), count - 1)]
        kept = jnp.where(rough[rows][:, None], expand(rows), groups[rows])
        return done + step, groups.at[rows].set(kept)

    start = jnp.zeros_like(num_rough)
    return jax.lax.while_loop(lambda state: state[0] < num_rough, some, (start, groups))[1]


def _expand_in_cloud(
    points: jax.Array,
    mask: jax.Array,
    head: jax.Array,
    picked: jax.Array,
    wanted: jax.Array,
    group_size: int,
    k_iter: int,
) -> jax.Array:
    """The printed rule with every point of the cloud as a candidate, for the few groups whose pool was too small."""

    def one(start: jax.Array) -> jax.Array:
        members, new = start, start
        taken = jnp.zeros(len(points), bool).at[start].set(True)
        to_group = jnp.full(len(points), jnp.inf, points.dtype)
        for add in _steps(group_size, k_iter):

            def nearer(so_far: jax.Array, member: jax.Array) -> tuple[jax.Array, None]:
                return jnp.minimum(so_far, _squared(points[member][None], points)[0]), None

            to_group, _ = jax.lax.scan(nearer, to_group, new)
            nearest, new = smallest(jnp.where(mask & ~taken, to_group, jnp.inf), add)
            new = jnp.where(jnp.isfinite(nearest), new, members[0]).astype(members.dtype)
            taken = taken.at[new].set(True)
            members = jnp.concatenate([members, new])
        return members

    todo = jnp.argsort(~wanted)

    def repeat(state: tuple) -> tuple:
        done, groups = state
        return done + 1, groups.at[todo[done]].set(one(head[todo[done]]))

    count = wanted.sum()
    return jax.lax.while_loop(lambda s: s[0] < count, repeat, (jnp.zeros_like(count), picked))[1]
