"""Copies of a sample count as one: scored once, by others only, with the same outcome for each.

Mutual scoring takes a patch as normal that finds a close match in most other samples. A copy is the closest match there
is: with four copies of a defective sample among twenty, its score is 0. So one of them takes part, for all steps (pair
scores, the draw of references, re-scoring), and the others get its outcome: the same as if they were not there.
"""

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from musc_jax.data.sample import DataError, Sample, SampleError
from musc_jax.execution.scoring import PatchScores
from musc_jax.pipeline import Results


def representatives(groups: Sequence[Sequence[int]], count: int) -> Int[np.ndarray, " kept"]:
    """Indices of the samples that take part: the first of each group, and those that are in none.

    Args:
        groups: Indices of copies.
        count: How many samples there are.
    """
    left_out = {i for group in groups for i in sorted(group)[1:]}
    return np.array([i for i in range(count) if i not in left_out], np.int64)


def expect_several(category: str, names: Sequence[str], groups: Sequence[Sequence[int]]) -> None:
    """Refuses samples that are all copies of one, so that nobody is left to score it.

    Args:
        category: What they are called together.
        names: Of all samples, by index.
        groups: Indices of copies.

    Raises:
        DataError: They are.
    """
    if len(representatives(groups, len(names))) < 2:
        raise DataError(
            f"{category}: its {len(names)} samples are copies of one another ({names[0]} = {names[1]}, ...), and a "
            "copy does not score its copies; add others, or pass --copies=each"
        )


def with_copies(
    results: Results, groups: Sequence[Sequence[int]], names: Sequence[str], load: Callable[[int], Sample]
) -> Results:
    """Results that have the copies of each sample, too.

    Args:
        results: Of representatives, or some of them.
        groups: Indices of copies.
        names: Of all samples, by index.
        load: A sample by its index, for its name, label and mask.

    Returns:
        Results in the order of the indices; of samples that were left out, copies are, too.
    """
    index = {name: i for i, name in enumerate(names)}
    others: Mapping[int, Sequence[int]] = {min(group): sorted(group)[1:] for group in groups}
    rows = [(i, row) for row, sample in enumerate(results.samples) for i in _all(index[sample.name], others)]
    rows.sort()
    taken = np.array([row for _, row in rows], np.int64)
    samples = [results.samples[row] if names[i] == results.samples[row].name else load(i) for i, row in rows]
    return Results(
        samples,
        results.pred_scores[taken],
        results.max_scores[taken],
        results.anomaly_maps[taken],
        PatchScores(*(None if scores is None else jnp.asarray(scores)[taken] for scores in results.patch_scores)),
        tuple(
            SampleError(names[i], error.problem) for error in results.skipped for i in _all(index[error.name], others)
        ),
        results.votes,
        tuple(tuple(names[i] for own in group for i in _all(index[own], others)) for group in results.recurring),
    )


def _all(first: int, others: Mapping[int, Sequence[int]]) -> list[int]:
    return [first, *others.get(first, ())]
