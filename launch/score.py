"""Scores your own parts: no labels, no masks, no training. They score each other.

    python -m launch.score DIR
    python -m launch.score --images=DIR --points=DIR
    python -m launch.score DIR --threshold=rate:0.05 --save=masks,overlays

Pictures in DIR and the folders in it are samples of one product. Written are scores.csv, predictions.jsonl,
regions.csv, masks, overlays and maps; the dataset is never touched.
"""

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

# Before JAX starts: its notes about what hardware it did not find are not this program's messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax

from launch import command, score_flags, start
from launch import flags as options
from launch import input_flags as inputs
from launch.command import say
from launch.compilation import keep_programs
from launch.evaluation import Scored, few_samples, run_category, shared_defects
from launch.explaining import Explanations
from launch.identity import category_digest
from launch.output import ResultsFolder, digest_of, refuse_within
from launch.own_files import REPORT, RUN, TABLES, json_text
from launch.progress import ProgressBar
from launch.score_files import ProductFiles, least_bytes
from launch.score_page import pictures_of, product_page
from launch.score_verdicts import Verdicts, verdicts_on
from launch.summary import versions
from launch.unwritten import Unwritten
from launch.writing import origins
from musc_jax.config import ConfigError
from musc_jax.data import Dataset
from musc_jax.execution.programs import Programs
from musc_jax.predictions import Predictions, predict
from musc_jax.resolved import Resolved

_NAME = "score"
_WORST = 5
_KEPT = "scores"
_BAD_INPUT = start.BAD_INPUT


def score() -> None:
    """Does what the flags say."""
    started = time.perf_counter()
    score_flags.apply(score_flags.flags.arguments)
    start.expect_devices()
    cache_dir, data_folders = command.path("cache_dir", options.CACHE_DIR.value), inputs.data_folders()
    refuse_within(cache_dir, data_folders, "--cache_dir")
    keep_programs(cache_dir)
    save = score_flags.save_list()
    features = start.given_features()
    config, division = options.plain_config(features), options.division()
    if not division.plain:
        raise ConfigError("--subsets, --batch_size, --normal_ratio: launch.eval has them; here all samples are scored")
    budget = options.memory_budget()
    earlier = _earlier(score_flags.THRESHOLD_FROM.value)
    output_dir = command.path("output_dir", options.OUTPUT_DIR.value)
    # Before weights are fetched, which may take minutes.
    folder = ResultsFolder(output_dir, _NAME, data_folders=data_folders, replace=options.REPLACE.value)
    resolved = start.with_backbones(config, cache_dir, features).resolved()
    note = start.RANDOM_NOTE if resolved.config.random_weights else None
    dataset = start.open_samples(resolved, cache_dir, features)
    start.tell(dataset)
    verdicts = verdicts_on(dataset)
    with folder.locked():
        folder.expect({name: dataset.names(name) for name in dataset.categories}, save, tables=TABLES)
        folder.expect_same_data(origins(dataset))
        folder.expect_space(
            sum(least_bytes(len(dataset.names(name)), resolved.size, save) for name in dataset.categories)
        )
        explanations = Explanations(
            dataset, score_flags.EXPLAIN.value, resolved, k=score_flags.EXPLAIN_K.value, worst="report" in save
        )
        programs, products = Programs(profile=options.PROFILE.value), {}
        for category in dataset.categories:
            scored = _scored(
                resolved, dataset, category, division, budget, cache_dir, programs, explanations, verdicts.silent
            )
            predictions = _predictions(scored, category, earlier, verdicts)
            products[category] = _product(dataset, category, scored, predictions)
            run = _run(resolved, dataset, {category: products[category]}, note, started)
            _write(folder, resolved, dataset, category, scored, predictions, save, run, explanations)
            place = folder.folder(category)
            _tell(
                category,
                predictions,
                place,
                note,
                by=_decided_by(predictions, category, earlier),
                explained=explanations.lines(category, predictions, place),
                page="report" in save,
            )
        folder.write(RUN, json_text(_run(resolved, dataset, products, note, started)))


