"""Scores the samples of a dataset, category by category, and reports how well that finds the defects.

With no flags it runs the demo: a synthetic set of candies, images and point clouds, random weights.

    python -m launch.eval
    python -m launch.eval --dataset=eyecandies --data_dir=DIR --save=maps,images
"""

import dataclasses
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

# Before JAX starts: its notes about what hardware it did not find are not this program's messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import numpy as np
from absl import flags

import musc_jax
import weights
from launch import command
from launch import flags as options
from launch.command import say
from launch.output import OutputError, ResultsFolder, digest_of, map_tiff, scores_csv
from launch.progress import ProgressBar
from musc_jax import metrics as measure
from musc_jax import pipeline, report
from musc_jax.config import Config, ConfigError
from musc_jax.data import DataError, Dataset, open_dataset
from musc_jax.programs import Programs

flags.adopt_module_key_flags(options)

RANDOM_NOTE = "random weights: the figures say nothing about the method's accuracy with pretrained ones"
_VERSIONS = ("jax", "jaxlib", "flax", "numpy", "scipy", "scikit-learn", "pillow", "dbscan")
_BAD_INPUT = (ConfigError, DataError, OutputError, weights.WeightsError)


def _versions() -> dict[str, str]:
    others = {name: metadata.version(name) for name in _VERSIONS}
    return {"musc-jax": musc_jax.__version__, "python": platform.python_version(), **others}


def _open(config: Config, cache_dir: Path) -> Dataset:
    bar = ProgressBar()
    try:
        return open_dataset(
            options.DATASET.value,
            data_dir=options.DATA_DIR.value,
            categories=options.CATEGORIES.value,
            modality=config.modality,
            cache_dir=cache_dir,
            limit=options.LIMIT.value,
            skip_bad=options.SKIP_BAD.value,
            seed=options.SEED.value,
            progress=bar,
        )
    finally:
        bar.close()


def _with_backbones(config: Config, cache_dir: Path) -> Config:
    """The config with parameters; what is missing for one backbone is said together with what is for the other."""
    source = options.weight_sources()
    found: dict[str, Any] = {}
    missing: list[str] = []
    for field, where, name in (
        ("image_backbone", source.image, options.BACKBONE.value),
        ("point_backbone", source.points, "point_mae"),
    ):
        if where is None:
            continue
        bar = ProgressBar(f"{name}: ", unit="MB", scale=1e6)
        try:
            found[field] = options.load_backbone(where, name, cache_dir, report=say, progress=bar)
        except weights.WeightsError as error:
            missing.append(str(error))
        finally:
            bar.close()
    if missing:
        raise weights.WeightsError("\nerror: ".join(missing))
    return dataclasses.replace(config, **found).resolved()


def _identity(config: Config, dataset: Dataset, category: str) -> str:
    """Digest of everything that changes a category's numbers."""
    device = jax.devices()[0]
    return digest_of(
        {
            "config": config.as_dict(),
            "activation": options.ACTIVATION.value,
            "dtype": options.DTYPE.value,
            "samples": dataset.digest(category),
            "versions": _versions(),
            "device": [device.platform, device.device_kind],
        }
    )


def _metrics(results: pipeline.Results) -> dict[str, float | None]:
    """All metrics of a category; None where labels or masks are missing."""
    labels = [sample.gt_label for sample in results.samples]
    masks = [sample.gt_mask for sample in results.samples if sample.gt_mask is not None]
    image = measure.image_metrics(None if None in labels else np.array(labels, np.int64), results.pred_scores)
    pixel = measure.pixel_metrics(np.stack(masks) if len(masks) == len(results.samples) else None, results.anomaly_maps)
    return {f"image_{k}": v for k, v in image.items()} | {f"pixel_{k}": v for k, v in pixel.items()}


def _files(results: pipeline.Results, save: tuple[str, ...], note: str | None) -> dict[str, bytes]:
    """The files of a category, by their names in its folder."""
    rows = [
        {
            "sample": sample.name,
            "gt_label": "" if sample.gt_label is None else sample.gt_label,
            "pred_score": repr(float(pred)),
            "max_score": repr(float(highest)),
        }
        for sample, pred, highest in zip(results.samples, results.pred_scores, results.max_scores, strict=True)
    ]
    files = {"scores.csv": scores_csv(rows)}
    if "maps" in save:
        for sample, anomaly_map in zip(results.samples, results.anomaly_maps, strict=True):
            files[f"maps/{sample.name}.tiff"] = map_tiff(anomaly_map)
    if "images" in save:
        scale = report.color_scale(results.anomaly_maps)
        for i, sample in enumerate(results.samples):
            picture = report.sample_picture(
                sample.image,
                sample.gt_mask,
                results.anomaly_maps[i],
                scale=scale,
                name=sample.name,
                pred_score=float(results.pred_scores[i]),
                gt_label=sample.gt_label,
                note=note,
            )
            files[f"images/{sample.name}.png"] = report.png_bytes(picture)
    return files


