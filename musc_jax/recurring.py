"""Defects that recur: tokens that few samples share and all others lack (not in the paper).

A token that is normal finds matches that grow worse smoothly from the best to the worst sample. Of a defect that c
other samples have, too, the c best matches are close, and then comes a jump: those few vouch for each other, and the
average of the lowest scores (eq. 8) takes the defect for normal. The observation, and that distances of nearest
neighbours grow as in an extreme-value model, are published (CoDeGraph, 2025); the rules and numbers here are our own.

A normal sub-type that as few samples have (another label, another pose) looks the same, where it is local. Where it
covers much of the sample, it is taken for what it is, see `MOST_OF_A_SAMPLE`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from musc_jax._arrays import Array, as_float, expect_shape
from musc_jax.mutual import Finish

FEWEST_REFERENCES = 8
"""With fewer, a jump says nothing."""
LEAST_SHARE = 0.05
"""Two samples, and one in twenty of the references, lie before a jump: fewer do little to an average, and pairs of
pictures of one part are common."""
STEEPNESS = 10.0
"""A jump is so many times steeper than the typical step; of steps without a jump, one in exp(10) is."""
LEAST_RATIO = 1.15
"""And the distance behind it is larger than the one before it by so much."""
MOST_OF_A_SAMPLE = 0.25
"""A defect is local: where more of a sample's tokens recur, it is of another kind, and none of them is counted."""
# Distances below this share of the typical one are as good as 0: of two of them none is steeper than the other.
_FLOOR = 0.01
# Tokens in a row that link two samples, at the least.
_LINKS = 2
_ROWS_AT_ONCE = 1024


class Jump(NamedTuple):
    """Where a token's sorted scores jump."""

    radius: jax.Array
    """Between the distances before and behind the jump; 0: there is none."""
    number: jax.Array
    """How many samples lie before it."""


def find_jumps(
    scores: Float[Array, "R M"], valid: Bool[Array, "M"] | None = None
) -> tuple[Float[jax.Array, "M"], Float[jax.Array, "M"]]:
    """The steepest jump among the lower half of each token's scores.

    Step c goes from the c-th lowest score to the next one. In a smooth neighbourhood c times the growth of the
    logarithm is distributed exponentially, the same for all c; the median over the sample says how fast.

    Args:
        scores: Of one sample's tokens, by R samples.
        valid: Tokens that are scored; default all.

    Returns:
        (radius, number), see `Jump`; all 0 for fewer than 8 references.

    Raises:
        ValueError: Wrong shapes.
    """
    expect_shape("scores", scores, (None, None))
    wide, _ = as_float(scores)
    steps = len(wide) // 2
    if len(wide) < FEWEST_REFERENCES:
        nothing = jnp.zeros(wide.shape[1], wide.dtype)
        return Jump(nothing, nothing)
    lowest = jnp.sort(wide, axis=0)[: steps + 1]
    mask = jnp.ones(wide.shape[1], bool) if valid is None else jnp.asarray(valid).astype(bool)
    usable = mask[None] & jnp.isfinite(lowest)
    typical = jnp.nanmedian(jnp.where(usable, lowest, jnp.nan))
    lowest = jnp.maximum(lowest, _FLOOR * typical)
    usable = usable[1:] & usable[:-1]
    growth = jnp.where(usable, jnp.log(lowest[1:]) - jnp.log(lowest[:-1]), 0)
    rank = jnp.arange(1, steps + 1, dtype=wide.dtype)[:, None]
    # The median of an exponential distribution is log 2 times its mean.
    unit = jnp.nanmedian(jnp.where(usable, growth * rank, jnp.nan)) / np.log(2)
    steepness = growth * rank / jnp.where(unit > 0, unit, jnp.inf)
    enough = rank >= max(2, math.ceil(LEAST_SHARE * len(wide)))
    jumps = jnp.where(enough & (steepness > STEEPNESS) & (growth > np.log(LEAST_RATIO)), steepness, 0)
    best = jnp.argmax(jumps, axis=0)[None]
    there = jnp.take_along_axis(jumps, best, axis=0)[0] > 0
    before, behind = (jnp.take_along_axis(x, best, axis=0)[0] for x in (lowest[:-1], lowest[1:]))
    return Jump(jnp.where(there, jnp.sqrt(before * behind), 0), jnp.where(there, best[0] + 1, 0).astype(wide.dtype))


