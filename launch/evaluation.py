"""Scores one category: samples divided for each seed, memory planned, features on disk where they have to be."""

import contextlib
import dataclasses
import time
from collections.abc import Collection, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from launch import distributed
from launch import flags as options
from launch.command import say
from launch.output import OutputError
from musc_jax import metrics as measure
from musc_jax import pipeline
from musc_jax.config import ConfigError
from musc_jax.copies import representatives, with_copies
from musc_jax.data import DataError, Dataset, Sample, SampleError
from musc_jax.data.health import few_samples as few
from musc_jax.execution.ahead import compile_ahead
from musc_jax.execution.extraction import Progress
from musc_jax.execution.feature_store import FeatureStore, HostStore, StoreError
from musc_jax.execution.free_memory import usable_beside_device
from musc_jax.execution.memory import Plan, return_freed_memory
from musc_jax.execution.programs import Programs
from musc_jax.execution.scoring import plan_for
from musc_jax.execution.voting import Inquiry
from musc_jax.resolved import Resolved
from musc_jax.storage import atomic
from musc_jax.subsets import divide, thin_out


def _metrics(results: pipeline.Results) -> dict[str, float | None]:
    """All metrics of a category; None where labels or masks are missing."""
    labels = [sample.gt_label for sample in results.samples]
    masks = [sample.gt_mask for sample in results.samples if sample.gt_mask is not None]
    image = measure.image_metrics(None if None in labels else np.array(labels, np.int64), results.pred_scores)
    known = np.stack(masks) if len(masks) == len(results.samples) else None
    pixel = measure.pixel_metrics(known, results.anomaly_maps, inside=results.inside)
    return {f"image_{k}": v for k, v in image.items()} | {f"pixel_{k}": v for k, v in pixel.items()}


# Of samples that share a defect, so many are named; run.json has all.
_NAMED = 8


class Scored(NamedTuple):
    """A category's outcome; with several seeds its results are the first one's."""

    results: pipeline.Results
    metrics: dict[str, dict[str, float | None]]
    """By seed."""
    seconds: dict[str, float]
    """Without compilation: of `all`, and with --profile by stage."""


def _parts(samples: Sequence[Sample], division: options.Division, seed: int, category: str) -> list[np.ndarray]:
    """The samples that score each other under a seed."""
    chosen = np.arange(len(samples))
    if division.normal_ratio != 1:
        unknown = [sample.name for sample in samples if sample.gt_label is None]
        if unknown:
            raise ConfigError(f"--normal_ratio: {category}: {unknown[0]} has no label, so nobody knows who is good")
        chosen = thin_out([int(sample.gt_label or 0) for sample in samples], division.normal_ratio, seed=seed)
        if len(chosen) < 2:
            raise ConfigError(
                f"--normal_ratio: {category}: leaves {len(chosen)} of {len(samples)} samples, but at least 2 are needed"
            )
    parts = divide(len(chosen), subsets=division.subsets, batch_size=division.batch_size, seed=seed)
    return [chosen[part] for part in parts]


@contextlib.contextmanager
def feature_store(cache_dir: Path, plan: Plan) -> Iterator[FeatureStore | None]:
    """A folder for features that do not fit into memory; removed again, and what killed runs left of theirs."""
    if not plan.on_disk:
        yield HostStore() if plan.on_host else None
        return
    folder = cache_dir / "features"
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            atomic.sweep(folder)
            path = stack.enter_context(atomic.temporary(folder / "category"))
            path.mkdir()
            store = FeatureStore(path)
            available = store.free()
        except OSError as error:
            raise _unusable_store(error, folder) from None
        if available < plan.disk_bytes:
            needed, free = (f"{size / 1e9:.1f} GB" for size in (plan.disk_bytes, available))
            raise OutputError(
                f"{folder}: features need {needed}, {free} are free; pass another --cache_dir, or raise --memory_gb"
            )
        try:
            with store:
                yield store
        except StoreError as error:  # of other files others speak
            raise _unusable_store(error, folder) from None


def _unusable_store(error: OSError, folder: Path) -> OutputError:
    return OutputError(f"{error.filename or folder}: {error.strerror or error}; pass another --cache_dir")


