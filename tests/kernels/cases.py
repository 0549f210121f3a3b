"""Inputs for every operation of the kernels table: plain ones, ties, NaN, masks, odd sizes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """One call.

    Attributes:
        arrays: Positional arguments; None where an optional one is left out.
        options: Static ones.
        seen: What of the result counts; default all.
        smooth: Positions of the arrays that a gradient is taken by.
    """

    arrays: tuple
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    seen: Callable[[Any], Any] = lambda result: result
    smooth: tuple[int, ...] = ()


rng = np.random.default_rng(0)


def f(*shape):
    return rng.uniform(0.1, 1, shape).astype(np.float32)


def encoder(*widths):
    """Layers and norms of a mini-PointNet."""
    a, b, c, d = widths
    shapes = ((3, a), (a, b), (2 * b, c), (c, d))
    layers = tuple(((f(*shape) - np.float32(0.5)) / np.float32(shape[0] ** 0.5), f(shape[1])) for shape in shapes)
    return layers, tuple((f(width), f(width), f(width), f(width)) for width in (a, c))


NET = encoder(5, 7, 9, 6)


def grid(side):
    """A bumpy organised cloud; neighbours in a row are equally far apart."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / 64
    return np.stack([x, y, np.round(4 * np.sin(3 * x) * y) / 64], -1).reshape(-1, 3)


def mask(count, share):
    return rng.random(count) < share


def _near(points, valid, centers, k):
    squared = np.where(valid, ((points[centers][:, None].astype(np.float64) - points[None]) ** 2).sum(-1), np.inf)
    return np.argsort(squared, axis=1, kind="stable")[:, :k].astype(np.int32)


def _expansion(points, valid, groups, group_size, k_iter, variant):
    centers = rng.choice(np.flatnonzero(valid), groups, replace=False)
    near = _near(points, valid, centers, 2 * group_size)
    options = {"group_size": group_size, "k_iter": k_iter, "variant": variant}
    return Case((points, valid, near, mask(groups, 0.5)), options, lambda x: np.sort(x, axis=-1))


# Random clouds alone: equal distances, which a grid is full of, may be settled in either way by the released rule.
CLOUD, SMALL, LARGE = f(700, 3), grid(13), grid(131)
START = np.int32(3)
UNITS = [z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (f(9, 5) - 0.5, f(13, 5) - 0.5)]
TIED = np.floor(6 * f(7, 11)).astype(np.float32)
BROKEN = np.where(f(7, 11) < 0.2, np.nan, TIED).astype(np.float32)
NEGATIVE_NAN = np.copysign(np.float32(np.nan), np.float32(-1))

