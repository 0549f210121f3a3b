"""Putting results into their folder: whether there is room is seen first, and scores come before all else."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from launch import input_flags as inputs
from launch.category_files import least_bytes, saved_files, scores_table
from launch.command import say
from launch.evaluation import Scored, few_samples, shared_defects
from launch.output import SCORES, Origin, OutputError, ResultsFolder
from launch.own_files import REPORT
from launch.score_page import product_page
from launch.summary import lost_masks
from launch.unwritten import Unwritten
from musc_jax import metrics as measure
from musc_jax.data import Dataset
from musc_jax.predictions import predict
from musc_jax.resolved import Resolved


def origins(dataset: Dataset) -> dict[str, Origin]:
    """What each category is computed from."""
    return {name: Origin(inputs.sources(name), dataset.digest(name)) for name in dataset.categories}


def finished_records(
    dataset: Dataset, digests: Mapping[str, str], folder: ResultsFolder, save: tuple[str, ...], *, size: int
) -> dict[str, Any]:
    """The records of categories that are finished.

    Raises:
        OutputError: There is no room for the others.
    """
    records: dict[str, Any] = {}
    for category, digest in digests.items():
        record = folder.finished(category, digest, save)
        # Samples that were left out on request count where somebody requests it now.
        if record and (inputs.SKIP_BAD.value or not record.get("skipped")):
            records[category] = record
    remaining = (len(dataset.names(name)) for name in dataset.categories if name not in records)
    folder.expect_space(sum(least_bytes(count, size, save) for count in remaining))
    return records


def write_results(
    folder: ResultsFolder,
    dataset: Dataset,
    category: str,
    digest: str,
    scored: Scored,
    unwritten: Unwritten,
    *,
    resolved: Resolved,
    save: tuple[str, ...],
    note: str | None,
) -> dict[str, Any]:
    """Writes a category: scores and metrics first, then what takes room and time; what cannot be written is kept.

    Raises:
        OutputError: See `ResultsFolder.write_category`.
    """
    facts: dict[str, Any] = {
        "digest": digest,
        "metrics": measure.mean_metrics(scored.metrics)[0],
        "timings": scored.seconds,
        "warnings": [
            *(f"left out of {category}: {error}" for error in scored.results.skipped),
            *few_samples(dataset, category, resolved),
            *shared_defects(category, scored.results),
            *lost_masks(category, scored.results.samples, scored.results.anomaly_maps.shape[-1]),
        ],
        "num_samples": len(dataset.names(category)) - len(scored.results.skipped),
        "skipped": [error.name for error in scored.results.skipped],
        "seeds": scored.metrics if len(scored.metrics) > 1 else None,
        "origin": Origin(inputs.sources(category), dataset.digest(category)),
    }
    table = {SCORES: scores_table(scored.results)}
    page = _page(dataset, category, scored, resolved, facts, note) if "report" in save else iter(())
    try:
        record = folder.write_category(category, save=(), files=table, **facts)
        if save:
            files = itertools.chain(table.items(), saved_files(scored.results, save, note), page)
            record = folder.write_category(category, save=save, files=files, **facts)
    except (OutputError, KeyboardInterrupt):
        kept = unwritten.keep(digest, scored)
        say(f"{category}: what was computed {f'is kept in {kept}' if kept else 'could not be kept'}")
        raise
    return record


def _page(
    dataset: Dataset, category: str, scored: Scored, resolved: Resolved, facts: Mapping[str, Any], note: str | None
) -> Iterator[tuple[str, bytes]]:
    """The page, made when its turn comes."""
    skipped = [*dataset.skipped[category], *facts["skipped"]]
    found = predict(scored.results)
    page = product_page(dataset, category, found, resolved, skipped=skipped, warnings=facts["warnings"], note=note)
    yield REPORT, page.encode()
