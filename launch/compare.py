"""Compares finished runs with the published results or with each other, category by category, in percent points.

    python -m launch.compare results/eyecandies
    python -m launch.compare results/eyecandies other/eyecandies --json=differences.json
    python -m launch.compare RUN RUN RUN --to=published

RUN is a results folder of launch.eval: OUTPUT_DIR/DATASET, OUTPUT_DIR with whatever datasets are in it, or a
metrics.json. Several are compared with the first one unless --to says otherwise; a single one with the authors'
results for its own setting. Whatever differs in the settings is listed above the figures.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Before JAX starts: its notes about what hardware it did not find are not this program's messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import weights
from launch import command
from launch.own_files import RECORD
from launch.own_flags import OwnFlags
from musc_jax import report
from musc_jax.config import Config, ConfigError, RescoringConfig, usual_windows
from musc_jax.data import DATASETS
from musc_jax.report import Comparison, Published, Setting
from musc_jax.report.tables import METRIC_KEYS
from musc_jax.storage import atomic

PUBLISHED = "published"
_SUMMARY, _RECORD = "metrics.json", "run.json"
_MOST_NESTED = 3


class CompareError(ValueError):
    """What cannot be compared, and why."""


class Run(NamedTuple):
    """A finished run as it lies on disk."""

    path: Path
    """Folder, or the file that was named."""
    dataset: str
    metrics: dict[str, dict[str, float | None]]
    """Fractions for each category."""
    record: dict[str, Any] | None
    """What run.json holds; None where there is none, and the settings are unknown."""


class _Result(NamedTuple):
    """One comparison, and what it is of."""

    run: Run
    reference: Run | Published
    found: Comparison
    settings: tuple[Setting, ...]


flags = OwnFlags()
flags.DEFINE_string(
    "to",
    None,
    "What the runs are compared with: published, or another run. Default: the first of several runs; "
    "published where there is one.",
)
flags.DEFINE_string("json", None, "File that the comparison is written to as JSON, too.")


# Reading


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CompareError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise CompareError(f"{path}: no readable JSON ({error}); run launch.eval again") from None
    if not isinstance(value, dict):
        raise CompareError(f"{path}: expected a JSON object, received {type(value).__name__}")
    return value


def _read_metrics(path: Path) -> dict[str, dict[str, float | None]]:
    categories = _read_json(path).get("categories")
    if not isinstance(categories, dict) or not categories:
        raise CompareError(f"{path}: no metrics by category; expected a {_SUMMARY} of launch.eval")
    for name, row in categories.items():
        if not name.isprintable():
            raise CompareError(f"{path}: expected the name of a category, received {name!r}")
        if not isinstance(row, dict):
            raise CompareError(f"{path}: {name}: expected metrics by name, received {type(row).__name__}")
        for key in METRIC_KEYS:
            value = row.get(key)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            # A sum of floats may pass 1 by a last bit.
            if value is not None and not (number and 0 <= value <= 1 + 1e-9):
                raise CompareError(f"{path}: {name}: {key}: expected a fraction or null, received {value!r}")
    return {name: {key: row.get(key) for key in METRIC_KEYS} for name, row in categories.items()}


def _read_run(path: Path, summary: Path) -> Run:
    """A run from its metrics.json; run.json counts where it lies beside it."""
    metrics = _read_metrics(summary)
    # Beside a file of another name it may be of another run.
    beside = summary.with_name(_RECORD)
    record = _read_json(beside) if summary.name == _SUMMARY and beside.exists() else None
    dataset = (record or {}).get("dataset") or summary.absolute().parent.name
    return Run(path, str(dataset), metrics, record)


def _path(name: str, what: str) -> Path:
    if not name:
        raise CompareError(f"{what}: expected a path, received ''")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise CompareError(f"{what}: {name}: {error}") from None


def _find_runs(path: Path) -> list[Run]:
    """The runs that a RUN stands for."""
    try:
        if path.is_file():
            return [_read_run(path, path)]
        if not path.is_dir():
            raise CompareError(f"{path}: no such folder; expected a results folder of launch.eval")
        if (path / _SUMMARY).exists():
            return [_read_run(path, path / _SUMMARY)]
        folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        finished = [p for p in folders if (p / _SUMMARY).exists()]
        unfinished = [p for p in folders if p not in finished and _has_categories(p)]
        started = unfinished or any((p / RECORD).exists() for p in folders)
    except OSError as error:
        raise CompareError(f"{path}: cannot be read ({error.strerror})") from None
    if not finished:
        why = "the run is not finished" if started else "the run is not finished, or this is no folder of launch.eval"
        raise CompareError(f"{path}: no {_SUMMARY}: {why}")
    for folder in unfinished:
        command.say(f"left out: {folder}: no {_SUMMARY}: the run is not finished")
    return [_read_run(p, p / _SUMMARY) for p in finished]


def _has_categories(folder: Path, depth: int = _MOST_NESTED) -> bool:
    """Whether categories lie in a folder, of which some may lie in others (`line1/left`)."""
    try:
        inner = [p for p in folder.iterdir() if p.is_dir() and not p.is_symlink() and not (p / _SUMMARY).exists()]
    except OSError:
        return False  # no folder of ours
    return any((p / RECORD).exists() for p in inner) or (
        depth > 1 and any(_has_categories(p, depth - 1) for p in inner)
    )


# Comparing


def _usual(config: Mapping[str, Any], dataset: str, path: Path) -> dict[str, Any]:
    """The usual values of a run's config."""
    variant, modality = config["variant"], config["modality"]
    backbone, known = weights.BACKBONES[_backbone(config, path)], DATASETS.get(dataset)
    try:
        usual = Config(
            variant=variant,
            modality=modality,
            blocks=backbone.v1_blocks if variant == "v1" else backbone.blocks,
            point_norm="checkpoint" if variant == "paper" else "cloud",
            rescoring=RescoringConfig(windows=usual_windows(variant, known.v1_windows if known else None)),
        )
    except ConfigError as error:
        raise CompareError(f"{path}: {_RECORD}: {error}") from None
    return usual.as_dict()