def _run_category(
    config: Config, dataset: Dataset, category: str, programs: Programs, bar: ProgressBar
) -> tuple[pipeline.Results, dict[str, float | None], dict[str, float]]:
    """Scores one category; returns results, metrics and seconds by stage."""
    assert config.image_size is not None
    programs.seconds.clear()
    samples = dataset.samples(category, size=config.image_size)
    total = len(dataset.names(category))
    counted: Callable = lambda stage, done, _: bar(stage, done, total if stage == "features" else _)  # noqa: E731
    try:
        results = pipeline.score(samples, config, programs=programs, progress=counted)
    except ValueError as error:
        if isinstance(error, _BAD_INPUT):
            raise
        # What a sample does not fulfil, with its name; anything else is a defect of ours and keeps its traceback.
        if str(error).startswith("sample "):
            raise DataError(f"{category}: {error} (--limit, --skip_bad and --group_size are the ways out)") from None
        raise
    with programs.timed("metrics"):
        values = _metrics(results)
    return results, values, dict(programs.seconds)


def evaluate() -> None:
    """Runs what the flags say and prints the table."""
    started = time.perf_counter()
    cache_dir = Path(options.CACHE_DIR.value).expanduser()
    save = options.save_list()
    config = options.plain_config()
    # Weights first: they are checked in a second, a dataset may take minutes.
    config = _with_backbones(config, cache_dir)
    folder = ResultsFolder(Path(options.OUTPUT_DIR.value).expanduser(), options.DATASET.value)
    note = RANDOM_NOTE if config.random_weights else None
    dataset = _open(config, cache_dir)
    for warning in dataset.warnings:
        say(f"warning: {warning}")
    for category, problems in dataset.skipped.items():
        for problem in problems:
            say(f"left out of {category}: {problem}")
    with folder.locked():
        _evaluate(config, dataset, folder, save, note, started)


def _evaluate(
    config: Config,
    dataset: Dataset,
    folder: ResultsFolder,
    save: tuple[str, ...],
    note: str | None,
    started: float,
) -> None:
    programs, records = Programs(), {}
    for category in dataset.categories:
        identity = _identity(config, dataset, category)
        record = folder.finished(category, identity, save)
        if record is None:
            folder.remove_summary()
            bar = ProgressBar(f"{category}: ")
            try:
                results, values, seconds = _run_category(config, dataset, category, programs, bar)
            finally:
                bar.close()
            record = folder.write_category(
                category,
                digest=identity,
                save=save,
                files=_files(results, save, note),
                metrics=values,
                timings=seconds,
                warnings=[],
                num_samples=len(results.samples),
            )
        else:
            say(f"{category}: finished before with the same settings, taken from {folder.path / category}")
        records[category] = record
    _report(config, dataset, folder, records, programs, note, started)


def _report(
    config: Config,
    dataset: Dataset,
    folder: ResultsFolder,
    records: dict[str, Any],
    programs: Programs,
    note: str | None,
    started: float,
) -> None:
    """Prints the table and writes the summary."""
    categories = {name: record["metrics"] for name, record in records.items()}
    mean, counts = measure.mean_metrics(categories)
    timings = {
        name: {stage: s / record["num_samples"] for stage, s in record["timings"].items()}
        for name, record in records.items()
    }
    print(report.metrics_table(categories, mean, counts, note=note))
    print()
    print(report.timings_table(timings))
    published = None
    assert config.image_size is not None
    whole = options.LIMIT.value is None and not any(dataset.skipped.values())
    if note is None and whole and options.is_standard(config):
        published = report.published(
            dataset.name,
            modality=config.modality,
            backbone=config.image_backbone.name if config.image_backbone else "point_mae",
            variant=config.variant,
            image_size=config.image_size,
            categories=dataset.categories,
        )
    if published is not None:
        print()
        print(report.difference_line(mean, published))
    device = jax.devices()[0]
    run = {
        "command": sys.argv,
        "dataset": dataset.name,
        "config": config.as_dict(),
        "flags": {flag.name: flag.value for flag in flags.FLAGS.flags_by_module_dict()["launch.flags"]},
        "note": note,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "versions": _versions(),
        "seconds": {"total": time.perf_counter() - started, "compilation": programs.compile_seconds},
        "seconds_per_sample": timings,
        "samples": {name: record["num_samples"] for name, record in records.items()},
        "skipped": {name: [str(p) for p in problems] for name, problems in dataset.skipped.items()},
        "warnings": list(dataset.warnings),
    }
    folder.write_summary(
        categories,
        mean,
        metrics_csv=report.metrics_csv(categories, mean),
        run=run,
        note=note,
    )
    print(
        f"\n{folder.path}: metrics.json, metrics.csv, run.json and a folder for each category "
        f"({time.perf_counter() - started:.0f} s, of which {programs.compile_seconds:.0f} s compilation)"
    )


def main(argv: list[str]) -> int:
    """The whole program; returns the exit code."""
    again = "interrupted; the same command continues with the categories that are not finished"
    return command.execute(argv, evaluate, _BAD_INPUT, interrupted=again)


if __name__ == "__main__":
    command.run(main)
