"""Plain statements of the stages, the other side of every ratio. Unimproved on purpose.

One sample, one group or one pixel at a time where that is how the method reads; NumPy, or JAX where the stage is
arithmetic; the caller jits what is JAX. Shapes as in the library. PyTorch's are in `plain_torch`, the image
backbone in `plain_backbones`. The whole of a run, and every form of the kernels' table, have the library's own plain
statements on the other side.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageFilter
from scipy.spatial import cKDTree

HIGHEST = jax.lax.Precision.HIGHEST


def pair_scores(features: jax.Array) -> jax.Array:
    """(N, M, C) -> (N, N, M): one sample against all others at a time, both directions computed; inf by itself."""
    count = features.shape[0]
    norms = (features**2).sum(-1)

    def one(i: jax.Array) -> jax.Array:
        gram = jnp.einsum("mc,njc->nmj", features[i], features, precision=HIGHEST)
        squared = norms[i][None, :, None] + norms[:, None, :] - 2 * gram
        distance = jnp.sqrt(jnp.maximum(squared, 0)).min(-1)
        return jnp.where((jnp.arange(count) == i)[:, None], jnp.inf, distance)

    return jax.lax.map(one, jnp.arange(count))


def mutual_scores(features: jax.Array, interval: float = 0.3) -> jax.Array:
    """(N, M, C) -> (N, M): distances to the nearest patches of all others, and the mean of the lowest."""
    kept = max(1, int((features.shape[0] - 1) * interval))
    return jax.lax.map(lambda own: -jax.lax.top_k(-own.T, kept)[0].mean(-1), pair_scores(features))


def interval_average(scores: jax.Array, interval: float = 0.3) -> jax.Array:
    """Mean of the lowest values of each row by `lax.top_k`."""
    return -jax.lax.top_k(-scores, max(1, int(scores.shape[-1] * interval)))[0].mean(-1)


def farthest_points(
    points: jax.Array, num: int, candidates: jax.Array | None = None, start: jax.Array | int = 0
) -> jax.Array:
    """(P, 3) -> (num,): one loop, argmax over all points at each step."""

    def step(i: jax.Array, state: tuple) -> tuple:
        nearest, chosen = state
        nearest = jnp.minimum(nearest, ((points - points[chosen[i - 1]]) ** 2).sum(-1))
        return nearest, chosen.at[i].set(jnp.argmax(nearest).astype(jnp.int32))

    nearest = jnp.full(points.shape[0], jnp.inf)
    if candidates is not None:
        nearest = jnp.where(candidates, nearest, -1)
    return jax.lax.fori_loop(1, num, step, (nearest, jnp.zeros(num, jnp.int32).at[0].set(start)))[1]


def neighbors(queries: jax.Array, points: jax.Array, k: int, rows: int = 64) -> jax.Array:
    """(Q, 3), (P, 3) -> (Q, k): all distances, then `lax.top_k`, `rows` queries at a time."""

    def block(q: jax.Array) -> jax.Array:
        return jax.lax.top_k(-((q[:, None] - points[None]) ** 2).sum(-1), k)[1]

    return jax.lax.map(block, queries.reshape(-1, rows, 3)).reshape(-1, k)


def tree_neighbors(queries: np.ndarray, points: np.ndarray, k: int) -> np.ndarray:
    """SciPy's tree, built and asked."""
    return cKDTree(points).query(queries, k)[1]


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


def group(points: np.ndarray, centers: np.ndarray, threshold: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """All of grouping after sampling: tree, curvature and expansion, one group at a time. (groups, curvature)."""
    near = tree_neighbors(points[centers], points, 256)
    bend = curvature(points[near[:, 1:128]], points[centers])
    return expand_groups(points, near, bend, threshold=threshold), bend


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


def snamd_points(tokens: np.ndarray, centers: np.ndarray, rough: np.ndarray | None = None) -> np.ndarray:
    """(G, C), (G, 3) -> (G, C): all distances between centres, one group at a time; rough groups keep their token."""
    tokens = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    out = np.zeros_like(tokens)
    for g in range(len(tokens)):
        order = np.argsort(np.linalg.norm(centers - centers[g], axis=1), kind="stable")
        pooled = []
        for r in (1, 3, 5):
            weight = np.exp(-np.linalg.norm(tokens[order[:r]] - tokens[g], axis=1))
            pooled.append((weight[:, None] * tokens[order[:r]]).sum(0) / weight.sum())
        out[g] = np.concatenate(pooled).reshape(-1, 3).mean(1)
        if rough is not None and rough[g]:
            out[g] = tokens[g]
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


def group_encoder(groups: jax.Array, p: dict[str, jax.Array], point_norm: str = "checkpoint") -> jax.Array:
    """(G, K, 3) -> (G, C): the mini-PointNet as written down, all groups at once; parameters by checkpoint names."""

    def conv(x: jax.Array, name: str) -> jax.Array:
        return jnp.matmul(x, p[name + ".weight"][..., 0].T, precision=HIGHEST) + p[name + ".bias"]

    def norm(x: jax.Array, name: str) -> jax.Array:
        mean, var = p[name + ".running_mean"], p[name + ".running_var"]
        if point_norm == "cloud":
            mean, var = x.mean((0, 1)), x.var((0, 1))
        return (x - mean) / jnp.sqrt(var + 1e-5) * p[name + ".weight"] + p[name + ".bias"]

    x = jax.nn.relu(norm(conv(groups, "encoder.first_conv.0"), "encoder.first_conv.1"))
    x = conv(x, "encoder.first_conv.3")
    x = jnp.concatenate([jnp.broadcast_to(x.max(1, keepdims=True), x.shape), x], -1)
    x = jax.nn.relu(norm(conv(x, "encoder.second_conv.0"), "encoder.second_conv.1"))
    return conv(x, "encoder.second_conv.3").max(1)


def products(
    m: int = 784, k: int = 768, n: int = 784, repeats: int = 20, *, maxima: bool = False
) -> tuple[Callable[[], jax.Array], int]:
    """Jitted float32 products (m, k)(k, n), and how many operations (2 a multiply-add) a call of `repeats` is.

    With `maxima` the maximum of each is taken, which costs a quarter on a CPU; else it is only written down.
    """
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.normal(size=(repeats, m, k)), jnp.float32)
    b = jnp.asarray(rng.normal(size=(k, n)), jnp.float32)

    def one(x: jax.Array, b: jax.Array) -> jax.Array:
        product = jnp.dot(x, b, precision=HIGHEST)
        return product.max() if maxima else jax.lax.optimization_barrier(product)[0, 0]

    run = jax.jit(lambda a, b: jax.lax.map(lambda x: one(x, b), a))
    return lambda: run(a, b).block_until_ready(), 2 * m * k * n * repeats


def matmul_rate(m: int = 784, k: int = 768, n: int = 784, repeats: int = 20, *, maxima: bool = True) -> float:
    """float32 operations a second of products of this shape, best of five."""
    run, operations = products(m, k, n, repeats, maxima=maxima)
    run()
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return operations / best