def _backbone(config: Mapping[str, Any], path: Path) -> str:
    """The image backbone; the point encoder where there is none."""
    kind = "point_backbone" if config["modality"] == "points" else "image_backbone"
    backbone = config.get(kind)
    name = backbone.get("name") if isinstance(backbone, dict) else None
    if name == "descriptors":
        raise CompareError(f"{path}: nothing is published for points by --point_backbone=descriptors")
    if not isinstance(name, str) or name not in weights.BACKBONES:
        raise CompareError(f"{path}: {_RECORD}: config.{kind}: expected a backbone of launch.eval, received {name!r}")
    return name


def _comparable(dataset: str) -> str:
    """What is published for a dataset, to be said behind what is not."""
    settings = report.published_settings_of(dataset).items()
    listed = "; ".join(f"{modality}, {backbone}, {' or '.join(found)}" for (modality, backbone), found in settings)
    return f"; there are results for {listed}" if listed else ""


def _with_published(run: Run) -> list[_Result]:
    """A run and the published results of its setting, or of the setting nearest to it.

    Nearest: the same dataset, modality, method and backbone; at another size, in another division into subsets or
    batches, or with categories missing where results by category are published.

    Raises:
        CompareError: Nothing fits.
    """
    if run.record is None:
        raise CompareError(f"{run.path}: no {_RECORD} beside {_SUMMARY}, so the run's setting is unknown")
    config = run.record.get("config")
    if not isinstance(config, dict) or not all(isinstance(config.get(k), str) for k in ("variant", "modality")):
        raise CompareError(f"{run.path}: {_RECORD}: expected the config of launch.eval")
    backbone, usual = _backbone(config, run.path), _usual(config, run.dataset, run.path)
    setting = {"modality": config["modality"], "backbone": backbone, "variant": config["variant"]}
    candidates = report.published_results(run.dataset, **setting)
    if not candidates:
        shown = ", ".join(setting.values())
        raise CompareError(f"{run.path}: nothing is published for {run.dataset} with {shown}{_comparable(run.dataset)}")
    division = report.division(run.record)
    same = [c for c in candidates if (c.subsets, c.batch_size) == division]
    whole = [c for c in candidates if (c.subsets, c.batch_size) == (1, None)]
    reasons: list[str] = []
    for tables in (same, whole):
        results = []
        for table in tables:
            try:
                found = report.compare_with_published(run.dataset, run.metrics, table)
            except ValueError as error:
                reasons.append(str(error))
                continue
            results.append(_Result(run, table, found, report.published_settings(run.record, usual, table)))
        if results:
            return results
    raise CompareError(f"{run.path}: {'; '.join(dict.fromkeys(reasons))}")


