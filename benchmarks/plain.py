"""Plain statements of the stages, the other side of every ratio. Unimproved on purpose.

One sample, one group or one pixel at a time where that is how the method reads; NumPy, or JAX where the stage is
arithmetic. Shapes as in the library.
"""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageFilter
from scipy.spatial import cKDTree

HIGHEST = jax.lax.Precision.HIGHEST


def mutual_scores(features: jax.Array, interval: float = 0.3) -> jax.Array:
    """(N, M, C) -> (N, M): one sample against all others at a time, both directions computed."""
    count = features.shape[0]
    norms = (features**2).sum(-1)

    def one(i: jax.Array) -> jax.Array:
        gram = jnp.einsum("mc,njc->nmj", features[i], features, precision=HIGHEST)
        squared = norms[i][None, :, None] + norms[:, None, :] - 2 * gram
        distance = jnp.sqrt(jnp.maximum(squared, 0)).min(-1)
        distance = jnp.where((jnp.arange(count) == i)[:, None], jnp.inf, distance)
        return -jax.lax.top_k(-distance.T, max(1, int((count - 1) * interval)))[0].mean(-1)

    return jax.lax.map(one, jnp.arange(count))


def interval_average(scores: jax.Array, interval: float = 0.3) -> jax.Array:
    """Mean of the lowest values of each row by `lax.top_k`."""
    return -jax.lax.top_k(-scores, max(1, int(scores.shape[-1] * interval)))[0].mean(-1)


def farthest_points(points: jax.Array, num: int) -> jax.Array:
    """(P, 3) -> (num,): one loop, argmax over all points at each step."""

    def step(i: jax.Array, state: tuple) -> tuple:
        nearest, chosen = state
        nearest = jnp.minimum(nearest, ((points - points[chosen[i - 1]]) ** 2).sum(-1))
        return nearest, chosen.at[i].set(jnp.argmax(nearest).astype(jnp.int32))

    start = jnp.full(points.shape[0], jnp.inf), jnp.zeros(num, jnp.int32)
    return jax.lax.fori_loop(1, num, step, start)[1]


def neighbors(queries: jax.Array, points: jax.Array, k: int, rows: int = 64) -> jax.Array:
    """(Q, 3), (P, 3) -> (Q, k): all distances, then `lax.top_k`, `rows` queries at a time."""

    def block(q: jax.Array) -> jax.Array:
        return jax.lax.top_k(-((q[:, None] - points[None]) ** 2).sum(-1), k)[1]

    return jax.lax.map(block, queries.reshape(-1, rows, 3)).reshape(-1, k)