def _scored(
    resolved: Resolved,
    dataset: Dataset,
    category: str,
    division: options.Division,
    budget: int,
    cache_dir: Path,
    programs: Programs,
    explanations: Explanations,
    silent: frozenset[str],
) -> Scored:
    """A product's scores: those in the cache, if nothing has changed that they depend on, or new ones."""
    digest, kept = category_digest(resolved.config, dataset, category, division), Unwritten(cache_dir, _KEPT)
    if silent:
        digest = digest_of([digest, sorted(silent)])
    known = kept.recall(digest, dataset, category, resolved.size)
    if known is not None and (inputs.SKIP_BAD.value or not known.results.skipped):
        say(f"{category}: scored before with the same settings; the scores are taken from the cache")
        missing = explanations.missing(category, known.results)
        if missing:
            say(f"{category}: what is explained takes features anew")
            skip_bad = inputs.SKIP_BAD.value
            votes = explanations.answer(
                category,
                missing,
                budget=budget,
                cache_dir=cache_dir,
                skip_bad=skip_bad,
                programs=programs,
                silent=silent,
            )
            others = [vote for vote in known.results.votes if vote.question not in missing]
            known = known._replace(results=known.results._replace(votes=(*others, *votes)))
            kept.keep(digest, known)
        return known
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
            inquiry=explanations.inquiry(category),
            silent=silent,
        )
    finally:
        bar.close()
    # Before anything is decided or written: another threshold, or a full disk, does not score anew.
    if kept.keep(digest, scored) is None:
        say(f"{category}: the scores could not be kept in {cache_dir}; another run computes them anew")
    return scored


class _Earlier(NamedTuple):
    """What an earlier run decided."""

    place: Path
    """Its run.json."""
    products: dict[str, dict[str, Any]]

    def of(self, category: str) -> dict[str, Any]:
        """What was decided about a product; where there is only one, that one's.

        Raises:
            ConfigError: There is none of that name, or it has no threshold.
        """
        one = next(iter(self.products.values())) if len(self.products) == 1 else None
        found = self.products.get(category, one)
        if found is None:
            raise ConfigError(f"--threshold_from: has no product {category!r}; it has {', '.join(self.products)}")
        if found["map_threshold"] is None:
            raise ConfigError("--threshold_from: that run found no clear defects, so it has no threshold to carry over")
        return found


def _earlier(run: str | None) -> _Earlier | None:
    """The earlier run whose thresholds are carried over."""
    if run is None:
        return None
    path = command.path("threshold_from", run)
    path = path / RUN if path.is_dir() else path
    try:
        products = json.loads(path.read_text(encoding="utf-8"))["products"]
        needed = ("map_threshold", "pixel_threshold", "rule")
        found = {name: {key: value[key] for key in needed} for name, value in products.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"--threshold_from: {path}: is no run.json of launch.score; give the folder of its results"
        ) from None
    return _Earlier(path, found)


def _predictions(scored: Scored, category: str, earlier: _Earlier | None, verdicts: Verdicts) -> Predictions:
    pixels, results = score_flags.PIXEL_THRESHOLD.value, scored.results
    if earlier is not None:
        found = earlier.of(category)
        # In units of the maps: scores are relative to their own batch.
        pixels = float(found["pixel_threshold"]) if pixels is None else pixels
        carried = float(found["map_threshold"])
        return predict(results, map_threshold=carried, pixel_threshold=pixels, verdicts=verdicts.of)
    try:
        return predict(results, threshold=verdicts.rule, pixel_threshold=pixels, verdicts=verdicts.of)
    except ValueError as error:  # samples with the only verdicts of a kind were left out
        raise ConfigError(f"--{error}") from None


def _write(
    folder: ResultsFolder,
    resolved: Resolved,
    dataset: Dataset,
    category: str,
    scored: Scored,
    predictions: Predictions,
    save: tuple[str, ...],
    run: Mapping[str, Any],
    explanations: Explanations,
) -> None:
    """Writes a product's files, its tables first; `run` is of it alone, as a run of others replaces the one above."""
    note, skipped = run["note"], run["products"][category]["skipped"]
    picture = pictures_of(dataset, category, predictions)
    files = ProductFiles(predictions, save, picture)
    tables = {**files.tables(), RUN: json_text(run).encode()}
    odd = [*few_samples(dataset, category, resolved), *shared_defects(category, scored.results)]
    facts: dict[str, Any] = {
        "digest": "",
        "metrics": {},
        "timings": scored.seconds,
        "warnings": [*([note] if note else []), *odd],
        "num_samples": len(predictions),
        "skipped": skipped,
        "origin": origins(dataset)[category],
    }
    folder.write_category(category, save=(), files=tables, **facts)
    drawn = explanations.drawn(category, predictions)
    page = partial(product_page, dataset, category, predictions, resolved, picture=picture, voters=drawn.page_pictures)
    page = partial(page, skipped=skipped, warnings=odd, note=note)
    asked = (drawn.file(*one) for one in explanations.asked(category, predictions))
    bar = ProgressBar(f"{category}: ")
    try:
        written = _counted(files.saved(), bar, len(predictions))
        whole = itertools.chain(tables.items(), written, asked, _last(page, save))
        folder.write_category(category, save=save, files=whole, **facts)
    finally:
        bar.close()


