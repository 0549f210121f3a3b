"""Scores the samples of a dataset, category by category, and reports how well that finds the defects.

With no flags it runs the demo: a synthetic set of candies, images and point clouds, random weights.

    python -m launch.eval
    python -m launch.eval --dataset=eyecandies --data_dir=DIR --save=maps,images

Parts of your own need no labels:

    python -m launch.eval --dataset=folder --data_dir=DIR --save=maps,images
    python -m launch.eval --dataset=folder --data_dir=DIR --normal_dir=good --abnormal_dir=bad --mask_dir=masks
"""

import contextlib
import dataclasses
import importlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Before JAX starts: its notes about what hardware it did not find are not this program's messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import numpy as np

import weights
from launch import command, distributed
from launch import flags as options
from launch import input_flags as inputs
from launch.command import say
from launch.compilation import keep_programs
from launch.output import (
    SCORES,
    OutputError,
    ResultsFolder,
    digest_of,
    map_tiff,
    refuse_within,
    saved_file,
    scores_csv,
)
from launch.progress import ProgressBar
from launch.summary import summarise, versions
from musc_jax import metrics as measure
from musc_jax import pipeline, report
from musc_jax.config import Config, ConfigError
from musc_jax.data import DataError, Dataset, Sample, SampleError, open_dataset
from musc_jax.execution.feature_store import FeatureStore, StoreError
from musc_jax.execution.memory import BudgetError, Plan, return_freed_memory
from musc_jax.execution.programs import Programs
from musc_jax.execution.scoring import plan_for
from musc_jax.resolved import Resolved
from musc_jax.storage import atomic
from musc_jax.storage.paths import readable
from musc_jax.subsets import divide, thin_out

_FLAGS = (options.flags, distributed.flags)
RANDOM_NOTE = "random weights: the figures say nothing about the method's accuracy with pretrained ones"
_PLATFORM_SETTINGS = ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES", "CUDA_VISIBLE_DEVICES")
_BAD_INPUT = (BudgetError, ConfigError, DataError, OutputError, distributed.LostProcessError, weights.WeightsError)


def _open(config: Resolved, cache_dir: Path) -> Dataset:
    image = config.config.image_backbone
    bar = ProgressBar()
    try:
        return open_dataset(
            inputs.DATASET.value,
            data_dir=command.expanded(inputs.DATA_DIR.value),
            categories=inputs.CATEGORIES.value,
            modality=config.config.modality,
            cache_dir=cache_dir,
            limit=inputs.LIMIT.value,
            skip_bad=inputs.SKIP_BAD.value,
            seed=options.SEED.value,
            progress=bar,
            folder=inputs.folder_layout(),
            working=(config.size, 1 if image is None else image.module.config.patch_size),
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
        bar = ProgressBar(f"{name}: ", in_bytes=True)
        try:
            found[field] = options.load_backbone(where, name, cache_dir, report=say, progress=bar)
        except weights.WeightsError as error:
            missing.append(str(error))
        finally:
            bar.close()
    if missing:
        raise weights.WeightsError("\nerror: ".join(missing))
    return dataclasses.replace(config, **found)


def _settings(config: Config, division: options.Division) -> dict[str, Any]:
    """Everything but the samples that changes a category's numbers."""
    device = jax.devices()[0]
    return {
        "config": config.as_dict(),
        "activation": options.ACTIVATION.value,
        "dtype": options.DTYPE.value,
        "versions": versions(),
        "device": [device.platform, device.device_kind],
        "division": None if division.plain else [*division[:2], str(division.normal_ratio), division.seeds],
    }


def _identity(config: Config, dataset: Dataset, category: str, division: options.Division) -> str:
    """Digest of everything that changes a category's numbers."""
    return digest_of(_settings(config, division) | {"samples": dataset.digest(category)})


def _expect_same(config: Config, dataset: Dataset, division: options.Division) -> None:
    """Refuses processes that would score different samples, or the same ones differently."""
    samples = {name: dataset.digest(name) for name in dataset.categories}
    settings = _settings(config, division)
    # By field, so that the one that differs is named; a backbone as a whole, as not every modality has both.
    fields: dict[str, Any] = {}
    for name, value in settings.pop("config").items():
        is_concern = isinstance(value, dict) and not name.endswith("_backbone")
        fields |= {f"{name}.{key}": part for key, part in value.items()} if is_concern else {name: value}
    different = distributed.differing(
        {
            "the categories or their samples (--data_dir, --categories, --limit)": digest_of(samples),
            "versions": digest_of(settings.pop("versions")),
            "devices": digest_of(settings.pop("device")),
            "--skip_bad": digest_of(inputs.SKIP_BAD.value),
            "other flags": digest_of(settings),
            **{name: digest_of(value) for name, value in fields.items()},
        }
    )
    if different:
        raise ConfigError(f"several processes: expected the same for all, but these differ: {', '.join(different)}")


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
            # Their own names may be more than a file's here could be called.
            "name": readable(sample.image_path.name),
            "image_path": readable(sample.image_path),
        }
        for sample, pred, highest in zip(results.samples, results.pred_scores, results.max_scores, strict=True)
    ]
    files = {SCORES: scores_csv(rows)}
    if "maps" in save:
        for sample, anomaly_map in zip(results.samples, results.anomaly_maps, strict=True):
            files[saved_file("maps", sample.name)] = map_tiff(anomaly_map)
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
            files[saved_file("images", sample.name)] = report.png_bytes(picture)
    return files


