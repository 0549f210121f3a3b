"""Times every stage against a plain statement of the same thing, in one process, and prints the ratios.

    python -m benchmarks.stages [--repeats=3] [--only=mutual,...] [--output=FILE.json]

Both sides run on the same arrays, one after the other, `repeats` times; the ratio is that of the fastest runs. Absolute
times of a shared machine say little; the rate of plain matrix products, measured in the same run, gives the scale.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

import musc_jax as m
from benchmarks import plain

REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each side; the fastest counts.", lower_bound=1)
ONLY = flags.DEFINE_list("only", None, "Stages to run; default all.")
OUTPUT = flags.DEFINE_string("output", None, "Write the figures here as JSON, too.")

SIZE = 224


def scan() -> tuple[np.ndarray, np.ndarray]:
    """A curved, noisy scan on the full pixel grid, and its mask."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE * 2 - 1
    z = 0.3 * np.sin(5 * x) + 0.2 * np.cos(4 * y) + 0.005 * rng.normal(size=x.shape)
    points = np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32)
    valid = (np.hypot(x, y) < 0.97).ravel()
    return np.where(valid[:, None], points, 0), valid


def unit_features(*shape: int) -> jax.Array:
    """Random unit vectors."""
    z = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return jnp.asarray(z / np.linalg.norm(z, axis=-1, keepdims=True))


Case = tuple[Callable[[], Any], Callable[[], Any]]


def cases() -> dict[str, Callable[[], Case]]:
    """(ours, plain) for each stage; made when it is asked for."""
    points, valid = scan()
    compact = points[valid]
    centers = np.asarray(
        jax.jit(lambda p, v: m.farthest_point_sampling(p, 1024, candidates=v, start=jnp.argmax(v)))(points, valid)
    )
    compact_centers = (np.cumsum(valid) - 1)[centers]
    rng = np.random.default_rng(2)

    def bind(function: Callable, *args: Any) -> Callable[[], Any]:
        jitted = jax.jit(function)
        return lambda: jitted(*args)

    def mutual() -> Case:
        z = unit_features(12, 784, 768)
        return bind(m.mutual_scores, z), bind(plain.mutual_scores, z)

    def interval() -> Case:
        rows = jnp.asarray(rng.random((12 * 784, 200)), jnp.float32)
        return bind(m.interval_average, rows), bind(plain.interval_average, rows)

    def sampling() -> Case:
        ours = bind(lambda p: m.farthest_point_sampling(p, 1024), compact)
        return ours, bind(lambda p: plain.farthest_points(p, 1024), jnp.asarray(compact))

    def neighbors() -> Case:
        queries = compact[compact_centers]
        ours = bind(lambda q, p: m.nearest_neighbors(q, p, 256), queries, compact)
        return ours, bind(lambda q, p: plain.neighbors(q, p, 256), jnp.asarray(queries), jnp.asarray(compact))

    def grouping() -> Case:
        ours = bind(lambda p, v, c: m.iterative_point_grouping(p, c, valid=v), points, valid, centers)
        return ours, lambda: plain.group(compact, compact_centers)

    def snamd_grid() -> Case:
        tokens = rng.normal(size=(784, 768)).astype(np.float32)
        return bind(m.snamd_grid, tokens), lambda: plain.snamd_grid(tokens)

    def snamd_points() -> Case:
        tokens = rng.normal(size=(1024, 384)).astype(np.float32)
        at, flat = points[centers], np.zeros(1024, np.float32)
        return bind(m.snamd_points, tokens, at, flat), lambda: plain.snamd_points(tokens, at)

    def enhancement() -> Case:
        two, three = (rng.random((count, 149)).astype(np.float32) for count in (784, 1024))
        patch = rng.integers(0, 784, 1024)
        ours = bind(m.cross_modal_enhancement, two, three, patch)
        return ours, lambda: plain.cross_modal_enhancement(two, three, patch)

    def point_map() -> Case:
        values = rng.random(1024).astype(np.float32)
        at = points[centers]
        ours = bind(
            lambda p, v, c, x: m.point_map(p, jnp.arange(SIZE * SIZE), c, x, size=SIZE, valid=v),
            points,
            valid,
            at,
            values,
        )
        return ours, lambda: plain.point_map(points, valid, at, values, SIZE)

    return {
        "mutual scoring (12 x 784 x 768)": mutual,
        "interval average (rows of 200)": interval,
        "farthest point sampling (1024)": sampling,
        "nearest neighbours (1024 x 256)": neighbors,
        "grouping after sampling (1024 x 128)": grouping,
        "SNAMD, image (784 x 768)": snamd_grid,
        "SNAMD, points (1024 x 384)": snamd_points,
        "CAE (784 and 1024 x 149)": enhancement,
        "point map (224)": point_map,
        **backbones(),
    }


def backbones() -> dict[str, Callable[[], Case]]:
    """The two encoders; see `benchmarks.encoders`."""
    from benchmarks import encoders

    return {
        "mini-PointNet (1024 x 128)": encoders.points,
        "ViT-B/8 (224, one image)": encoders.image,
    }


def fastest(run: Callable[[], Any]) -> float:
    """Seconds of the fastest run, after one that compiles."""
    jax.block_until_ready(run())
    best = np.inf
    for _ in range(REPEATS.value):
        started = time.perf_counter()
        jax.block_until_ready(run())
        best = min(best, time.perf_counter() - started)
    return best


def main(_: list[str]) -> None:
    """Runs the stages and prints the table."""
    logging.set_verbosity(logging.WARNING)
    rate = plain.matmul_rate()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}: products alone {rate / 1e9:.0f} GFLOP/s (float32)")
    print(f"{'stage':45} {'ours ms':>9} {'plain ms':>9} {'ratio':>7}")
    figures = {}
    for name, make in cases().items():
        if ONLY.value and not any(word in name for word in ONLY.value):
            continue
        ours, other = (fastest(run) for run in make())
        figures[name] = {"ours_ms": 1000 * ours, "plain_ms": 1000 * other, "ratio": other / ours}
        print(f"{name:45} {1000 * ours:9.1f} {1000 * other:9.1f} {other / ours:7.1f}", flush=True)
    mutual = figures.get("mutual scoring (12 x 784 x 768)")
    if mutual:
        share = 66 * 2 * 784 * 784 * 768 / (mutual["ours_ms"] / 1000) / rate
        figures["mutual scoring, share of the product rate"] = {"ratio": share}
        print(f"mutual scoring reaches {share:.0%} of the rate of its products alone (unordered pairs counted once)")
    if OUTPUT.value:
        record = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "product_gflops": rate / 1e9}
        Path(OUTPUT.value).write_text(json.dumps(record | {"stages": figures}, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
