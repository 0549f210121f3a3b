"""Reference samples: who scores whom, and which samples count as one (all others in the paper, eq. 7).

`References` is the one form in which that is said: for each sample a list of as many units, any of those that score.
How it is found (all, at random, without samples that are known to be defective) matters to nobody else.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from musc_jax import _options
from musc_jax._arrays import as_index, expect_shape, is_known


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
        """Whether all others score each sample, so that each pair is met from both sides."""
        return len(self.samples) == len(self.columns) and self.columns.shape[1] == self.num_units - 1

    @property
    def listed(self) -> bool:
        """Whether each sample has a list of its own, so that few of all pairs meet; see `listed_references`."""
        return len(self.samples) == len(self.columns) and not self.everyone

    @property
    def slots(self) -> jax.Array:
        """With lists, (N, R) places in each sample's own scores, where no others are there: 0 to R - 1."""
        return jnp.broadcast_to(jnp.arange(self.columns.shape[1], dtype=jnp.int32)[None], self.columns.shape)


def draw_references(
    count: int,
    references: int | None = None,
    *,
    seed: int = 0,
    groups: Sequence[int] | np.ndarray | None = None,
    vouch: Sequence[bool] | np.ndarray | None = None,
) -> References:
    """Draw R references for each of N samples.

    R + 1 units are drawn without replacement; each sample is scored by the first R of them that it does not belong to.
    They are the same for all, so that they can stay on the device while all others pass by: cost and memory grow
    linearly in N. As many score one that does not vouch itself, although one more could, so that scores compare.

    Args:
        count: N, at least 2.
        references: R, at least 1; default, and from the number of units less one on, all others.
        seed: Of the draw.
        groups: For each sample the group it belongs to, any whole numbers: members of a group (copies of one sample)
            never score each other and count as one reference for the others. Default: every sample by itself.
        vouch: Which samples may score others; a unit is the members of a group that may. Default: all.

    Raises:
        ValueError: R is below 1 or no whole number, N below 2, a seed below 0, groups of another length, one group
            only, or fewer than 2 units that vouch.
    """
    if count < 2:
        raise ValueError(f"N = {count}: samples score each other, so at least 2 are needed")
    _options.whole("seed", seed, lowest=0)
    unit_of, units = _units(count, groups)
    if references is not None:
        references = _options.whole("references", references, lowest=1)
    able = np.arange(units) if vouch is None else _able(vouch, unit_of)
    wanted = len(able) - 1 if references is None else min(references, len(able) - 1)
    drawn = able[np.random.default_rng(seed).permutation(len(able))[: wanted + 1]]
    chosen = np.sort(drawn)
    last = np.searchsorted(chosen, drawn[-1])
    place = np.full(units, last)  # the one that does not count: the last one drawn, or the unit itself
    place[chosen] = np.arange(len(chosen))
    shifted = np.arange(wanted)[None] + (np.arange(wanted)[None] >= place[:, None])
    columns = shifted.astype(np.int32)[unit_of]
    if groups is None:
        return References(chosen, columns)
    able = np.isin(unit_of, chosen)
    samples = np.flatnonzero(able if vouch is None else able & np.asarray(vouch, bool))
    return References(samples, columns, np.searchsorted(chosen, unit_of[samples]).astype(np.int32))


def _able(vouch: Sequence[bool] | np.ndarray, unit_of: np.ndarray) -> np.ndarray:
    """The units that have a member which vouches, ascending."""
    may = np.asarray(vouch)
    if may.shape != unit_of.shape or may.dtype != bool:
        raise ValueError(
            f"vouch: expected {len(unit_of)} times True or False, received shape {may.shape} of {may.dtype}"
        )
    able = np.unique(unit_of[may])
    if len(able) < 2:
        raise ValueError(f"vouch: {len(able)} of {len(may)} samples may score others, but at least 2 are needed")
    return able


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


def listed_references(lists: Int[np.ndarray, "N R"] | jax.Array) -> References:
    """References that differ from sample to sample, as those of `musc_jax.nearest_samples`.

    Args:
        lists: For each sample the R others that score it, without repetitions, R from 1 to N - 1. Behind `jit` an index
            out of range counts as the nearest in range, and a sample in its own list finds itself.

    Raises:
        ValueError: Wrong shapes, no whole numbers, a sample that is out of range, twice in a list, or in its own.
    """
    expect_shape("references", lists, (None, None))
    count, wanted = lists.shape
    if not 1 <= wanted < count:
        raise ValueError(f"references: expected lists of 1 to {count - 1} of {count} samples, received {wanted}")
    columns = as_index("references", lists, count)
    if not is_known(lists):
        # Ascending as those below: the order of scores decides about ties of rank.
        return References(np.arange(count), jnp.sort(columns, axis=1))  # type: ignore[arg-type]
    known = np.sort(np.asarray(lists), axis=1).astype(np.int32)
    if (known == np.arange(count)[:, None]).any() or (np.diff(known, axis=1) == 0).any():
        raise ValueError("references: expected other samples, each once; received a sample in its own list, or twice")
    return References(np.arange(count), known)


def as_references(
    count: int, references: Any = None, *, seed: int = 0, groups: Sequence[int] | np.ndarray | None = None
) -> References:
    """The references that a public function was given: a number to draw, a list for each sample, or None for all.

    Raises:
        ValueError: See `draw_references` and `listed_references`; lists for another number of samples.
    """
    if np.ndim(references) != 2:
        return draw_references(count, references, seed=seed, groups=groups)
    expect_shape("references", references, (count, None))
    return listed_references(references)


class ListedPairs(NamedTuple):
    """The pairs of samples that meet where each has a list of its own; see `listed_pairs`."""

    first: Int[np.ndarray, "P"]
    second: Int[np.ndarray, "P"]
    """Samples of each pair, the first one's index being the lower."""
    rows: Int[np.ndarray, "N R"]
    """The pair of each sample and its r-th reference."""
    back: Int[np.ndarray, "N R"]
    """1 where the sample is the second of the pair."""


def listed_pairs(columns: Int[np.ndarray, "N R"]) -> ListedPairs:
    """Every pair that is in a list of either, once; their number grows with N R."""
    count = len(columns)
    own = np.broadcast_to(np.arange(count)[:, None], columns.shape)
    low, high = np.minimum(own, columns).astype(np.int64), np.maximum(own, columns).astype(np.int64)
    pairs, rows = np.unique(low * count + high, return_inverse=True)
    first, second = np.divmod(pairs, count)
    back = (own > columns).astype(np.int32)
    return ListedPairs(
        first.astype(np.int32), second.astype(np.int32), rows.reshape(columns.shape).astype(np.int32), back
    )
