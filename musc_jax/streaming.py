"""Mutual scoring a few samples at a time, for categories whose features or pair scores do not fit into memory.

The numbers are those of `mutual_scores` and `multimodal_scores`. Pairs are multiplied in one direction only, so all
others cost twice what they cost at once; a fixed number of references costs the same for each sample.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from musc_jax._arrays import Array
from musc_jax.crossmodal import average_both
from musc_jax.data.loading import map_ahead
from musc_jax.feature_store import StoredArray
from musc_jax.interval import interval_count, mean_of_lowest
from musc_jax.memory import Plan
from musc_jax.mutual import panel_scores
from musc_jax.programs import Programs
from musc_jax.subsets import draw_references

Stage = Array | StoredArray
"""Features (N, M, C) of one modality and stage."""


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
    progress: Callable[[int, int], None] | None = None,
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
    means = [_mean(stage) for stage in stages]
    finish: Callable = _average_one if len(stages) == 1 else _average_both
    options = {"interval": interval, **enhancement}
    out = [np.zeros(stage.shape[:2], np.float32) for stage in stages]
    panel, chunk = min(plan.panel, count), min(plan.chunk, len(drawn.samples))
    # Filled up with the last one, so that one program serves all.
    panels = [np.minimum(np.arange(start, start + panel), count - 1) for start in range(0, count, panel)]
    starts = range(0, len(drawn.samples), chunk)
    chunks = [drawn.samples[np.minimum(np.arange(s, s + chunk), len(drawn.samples) - 1)] for s in starts]
    # Where all that score fit at once they stay; that is the case with few references.
    resident = [_rows(stage, mean, chunks[0]) for stage, mean in zip(stages, means)] if len(chunks) == 1 else []
    width = len(chunks) * chunk

    # One sequence of what has to be read, so that the next is read while the current is multiplied.
    jobs = [
        (stage, mean, index)
        for queries in panels
        for stage, mean in zip(stages, means, strict=True)
        for index in [queries, *([] if resident else chunks)]
    ]
    arriving = map_ahead(lambda job: _rows(*job), jobs, workers=1, ahead=2)
    for number, index in enumerate(panels):
        scores = []
        for modality, stage in enumerate(stages):
            queries = next(arriving)
            scored = jnp.zeros((panel, width, stage.shape[1]), jnp.float32)
            for start in starts:
                references_ = resident[modality] if resident else next(arriving)
                arguments = (scored, queries, references_, np.int32(start))
                scored = programs.run("mutual scoring", _score_into, *arguments, donate=(0,), precision=precision)
                del arguments, references_
            scores.append(scored)
            del queries, scored
        patches = () if patch_of_group is None else (patch_of_group[index],)
        found = programs.run("mutual scoring", finish, *scores, *patches, drawn.columns[index], **options)
        start = number * panel
        for whole, part in zip(out, found, strict=True):
            whole[start : start + panel] = np.asarray(part)[: count - start]
        if progress is not None:
            progress(min(start + panel, count), count)
    return [jnp.asarray(values) for values in out]


def _mean(stage: Stage) -> jax.Array:
    mean = stage.mean if isinstance(stage, StoredArray) else stage.mean(axis=(0, 1))
    return jnp.zeros(stage.shape[2]) if mean is None else jnp.asarray(mean)


def _rows(stage: Stage, mean: jax.Array, index: Int[np.ndarray, " B"]) -> Float[jax.Array, "B M C"]:
    """The features of some samples on the device; the common mean is subtracted, as distances do not change by it."""
    rows = stage.rows(index) if isinstance(stage, StoredArray) else stage[index]
    return jnp.asarray(rows) - mean[None, None]


def _score_into(
    scores: Float[jax.Array, "B T M"],
    queries: Float[jax.Array, "B M C"],
    references: Float[jax.Array, "c M C"],
    start: Int[jax.Array, ""],
    *,
    precision: str,
) -> Float[jax.Array, "B T M"]:
    """Scores by a few more samples, written where they belong; nothing is there twice."""
    found = panel_scores(queries, references, precision=precision)
    return jax.lax.dynamic_update_slice_in_dim(scores, found, start, axis=1)


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
