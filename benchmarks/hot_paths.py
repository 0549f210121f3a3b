"""Every hot path beside its plain statement, and PyTorch's where that is installed."""

import dataclasses
import importlib.util
import inspect
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import musc_jax as m
from benchmarks import inputs, plain
from benchmarks.timing import Comparison, Row, Run, alternate, compare, expect

SIZE = 224


@dataclasses.dataclass(frozen=True)
class Setting:
    """How to measure: rounds, and whether with small sizes that only show that everything works."""

    repeats: int = 3
    quick: bool = False

    def pick(self, full: Any, quick: Any) -> Any:
        """One of two sizes."""
        return quick if self.quick else full


@cache
def torch_statements() -> ModuleType | None:
    """`plain_torch`, where PyTorch is installed and, beside a GPU of ours, has one too."""
    if importlib.util.find_spec("torch") is None:
        return None
    from benchmarks import plain_torch

    on_gpu = jax.default_backend() == "gpu"
    return plain_torch if on_gpu == (plain_torch.device().type == "cuda") else None


def torch_run(function: Callable, *args: Any) -> Run:
    """A call whose result is waited for."""
    module = torch_statements()
    assert module is not None
    tensors = [module.tensor(x) if isinstance(x, np.ndarray | jax.Array) else x for x in args]

    def run() -> Any:
        out = function(*tensors)
        module.wait()
        return out

    return run


def bind(function: Callable, *args: Any) -> Run:
    """Jitted, with its arrays on the device."""
    jitted, placed = jax.jit(function), jax.device_put(args)
    return lambda: jitted(*placed)


def difference(ours: Any, other: Any) -> float:
    """Largest difference, as a share of the largest value."""
    ours, other = np.asarray(ours, np.float64), np.asarray(other, np.float64)
    return float(np.abs(ours - other).max() / max(np.abs(other).max(), 1e-300))


def agree(row: Row, ours: Run, other: Run, tolerance: float) -> None:
    """Notes how far both sides are apart, and refuses more than `tolerance`."""
    apart = difference(ours(), other())
    expect(apart <= tolerance, f"{row.title}: results differ by {apart:.1e} of the largest, expected {tolerance:.0e}")
    row.details["relative_difference"] = apart


def mutual(setting: Setting) -> Row:
    """Mutual scoring: the rate of its products, and one sample against all others."""
    count, tokens, width = setting.pick((12, 784, 768), (4, 196, 64))
    z = inputs.unit_features(count, tokens, width)
    pairs = count * (count - 1) // 2
    products, operations = plain.products(tokens, width, tokens, pairs)
    with_maxima, _ = plain.products(tokens, width, tokens, pairs, maxima=True)
    ours, other = bind(m.mutual_scores, z), bind(plain.mutual_scores, z)
    runs = {"ours": ours, "products alone": products, "products, maximum of each": with_maxima, "plain JAX": other}
    if torch_statements():
        runs["torch.cdist"] = torch_run(torch_statements().mutual_scores, z)
    seconds = alternate(runs, setting.repeats)
    row = Row(f"mutual scoring ({count} x {tokens} x {width})", 1000 * seconds["ours"])
    for name in ("products alone", "products, maximum of each"):
        share = seconds[name] / seconds["ours"]
        what = f"share of the rate of its {name}"
        row.comparisons.append(Comparison(what, share, "%", 0.85, milliseconds=1000 * seconds[name]))
    for name, must in (("torch.cdist", 6.0), ("plain JAX", None)):
        if name in seconds:
            ratio = seconds[name] / seconds["ours"]
            row.comparisons.append(Comparison(name, ratio, must=must, milliseconds=1000 * seconds[name]))
    row.details["product_gflops"] = operations / seconds["products alone"] / 1e9
    agree(row, ours, other, 1e-5)
    return row


