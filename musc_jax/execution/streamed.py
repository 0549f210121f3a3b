"""Mutual scoring a few samples at a time, for categories whose features or pair scores do not fit into memory.

Where the scores of all pairs fit, blocks of samples meet, and each pair is multiplied once. Where not even these fit, a
panel of samples is scored by all others, in one direction only: that costs twice as much. A fixed number of references
costs the same for each sample; where each has its own, they are read for one sample after the other.

What is dispatched holds memory until it is done. So a product is dispatched when the one before the last is done, and
a panel when the one before it is finished.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from musc_jax._arrays import Array
from musc_jax.execution.feature_store import StoredArray
from musc_jax.execution.memory import Plan
from musc_jax.execution.programs import InFlight, Programs, copy_to_host_async
from musc_jax.execution.schedule import Counter, Machine, Products, Stage, map_some, masks_of
from musc_jax.mutual import Finish, Scorers, finish_sample
from musc_jax.pairs import block_scores, panel_scores
from musc_jax.references import References
from musc_jax.storage.prefetch import map_ahead

# Samples read at once where only their mean is wanted.
_READ_AT_ONCE = 8

_Panel = tuple[np.ndarray, list[jax.Array]]
"""Samples, and their scores (B, T, M) by all that score, of each modality."""

_Part = tuple[jax.Array, jax.Array | None]
"""Tokens (B, M, C) of some samples, and which of them may be nearest; None: all."""


def score_stage(
    stages: Sequence[Stage],
    finish: Finish,
    references: References,
    machine: Machine,
    *,
    extra: Sequence[Any] = (),
    query_mask: Sequence[Array | None] | None = None,
    reference_mask: Sequence[Array | None] | None = None,
    products: Products = Products(),  # noqa: B008 - immutable
    progress: Counter | None = None,
) -> tuple[jax.Array, ...]:
    """A `musc_jax.execution.schedule.Schedule`; `machine.plan` says how many samples meet at a time."""
    count, run = len(stages[0]), machine.programs.run
    plan = machine.plan or Plan(False, True, count, count, 0, 0, 0, keep_scores=True)
    queries, valid = masks_of(query_mask, len(stages)), masks_of(reference_mask, len(stages))
    stream = _Stream(stages, queries, valid, machine.programs, products)
    columns, units = Scorers.of(references)
    options: dict[str, Any] = {
        "finish": finish,
        "num_units": references.num_units,
        "num_scorers": len(references.samples),
        "at_once": products.finished_together(sum(stage.shape[1] for stage in stages), len(references.samples)),
    }
    per_sample = (columns, tuple(queries), tuple(extra))
    out: list[np.ndarray] = []
    if references.listed:
        per_sample = (references.slots, *per_sample[1:])
        options["num_scorers"] = references.columns.shape[1]
        panels = stream.panels(plan, references.columns, progress)
    elif plan.keep_scores and references.everyone:
        panels = stream.blocks(plan, progress)
    else:
        panels = stream.panels(plan, references.samples, progress)
    for rows, scores in panels:
        # A panel is filled up with the last sample, so that one program serves all.
        index = np.minimum(rows, count - 1)
        own = jax.tree.map(lambda x: x[index], per_sample)  # noqa: B023 - used at once
        found = run("mutual scoring", _finish_panel, tuple(scores), units, own, **options)
        copy_to_host_async(found)
        # Else this panel's scores would be there beside those of the next.
        del scores
        out = out or [np.zeros((count, part.shape[1]), np.float32) for part in found]
        for whole, part in zip(out, found, strict=True):
            whole[rows[0] : rows[-1] + 1] = np.asarray(part)[: count - rows[0]]
    return tuple(jnp.asarray(values) for values in out)


class _Stream:
    """Reads a stage of each modality in parts and multiplies them; what is read next is read meanwhile."""

    def __init__(
        self,
        stages: Sequence[Stage],
        query_mask: list[np.ndarray | None],
        reference_mask: list[np.ndarray | None],
        programs: Programs,
        products: Products,
    ) -> None:
        self._stages, self._valid, self._programs, self._products = stages, reference_mask, programs, products
        self._count = len(stages[0])
        # Tokens that neither are scored nor score may hold anything.
        pairs = zip(query_mask, reference_mask, strict=True)
        self._needed = [None if q is None or r is None else q | r for q, r in pairs]
        self._means = [_mean(stage, needed) for stage, needed in zip(stages, self._needed, strict=True)]

    def _part(self, job: tuple[int, np.ndarray]) -> _Part:
        """The features of some samples on the device, about the common mean: distances do not change by it."""
        modality, samples = job
        stage, needed, valid = self._stages[modality], self._needed[modality], self._valid[modality]
        index = np.minimum(samples, self._count - 1)
        rows = jnp.asarray(stage.rows(index) if isinstance(stage, StoredArray) else stage[index])
        centered = rows - self._means[modality][None, None]
        if needed is not None:
            centered = jnp.where(jnp.asarray(needed[index])[..., None], centered, 0)
        return centered, None if valid is None else jnp.asarray(valid[index])

    def _read(self, jobs: list[tuple[int, np.ndarray]]) -> Iterator[_Part]:
        """(modality, samples) after (modality, samples)."""
        # With the two in flight, four parts are there at a time, one of them in the making.
        return map_ahead(self._part, jobs, workers=1, ahead=1)

    def _run(self, function: Callable, *args: Any) -> tuple[jax.Array, jax.Array]:
        return self._programs.run("mutual scoring", function, *args, donate=(0,), products=self._products)

    def panels(self, plan: Plan, scorers: np.ndarray, progress: Counter | None) -> Iterator[_Panel]:
        """A few samples by all that score, `chunk` of them at a time.

        With lists, `scorers` (N, R), it is one sample by those of its own.
        """
        listed = scorers.ndim == 2
        panel, chunk = 1 if listed else min(plan.panel, self._count), min(plan.chunk, scorers.shape[-1])
        panels = [np.arange(start, start + panel) for start in range(0, self._count, panel)]
        starts = range(0, scorers.shape[-1], chunk)

        def chunks(rows: np.ndarray) -> list[np.ndarray]:
            own = scorers[rows[0]] if listed else scorers
            return [own[np.minimum(np.arange(s, s + chunk), len(own) - 1)] for s in starts]

        # Where all that score fit at once they stay; that is the case with few references.
        modalities, stay = range(len(self._stages)), len(starts) == 1 and not listed
        resident = list(self._read([(m, chunks(panels[0])[0]) for m in modalities])) if stay else []
        arriving = self._read(
            [(m, index) for rows in panels for m in modalities for index in [rows, *([] if stay else chunks(rows))]]
        )
        products: InFlight[jax.Array] = InFlight(_wait)
        for rows in panels:
            scores = []
            for m in modalities:
                queries, _ = next(arriving)
                scored = jnp.zeros((panel, len(starts) * chunk, queries.shape[1]), jnp.float32)
                for start in starts:
                    others = resident[m] if resident else next(arriving)
                    at = np.int32(0), np.int32(start)
                    scored, written = self._run(_score_into, scored, queries, others, *at)
                    del others
                    products.add(written)
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
        total = len(meetings) * len(self._stages)

        def tell(product: tuple[jax.Array, int]) -> None:
            written, done = product
            written.block_until_ready()
            if progress is not None:
                progress(self._count * done // total, self._count)

        everyone, done, products = [], 0, InFlight(tell)
        for stage in self._stages:
            scored = jnp.zeros((len(rows) * size, len(rows) * size, stage.shape[1]), jnp.float32)
            for i, j in meetings:
                visitors = next(arriving)
                at = np.int32(starts[i]), np.int32(starts[j])
                if i == j:
                    own = visitors
                    scored, written = self._run(_score_into, scored, own[0], visitors, *at)
                else:
                    scored, written = self._run(_score_both_into, scored, own, visitors, *at)
                del visitors
                done += 1
                products.add((written, done))
            everyone.append(scored)
            del own, scored
        products.drain()
        for start, index in zip(starts, rows, strict=True):
            yield index, [scored[start : start + size] for scored in everyone]


def _wait(written: jax.Array) -> None:
    written.block_until_ready()


def _mean(stage: Stage, needed: np.ndarray | None) -> Float[jax.Array, "C"]:
    """The mean token, over those that are needed."""
    if needed is None:
        mean = stage.mean if isinstance(stage, StoredArray) else stage.mean(axis=(0, 1))
        return jnp.zeros(stage.shape[2]) if mean is None else jnp.asarray(mean)
    total = np.zeros(stage.shape[2], np.float64)
    for start in range(0, len(stage), _READ_AT_ONCE):
        index = np.arange(start, min(start + _READ_AT_ONCE, len(stage)))
        rows = stage.rows(index) if isinstance(stage, StoredArray) else np.asarray(stage[index])
        total += np.where(needed[index][..., None], rows, 0).sum(axis=(0, 1), dtype=np.float64)
    return jnp.asarray((total / max(int(needed.sum()), 1)).astype(np.float32))


def _score_into(
    scores: Float[jax.Array, "A B M"],
    queries: Float[jax.Array, "a M C"],
    references: _Part,
    row: Int[jax.Array, ""],
    column: Int[jax.Array, ""],
    *,
    products: Products,
) -> tuple[Float[jax.Array, "A B M"], Float[jax.Array, ""]]:
    """(scores with those by a few more samples where they belong, a number that is there when they are)."""
    tokens, valid = references
    found = panel_scores(queries, tokens, valid=valid, **products.of_pairs)
    # In place: nothing is there twice.
    written = jax.lax.dynamic_update_slice(scores, found, (row, column, jnp.zeros_like(row)))
    return written, written[0, 0, 0]


def _score_both_into(
    scores: Float[jax.Array, "A A M"],
    first: _Part,
    second: _Part,
    row: Int[jax.Array, ""],
    column: Int[jax.Array, ""],
    *,
    products: Products,
) -> tuple[Float[jax.Array, "A A M"], Float[jax.Array, ""]]:
    """The same in both directions."""
    (own, valid_first), (other, valid_second) = first, second
    there, back = block_scores(own, other, valid_first=valid_first, valid_second=valid_second, **products.of_pairs)
    scores = jax.lax.dynamic_update_slice(scores, there, (row, column, jnp.zeros_like(row)))
    written = jax.lax.dynamic_update_slice(scores, back, (column, row, jnp.zeros_like(row)))
    return written, written[0, 0, 0]


def _finish_panel(
    scores: tuple[jax.Array, ...],
    units: jax.Array | None,
    per_sample: tuple,
    *,
    finish: Finish,
    num_units: int,
    num_scorers: int,
    at_once: int,
) -> tuple[jax.Array, ...]:
    def one(sample: tuple) -> tuple[jax.Array, ...]:
        own, (columns, masks, rest) = sample
        return finish_sample(finish, num_units, [x[:num_scorers] for x in own], columns, units, masks, rest)

    return map_some(one, (scores, per_sample), at_once)