class _Scored(NamedTuple):
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
        yield None
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


def _run_category(
    config: Resolved,
    dataset: Dataset,
    category: str,
    division: options.Division,
    budget: int,
    cache_dir: Path,
    programs: Programs,
    bar: ProgressBar,
) -> _Scored:
    """Scores one category, with every seed from the same features."""
    programs.seconds.clear()
    started, compiled = time.perf_counter(), programs.compile_seconds
    total, mesh = len(dataset.names(category)), pipeline.usual_mesh()
    own = range(total) if mesh is None else pipeline.own_share(total, mesh)
    plan = plan_for(config, total, budget, mesh)
    return_freed_memory(scarce=plan.scarce)
    say(f"{category}: {plan.describe()}")
    samples = dataset.samples(category, size=config.size, only=own)
    label = [""]

    def divided(seen: Sequence[Sample]) -> Iterator[list[np.ndarray]]:
        for seed in division.seeds:
            label[0] = f"seed {seed}: " if len(division.seeds) > 1 else ""
            yield _parts(seen, division, seed, category)

    def counted(stage: str, done: int, count: int | None) -> None:
        bar(stage if stage == "features" else f"{label[0]}{stage}", done, count)

    first, values = None, {}
    try:
        with feature_store(cache_dir, plan) as store:
            repetitions = pipeline.score_divisions(
                samples,
                config,
                divided,
                programs,
                total=total,
                plan=plan,
                store=store,
                mesh=mesh,
                skip_bad=inputs.SKIP_BAD.value,
                progress=counted,
            )
            for seed, results in zip(division.seeds, repetitions, strict=True):
                if first is None:
                    first = results
                    for error in results.skipped:
                        say(f"left out of {category}: {error}")
                with programs.timed("metrics"):
                    values[str(seed)] = _metrics(results) if distributed.is_first() else {}
    except SampleError as error:
        raise DataError(f"{category}: {error}") from None
    assert first is not None  # a division has at least one seed
    whole = time.perf_counter() - started - (programs.compile_seconds - compiled)
    return _Scored(first, values, {**programs.seconds, "all": whole})