def curvature(neighbors: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(G, K, 3), (G, 3) -> (G,): one group at a time."""
    out = np.zeros(len(centers))
    for i, (near, center) in enumerate(zip(neighbors, centers)):
        relative = near - center
        relative = relative / max(np.linalg.norm(relative, axis=1).max(), 1e-12)
        values = np.linalg.eigvalsh(np.cov(relative.T))
        out[i] = values[0] / (values.sum() + 1e-12)
    return out


def expand_groups(
    points: np.ndarray,
    near: np.ndarray,
    bend: np.ndarray,
    group_size: int = 128,
    k_iter: int = 80,
    threshold: float = 0.01,
) -> np.ndarray:
    """The released rule, one group after the other. near (G, 2 * group_size), nearest first."""
    groups = []
    for pool, curved in zip(near, bend):
        group = list(pool[:group_size] if curved < threshold else pool[:k_iter])
        while len(group) < group_size:
            take = min(k_iter, group_size - len(group))
            rest = np.setdiff1d(pool, group)
            pair = np.linalg.norm(points[group][:, None] - points[rest][None], axis=-1).reshape(-1)
            group = list(rest[np.argsort(pair, kind="stable")[:take] % len(rest)]) + group
        groups.append(group)
    return np.array(groups)


def group(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """All of grouping after sampling: tree, curvature and expansion, one group at a time."""
    near = cKDTree(points).query(points[centers], 256)[1]
    bend = curvature(points[near[:, 1:128]], points[centers])
    return expand_groups(points, near, bend)


def snamd_grid(tokens: np.ndarray, degrees: tuple[int, ...] = (1, 3, 5)) -> np.ndarray:
    """(M, C) -> (M, C): every window gathered, then weighted."""
    side = round(len(tokens) ** 0.5)
    out = np.zeros_like(tokens)
    for r in degrees:
        padded = np.pad(tokens.reshape(side, side, -1), ((r // 2, r // 2), (r // 2, r // 2), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (r, r), (0, 1))
        windows = windows.reshape(len(tokens), tokens.shape[1], r * r).transpose(0, 2, 1)
        weight = np.exp(-np.linalg.norm(windows - tokens[:, None], axis=-1, keepdims=True))
        out += (weight * windows).sum(1) / weight.sum(1)
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def snamd_points(tokens: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(G, C), (G, 3) -> (G, C): all distances between centres, one group at a time; all groups flat."""
    tokens = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    out = np.zeros_like(tokens)
    for g in range(len(tokens)):
        order = np.argsort(np.linalg.norm(centers - centers[g], axis=1), kind="stable")
        pooled = []
        for r in (1, 3, 5):
            weight = np.exp(-np.linalg.norm(tokens[order[:r]] - tokens[g], axis=1))
            pooled.append((weight[:, None] * tokens[order[:r]]).sum(0) / weight.sum())
        out[g] = np.concatenate(pooled).reshape(-1, 3).mean(1)
    return out


def cross_modal_enhancement(two: np.ndarray, three: np.ndarray, patch: np.ndarray) -> tuple:
    """(M2, R), (M3, R), (M3,): the released rule with NumPy's sorts and a loop over patches."""

    def match(source: np.ndarray, target: np.ndarray) -> np.ndarray:
        ranks = np.argsort(np.argsort(target.reshape(-1), kind="stable"), kind="stable")
        return np.sort(source.reshape(-1))[ranks].reshape(target.shape)

    to_2d = np.zeros_like(two)
    for p in range(len(two)):
        if (patch == p).any():
            to_2d[p] = three[patch == p].mean(0)
    out = []
    for own, other, rows in (
        (two, to_2d, (to_2d != 0).any(1)),
        (three, two[patch], np.ones(len(three), bool)),
    ):
        trust = 1 - match(own.std(1, ddof=1), other.std(1, ddof=1))
        matched = other.copy()
        matched[rows] = match(own[rows], other[rows])
        matched = np.maximum(matched, own) * trust[:, None]
        out.append((own + match(own, matched)) / 2)
    return tuple(out)


def point_map(points: np.ndarray, valid: np.ndarray, centers: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """A tree for the 3 nearest centres, and Pillow's own blur of floats as three box filters an axis."""
    distance, index = cKDTree(centers).query(points[valid], 3)
    weight = 1 / (distance**2 + 1e-8)
    image = np.zeros(size * size, np.float32)
    image[valid] = (weight * values[index]).sum(1) / weight.sum(1)
    grey = Image.fromarray((255 * image.reshape(size, size) / image.max()).astype(np.uint8))
    return np.asarray(grey.filter(ImageFilter.GaussianBlur(4)), np.float32) * image.max() / 255


def group_encoder(groups: jax.Array, p: dict[str, jax.Array]) -> jax.Array:
    """(G, K, 3) -> (G, C): the mini-PointNet as written down, all groups at once, stored statistics."""

    def conv(x: jax.Array, name: str) -> jax.Array:
        return jnp.matmul(x, p[name + ".weight"][..., 0].T, precision=HIGHEST) + p[name + ".bias"]

    def norm(x: jax.Array, name: str) -> jax.Array:
        scaled = (x - p[name + ".running_mean"]) / jnp.sqrt(p[name + ".running_var"] + 1e-5)
        return scaled * p[name + ".weight"] + p[name + ".bias"]

    x = jax.nn.relu(norm(conv(groups, "encoder.first_conv.0"), "encoder.first_conv.1"))
    x = conv(x, "encoder.first_conv.3")
    x = jnp.concatenate([jnp.broadcast_to(x.max(1, keepdims=True), x.shape), x], -1)
    x = jax.nn.relu(norm(conv(x, "encoder.second_conv.0"), "encoder.second_conv.1"))
    return conv(x, "encoder.second_conv.3").max(1)


def matmul_rate(m: int = 784, k: int = 768, n: int = 784, repeats: int = 20) -> float:
    """float32 operations a second (2 a multiply-add) of products of this shape alone."""
    import time

    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.normal(size=(repeats, m, k)), jnp.float32)
    b = jnp.asarray(rng.normal(size=(k, n)), jnp.float32)
    run = jax.jit(lambda a, b: jax.lax.map(lambda x: jnp.dot(x, b, precision=HIGHEST).max(), a))
    run(a, b).block_until_ready()
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        run(a, b).block_until_ready()
        best = min(best, time.perf_counter() - started)
    return 2 * m * k * n * repeats / best
