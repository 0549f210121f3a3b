"""The whole check: each rule on the samples that it can judge; what one has named the next ones leave out."""

import math
from collections.abc import Sequence

import numpy as np

from musc_jax.data.health.duplicates import near_duplicates
from musc_jax.data.health.findings import Finding, Odd, named
from musc_jax.data.health.kinds import two_kinds
from musc_jax.data.health.look import Look
from musc_jax.data.health.pictures import flat_pictures, odd_pictures
from musc_jax.data.health.scans import sparse_scans, strange_scans


def examine(looks: Sequence[Look], names: Sequence[str], copies: Sequence[Sequence[int]] = ()) -> tuple[Finding, ...]:
    """What is odd about a batch.

    Args:
        looks: at its samples.
        names: of the samples.
        copies: indices of those whose content is equal, group by group; only the first of each is looked at.

    Returns:
        A finding for each rule that has one; none for a batch in order.
    """
    again = {i for group in copies for i in sorted(group)[1:]}
    pictured = [i for i, look in enumerate(looks) if look.grey is not None and i not in again]
    grey = _stack([look.grey for look in looks], (64, 64))
    colors = _stack([look.colors for look in looks], (16, 16, 3))
    found: list[Odd] = list(flat_pictures(grey, pictured))
    found += two_kinds(grey, colors, _left(pictured, found))
    found += odd_pictures(grey, _left(pictured, found))
    found += near_duplicates(grey, pictured)
    found += sparse_scans([look.covered for look in looks], [look.edges is not None for look in looks])
    both = [i for i in pictured if looks[i].edges is not None]
    strange = list(strange_scans(grey[both], _stack([looks[i].edges for i in both], (64, 64))))
    found += [odd._replace(samples=tuple(both[i] for i in odd.samples)) for odd in strange]
    return tuple(named(found, names))


def _left(indices: Sequence[int], found: Sequence[Odd]) -> list[int]:
    """Those that nothing is said of."""
    said = {i for odd in found for i in odd.samples}
    return [i for i in indices if i not in said]


def _stack(stamps: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> np.ndarray:
    """Stamps as one array; what is not there is black, and not looked at."""
    black = np.zeros(shape, np.uint8)
    return (
        np.stack([black if stamp is None else stamp for stamp in stamps]) if stamps else np.zeros((0, *shape), np.uint8)
    )


def few_samples(count: int, interval: float) -> str | None:
    """What scores of so few samples can mean; None where there are enough.

    Args:
        count: N, copies counted once.
        interval: share of the lowest scores that is averaged (paper eq. 8).
    """
    if count in _MEANING:
        return f"{count} samples: {_MEANING[count]}"
    enough = math.ceil(2 / interval) + 1
    if count >= enough:
        return None
    return (
        f"{count} samples are few: each patch is judged by its match in one other sample alone, so that two with the "
        f"same defect hide it from each other; from {enough} samples on two others judge it, and more are better"
    )


# What scores of so few samples can mean.
_MEANING = {
    2: "each is scored by the other alone, so maps show where they differ, not which is wrong; sample scores say "
    "nothing",
    3: "each is scored by the more similar one of the two others, so maps show what no other has; sample scores are "
    "relative, from 0 for the lowest on",
}
