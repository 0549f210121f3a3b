"""Point groups that lie on one surface (paper III-A, eq. 1-4).

Centres by farthest point sampling, their nearest neighbours, the curvature there, and iterative point grouping (IPG).
3-D distances are direct differences throughout: on an organised grid the expanded form |a|^2 + |b|^2 - 2ab picks other
points.
"""

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
    same_dtype,
)
from musc_jax.kernels import operation

# ---- The operations, plainly


def _squared(a: jax.Array, b: jax.Array) -> jax.Array:
    """Squared distances between points (..., 3)."""
    d = a - b
    return d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2


@operation("farthest_points")
def farthest_points(points: jax.Array, candidates: jax.Array, start: jax.Array, *, num: int) -> jax.Array:
    """Indices of `num` points, from `start` on each the candidate farthest from those before; ties to the lowest index.

    Without any candidate the start repeats.
    """

    def pick_next(state: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        distance, last = state
        distance = jnp.minimum(distance, _squared(points, points[last][None]))
        farthest = jnp.argmax(jnp.where(candidates, distance, -1)).astype(jnp.int32)
        chosen = jnp.where(jnp.any(candidates), farthest, start)
        return (distance, chosen), chosen

    far = jnp.full(len(points), jnp.inf, points.dtype)
    rest = jax.lax.scan(pick_next, (far, start), None, length=num - 1)[1]
    return jnp.concatenate([start[None], rest])


@operation("nearest_points")
def nearest_points(queries: jax.Array, points: jax.Array, valid: jax.Array, *, k: int) -> tuple[jax.Array, jax.Array]:
    """(squared distances, indices) (Q, k) of the k nearest valid points of each query, ties to the lower index.

    Where there are fewer than k, the last distances are infinite.
    """

    def one(query: jax.Array) -> tuple[jax.Array, jax.Array]:
        negated, index = jax.lax.top_k(-jnp.where(valid, _squared(query[None], points), jnp.inf), k)
        return -negated, index

    return jax.lax.map(one, queries)


@operation("group_expansion")
def group_expansion(
    points: jax.Array,
    valid: jax.Array,
    near: jax.Array,
    rough: jax.Array,
    *,
    group_size: int,
    k_iter: int,
    variant: str,
) -> jax.Array:
    """(G, K) points of each group: its K nearest, or where it is rough what it grows to from its nearest (eq. 3-4).

    Args:
        points: The cloud (P, 3).
        valid: Which points count.
        near: (G, 2K) the nearest points of each centre, itself first.
        rough: (G,) groups to be expanded.
        group_size: K.
        k_iter: Points to start with and to add a step.
        variant: "released" or "paper".
    """
    size, steps = min(k_iter, group_size), []
    while size < group_size:
        steps.append(min(k_iter, group_size - size))
        size += steps[-1]

    def released(pool: jax.Array) -> jax.Array:
        """New members by the smallest (member, candidate) distances of the pool, one for each: a point may repeat."""
        taken = jnp.arange(len(pool)) < k_iter
        usable = jnp.arange(len(pool)) < valid.sum()  # behind the valid points the first one repeats
        members = jnp.arange(k_iter, dtype=jnp.int32)
        for add in steps:
            distance = _squared(points[pool[members]][:, None], points[pool][None])
            negated, pair = jax.lax.top_k(-jnp.where(usable & ~taken, distance, jnp.inf).reshape(-1), add)
            new = jnp.where(jnp.isfinite(negated), pair % len(pool), 0)  # the centre, where no candidate is left
            taken, members = taken.at[new].set(True), jnp.concatenate([members, new])
        return pool[members]

    def paper(pool: jax.Array) -> jax.Array:
        """New members by their distance to the group, out of the whole cloud, each at most once."""
        members = pool[:k_iter]
        for add in steps:
            distance = jax.lax.map(lambda member: _squared(points[member][None], points), members).min(axis=0)
            taken = jnp.zeros(len(points), bool).at[members].set(True)
            negated, new = jax.lax.top_k(-jnp.where(valid & ~taken, distance, jnp.inf), add)
            members = jnp.concatenate([members, jnp.where(jnp.isfinite(negated), new, pool[0])])
        return members

    def one(group: tuple[jax.Array, jax.Array]) -> jax.Array:
        pool, is_rough = group
        return jnp.where(is_rough, (released if variant == "released" else paper)(pool), pool[:group_size])

    return jax.lax.map(one, (near, rough))


# ---- Centres and neighbours


class Neighbors(NamedTuple):
    """Nearest neighbours of Q queries, nearest first."""

    indices: Int[jax.Array, "Q k"]
    """Positions in `points`."""
    distances: Float[jax.Array, "Q k"]
    """Euclidean distances, in the unit of the points."""


def farthest_point_sampling(
    points: Float[Array, "P 3"],
    num: int,
    *,
    candidates: Bool[Array, "P"] | None = None,
    start: int | Int[Array, ""] = 0,
    implementation: str = "auto",
) -> Int[jax.Array, "num"]:
    """Picks `num` points, each the farthest from those picked before.

    Args:
        points: Coordinates, any unit. Those that are neither candidate nor start may hold anything, NaN included.
        num: How many to pick (static).
        candidates: Which points may be picked; all by default. The released program never picks a point whose squared
            norm is at most 1e-3 after a cloud was brought to the unit sphere; that rule is the caller's to state here.
        start: Index of the first pick, 0 to P - 1 (behind `jit` or `vmap` the nearest of these counts). It is picked
            whether it is a candidate or not.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        Indices into `points`, in the order of picking. Ties go to the lowest index. When the candidates run out, the
        lowest-index candidate repeats; with no candidate at all, the start does.

    Raises:
        ValueError: Wrong shapes, `num` below 1, no points, a start out of range, an unknown implementation.
    """
    num = _options.whole("num", num, lowest=1)
    expect_shape("points", points, (None, 3))
    count = jnp.shape(points)[0]
    if not count:
        raise ValueError("empty cloud: expected at least one point, received none")
    start = as_index("start", start, count)
    expect_shape("start", start, ())
    if candidates is None:
        candidates = jnp.ones(count, bool)
    expect_shape("candidates", candidates, (count,))
    candidates = jnp.asarray(candidates).astype(bool)
    points, _ = points_and_mask(points, candidates | (jnp.arange(count, dtype=jnp.int32) == start))
    points = jax.lax.stop_gradient(points)
    return farthest_points(points, candidates, start, num=num, implementation=implementation)


def nearest_neighbors(
    queries: Float[Array, "Q 3"],
    points: Float[Array, "P 3"],
    k: int,
    *,
    valid: Bool[Array, "P"] | None = None,
    implementation: str = "auto",
) -> Neighbors:
    """The k nearest points of each query, exact.

    Args:
        queries: Where to look from.
        points: Where to look, in any order. Invalid points may hold anything, NaN included.
        k: How many (static).
        valid: Which points count; all by default.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        Indices and Euclidean distances, nearest first, ties by index. With fewer than k valid points the remaining
        slots repeat slot 0. Distances are differentiable, with gradient 0 where a query meets its neighbour.

    Raises:
        ValueError: Wrong shapes, `k` below 1, an empty cloud, an unknown implementation.
    """
    expect_shape("queries", queries, (None, 3))
    k = _options.whole("k", k, lowest=1)
    points, mask = points_and_mask(points, valid)
    queries, points = same_dtype(queries, points)
    at, among = jax.lax.stop_gradient(queries), jax.lax.stop_gradient(points)
    available = min(k, len(points))
    if at.shape[0] == 0:
        empty = np.zeros((0, k), np.int32)
        return Neighbors(jnp.asarray(empty), jnp.asarray(empty, points.dtype))
    squared, indices = nearest_points(at, among, mask, k=available, implementation=implementation)
    found = jnp.isfinite(squared)
    if available < k:
        indices = jnp.pad(indices, ((0, 0), (0, k - available)))
        found = jnp.pad(found, ((0, 0), (0, k - available)))
    indices = jnp.where(found, indices, indices[:, :1])
    return Neighbors(indices, safe_norm(points[indices] - queries[:, None]))


# ---- Curvature and iterative point grouping


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
    implementation: str = "auto",
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
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        Indices, and curvature in the dtype of `points`. A cloud with fewer than K valid points fills the groups by
        repeating centres.

    Raises:
        ValueError: Wrong shapes, sizes below their minimum, an empty cloud, centres out of range or invalid, an unknown
            variant or implementation.
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
    # The 2K nearest points, the centre first: the group, its curvature, and what it may be expanded by.
    near = nearest_neighbors(at, points, 2 * group_size, valid=mask, implementation=implementation).indices
    bend = curvature(points[near[:, 1:group_size]], at)
    groups = near[:, :group_size]
    if expansion and k_iter < group_size and len(centers):
        groups = group_expansion(
            jax.lax.stop_gradient(points),
            mask,
            near,
            bend >= curvature_threshold,
            group_size=group_size,
            k_iter=k_iter,
            variant=variant,
            implementation=implementation,
        )
    return PointGroups(groups, bend.astype(dtype))
