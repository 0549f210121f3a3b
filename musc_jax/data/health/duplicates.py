"""Near duplicates: pictures of one shot, saved twice, brightened or compressed. Copies proper are found by content.

A near duplicate is the closest match that there is for each patch, those of a defect too, and so hides it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from musc_jax.data.health.findings import Odd
from musc_jax.data.health.look import COLORS, SIDE, flat_vectors

# Of fewer samples nobody knows how much two parts differ.
_LEAST = 3
# Difference of two stamps, each of deviation 1, from which on they are two shots: real neighbours differ by 0.12 or
# more. JPEG at quality 50, 25 levels more, half the size, 1.2 times as bright and noise mostly stay below 0.06.
_ROOT = 0.1
# It also has to be this small a part of what two samples differ by, where all parts look the same.
_PART = 0.25
# And there must be no place that differs, in levels of 255: boards and their flawless templates differ by 47 and more.
_PLACE = 32.0
# Levels at which a brightened picture may have lost what the other one has.
_DARK, _BRIGHT = 4, 250
# Pairs that are looked at closely, for each sample; and rows of correlations at a time.
_CLOSE, _ROWS = 4, 1024


def near_duplicates(grey: UInt8[np.ndarray, "N 64 64"], usual: Sequence[int]) -> Iterator[Odd]:
    """Groups of samples whose pictures are nearly the same.

    Args:
        grey: of all samples.
        usual: indices of those that are compared.
    """
    indices = np.asarray(usual)
    if len(indices) < _LEAST:
        return
    stamps = grey[indices]
    pairs = [
        (int(indices[i]), int(indices[j]))
        for i, j in _close_pairs(stamps)
        if _are_one(stamps[i].astype(np.float64), stamps[j].astype(np.float64))
    ]
    groups = _groups(pairs)
    if not groups:
        return
    found = tuple(i for group in groups for i in group)
    couples = f", in {len(groups)} groups" if len(groups) > 1 else ""
    yield Odd(
        "duplicates",
        found,
        f"{len(found)} pictures are nearly the same as one another{couples}",
        "leave one of each: near duplicates hide each other's defects",
    )


def _close_pairs(stamps: UInt8[np.ndarray, "N 64 64"]) -> list[tuple[int, int]]:
    """Pairs that differ by little, and by much less than two samples do; the closest ones where there are very many."""
    count, step = len(stamps), SIDE // COLORS
    small = stamps.reshape(count, COLORS, step, COLORS, step).mean(axis=(2, 4), dtype=np.float32)
    vectors = flat_vectors(small)
    some = np.unique(np.linspace(0, count - 1, min(count, _ROWS)).astype(int))
    among = _differences(vectors[some], vectors[some])
    usual = float(np.median(among[np.triu_indices(len(some), 1)]))
    close = []
    for start in range(0, count, _ROWS):
        # Coarser stamps differ by less than finer ones.
        differences = _differences(vectors[start : start + _ROWS], vectors)
        rows, columns = np.nonzero(differences < min(_ROOT, _PART * usual))
        found = differences[rows, columns]
        rows = rows + start
        close += [(float(d), int(i), int(j)) for d, i, j in zip(found, rows, columns, strict=True) if i < j]
    return [(i, j) for _, i, j in sorted(close)[: _CLOSE * count]]


def _differences(first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, "A B"]:
    """Root mean square difference of stamps of deviation 1; those that show nothing differ from all."""
    return np.sqrt(np.maximum(2 - 2 * (first @ second.T), 0))


def _are_one(first: Float[np.ndarray, "64 64"], second: Float[np.ndarray, "64 64"]) -> bool:
    """Whether two stamps differ nowhere, but for a common gain and offset."""
    known = (np.minimum(first, second) >= _DARK) & (np.maximum(first, second) <= _BRIGHT)
    if known.mean() < 1 / 4:
        known = np.ones_like(known)
    x, y = first[known] - first[known].mean(), second[known] - second[known].mean()
    deviation = max(x.std(), y.std())
    if min(x.std(), y.std()) < 1:
        return False
    left = np.abs(y / y.std() - x / x.std())
    return bool(np.sqrt((left**2).mean()) < _ROOT and left.max() * deviation < _PLACE)


def _groups(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Samples that pairs join, the groups in the order of their first ones."""
    group_of: dict[int, set[int]] = {}
    for i, j in pairs:
        joined = group_of.get(i, {i}) | group_of.get(j, {j})
        for k in joined:
            group_of[k] = joined
    return sorted({tuple(sorted(group)): sorted(group) for group in group_of.values()}.values())