def precisions(setting: Setting) -> Row:
    """Mutual scoring with cheaper products, where this version has them: times and errors."""
    count, tokens, width = setting.pick((12, 784, 768), (4, 196, 64))
    row = Row(f"mutual scoring by precision ({count} x {tokens} x {width})")
    if "precision" not in inspect.signature(m.mutual_scores).parameters:
        row.notes.append("left out, this mutual_scores has no `precision`")
        return row
    z = inputs.unit_features(count, tokens, width)
    runs = {name: bind(partial(m.mutual_scores, precision=name), z) for name in ("full", "accurate", "fast")}
    seconds = alternate(runs, setting.repeats)
    row.milliseconds = 1000 * seconds["full"]
    peak = half_precision_rate() if jax.default_backend() == "gpu" else None
    full = runs["full"]()
    for name, run in runs.items():
        ratio = seconds["full"] / seconds[name]
        row.comparisons.append(Comparison(f"{name}, times as fast", ratio, milliseconds=1000 * seconds[name]))
        row.details[f"relative_difference, {name}"] = difference(run(), full)
        if peak:
            rate = count * (count - 1) * tokens**2 * width / seconds[name]
            must = 0.25 if name == "fast" else None
            row.comparisons.append(Comparison(f"{name}: share of the half-precision peak", rate / peak, "%", must))
    row.notes.append(
        "largest difference from full: "
        + ", ".join(f"{name} {row.details[f'relative_difference, {name}']:.1e}" for name in ("accurate", "fast"))
    )
    return row


def half_precision_rate(side: int = 8192) -> float:
    """Operations a second of float16 products with float32 accumulation: an accelerator's peak in practice."""
    a = jnp.ones((side, side), jnp.float16)
    run = jax.jit(lambda a: jnp.matmul(a, a, preferred_element_type=jnp.float32))
    return 2 * side**3 / alternate({"products": lambda: run(a)}, 3)["products"]


def interval(setting: Setting) -> Row:
    """The lowest-30 % mean."""
    count = setting.pick(12 * 784, 784)
    rows = jnp.asarray(np.random.default_rng(2).random((count, 200)), jnp.float32)
    runs = {
        "ours": bind(m.interval_average, rows),
        "lax.top_k": bind(plain.interval_average, rows),
    }
    if torch_statements():
        runs["torch.topk"] = torch_run(torch_statements().interval_average, rows)
    row = compare(f"lowest-30 % mean ({count} rows of 200)", runs, setting.repeats, {"lax.top_k": 5})
    agree(row, runs["ours"], runs["lax.top_k"], 1e-5)
    return row