def evaluate() -> None:
    """Runs what the flags say and prints the table."""
    started = time.perf_counter()
    _expect_devices()
    # Metrics import it when they are needed; the second that this takes is not theirs.
    importlib.import_module("sklearn.metrics")
    cache_dir, data_folders = command.path("cache_dir", options.CACHE_DIR.value), inputs.data_folders()
    refuse_within(cache_dir, data_folders, "--cache_dir")
    keep_programs(cache_dir)
    save = options.save_list()
    config, division = options.plain_config(), options.division()
    options.memory_budget()
    # Weights first: they are checked in a second, a dataset may take minutes.
    resolved = _with_backbones(config, cache_dir).resolved()
    config = resolved.config
    folder = None
    if distributed.is_first():
        output_dir = command.path("output_dir", options.OUTPUT_DIR.value)
        folder = ResultsFolder(output_dir, inputs.DATASET.value, data_folders=data_folders)
        folder.expect(dict.fromkeys(inputs.CATEGORIES.value or (), ()))  # before what takes minutes, and again below
    note = RANDOM_NOTE if config.random_weights else None
    dataset = _open(resolved, cache_dir)
    for category, account in dataset.accounts.items():
        for line in account.lines:
            say(f"{category}: {line}")
    for warning in dataset.warnings:
        say(f"warning: {warning}")
    for category, problems in dataset.skipped.items():
        for problem in problems:
            say(f"left out of {category}: {problem}")
    _expect_same(config, dataset, division)
    with folder.locked() if folder else contextlib.nullcontext():
        if folder:
            folder.expect({name: dataset.names(name) for name in dataset.categories}, save)
        _evaluate(resolved, dataset, division, folder, save, note, started)


def _expect_devices() -> None:
    """Refuses a platform, asked for by JAX's own variables, that JAX cannot use here."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no plugin for it is installed"])[0]
        asked = " ".join(f"{name}={os.environ[name]}" for name in _PLATFORM_SETTINGS if name in os.environ)
        raise ConfigError(
            f"{asked or 'JAX'}: JAX has no device to run on ({reason}); unset what asks for it, or install what brings "
            "it, such as the extra `cuda` or `tpu`"
        ) from None


def _evaluate(
    resolved: Resolved,
    dataset: Dataset,
    division: options.Division,
    folder: ResultsFolder | None,
    save: tuple[str, ...],
    note: str | None,
    started: float,
) -> None:
    """Category by category; of several processes the first has the folder, looks into it, writes and reports."""
    programs, records, config = Programs(profile=options.PROFILE.value), {}, resolved.config
    budget, cache_dir = options.memory_budget(), command.path("cache_dir", options.CACHE_DIR.value)
    for category in dataset.categories:
        identity = _identity(config, dataset, category, division)
        record = folder.finished(category, identity, save) if folder else None
        if record and record.get("skipped") and not inputs.SKIP_BAD.value:
            record = None  # samples were left out on request, and nobody requests it now
        if not distributed.agreed(record is not None):
            if folder:
                folder.remove_summary()
            bar = ProgressBar(f"{category}: ")
            try:
                scored = _run_category(resolved, dataset, category, division, budget, cache_dir, programs, bar)
            finally:
                bar.close()
            if folder is None:
                continue
            record = folder.write_category(
                category,
                digest=identity,
                save=save,
                files=_files(scored.results, save, note),
                metrics=measure.mean_metrics(scored.metrics)[0],
                timings=scored.seconds,
                warnings=[f"left out of {category}: {error}" for error in scored.results.skipped],
                num_samples=len(dataset.names(category)) - len(scored.results.skipped),
                skipped=[error.name for error in scored.results.skipped],
                seeds=scored.metrics if len(scored.metrics) > 1 else None,
            )
        elif folder:
            say(f"{category}: finished before with the same settings, taken from {folder.folder(category)}")
        records[category] = record
    if folder:
        summarise(config, dataset, division, folder, records, programs, note, started)


def main(argv: list[str]) -> int:
    """The whole program; returns the exit code."""
    again = "interrupted; the same command continues with the categories that are not finished"
    work = distributed.together(evaluate)
    code = command.execute(argv, work, _BAD_INPUT, interrupted=again, own=_FLAGS, about=__doc__)
    return distributed.leave(code)


if __name__ == "__main__":
    command.run(main)
