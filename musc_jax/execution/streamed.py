"""Mutual scoring a few samples at a time, for categories whose features or pair scores do not fit into memory.

The numbers are those of `mutual_scores` and `multimodal_scores`. Where the scores of all pairs fit, blocks of samples
meet, and each pair is multiplied once. Where not even these fit, a panel of samples is scored by all others, in one
direction only: that costs twice as much. A fixed number of references costs the same for each sample.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from musc_jax._arrays import Array
from musc_jax.crossmodal import average_both
from musc_jax.execution.feature_store import StoredArray
from musc_jax.execution.memory import Plan
from musc_jax.execution.programs import Programs
from musc_jax.interval import interval_count, mean_of_lowest
from musc_jax.mutual import block_scores, panel_scores
from musc_jax.storage.prefetch import map_ahead
from musc_jax.subsets import draw_references

Stage = Array | StoredArray
"""Features (N, M, C) of one modality and stage."""

Counter = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""

_Panel = tuple[np.ndarray, list[jax.Array]]
"""Samples, and their scores (B, T, M) by all that score, of each modality."""


def stream_scores(
    stages: list[Stage],
    patch_of_group: Int[jax.Array, "N G"] | None,
    plan: Plan,
    programs: Programs,
    *,
    interval: float,
    precision: str = "full",
    references: int | None = None,
    seed: int = 0,
    progress: Counter | None = None,
    **enhancement: Any,
) -> list[Float[jax.Array, "N M"]]:
    """Patch scores of one stage.

    Args:
        stages: One modality's features, or the image's and the points'.
        patch_of_group: With both, the image patch each group belongs to.
        plan: How many samples are scored, and score, at a time.
        programs: Compiles and times.
        interval: Share of the lowest scores that is averaged.
        precision: See `mutual_scores`.
        references: See `mutual_scores`.
        seed: See `mutual_scores`.
        progress: Called with (samples done, samples in all).
        enhancement: Options of `multimodal_scores`.
    """
    count = len(stages[0])
    drawn = draw_references(count, count - 1 if references is None else references, seed=seed)
    stream = _Stream(stages, [_mean(stage) for stage in stages], programs, precision)
    finish: Callable = _average_one if len(stages) == 1 else _average_both
    options = {"interval": interval, **enhancement}
    out = [np.zeros(stage.shape[:2], np.float32) for stage in stages]
    all_meet = plan.keep_scores and len(drawn.samples) == count
    panels = stream.blocks(plan, progress) if all_meet else stream.panels(plan, drawn.samples, progress)
    for rows, scores in panels:
        # A panel is filled up with the last sample, so that one program serves all.
        index = np.minimum(rows, count - 1)
        patches = () if patch_of_group is None else (patch_of_group[index],)
        found = programs.run("mutual scoring", finish, *scores, *patches, drawn.columns[index], **options)
        for whole, part in zip(out, found, strict=True):
            whole[rows[0] : rows[-1] + 1] = np.asarray(part)[: count - rows[0]]
    return [jnp.asarray(values) for values in out]


class _Stream:
    """Reads a stage of each modality in parts and multiplies them; what is read next is read meanwhile."""

    def __init__(self, stages: list[Stage], means: list[jax.Array], programs: Programs, precision: str) -> None:
        self._stages, self._means = stages, means
        self._programs, self._precision = programs, precision
        self._count = len(stages[0])

    def _read(self, jobs: list[tuple[int, np.ndarray]]) -> Iterator[jax.Array]:
        """(modality, samples) after (modality, samples)."""
        read = lambda job: _rows(self._stages[job[0]], self._means[job[0]], np.minimum(job[1], self._count - 1))  # noqa: E731
        return map_ahead(read, jobs, workers=1, ahead=2)

    def _run(self, function: Callable, *args: Any) -> jax.Array:
        return self._programs.run("mutual scoring", function, *args, donate=(0,), precision=self._precision)

    def panels(self, plan: Plan, scorers: np.ndarray, progress: Counter | None) -> Iterator[_Panel]:
        """A few samples by all that score, `chunk` of them at a time."""
        panel, chunk = min(plan.panel, self._count), min(plan.chunk, len(scorers))
        panels = [np.arange(start, start + panel) for start in range(0, self._count, panel)]
        starts = range(0, len(scorers), chunk)
        chunks = [scorers[np.minimum(np.arange(s, s + chunk), len(scorers) - 1)] for s in starts]
        # Where all that score fit at once they stay; that is the case with few references.
        modalities = range(len(self._stages))
        resident = list(self._read([(m, chunks[0]) for m in modalities])) if len(chunks) == 1 else []
        arriving = self._read(
            [(m, index) for rows in panels for m in modalities for index in [rows, *([] if resident else chunks)]]
        )
        for rows in panels:
            scores = []
            for m in modalities:
                queries = next(arriving)
                scored = jnp.zeros((panel, len(chunks) * chunk, queries.shape[1]), jnp.float32)
                for start in starts:
                    others = resident[m] if resident else next(arriving)
                    scored = self._run(_score_into, scored, queries, others, np.int32(0), np.int32(start))
                    del others
                scores.append(scored)
                del queries, scored
            yield rows, scores
            if progress is not None:
                progress(min(int(rows[-1]) + 1, self._count), self._count)

    def blocks(self, plan: Plan, progress: Counter | None) -> Iterator[_Panel]:
        """All pairs of blocks, each once; then the samples of each block by all."""
        size = min(plan.panel, self._count)
        starts = range(0, self._count, size)
        rows = [np.arange(start, start + size) for start in starts]
        meetings = [(i, j) for i in range(len(rows)) for j in range(i, len(rows))]
        modalities = range(len(self._stages))
        arriving = self._read([(m, rows[j]) for m in modalities for _, j in meetings])
        everyone, done = [], 0
        for stage in self._stages:
            scored = jnp.zeros((len(rows) * size, len(rows) * size, stage.shape[1]), jnp.float32)
            for i, j in meetings:
                visitors = next(arriving)
                at = np.int32(starts[i]), np.int32(starts[j])
                if i == j:
                    own = visitors
                    scored = self._run(_score_into, scored, own, visitors, *at)
                else:
                    scored = self._run(_score_both_into, scored, own, visitors, *at)
                del visitors
                done += 1
                if progress is not None:
                    progress(self._count * done // (len(meetings) * len(self._stages)), self._count)
            everyone.append(scored)
            del own, scored
        for start, index in zip(starts, rows, strict=True):
            yield index, [scored[start : start + size] for scored in everyone]


def _mean(stage: Stage) -> jax.Array:
    mean = stage.mean if isinstance(stage, StoredArray) else stage.mean(axis=(0, 1))
    return jnp.zeros(stage.shape[2]) if mean is None else jnp.asarray(mean)


def _rows(stage: Stage, mean: jax.Array, index: Int[np.ndarray, " B"]) -> Float[jax.Array, "B M C"]:
    """The features of some samples on the device; the common mean is subtracted, as distances do not change by it."""
    rows = stage.rows(index) if isinstance(stage, StoredArray) else stage[index]
    return jnp.asarray(rows) - mean[None, None]


def _score_into(
    scores: Float[jax.Array, "A B M"],
    queries: Float[jax.Array, "a M C"],
    references: Float[jax.Array, "b M C"],
    row: Int[jax.Array, ""],
    column: Int[jax.Array, ""],
    *,
    precision: str,
) -> Float[jax.Array, "A B M"]:
    """Scores by a few more samples, written where they belong; nothing is there twice."""
    found = panel_scores(queries, references, precision=precision)
    return jax.lax.dynamic_update_slice(scores, found, (row, column, jnp.zeros_like(row)))


def _score_both_into(
    scores: Float[jax.Array, "A A M"],
    first: Float[jax.Array, "a M C"],
    second: Float[jax.Array, "a M C"],
    row: Int[jax.Array, ""],
    column: Int[jax.Array, ""],
    *,
    precision: str,
) -> Float[jax.Array, "A A M"]:
    """The same in both directions."""
    there, back = block_scores(first, second, precision=precision)
    scores = jax.lax.dynamic_update_slice(scores, there, (row, column, jnp.zeros_like(row)))
    return jax.lax.dynamic_update_slice(scores, back, (column, row, jnp.zeros_like(row)))


def _average_one(scores: jax.Array, columns: jax.Array, *, interval: float) -> tuple[jax.Array]:
    average = partial(mean_of_lowest, count=interval_count(columns.shape[1], interval), axis=0)
    return (jax.lax.map(lambda sample: average(sample[0][sample[1]]), (scores, columns)),)


def _average_both(
    by_2d: jax.Array, by_3d: jax.Array, patches: jax.Array, columns: jax.Array, **options: Any
) -> tuple[jax.Array, jax.Array]:
    def one(sample: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        own_2d, own_3d, patch, column = sample
        return average_both(own_2d[column], own_3d[column], patch, **options)

    return jax.lax.map(one, (by_2d, by_3d, patches, columns))