def _with_run(run: Run, references: Sequence[Run]) -> list[_Result]:
    """A run and the one of the same dataset."""
    same = [r for r in references if r.dataset == run.dataset]
    # Two single runs were named on purpose; what differs is listed, and categories must meet.
    reference = same or references
    if len(reference) > 1:
        where = ", ".join(str(r.path) for r in reference)
        what = "several" if same else f"no run of {run.dataset}"
        raise CompareError(f"{run.path}: {what} among {where}; name the one to compare with")
    other = reference[0]
    try:
        found = report.compare_runs(run.metrics, other.metrics)
    except ValueError as error:
        raise CompareError(f"{run.path}: {other.path}: {error}") from None
    if run.record is None or other.record is None:
        unknown = [str(r.path) for r in (run, other) if r.record is None]
        note = f"settings unknown, no {_RECORD} beside {' and '.join(unknown)}"
        return [_Result(run, other, found._replace(notes=(*found.notes, note)), ())]
    return [_Result(run, other, found, report.run_settings(run.record, other.record))]


def _reference_name(reference: Run | Published) -> str:
    if isinstance(reference, Run):
        return str(reference.path)
    sizes = " or ".join(map(str, reference.sizes)) + (" (not settled)" if len(reference.sizes) > 1 else "")
    return f"published, {reference.table}: {reference.setting} at {sizes}"


def _as_json(results: Sequence[_Result], left_out: Sequence[str]) -> dict[str, Any]:
    comparisons = []
    for run, reference, found, settings in results:
        if isinstance(reference, Run):
            other: dict[str, Any] = {"run": str(reference.path), "dataset": reference.dataset}
        else:
            other = {"published": reference.table, "setting": reference.setting, "image_sizes": list(reference.sizes)}
        one = {"run": str(run.path), "dataset": run.dataset, "reference": other}
        comparisons.append(one | report.comparison_json(found, settings=settings))
    return {"unit": "percent; differences in percent points", "comparisons": comparisons, "left_out": list(left_out)}


def _write_json(path: Path, value: Mapping[str, Any], runs: Sequence[Run]) -> None:
    """Writes the file, whole or not at all, unless it is one of those that are compared."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    own = {run.path.resolve() for run in runs if run.path.is_file()}
    own |= {(run.path / name).resolve() for run in runs for name in (_SUMMARY, _RECORD)}
    try:
        if path.resolve() in own:
            raise CompareError(f"--json={path}: is a file of a run that is compared; pass another name")
        atomic.write_text(path, text)
    except OSError as error:
        raise CompareError(f"--json={path}: cannot be written ({error.strerror}); pass another file") from None


def _compare(names: Sequence[str]) -> None:
    if not names:
        raise CompareError("expected at least one RUN, a results folder of launch.eval; see --help")
    target, file = flags.FLAGS.to, flags.FLAGS.json
    output = None if file is None else _path(file, "--json")
    if output is not None and not output.name:
        raise CompareError(f"--json={file}: expected a file")
    runs = [_find_runs(_path(name, "RUN")) for name in names]
    references: list[Run] | None = None
    if target is None and len(runs) > 1:
        references = runs.pop(0)
    elif target not in (None, PUBLISHED):
        references = _find_runs(_path(target, "--to"))
    results: list[_Result] = []
    left_out: list[str] = []
    compared = [run for group in runs for run in group]
    for run in compared:
        try:
            results += _with_published(run) if references is None else _with_run(run, references)
        except CompareError as error:
            left_out.append(str(error))
    if not results:
        raise CompareError("; ".join(left_out))
    if output is not None:
        _write_json(output, _as_json(results, left_out), [*compared, *(references or [])])
    tables = (
        report.comparison_table(found, run=str(run.path), reference=_reference_name(reference), settings=settings)
        for run, reference, found, settings in results
    )
    # Names of files need not be text, and what is no text cannot be printed.
    print("\n\n".join(tables).encode(errors="backslashreplace").decode())
    for line in left_out:
        command.say(f"left out: {line}")


def main(argv: list[str]) -> int:
    """The whole program; returns the exit code."""
    # What is no flag is a RUN here, where other commands refuse it.
    return command.execute(
        argv,
        lambda: _compare(flags.arguments),
        (CompareError,),
        interrupted="interrupted",
        own=(flags,),
        about=__doc__,
        takes_arguments=True,
    )


if __name__ == "__main__":
    command.run(main)