def few_samples(dataset: Dataset, category: str, config: Resolved) -> list[str]:
    """A line, said, about what scores mean where samples are few; none otherwise."""
    copies = dataset.copies(category) if dataset.copies_count_once else ()
    text = few(len(representatives(copies, len(dataset.names(category)))), config.scoring.interval)
    if text is None:
        return []
    line = f"{category}: {text}"
    say(f"warning: {line}")
    return [line]


def shared_defects(category: str, results: pipeline.Results) -> list[str]:
    """A line, said, about each group of samples that share what hardly any other has."""
    lines = []
    for group in results.recurring:
        shown = ", ".join(group[:_NAMED]) + (f" and {len(group) - _NAMED} more" if len(group) > _NAMED else "")
        lines.append(
            f"{category}: {len(group)} samples share what hardly any other has, a defect that recurs or a kind of its "
            f"own: {shown}"
        )
        say(f"note: {lines[-1]}")
    return lines


def run_category(
    config: Resolved,
    dataset: Dataset,
    category: str,
    division: options.Division,
    *,
    budget: int,
    cache_dir: Path,
    skip_bad: bool,
    programs: Programs,
    bar: Progress,
    inquiry: Inquiry | None = None,
    silent: Collection[str] = (),
) -> Scored:
    """Scores one category, with every seed from the same features; `inquiry` is what is asked of them then.

    Samples named in `silent` are scored and score no others.
    """
    programs.seconds.clear()
    started, compiled = time.perf_counter(), programs.compile_seconds
    copies = dataset.copies(category) if dataset.copies_count_once else ()
    scored = representatives(copies, len(dataset.names(category)))
    total, mesh = len(scored), pipeline.usual_mesh()
    share = range(total) if mesh is None else pipeline.own_share(total, mesh)
    own = scored[share.start : share.stop].tolist()
    plan = plan_for(config, total, budget, mesh, host=usable_beside_device(), vouching=total - len(silent))
    return_freed_memory(scarce=plan.scarce)
    say(f"{category}: {plan.describe()}")
    programs.waiting = partial(bar, "compiling (first run)")
    if mesh is None and not plan.scarce:
        # With masks, or samples that score no others, scoring takes other programs.
        usual = division.plain and not silent and not any("roi" in one.facts for one in dataset.accounts.values())
        compile_ahead(config, programs, count=total if usual else None, plan=plan)
    samples = dataset.samples(category, size=config.size, only=own)
    if silent:
        samples = (dataclasses.replace(sample, vouches=sample.name not in silent) for sample in samples)
    label = [""]

    def divided(seen: Sequence[Sample]) -> Iterator[list[np.ndarray]]:
        for seed in division.seeds:
            label[0] = f"seed {seed}: " if len(division.seeds) > 1 else ""
            yield _parts(seen, division, seed, category)

    def counted(stage: str, done: int, count: int | None) -> None:
        bar(stage if stage == "features" else f"{label[0]}{stage}", done, count)

    loaded = cache(lambda i: dataclasses.replace(dataset.load(category, i, size=config.size), points=None))

    def complete(results: pipeline.Results) -> pipeline.Results:
        """With what copies are worth; others than the first process have no use for that."""
        if not copies or not distributed.is_first():
            return results
        return with_copies(results, copies, dataset.names(category), loaded)

    def measured(results: pipeline.Results) -> dict[str, float | None]:
        with programs.timed("metrics"):
            return _metrics(results) if distributed.is_first() else {}

    try:
        with feature_store(cache_dir, plan) as store:
            divisions = pipeline.score_divisions(
                samples,
                config,
                divided,
                programs,
                total=total,
                plan=plan,
                store=store,
                mesh=mesh,
                skip_bad=skip_bad,
                progress=counted,
                inquiry=inquiry,
            )
            repetitions = zip(division.seeds, map(complete, divisions), strict=True)
            seed, first = next(repetitions)
            for error in first.skipped:
                say(f"left out of {category}: {error}")
            values = {str(seed): measured(first)}
            values |= {str(seed): measured(results) for seed, results in repetitions}
    except BaseException as error:
        programs.cancel()
        if isinstance(error, SampleError):
            raise DataError(f"{category}: {error}") from None
        raise
    whole = time.perf_counter() - started - (programs.compile_seconds - compiled)
    return Scored(first, values, {**programs.seconds, "all": whole})
