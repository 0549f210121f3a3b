"""Which samples score each other: all, random subsets, small batches; and with how many good ones (paper IV-D 5-7)."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int

from musc_jax import _options


def divide(
    count: int, *, subsets: int = 1, batch_size: int | None = None, seed: int = 0
) -> list[Int[np.ndarray, " _"]]:
    """Divide samples at random into parts that are scored apart.

    Args:
        count: How many samples there are, at least 2.
        subsets: The paper's g: parts whose sizes are equal up to one (Table I).
        batch_size: Instead of `subsets`: parts of so many samples (Table VII), and of what remains.
        seed: Of the partition.

    Returns:
        The samples' indices, ascending in each part; every sample is in one part. No part has fewer than 2 samples,
        which could not score each other: `subsets` above count // 2 counts as that, and one sample that remains of
        batches joins the last batch.

    Raises:
        ValueError: Fewer than 2 samples, `subsets` below 1, `batch_size` below 2, or both given, a `seed` below 0.
    """
    if count < 2:
        raise ValueError(f"N = {count}: samples score each other, so at least 2 are needed")
    expect_division(subsets=subsets, batch_size=batch_size, seed=seed)
    if batch_size is None:
        ends = np.cumsum([len(part) for part in np.array_split(np.arange(count), min(subsets, count // 2))])[:-1]
    else:
        ends = np.arange(batch_size, count - 1, batch_size)
    if not len(ends):
        return [np.arange(count)]
    return [np.sort(part) for part in np.split(np.random.default_rng(seed).permutation(count), ends)]


def expect_division(*, subsets: int, batch_size: int | None, seed: int) -> None:
    """Refuse what `divide` would, before anybody knows how many samples there are.

    Raises:
        ConfigError: See `divide`.
    """
    _options.whole("subsets", subsets, lowest=1)
    _options.whole("seed", seed, lowest=0)
    if batch_size is not None:
        _options.whole("batch_size", batch_size, lowest=2)
        if subsets > 1:
            raise _options.ConfigError(
                f"subsets, batch_size: expected one of them, received both ({subsets} and {batch_size})"
            )


def thin_out(labels: Sequence[int], ratio: Fraction | float | int, *, seed: int = 0) -> Int[np.ndarray, " kept"]:
    """Leave out good samples at random (paper IV-D5, Fig. 10: 1/h of them stay).

    Args:
        labels: 0 good, 1 defective.
        ratio: Share of the good samples that stays, 0 to 1. Rounded to the nearest whole number of samples, but one
            stays unless it is 0.
        seed: Of the choice.

    Returns:
        Indices of the samples that stay, ascending: all defective ones and some good ones.

    Raises:
        ValueError: The ratio is out of its range, the seed no whole number of at least 0.
    """
    seed = _options.whole("seed", seed, lowest=0)
    if not 0 <= ratio <= 1:
        raise ValueError(f"normal_ratio: expected 0 to 1, received {ratio}")
    good = np.flatnonzero(np.asarray(labels) == 0)
    count = min(len(good), max(1, round(ratio * len(good)))) if ratio else 0
    kept = np.random.default_rng(seed).permutation(good)[:count]
    return np.sort(np.concatenate([np.flatnonzero(np.asarray(labels) != 0), kept]))
