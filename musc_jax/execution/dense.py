"""Mutual scoring with a stage on one device: each pair of samples is multiplied once, some pairs a program."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from musc_jax._arrays import Array, safe_sqrt
from musc_jax.execution.feature_store import StoredArray
from musc_jax.execution.programs import InFlight
from musc_jax.execution.schedule import Counter, Machine, Products, Stage, map_some, masks_of
from musc_jax.kernels.rounding import common_scale
from musc_jax.mutual import Finish, Scorers, finish_sample, without_garbage
from musc_jax.pair_blocks import in_blocks, samples_of_block, scores_into
from musc_jax.pairs import pair_rows, panel_scores, squared_of_pairs
from musc_jax.references import References, listed_pairs

# Multiplications of a call: seconds on two cores, after which there is something to report, and on a GPU milliseconds,
# beside which starting a program takes no time.
_WORK_AT_ONCE = 2e11
# With few references, so many samples are scored by them at a time.
_SAMPLES_AT_ONCE = 32


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
    """A `musc_jax.execution.schedule.Schedule`."""
    run = machine.programs.run
    queries, valid = masks_of(query_mask, len(stages)), masks_of(reference_mask, len(stages))
    half = products.half_type if products.precision == "fast" else None
    on_device = tuple(jnp.asarray(stage.load()) if isinstance(stage, StoredArray) else stage for stage in stages)
    tokens, scales = run("mutual scoring", _prepare, on_device, tuple(queries), tuple(valid), half_type=half)
    del on_device
    columns, units = Scorers.of(references)
    at_once = products.finished_together(sum(x.shape[1] for x in tokens), len(references.samples))
    options: dict[str, Any] = {"finish": finish, "num_units": references.num_units, "at_once": at_once}
    per_sample = (columns, tuple(queries), tuple(extra))
    if not (references.everyone or references.listed):
        return _by_panels(tokens, scales, valid, units, per_sample, references, machine, products, progress, options)
    calls = _Calls(progress)
    if references.listed:
        met = listed_pairs(references.columns)
        tables = _tables(tokens, tuple(valid), (met.first, met.second), machine, products, calls)
        rows = met.rows + met.back * np.int32(tables[0].shape[1])
        per_sample = (references.slots, *per_sample[1:])
    elif (size := samples_of_block(max(x.shape[1] for x in tokens), products.tokens_at_once)) > 1:
        tables = _tables_in_blocks(tokens, tuple(valid), min(size, len(columns)), machine, products, calls)
        index = np.arange(len(columns), dtype=np.int32)
        rows = index[:, None] * np.int32(tables[0].shape[0]) + index[None]
    else:
        everyone = np.triu_indices(len(columns), k=1)
        tables = _tables(tokens, tuple(valid), everyone, machine, products, calls)
        rows = pair_rows(len(columns), tables[0].shape[1])
    found = run("mutual scoring", _finish_all, tables, scales, rows, units, per_sample, **options)
    calls.drain()
    return found


class _Calls:
    """The calls of a stage: one is dispatched before the one before it is waited for and told of."""

    def __init__(self, progress: Counter | None) -> None:
        self._progress = progress
        self._in_flight = InFlight(self._tell)

    def add(self, result: jax.Array, done: int, total: int) -> None:
        """Takes a result of the call after which so many parts are done."""
        self._in_flight.add((result, done, total))

    def _tell(self, call: tuple[jax.Array, int, int]) -> None:
        result, done, total = call
        jax.block_until_ready(result)
        if self._progress is not None:
            self._progress(done, total)

    def drain(self) -> None:
        """Waits for all of them."""
        self._in_flight.drain()


def _prepare(stages: tuple, query_mask: tuple, reference_mask: tuple, *, half_type: str | None) -> tuple[tuple, tuple]:
    """(tokens about their mean, scales): rounded to half precision where asked for, and then to be scaled back."""
    tokens, scales = [], []
    for stage, query, reference in zip(stages, query_mask, reference_mask, strict=True):
        (clean,) = without_garbage(stage, query, reference)
        scale = jnp.ones((), clean.dtype)
        if half_type is not None and clean.dtype == jnp.float32:
            scale = common_scale(jnp.max(jnp.abs(clean)))
            clean = (clean / scale).astype(half_type)
        tokens.append(clean)
        scales.append(scale)
    return tuple(tokens), tuple(scales)


def _tables(
    tokens: tuple[jax.Array, ...],
    masks: tuple[np.ndarray | None, ...],
    pairs: tuple[np.ndarray, np.ndarray],
    machine: Machine,
    products: Products,
    progress: _Calls,
) -> tuple[jax.Array, ...]:
    """Squared scores (2, pairs, M) of the pairs in both directions, and of some repeated ones at the end."""
    first, second = pairs
    work = len(first) * sum(float(x.shape[1]) ** 2 * x.shape[2] for x in tokens)
    calls = min(len(first), max(1, round(work / _WORK_AT_ONCE)))
    size = -(-len(first) // calls)
    index = np.minimum(np.arange(calls * size), len(first) - 1)
    wide = [jnp.float32 if x.dtype.itemsize == 2 else x.dtype for x in tokens]
    shapes, run = tuple((2, calls * size, x.shape[1]) for x in tokens), machine.programs.run
    tables = run("mutual scoring", _zeros, shapes=shapes, dtypes=tuple(str(jnp.dtype(x)) for x in wide))
    options: dict[str, Any] = {"precision": products.precision, "implementation": products.implementation}
    for call in range(calls):
        some = index[call * size : (call + 1) * size]
        met = (first[some].astype(np.int32), second[some].astype(np.int32), np.int32(call * size))
        tables, written = run("mutual scoring", _fill, tables, tokens, masks, *met, donate=(0,), **options)
        progress.add(written, call + 1, calls)
    return tables


def _tables_in_blocks(
    tokens: tuple[jax.Array, ...],
    masks: tuple[np.ndarray | None, ...],
    size: int,
    machine: Machine,
    products: Products,
    progress: _Calls,
) -> tuple[jax.Array, ...]:
    """Squared scores (N, N, M) of all by all, filled up to whole blocks of samples; each pair of them meets once."""
    run = machine.programs.run
    tokens, masks = run("mutual scoring", _in_blocks, tokens, masks, size=size)
    first, second = (x.astype(np.int32) for x in np.triu_indices(len(tokens[0]) // size))
    work = len(first) * sum(float(size * x.shape[1]) ** 2 * x.shape[2] for x in tokens)
    calls = min(len(first), max(1, round(work / _WORK_AT_ONCE)))
    some = -(-len(first) // calls)
    index = np.minimum(np.arange(calls * some), len(first) - 1).reshape(calls, some)
    wide = [jnp.float32 if x.dtype.itemsize == 2 else x.dtype for x in tokens]
    shapes = tuple((x.shape[0], *x.shape[:2]) for x in tokens)
    tables = run("mutual scoring", _zeros, shapes=shapes, dtypes=tuple(str(jnp.dtype(x)) for x in wide))
    options: dict[str, Any] = {"precision": products.precision, "implementation": products.implementation}
    for call, own in enumerate(index):
        pairs = first[own], second[own]
        tables, written = run(
            "mutual scoring", _fill_blocks, tables, tokens, masks, *pairs, donate=(0,), size=size, **options
        )
        progress.add(written, call + 1, calls)
    return tables


def _zeros(*, shapes: tuple[tuple[int, ...], ...], dtypes: tuple[str, ...]) -> tuple[jax.Array, ...]:
    return tuple(jnp.zeros(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True))


def _in_blocks(tokens: tuple, masks: tuple, *, size: int) -> tuple[tuple, tuple]:
    return tuple(in_blocks(x, size) for x in tokens), tuple(in_blocks(x, size) for x in masks)


def _fill_blocks(
    tables: tuple[jax.Array, ...],
    tokens: tuple[jax.Array, ...],
    masks: tuple[jax.Array | None, ...],
    rows: jax.Array,
    columns: jax.Array,
    **options: Any,
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """As `_fill`, of pairs of blocks."""
    parts = zip(tables, tokens, masks, strict=True)
    written = tuple(scores_into(table, x, mask, rows, columns, **options) for table, x, mask in parts)
    return written, written[0][0, 0, 0]


def _fill(
    tables: tuple[jax.Array, ...],
    tokens: tuple[jax.Array, ...],
    masks: tuple[jax.Array | None, ...],
    first: jax.Array,
    second: jax.Array,
    start: jax.Array,
    **options: Any,
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """(tables with the scores of some pairs where they belong, a number that is there when they are)."""
    zero = jnp.zeros_like(start)
    found = [
        squared_of_pairs(x, x, first, second, mask, mask, **options) for x, mask in zip(tokens, masks, strict=True)
    ]
    parts = zip(tables, found, strict=True)
    written = tuple(jax.lax.dynamic_update_slice(table, jnp.stack(both), (zero, start, zero)) for table, both in parts)
    return written, written[0][0, 0, 0]


def _finish_all(
    tables: tuple[jax.Array, ...],
    scales: tuple[jax.Array, ...],
    rows: jax.Array,
    units: jax.Array | None,
    per_sample: tuple,
    *,
    finish: Finish,
    num_units: int,
    at_once: int,
) -> tuple[jax.Array, ...]:
    flat = [table.reshape(-1, table.shape[2]) for table in tables]

    def one(sample: tuple) -> tuple[jax.Array, ...]:
        row, (columns, masks, rest) = sample
        scores = [safe_sqrt(table[row]) * scale for table, scale in zip(flat, scales, strict=True)]
        return finish_sample(finish, num_units, scores, columns, units, masks, rest)

    return map_some(one, (rows, per_sample), at_once)


def _by_panels(
    tokens: tuple[jax.Array, ...],
    scales: tuple[jax.Array, ...],
    valid: list[np.ndarray | None],
    units: jax.Array | None,
    per_sample: tuple,
    references: References,
    machine: Machine,
    products: Products,
    progress: Counter | None,
    options: dict[str, Any],
) -> tuple[jax.Array, ...]:
    """Some samples by all that score, in one direction: only so many scores are there at a time."""
    count, size = len(tokens[0]), min(_SAMPLES_AT_ONCE, len(tokens[0]))
    scorers = tuple(x[references.samples] for x in tokens)
    masks = tuple(None if mask is None else mask[references.samples] for mask in valid)
    found, calls = [], _Calls(progress)
    for start in range(0, count, size):
        index = np.minimum(np.arange(start, start + size), count - 1)
        own, rest = jax.tree.map(lambda x: x[index], (tokens, per_sample))  # noqa: B023 - used at once
        panel = machine.programs.run(
            "mutual scoring", _finish_panel, own, scorers, masks, scales, units, rest, **options, products=products
        )
        found.append(panel)
        calls.add(panel[0], min(start + size, count), count)
    calls.drain()
    return tuple(jnp.concatenate(parts)[:count] for parts in zip(*found, strict=True))


def _finish_panel(
    own: tuple[jax.Array, ...],
    scorers: tuple[jax.Array, ...],
    masks: tuple[jax.Array | None, ...],
    scales: tuple[jax.Array, ...],
    units: jax.Array | None,
    per_sample: tuple,
    *,
    finish: Finish,
    num_units: int,
    at_once: int,
    products: Products,
) -> tuple[jax.Array, ...]:
    def by_scorers(own: tuple[jax.Array, ...]) -> list[jax.Array]:
        parts = zip(own, scorers, masks, scales, strict=True)
        return [panel_scores(x, y, valid=mask, **products.of_pairs) * scale for x, y, mask, scale in parts]

    def finished(sample: tuple) -> tuple[jax.Array, ...]:
        scores, (columns, queries, rest) = sample
        return finish_sample(finish, num_units, scores, columns, units, queries, rest)

    def one(sample: tuple) -> tuple[jax.Array, ...]:
        tokens, rest = sample
        return finished(([x[0] for x in by_scorers(tuple(x[None] for x in tokens))], rest))

    if not products.tokens_at_once:
        return jax.lax.map(one, (own, per_sample))
    return map_some(finished, (by_scorers(own), per_sample), at_once)
