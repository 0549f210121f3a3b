"""Scores the samples of a dataset, category by category, and reports how well that finds the defects.

With no flags it runs the demo: a synthetic set of candies, images and point clouds, random weights.

    python -m launch.eval
    python -m launch.eval --dataset=eyecandies --data_dir=DIR --save=maps,images

Parts of your own need no labels:

    python -m launch.eval --dataset=folder --data_dir=DIR --save=maps,images
    python -m launch.eval --dataset=folder --data_dir=DIR --normal_dir=good --abnormal_dir=bad --mask_dir=masks

Tokens of any other backbone, a file for each sample (docs/features.md), need no weights:

    python -m launch.eval --dataset=folder --data_dir=DIR --features=TOKENS
"""

import contextlib
import importlib
import os
import time

# Before JAX starts: its notes about what hardware it did not find are not this program's messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


from launch import command, distributed, start
from launch import flags as options
from launch import input_flags as inputs
from launch.command import say
from launch.compilation import keep_programs
from launch.evaluation import run_category
from launch.identity import category_digest, expect_same
from launch.output import ResultsFolder, refuse_within
from launch.progress import ProgressBar
from launch.summary import summarise
from launch.unwritten import Unwritten
from launch.writing import finished_records, origins, write_results
from musc_jax.data import Dataset
from musc_jax.execution.programs import Programs
from musc_jax.resolved import Resolved

_FLAGS = (options.flags, distributed.flags)


def evaluate() -> None:
    """Runs what the flags say and prints the table."""
    started = time.perf_counter()
    start.expect_devices()
    # Metrics import it when they are needed; the second that this takes is not theirs.
    importlib.import_module("sklearn.metrics")
    cache_dir, data_folders = command.path("cache_dir", options.CACHE_DIR.value), inputs.data_folders()
    refuse_within(cache_dir, data_folders, "--cache_dir")
    keep_programs(cache_dir)
    save = options.save_list()
    options.memory_budget()
    # Weights first: they are checked in a second, a dataset may take minutes.
    features = start.given_features()
    config, division = options.plain_config(features), options.division()
    resolved = start.with_backbones(config, cache_dir, features).resolved()
    config = resolved.config
    folder = None
    if distributed.is_first():
        output_dir = command.path("output_dir", options.OUTPUT_DIR.value)
        folder = ResultsFolder(
            output_dir, inputs.DATASET.value, data_folders=data_folders, replace=options.REPLACE.value
        )
        folder.expect(dict.fromkeys(inputs.CATEGORIES.value or (), ()))  # before what takes minutes, and again below
    note = start.RANDOM_NOTE if config.random_weights else None
    dataset = start.open_samples(resolved, cache_dir, features)
    start.tell(dataset)
    expect_same(config, dataset, division)
    with folder.locked() if folder else contextlib.nullcontext():
        if folder:
            folder.expect({name: dataset.names(name) for name in dataset.categories}, save)
            folder.expect_same_data(origins(dataset))
        _evaluate(resolved, dataset, division, folder, save, note, started)


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
    digests = {category: category_digest(config, dataset, category, division) for category in dataset.categories}
    finished = finished_records(dataset, digests, folder, save, size=resolved.size) if folder else {}
    unwritten = Unwritten(cache_dir)
    for category, digest in digests.items():
        record = finished.get(category)
        scored = unwritten.recall(digest, dataset, category, resolved.size) if folder and record is None else None
        if not distributed.agreed(record is not None or scored is not None):
            if folder:
                folder.remove_summary()
            bar = ProgressBar(f"{category}: ")
            try:
                scored = run_category(
                    resolved,
                    dataset,
                    category,
                    division,
                    budget=budget,
                    cache_dir=cache_dir,
                    skip_bad=inputs.SKIP_BAD.value,
                    programs=programs,
                    bar=bar,
                )
            finally:
                bar.close()
        elif folder:
            place = folder.folder(category) if record else "the cache, where it was kept"
            say(f"{category}: finished before with the same settings, taken from {place}")
        if folder is None:
            continue
        if scored is not None:
            record = write_results(
                folder, dataset, category, digest, scored, unwritten, resolved=resolved, save=save, note=note
            )
        records[category] = record
    if folder:
        summarise(resolved, dataset, division, folder, records, programs, note, started, origins=origins(dataset))
        unwritten.forget(list(digests.values()))


def main(argv: list[str]) -> int:
    """The whole program; returns the exit code."""
    again = "interrupted; the same command continues with the categories that are not finished"
    work = distributed.together(evaluate)
    code = command.execute(argv, work, start.BAD_INPUT, interrupted=again, own=_FLAGS, about=__doc__)
    return distributed.leave(code)


if __name__ == "__main__":
    command.run(main)