CASES: dict[str, list[Case]] = {
    "attention": [
        Case((f(2, 3, 9, 8), f(2, 3, 9, 8), f(2, 3, 9, 8)), {"dtype": "float32"}),
        Case((20 * f(1, 1, 5, 4), 20 * f(1, 1, 5, 4), f(1, 1, 5, 4)), {"dtype": "float32"}),
        Case((f(1, 2, 1, 3), f(1, 2, 1, 3), f(1, 2, 1, 3)), {"dtype": "float32"}),
    ],
    "farthest_points": [
        Case((CLOUD, np.ones(700, bool), START), {"num": 40}),
        Case((CLOUD, mask(700, 0.3), START), {"num": 40}),
        Case((SMALL, np.ones(169, bool), START), {"num": 169}),  # ends with the points used up
        Case((LARGE, mask(131**2, 0.9), START), {"num": 30}),
        Case((f(131**2, 3), np.ones(131**2, bool), START), {"num": 12}),  # in no order
        Case((CLOUD[:5], np.zeros(5, bool), START), {"num": 3}),
        Case((CLOUD[:5], np.ones(5, bool), START), {"num": 1}),
    ],
    "nearest_points": [
        Case((CLOUD[:9], f(2500, 3), np.ones(2500, bool)), {"k": 20}),
        Case((LARGE[::900], LARGE, mask(131**2, 0.9)), {"k": 33}),
        Case((CLOUD[:70], f(2500, 3), mask(2500, 0.003)), {"k": 20}, lambda x: (x[0], np.isfinite(x[0]) * x[1])),
        Case((CLOUD[:3], CLOUD[:17], np.ones(17, bool)), {"k": 17}),
    ],
    "group_expansion": [
        _expansion(CLOUD, mask(700, 0.8), 70, 16, 10, "released"),
        _expansion(CLOUD, np.ones(700, bool), 5, 12, 3, "released"),
        _expansion(CLOUD, mask(700, 0.8), 70, 16, 10, "paper"),
        _expansion(SMALL, mask(169, 0.9), 9, 12, 3, "paper"),
        _expansion(CLOUD[:30], mask(30, 0.7), 4, 16, 10, "paper"),
    ],
    "group_tokens": [
        # One chunk, several with a rest, fewer groups than a chunk; no gradient is taken of it, and it stays float32.
        Case((f(groups, 6, 3) - np.float32(0.5), *NET), {"point_norm": norm, "epsilon": 1e-5, "dtype": "float32"})
        for groups, norm in ((19, "cloud"), (19, "checkpoint"), (8, "cloud"), (3, "cloud"))
    ],
    "window_pooling": [
        Case((f(5, 5, 7),), {"degrees": d, "by_count": c, "similarity_weighting": w}, smooth=(0,))
        for d, c, w in (((1, 3, 5), False, True), ((3,), True, True), ((5, 1), True, False), ((1, 3), False, False))
    ]
    + [Case((f(1, 1, 3),), {"degrees": (3,), "by_count": False, "similarity_weighting": True})],
    "nearest_groups": [
        Case((CLOUD[:131],), {"k": 5}),
        Case((np.repeat(CLOUD[:9], 3, axis=0),), {"k": 4}),
        Case((CLOUD[:1],), {"k": 1}),
    ],
    "nearest_centers": [
        Case((f(1000, 3), np.ones(1000, bool), CLOUD[:90]), {"k": 3}),
        Case((LARGE[:3000], np.ones(3000, bool), LARGE[::400]), {"k": 3}),
        Case((f(65, 3), np.ones(65, bool), CLOUD[:2]), {"k": 2}),
    ],
    "lowest_mean": [
        *(Case((f(7, 11),), {"count": c, "axis": a}, smooth=(0,)) for c, a in ((3, 1), (1, 0), (11, -1), (6, 0))),
        *(Case((TIED,), {"count": c, "axis": 1}) for c in (1, 4, 10)),
        *(Case((BROKEN,), {"count": c, "axis": 1}) for c in (2, 9)),
        Case((np.where(np.isnan(BROKEN), NEGATIVE_NAN, BROKEN),), {"count": 2, "axis": 1}),
        Case((np.where(np.isnan(BROKEN), np.inf, -BROKEN),), {"count": 2, "axis": 1}),
        Case((f(3, 150, 9),), {"count": 4, "axis": -1}),
    ],
    "pair_minima": [
        *(Case((*UNITS, *masks), {"precision": "full"}, smooth=(0, 1))
          for masks in ((None, None), (mask(9, 0.5), None), (mask(9, 0.5), mask(13, 0.5)))),
        Case((*UNITS, None, np.zeros(13, bool)), {"precision": "full"}),
        Case((np.where(mask(9, 0.5)[:, None], UNITS[0], np.nan), UNITS[1], None, None), {"precision": "full"}),
        Case((UNITS[0], np.where(np.arange(13)[:, None] < 9, UNITS[1], np.nan), None, np.arange(13) < 9),
             {"precision": "full"}, lambda x: x[0]),
        Case((*UNITS, None, None), {"precision": "accurate"}),
    ],
    "block_minima": [
        *(Case((f(3, 9, 5), f(2, 13, 5), *masks), {"precision": "full"}, smooth=(0, 1))
          for masks in ((None, None), (mask(27, 0.5).reshape(3, 9), mask(26, 0.5).reshape(2, 13)))),
        Case((f(1, 9, 5), f(2, 13, 5), None, np.zeros((2, 13), bool)), {"precision": "full"}),
        Case((f(2, 4, 3), np.where(np.arange(3)[:, None, None] < 2, f(3, 4, 3), np.nan), None, None),
             {"precision": "full"}, lambda x: x[0][:, :2]),
        Case((f(2, 4, 3), f(3, 5, 3), None, None), {"precision": "accurate"}),
    ],
    "rank_match": [
        Case((f(6, 5), f(6, 5), None), smooth=(0,)),
        Case((f(30), np.floor(4 * f(30)).astype(np.float32), None)),
        Case((f(6, 5), f(6, 5), mask(30, 0.5).reshape(6, 5))),
        Case((f(1), f(1), None)),
    ],
    "enhance_by_rank": [
        Case((f(8, 5), f(8, 5), f(8), None, None), smooth=(0,)),
        Case((f(8, 5), np.where(np.arange(8)[:, None] < 3, 0, f(8, 5)), f(8), np.arange(8) >= 3, None)),
        Case((f(8, 5), f(8, 5), f(8), mask(8, 0.6), mask(8, 0.8))),
        Case((f(4, 1), f(4, 1), f(4), np.ones(4, bool), None)),
    ],
}  # fmt: skip
