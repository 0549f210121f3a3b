"""Every form of the kernels' table beside its statement: a row for each operation and form of this platform."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

import musc_jax  # noqa: F401 - fills the table of operations
from benchmarks import inputs
from benchmarks.hot_paths import SIZE, Setting, bind, difference
from benchmarks.timing import Row, compare
from musc_jax.kernels import FORMS, OPERATIONS

Call = tuple[tuple, dict[str, Any]]
"""Arrays and options of an operation."""


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 1, shape).astype(np.float32)


def _scan(setting: Setting) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(points, which of them are there, so many of them as there are groups)."""
    side, groups = setting.pick((SIZE, 1024), (48, 32))
    points, valid = inputs.scan(side)
    return points, valid, np.flatnonzero(valid)[:: int(valid.sum()) // groups][:groups].astype(np.int32)


def _expansion(setting: Setting) -> Call:
    """Every fourth group is rough."""
    points, valid, centers = _scan(setting)
    size = setting.pick(128, 16)
    squared = [np.where(valid, ((points - points[center]) ** 2).sum(1), np.inf) for center in centers]
    near = np.argsort(squared, axis=1, kind="stable")[:, : 2 * size].astype(np.int32)
    options = {"group_size": size, "k_iter": setting.pick(80, 10), "variant": "released"}
    return (points, valid, near, np.arange(len(centers)) % 4 == 0), options


def _encoder(setting: Setting) -> Call:
    groups, size, (a, b, c, d) = setting.pick((1024, 128, (128, 256, 512, 384)), (32, 16, (8, 16, 32, 24)))
    shapes = ((3, a), (a, b), (2 * b, c), (c, d))
    layers = tuple((_random(*shape) / np.float32(shape[0]), _random(shape[1])) for shape in shapes)
    norms = tuple(tuple(_random(width) for _ in range(4)) for width in (a, c))
    return (_random(groups, size, 3), layers, norms), {"point_norm": "cloud", "epsilon": 1e-5, "dtype": "float32"}


def _attention(setting: Setting) -> Call:
    shape = setting.pick((1, 12, 785, 64), (1, 2, 50, 8))
    return tuple(inputs.unit_features(*shape) for _ in range(3)), {"dtype": "float32"}


def _of_scan(setting: Setting, name: str) -> Call:
    points, valid, centers = _scan(setting)
    return {
        "farthest_points": ((points, valid, centers[0]), {"num": len(centers)}),
        "nearest_points": ((points[centers], points, valid), {"k": setting.pick(128, 16)}),
        "nearest_groups": ((points[centers],), {"k": 5}),
        "nearest_centers": ((points, valid, points[centers]), {"k": 3}),
    }[name]


def _of_scores(setting: Setting, name: str) -> Call:
    tokens, others, width, side = setting.pick((784, 100, 768, 28), (64, 8, 16, 8))
    unit, scores = inputs.unit_features(2, tokens, width), _random(2, tokens, others)
    return {
        "window_pooling": (
            (unit[0].reshape(side, side, width),),
            {"degrees": (1, 3, 5), "by_count": False, "similarity_weighting": True},
        ),
        "block_minima": (
            (*(inputs.unit_features(setting.pick(8, 2), tokens, width) for _ in range(2)), None, None),
            {"precision": "full"},
        ),
        "pair_minima": ((*unit, None, None), {"precision": "full"}),
        "lowest_mean": ((scores[0],), {"count": max(1, others * 3 // 10), "axis": 1}),
        "rank_match": ((*scores, None), {}),
        "enhance_by_rank": ((*scores, _random(tokens), None, None), {}),
    }[name]


INPUTS: dict[str, Callable[[Setting], Call]] = {
    "attention": _attention,
    "group_expansion": _expansion,
    "group_tokens": _encoder,
    **{
        name: partial(_of_scan, name=name)
        for name in ("farthest_points", "nearest_points", "nearest_groups", "nearest_centers")
    },
    **{
        name: partial(_of_scores, name=name)
        for name in ("window_pooling", "block_minima", "pair_minima", "lowest_mean", "rank_match", "enhance_by_rank")
    },
}


def _measure(setting: Setting, name: str, platform: str) -> Row:
    arrays, options = INPUTS[name](setting)
    form = FORMS[name][platform]
    runs = {
        "form": bind(partial(form.function, **options), *arrays),
        "plain statement": bind(partial(OPERATIONS[name].statement, **options), *arrays),
    }
    row = compare(f"{name}: {form.function.__name__} ({platform})", runs, setting.repeats)
    firsts = (jax.tree.leaves(run())[0] for run in runs.values())
    row.details["relative_difference"] = difference(*firsts)
    return row


def rows() -> dict[str, Callable[[Setting], Row]]:
    """Of the forms that this platform may take."""
    own = {"default", {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())}
    return {
        f"form_{name}" + ("" if platform == "default" else f"_{platform}"): partial(
            _measure, name=name, platform=platform
        )
        for name, forms in FORMS.items()
        for platform in forms
        if platform in own
    }