@dataclasses.dataclass(frozen=True)
class AndJumps:
    """A `musc_jax.mutual.Finish` that gives, behind the patch scores, each modality's radius, and then its number.

    Attributes:
        finish: Gives the patch scores.
    """

    finish: Finish

    def __call__(
        self, scores: Sequence[jax.Array], query_mask: Sequence[jax.Array | None], *extra: Any
    ) -> tuple[jax.Array, ...]:
        """(R, M) of each modality to three times (M,) of each."""
        jumps = [find_jumps(own, mask) for own, mask in zip(scores, query_mask, strict=True)]
        radii, numbers = zip(*jumps, strict=True)
        return (*self.finish(scores, query_mask, *extra), *radii, *numbers)


class Marks(NamedTuple):
    """Tokens with a jump, of one stage and modality, F of them."""

    sample: Int[np.ndarray, "F"]
    token: Int[np.ndarray, "F"]
    features: Float[np.ndarray, "F C"]
    radius: Float[np.ndarray, "F"]
    number: Int[np.ndarray, "F"]


class Links(NamedTuple):
    """Which tokens of one stage and modality recur, and where."""

    kept: Bool[np.ndarray, "F"]
    """The marks that do."""
    mark: Int[np.ndarray, "L"]
    other: Int[np.ndarray, "L"]
    """L times: a mark that does, and a sample that has it, too."""


def find_links(marks: Marks, tokens: int) -> Links:
    """Tokens whose jump is confirmed by the others: half of the samples before it have such a token nearby, too.

    Args:
        marks: Tokens with a jump.
        tokens: How many a sample has; one with more than a quarter of them recurring loses them all.
    """
    if not len(marks.sample):
        nobody = np.zeros(0, np.int64)
        return Links(np.zeros(0, bool), nobody, nobody)
    centered = marks.features - marks.features.mean(axis=0, keepdims=True)
    norms = (centered**2).sum(axis=1)
    pairs = []
    for start in range(0, len(centered), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        squared = norms[rows, None] + norms[None] - 2 * centered[rows] @ centered.T
        near = (squared <= marks.radius[rows, None] ** 2) & (marks.sample[rows, None] != marks.sample[None])
        mark, partner = np.nonzero(near)
        pairs.append(np.unique(np.stack([mark + start, marks.sample[partner]], axis=1), axis=0))
    mark, other = np.concatenate(pairs).T
    found = np.bincount(mark, minlength=len(centered))
    kept = 2 * found >= marks.number
    share = np.bincount(marks.sample[kept], minlength=int(marks.sample.max(initial=0)) + 1) / tokens
    kept &= share[marks.sample] <= MOST_OF_A_SAMPLE
    real = kept[mark]
    return Links(kept, mark[real], other[real])


def communities(pairs: Int[np.ndarray, "L 2"], count: int) -> list[Int[np.ndarray, " _"]]:
    """Samples that share something: connected where each has two tokens or more that the other has, too.

    Args:
        pairs: A row for each token that recurs and each other sample that has it: the token's own sample, that sample.
        count: How many samples there are, N.

    Returns:
        The samples of each community, those with most links first. What more than half of all samples share is no
        defect, and no community.
    """
    key, links = np.unique(pairs[:, 0].astype(np.int64) * count + pairs[:, 1], return_counts=True)
    strong = key[links >= _LINKS]
    first, second = np.divmod(strong, count)
    both = np.isin(second * count + first, strong)
    first, second = first[both], second[both]
    label = np.arange(count)
    while True:
        lower = label.copy()
        np.minimum.at(lower, first, label[second])
        if (lower == label).all():
            break
        label = lower
    linked = np.zeros(count, np.int64)
    np.add.at(linked, pairs[:, 0], 1)
    groups = [np.flatnonzero(label == own) for own in np.unique(label[first])]
    groups = [group for group in groups if 2 * len(group) <= count]
    return sorted(groups, key=lambda group: -int(linked[group].sum()))
