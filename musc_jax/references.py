"""Reference samples: who scores whom, and which samples count as one (all others in the paper, eq. 7)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from musc_jax import _options


class References(NamedTuple):
    """The samples that score, and for each of N samples which of them count.

    A unit is what counts as one reference: a sample, or a group of samples, each patch then being scored by the nearest
    patch of any member. A sample is never scored by its own unit.
    """

    samples: Int[np.ndarray, "T"]
    """Indices of the samples that score, ascending."""
    columns: Int[np.ndarray, "N R"]
    """For each sample, the units that score it."""
    units: Int[np.ndarray, "T"] | None = None
    """The unit, from 0 on, that each of `samples` belongs to; None: each is its own."""

    @property
    def num_units(self) -> int:
        """How many units score, U."""
        return len(self.samples) if self.units is None else int(self.units.max()) + 1

    @property
    def everyone(self) -> bool:
        """Whether all N samples score, so that each pair is met from both sides."""
        return len(self.samples) == len(self.columns)


def draw_references(
    count: int, references: int | None = None, *, seed: int = 0, groups: Sequence[int] | np.ndarray | None = None
) -> References:
    """Draw R references for each of N samples.

    R + 1 units are drawn without replacement; each sample is scored by the first R of them that it does not belong to.
    They are the same for all, so that they can stay on the device while all others pass by: cost and memory grow
    linearly in N.

    Args:
        count: N, at least 2.
        references: R, at least 1; default, and from the number of units less one on, all others.
        seed: Of the draw.
        groups: For each sample the group it belongs to, any whole numbers: members of a group (copies of one sample)
            never score each other and count as one reference for the others. Default: every sample by itself.

    Raises:
        ValueError: R is below 1 or no whole number, N below 2, a seed below 0, groups of another length, or one group
            only.
    """
    if count < 2:
        raise ValueError(f"N = {count}: samples score each other, so at least 2 are needed")
    _options.whole("seed", seed, lowest=0)
    unit_of, units = _units(count, groups)
    if references is not None:
        references = _options.whole("references", references, lowest=1)
    wanted = units - 1 if references is None else min(references, units - 1)
    drawn = np.random.default_rng(seed).permutation(units)[: wanted + 1]
    chosen = np.sort(drawn)
    last = np.searchsorted(chosen, drawn[-1])
    place = np.full(units, last)  # the one that does not count: the last one drawn, or the unit itself
    place[chosen] = np.arange(len(chosen))
    shifted = np.arange(wanted)[None] + (np.arange(wanted)[None] >= place[:, None])
    columns = shifted.astype(np.int32)[unit_of]
    if groups is None:
        return References(chosen, columns)
    samples = np.flatnonzero(np.isin(unit_of, chosen))
    return References(samples, columns, np.searchsorted(chosen, unit_of[samples]).astype(np.int32))


def _units(count: int, groups: Sequence[int] | np.ndarray | None) -> tuple[np.ndarray, int]:
    """(unit of each sample, how many), numbered in the order of their first samples."""
    if groups is None:
        return np.arange(count), count
    given = np.asarray(groups)
    if given.shape != (count,) or not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"groups: expected {count} whole numbers, received shape {given.shape} of {given.dtype}")
    _, first, unit = np.unique(given, return_index=True, return_inverse=True)
    if len(first) < 2:
        raise ValueError("groups: all samples are in one group, so nobody is left to score them")
    return np.argsort(np.argsort(first))[unit], len(first)
