"""Expansion of rough point groups alone (operation `group_expansion`)."""

import jax
import jax.numpy as jnp

from musc_jax._arrays import safe_norm, smallest

_GROUPS_AT_ONCE = 64


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


def rough_ones_alone(
    points: jax.Array,
    mask: jax.Array,
    pools: jax.Array,
    rough: jax.Array,
    *,
    group_size: int,
    k_iter: int,
    variant: str,
) -> jax.Array:
    """Only groups that are rough cost anything; they are expanded some at a time."""
    groups = pools[:, :group_size]
    count, pool_size = pools.shape
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