def _cloud(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """50,000 points of a grid without holes, and 1024 centres."""
    count, groups = setting.pick((50_000, 1024), (8_000, 64))
    points = inputs.scan(SIZE)[0][:count]
    return points, np.asarray(jax.jit(lambda p: m.farthest_point_sampling(p, groups))(points))


def sampling(setting: Setting) -> Row:
    """Farthest point sampling, the same indices."""
    points, centers = _cloud(setting)
    num = len(centers)
    runs = {
        "ours": bind(lambda p: m.farthest_point_sampling(p, num), points),
        "textbook fori_loop with argmax": bind(lambda p: plain.farthest_points(p, num), points),
    }
    if torch_statements():
        runs["torch loop"] = torch_run(torch_statements().farthest_points, points, num)
    title = f"farthest point sampling ({num} of {len(points)})"
    same = np.array_equal(*(np.asarray(run()) for run in list(runs.values())[:2]))
    expect(same, f"{title}: other indices than the textbook's")
    row = compare(title, runs, setting.repeats, {"textbook fori_loop with argmax": 25})
    row.notes.append("same indices as the textbook's")
    return row


def expect_exact(title: str, indices: np.ndarray, queries: np.ndarray, points: np.ndarray) -> None:
    """Distances in float64 are those of the tree, rank by rank, up to float32's rounding, and no point comes twice."""
    queries, points = queries.astype(np.float64), points.astype(np.float64)
    k = indices.shape[1]
    want = np.linalg.norm(points[plain.tree_neighbors(queries, points, k)] - queries[:, None], axis=-1)
    got = np.linalg.norm(points[indices] - queries[:, None], axis=-1)
    # Squares of differences of float32 numbers round by a few 6e-8; half of that on the distance.
    expect(np.allclose(got, want, rtol=3e-7, atol=1e-12), f"{title}: not the nearest")
    expect(all(len(set(row)) == k for row in indices), f"{title}: a neighbour comes twice")


def neighbors(setting: Setting) -> Row:
    """Nearest neighbours on a grid, exact."""
    points, centers = _cloud(setting)
    queries, k = points[centers], 256
    title = f"nearest neighbours ({len(queries)} x {k} of {len(points)})"
    ours = bind(lambda q, p: m.nearest_neighbors(q, p, k).indices, queries, points)
    expect_exact(title, np.asarray(ours()), queries, points)
    runs = {
        "ours": ours,
        "lax.top_k of all distances": bind(lambda q, p: plain.neighbors(q, p, k), queries, points),
        "SciPy's cKDTree": lambda: plain.tree_neighbors(queries, points, k),
    }
    if torch_statements():
        runs["torch.cdist and topk"] = torch_run(torch_statements().neighbors, queries, points, k)
    must = {"lax.top_k of all distances": 8.0, "SciPy's cKDTree": 1.0}
    row = compare(title, runs, setting.repeats, must)
    row.notes.append("exact: distances are those of the tree, rank by rank")
    return row


def grouping(setting: Setting) -> Row:
    """IPG with every group expanded, after sampling: neighbours, curvature, expansion."""
    points, centers = _cloud(setting)

    def ours(threshold: float) -> Run:
        return bind(
            lambda p, c: m.iterative_point_grouping(p, c, curvature_threshold=threshold).indices, points, centers
        )

    near = plain.tree_neighbors(points[centers], points, 256)
    bend = plain.curvature(points[near[:, 1:128]], points[centers])
    runs = {
        "ours": ours(0.0),
        "NumPy, group by group": lambda: plain.group(points, centers, 0.0)[0],
        "of that the expansion alone": lambda: plain.expand_groups(points, near, bend, threshold=0.0),
    }
    title = f"IPG, every group expanded ({len(centers)} x 128)"
    row = compare(title, runs, setting.repeats, {"NumPy, group by group": 4.0})
    same = [
        np.array_equal(*map(np.sort, pair)) for pair in zip(np.asarray(runs["ours"]()), runs["NumPy, group by group"]())
    ]
    row.details["same_groups"] = float(np.mean(same))
    # Points on a grid have equal distances, which both sides may settle in their own way.
    expect(np.mean(same) > 0.95, f"{title}: {np.mean(same):.1%} of the groups are the same")
    row.notes.append(f"{np.mean(same):.2%} of the groups have the same members")
    some = {"ours": ours(0.01), "NumPy, group by group": lambda: plain.group(points, centers)[0]}
    seconds = alternate(some, setting.repeats)
    theirs = seconds["NumPy, group by group"]
    what = f"the same where curvature asks for it ({np.mean(bend >= 0.01):.0%} of the groups)"
    row.comparisons.append(Comparison(what, theirs / seconds["ours"], milliseconds=1000 * theirs))
    return row


def snamd_grid(setting: Setting) -> Row:
    """SNAMD of an image."""
    tokens = np.random.default_rng(3).normal(size=setting.pick((784, 768), (196, 64))).astype(np.float32)
    runs = {"ours": bind(m.snamd_grid, tokens), "NumPy, every window gathered": lambda: plain.snamd_grid(tokens)}
    row = compare(f"SNAMD, image ({len(tokens)} x {tokens.shape[1]})", runs, setting.repeats)
    agree(row, *runs.values(), 1e-5)
    return row


def snamd_points(setting: Setting) -> Row:
    """SNAMD of a cloud, every group flat."""
    groups, width = setting.pick((1024, 384), (128, 48))
    tokens = np.random.default_rng(4).normal(size=(groups, width)).astype(np.float32)
    at, flat = inputs.scan(SIZE)[0][:: SIZE * SIZE // groups][:groups], np.zeros(groups, np.float32)
    # Moved at random, or many centres would be equally far away.
    at = at + np.random.default_rng(5).normal(0, 0.01, at.shape).astype(np.float32)
    runs = {
        "ours": bind(m.snamd_points, tokens, at, flat),
        "NumPy, group by group": lambda: plain.snamd_points(tokens, at),
    }
    row = compare(f"SNAMD, points ({groups} x {width})", runs, setting.repeats)
    agree(row, *runs.values(), 1e-5)
    return row


def cae(setting: Setting) -> Row:
    """Cross-modal enhancement of a sample, beside its share of the pair scores."""
    two, three, others = setting.pick((784, 1024, 149), (196, 64, 9))
    rng = np.random.default_rng(6)
    own = [rng.random((count, others)).astype(np.float32) for count in (two, three)]
    patch = rng.integers(0, two, three)
    count = setting.pick(12, 4)
    pairs = count * (count - 1) // 2
    image, points = inputs.unit_features(count, two, 768), inputs.unit_features(count, three, 384)
    runs = {
        "ours": bind(m.cross_modal_enhancement, *own, patch),
        "NumPy": lambda: plain.cross_modal_enhancement(*own, patch),
        "image pairs": bind(m.all_pair_scores, image),
        "point pairs": bind(m.all_pair_scores, points),
    }
    seconds = alternate(runs, setting.repeats)
    share = others / 2 * (seconds["image pairs"] + seconds["point pairs"]) / pairs
    row = Row(f"CAE ({two} and {three} x {others}, one stage)", 1000 * seconds["ours"])
    row.comparisons = [
        Comparison("of the sample's share of the pair scores", seconds["ours"] / share, "x time", 0.6, at_most=True,
                   milliseconds=1000 * share),
        Comparison("NumPy", seconds["NumPy"] / seconds["ours"], milliseconds=1000 * seconds["NumPy"]),
    ]  # fmt: skip
    for ours, other in zip(runs["ours"](), runs["NumPy"](), strict=True):
        # Two values next to each other in rank may swap on a rounding; they are next to each other in size, too.
        apart = float(np.abs(np.asarray(ours) - other).max())
        expect(apart < 1e-3, f"{row.title}: results differ by {apart:.1e}")
    return row


def point_map(setting: Setting) -> Row:
    """The map of a cloud: interpolation and blur."""
    points, valid = inputs.scan(SIZE)
    groups = setting.pick(1024, 64)
    centers = np.asarray(
        jax.jit(lambda p, v: m.farthest_point_sampling(p, groups, candidates=v, start=jnp.argmax(v)))(points, valid)
    )
    values, at = np.random.default_rng(7).random(groups).astype(np.float32), points[centers]
    pixels = np.arange(SIZE * SIZE, dtype=np.int32)
    ours = bind(lambda p, v, i, c, x: m.point_map(p, i, c, x, size=SIZE, valid=v), points, valid, pixels, at, values)
    runs = {"ours": ours, "SciPy's tree and Pillow": lambda: plain.point_map(points, valid, at, values, SIZE)}
    row = compare(f"point map ({SIZE}, {groups} groups)", runs, setting.repeats)
    # Pillow rounds to 8 bits before the blur and after each of its passes.
    agree(row, *runs.values(), 4 / 255)
    return row


ROWS: dict[str, Callable[[Setting], Row]] = {
    "mutual": mutual,
    "precisions": precisions,
    "interval": interval,
    "sampling": sampling,
    "neighbors": neighbors,
    "grouping": grouping,
    "snamd_grid": snamd_grid,
    "snamd_points": snamd_points,
    "cae": cae,
    "point_map": point_map,
}
