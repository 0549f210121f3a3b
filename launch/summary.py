"""What a run of `launch.eval` says in the end: tables for people, files for programs."""

import platform
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import jax

import musc_jax
from launch import flags as options
from launch import input_flags as inputs
from launch.command import say
from launch.output import Origin, ResultsFolder
from musc_jax import metrics as measure
from musc_jax import report
from musc_jax.data import Dataset, Sample
from musc_jax.execution.memory import peak_memory
from musc_jax.execution.programs import Programs
from musc_jax.resolved import Resolved

_VERSIONS = ("jax", "jaxlib", "flax", "numpy", "scipy", "scikit-learn", "pillow", "dbscan")


def versions() -> dict[str, str]:
    """Of all that changes numbers."""
    others = {name: metadata.version(name) for name in _VERSIONS}
    return {"musc-jax": musc_jax.__version__, "python": platform.python_version(), **others}


def _repetitions(records: dict[str, Any]) -> dict[str, Any]:
    """What metrics.json says about each seed, and the deviations over them; nothing without repetitions."""
    if not all("seeds" in record for record in records.values()):
        return {}
    seeds = next(iter(records.values()))["seeds"]
    by_seed = {seed: {name: record["seeds"][seed] for name, record in records.items()} for seed in seeds}
    means = {seed: measure.mean_metrics(categories)[0] for seed, categories in by_seed.items()}
    deviation = {
        "categories": {n: measure.deviation_of_metrics(list(r["seeds"].values())) for n, r in records.items()},
        "mean": measure.deviation_of_metrics(list(means.values())),
    }
    return {
        "deviation": deviation,
        "seeds": {seed: {"categories": by_seed[seed], "mean": means[seed]} for seed in seeds},
    }


def _published(resolved: Resolved, dataset: Dataset, division: options.Division) -> report.Published | None:
    """The authors' results for the same setting; None where there are none."""
    config = resolved.config
    if not options.is_standard(config):
        return None
    return report.published(
        dataset.name,
        modality=config.modality,
        backbone=config.image_backbone.name if config.image_backbone else "point_mae",
        variant=config.variant,
        image_size=resolved.size,
        categories=dataset.categories,
        subsets=division.subsets,
        batch_size=division.batch_size,
    )


def summarise(
    resolved: Resolved,
    dataset: Dataset,
    division: options.Division,
    folder: ResultsFolder,
    records: dict[str, Any],
    programs: Programs,
    note: str | None,
    started: float,
    *,
    origins: Mapping[str, Origin],
) -> None:
    """Writes metrics.json, metrics.csv and run.json; then prints the tables and compares with what was published."""
    config = resolved.config
    categories = {name: record["metrics"] for name, record in records.items()}
    mean, counts = measure.mean_metrics(categories)
    timings = {
        name: {stage: s / record["num_samples"] for stage, s in record["timings"].items()}
        for name, record in records.items()
    }
    # When the dataset was opened, and when features were extracted.
    skipped = {name: [*dataset.skipped[name], *record.get("skipped", ())] for name, record in records.items()}
    repetitions = _repetitions(records)
    deviation = repetitions["deviation"]["mean"] if repetitions else None
    whole = inputs.LIMIT.value is None and division.normal_ratio == 1 and not any(skipped.values())
    published = _published(resolved, dataset, division) if note is None and whole else None
    device = jax.devices()[0]
    run = {
        "command": options.flags.argv,
        "dataset": dataset.name,
        "config": config.as_dict(),
        "flags": {flag.name: flag.value for flag in options.flags.all},
        "note": note,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "versions": versions(),
        "seconds": {"total": time.perf_counter() - started, "compilation": programs.compile_seconds},
        "seconds_per_sample": timings,
        "peak_memory_bytes": peak_memory(),
        "samples": {name: record["num_samples"] for name, record in records.items()},
        "skipped": skipped,
        "origins": {name: origin._asdict() for name, origin in origins.items()},
        "inputs": {name: account.facts for name, account in dataset.accounts.items()},
        "warnings": [*dataset.warnings, *(line for record in records.values() for line in record["warnings"])],
    }
    folder.write_summary(
        categories,
        mean,
        metrics_csv=report.metrics_csv(categories, mean, deviation),
        run=run,
        note=note,
        repetitions=repetitions,
    )
    # Last, as whoever reads this may stop doing so.
    print(report.metrics_table(categories, mean, counts, deviation=deviation, note=note))
    if repetitions:
        print(
            f"means and standard deviations over {len(division.seeds)} random choices "
            f"(seeds {','.join(map(str, division.seeds))}); scores, maps and pictures are of the first"
        )
    print()
    print(report.timings_table(timings))
    if published is not None:
        print()
        print(report.difference_line(mean, published))
    print(
        f"\n{folder.path}: metrics.json, metrics.csv, run.json and a folder for each category "
        f"({time.perf_counter() - started:.0f} s, of which {programs.compile_seconds:.0f} s compilation)"
    )


def lost_masks(category: str, samples: Sequence[Sample], size: int) -> list[str]:
    """A line, said, about defective samples whose resized masks show nothing: pixel metrics count them as good."""
    masks = [(sample.name, sample.gt_mask) for sample in samples if sample.gt_label]
    lost = [name for name, mask in masks if mask is not None and not mask.any()]
    if not lost:
        return []
    named = ", ".join(lost[:5]) + (", ..." if len(lost) > 5 else "")
    line = (
        f"{category}: {len(lost)} of {len(masks)} masks of defective samples show no defect at {size} x {size} pixels; "
        f"pixel metrics count these as good: {named}"
    )
    say(f"warning: {line}")
    return [line]
