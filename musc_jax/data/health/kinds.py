"""Two kinds of pictures in one folder: two products, or the same one under two lights or from two sides."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import cdist, pdist

from musc_jax.data.health.findings import Odd
from musc_jax.data.health.look import COLORS

# Of fewer samples, or fewer of a kind, gaps are chance.
_LEAST, _KIND, _SHARE = 8, 3, 0.1
# A gap between two kinds, in parts of the widest gap within one of them. Random parts of the real sets reached 2.4, and
# once in 2,500 times 3.4; capsules among candies have 10 to 16.
_GAP = 2.5
# Gaps that can be seen: 7 levels, or a quarter of an octave, in each of 28 numbers.
_VISIBLE = (0.15, 1.5)
_PARTS = np.linspace(0, 1, 9)[1:-1]
# So many are compared with all others; the rest belongs to those that it is nearest to.
_MANY = 1000


def two_kinds(
    grey: UInt8[np.ndarray, "N 64 64"], colors: UInt8[np.ndarray, "N 16 16 3"], usual: Sequence[int]
) -> Iterator[Odd]:
    """The smaller one of two kinds of pictures, if there are two.

    Args:
        grey: of all samples.
        colors: of all samples.
        usual: indices of those that are judged.
    """
    indices = np.asarray(usual)
    if len(indices) < _LEAST:
        return
    chunks = np.array_split(indices, -(-len(indices) // _MANY))
    parts = zip(*(_descriptions(grey[chunk], colors[chunk]) for chunk in chunks), strict=True)
    for numbers, visible in zip(map(np.concatenate, parts), _VISIBLE, strict=True):
        few = _smaller_kind(numbers, visible)
        if few is not None:
            others = len(indices) - len(few)
            yield Odd(
                "kinds",
                tuple(indices[few].tolist()),
                f"{len(few)} of {len(indices)} pictures are alike and clearly unlike the other {others}, as if there "
                "were two products, lights or views",
                "score each kind by itself (a folder each, --per_folder)",
            )
            return


def _descriptions(
    grey: UInt8[np.ndarray, "N 64 64"], colors: UInt8[np.ndarray, "N 16 16 3"]
) -> tuple[Float[np.ndarray, "N 28"], Float[np.ndarray, "N 28"]]:
    """How a picture's levels, hues and edges are spread, wherever in it; in levels, and in octaves."""
    wide = colors.reshape(-1, COLORS * COLORS, 3).astype(np.float32)
    levels = _spread(wide.mean(axis=2))
    hues = np.concatenate([_spread(wide[..., 0] - wide[..., 1]), _spread(wide[..., 2] - wide[..., 1])], axis=1)
    stamps = grey.astype(np.float32)
    steps = [np.abs(np.diff(stamps, axis=axis)).reshape(len(grey), -1) for axis in (1, 2)]
    edges = _spread(np.concatenate(steps, axis=1))
    octaves = [np.log2(levels + 8), np.sign(hues) * np.log2(1 + np.abs(hues) / 4), np.log2(1 + edges)]
    return np.concatenate([levels, hues, edges], axis=1) / 255, np.concatenate(octaves, axis=1)


def _spread(values: Float[np.ndarray, "N P"]) -> Float[np.ndarray, "N 7"]:
    return np.quantile(values, _PARTS, axis=1).T


def _smaller_kind(numbers: Float[np.ndarray, "N D"], visible: float) -> np.ndarray | None:
    """Indices of the smaller one of two groups that lie apart; None where there is one group."""
    some = np.unique(np.linspace(0, len(numbers) - 1, min(len(numbers), _MANY)).astype(int))
    joined = linkage(pdist(numbers[some]), "single")
    count, least = len(some), max(_KIND, int(np.ceil(_SHARE * len(some))))
    members: list[list[int]] = [[i] for i in range(count)]
    widest = [0.0] * count
    found: tuple[float, float, list[int]] | None = None
    for first, second, gap, _ in joined:
        a, b = int(first), int(second)
        if min(len(members[a]), len(members[b])) >= least:
            # The last of these joins what lies farthest apart; what is joined later are single ones.
            found = gap, max(widest[a], widest[b]), min(members[a], members[b], key=len)
        members.append(members[a] + members[b])
        widest.append(gap)
    if found is None or found[0] < max(_GAP * found[1], visible):
        return None
    few = np.isin(np.arange(count), found[2])
    if count == len(numbers):
        return np.flatnonzero(few)
    return np.flatnonzero(few[cdist(numbers, numbers[some]).argmin(axis=1)])