def _product(dataset: Dataset, category: str, scored: Scored, predictions: Predictions) -> dict[str, Any]:
    """What run.json says about a product."""
    decision = predictions.decision
    return {
        "num_samples": len(predictions),
        "skipped": [*dataset.skipped[category], *(error.name for error in scored.results.skipped)],
        "threshold": decision.threshold,
        "map_threshold": predictions.map_threshold,
        "rule": decision.rule,
        "pixel_threshold": predictions.pixel_threshold,
        "num_defective": decision.num_defective,
        "recurring": [list(group) for group in scored.results.recurring],
        "decisions": [decision._asdict() for decision in predictions.decisions],
        "seconds": dict(scored.seconds),
    }


def _counted(files: Iterator[tuple[str, bytes]], bar: ProgressBar, total: int) -> Iterator[tuple[str, bytes]]:
    """The same files, counted by what lies in the first folder of them."""
    done, first = 0, None
    for name, data in files:
        first = first or name.split("/")[0]
        done += name.startswith(f"{first}/")
        bar("write", done, total)
        yield name, data


def _last(page: Callable[[], str], save: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    if "report" in save:
        yield REPORT, page().encode()


def _decided_by(predictions: Predictions, category: str, earlier: _Earlier | None) -> str:
    """Who decided, for people."""
    if earlier is None:
        return predictions.decision.rule
    return f"the threshold of {earlier.place} (by {earlier.of(category)['rule']} there)"


def _tell(
    category: str,
    predictions: Predictions,
    place: Path,
    note: str | None,
    *,
    by: str,
    explained: Sequence[str],
    page: bool,
) -> None:
    """The worst samples, what was decided, and where to look."""
    worst = predictions.worst_first()[:_WORST]
    print(f"{category}: {len(predictions)} samples; the highest scores:")
    width = max(len(sample.name) for sample in worst)
    for sample in worst:
        called = "defective" if sample.pred_label else "-"
        print(f"  {sample.rank:>3}  {sample.name:<{width}}  {sample.pred_score:.4f}  {called}")
    first, *others = predictions.decisions
    if first.threshold is None:
        print(f"decided by {by}: no clear defects, none is called defective")
    else:
        hangs = f", {first.lowest} to {first.highest} with one sample left out" if first.lowest < first.highest else ""
        print(f"decided by {by}: {first.num_defective} called defective, above {first.threshold:.4f}{hangs}")
    print(f"  assumes that {first.assumes}")
    print(f"  {'; '.join(f'{d.rule}: {d.num_defective}' for d in others)}")
    for line in explained:
        print(line)
    if note:
        print(f"NOTE: {note}")
    print(f"{category}: {place / REPORT if page else place}")


def _run(
    resolved: Resolved, dataset: Dataset, products: Mapping[str, Any], note: str | None, started: float
) -> dict[str, Any]:
    """What run.json says of these products."""
    device = jax.devices()[0]
    return {
        "command": options.flags.argv,
        "dataset": dataset.name,
        "config": resolved.config.as_dict(),
        "flags": {flag.name: flag.value for own in (score_flags.flags, options.flags) for flag in own.all},
        "note": note,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "versions": versions(),
        "seconds": time.perf_counter() - started,
        "products": products,
        "inputs": {name: dataset.accounts[name].facts for name in products},
        "warnings": list(dataset.warnings),
    }


def main(argv: list[str]) -> int:
    """The whole program; returns the exit code."""
    if any(a.lstrip("-") in ("help", "h", "helpshort") for a in argv[1:] if a.startswith("-")):
        print(score_flags.short_help(__doc__ or ""))
        return 0
    again = "interrupted; the same command goes on, with the scores that it has"
    own = (options.flags, score_flags.flags)
    return command.execute(argv, score, _BAD_INPUT, interrupted=again, own=own, about=__doc__, takes_arguments=True)


if __name__ == "__main__":
    command.run(main)
