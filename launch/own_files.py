"""What in a results folder this program has written, by the records it keeps, so that nothing else is ever replaced."""

import contextlib
import csv
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from musc_jax.storage.paths import UnsafeNameError, below

WAY_OUT = "move it away or pass another --output_dir"
"""What to do about anything that is in the way."""

RECORD = "category.json"
"""Lies in every category's folder and lists the files beside it that are ours."""

SCORES = "scores.csv"
"""The table of a category's samples."""

PREDICTIONS = "predictions.jsonl"
"""The same table with the places of maps, masks and overlays, and boxes."""

REGIONS = "regions.csv"
"""The table of hot regions."""

REPORT = "report.html"
"""The page to look at."""

RUN = "run.json"
"""What a run was given, assumed and decided; beside a product's tables, of that product alone."""

TABLES = (SCORES, PREDICTIONS, REGIONS, REPORT, RUN)
"""What may lie directly in a category's folder, beside its record."""

SAVED = {
    "maps": "maps/{}.tiff",
    "images": "images/{}.png",
    "masks": "masks/{}.png",
    "overlays": "overlays/{}.jpg",
    "full_maps": "full_maps/{}.tiff",
    "full_overlays": "full_overlays/{}.png",
    "explain": "explain/{}.png",
}
"""What else is saved of each sample."""

SUMMARIES = ("metrics.json", "metrics.csv", RUN)
"""The files of a run as a whole."""

_RECORD_KEYS = frozenset({"digest", "saved", "metrics", "num_samples", "files"})
_SUMMARY_KEYS = {"metrics.json": {"categories", "mean"}, RUN: {"command", "dataset", "config"}}


class OutputError(ValueError):
    """The results folder cannot be used; the message says why and what to pass instead."""


class Origin(NamedTuple):
    """What results were computed from."""

    source: tuple[str, ...]
    """The folders that the samples lie in, the first of them the dataset's; none for one that is made."""
    samples: str
    """Digest of the samples."""

    @classmethod
    def of(cls, record: Mapping[str, Any] | None) -> "Origin | None":
        """What a record says; None where it does not."""
        source, samples = (record or {}).get("source"), (record or {}).get("samples")
        if not isinstance(source, list | tuple) or not isinstance(samples, str):
            return None
        return cls(tuple(map(str, source)), samples)

    @property
    def root(self) -> str:
        """The dataset's folder."""
        return self.source[0] if self.source else ""

    def is_other(self, origin: "Origin") -> bool:
        """Whether these are other samples: neither of the same folders, nor the same ones that have been moved."""
        return self.source != origin.source and self.samples != origin.samples

    def __str__(self) -> str:
        return ", ".join(self.source) or "a dataset that is made"


def summary_origins(folder: Path) -> dict[str, Origin]:
    """What the categories of a run's summary were computed from; nothing where it does not say."""
    run = _object(folder / RUN) or {}
    given = run.get("origins")
    found = {name: Origin.of(entry) for name, entry in given.items()} if isinstance(given, dict) else {}
    return {name: origin for name, origin in found.items() if origin is not None}


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a category's folder; None where there is none of ours."""
    record = _object(folder / RECORD)
    if record is None or not record.keys() >= _RECORD_KEYS or not isinstance(record["files"], dict):
        return None
    return record if all(map(_is_own_name, record["files"])) else None


def _is_own_name(name: str) -> bool:
    """Whether a record may claim a file: no other than those that we write, whoever wrote the record."""
    try:
        below(Path(), name)
    except UnsafeNameError:
        return False
    ends = (pattern.split("{}") for pattern in SAVED.values())
    saved = (name.startswith(start) and name.endswith(end) and name.count("/") == 1 for start, end in ends)
    return name in TABLES or any(saved)


def _begun_record(*records: dict[str, Any]) -> dict[str, Any]:
    """The record of a folder whose files are being replaced: finished as nothing, and ours are those of all records."""
    files = {name: None for record in records for name in record["files"]}
    origin = Origin.of(records[-1]) if records else None
    begun: dict[str, Any] = {"digest": None, "saved": [], "metrics": {}, "num_samples": 0, "files": files}
    return begun | (origin._asdict() if origin else {})


def _holds_only_results(folder: Path) -> bool:
    """Whether all that lies in a folder without a record are categories further below, or nothing at all."""
    with os.scandir(folder) as entries:
        inner = list(entries)
    return all(
        entry.is_dir(follow_symlinks=False)
        and (read_record(Path(entry.path)) is not None or _holds_only_results(Path(entry.path)))
        for entry in inner
    )


def refuse_foreign(folder: Path, files: Sequence[str]) -> None:
    """Refuses to write into a folder that is there and is not ours, or over a file in it that is not."""
    places = {}
    for name in files:
        try:
            places[name] = below(folder, name)
        except UnsafeNameError as error:
            raise OutputError(f"{folder}: {error}") from None
    if not os.path.lexists(folder):
        return
    record = read_record(folder)
    if record is None and not _holds_only_results(folder):
        raise OutputError(
            f"{folder}: is there already and no results of an earlier run (no {RECORD} of one), so nothing in it is "
            f"replaced; {WAY_OUT}"
        )
    known = {} if record is None else {name: below(folder, name) for name in record["files"]}
    for parent in dict.fromkeys(place.parent for place in (*places.values(), *known.values())):
        if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
            raise OutputError(f"{parent}: is no folder, and nothing is written through it; {WAY_OUT}")
    for name, place in places.items():
        if os.path.lexists(place) and not (name in known and is_plain_file(place)):
            raise OutputError(f"{place}: is not of an earlier run, so it is not replaced; {WAY_OUT}")


def replace_own(partial: Path, final: Path, record: dict[str, Any]) -> None:
    """Puts the files of `partial` in place of ours in `final`, where everything else stays.

    Killed on the way, `final` has a record that lists all that may be ours and counts as finished for nothing.
    """
    old = read_record(final) or _begun_record()
    begun = partial / "begun"
    begun.write_text(json_text(_begun_record(old, record)), encoding="utf-8")
    begun.replace(final / RECORD)
    for name in old["files"].keys() - record["files"].keys():
        place = below(final, name)
        if is_plain_file(place):
            place.unlink()
        if place.parent != final:
            with contextlib.suppress(OSError):  # it has something else in it
                place.parent.rmdir()
    for name in (*record["files"], RECORD):
        place = below(final, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        below(partial, name).replace(place)


def is_summary(path: Path) -> bool:
    """Whether a file with the name of a summary is one."""
    if not is_plain_file(path):
        return False
    if path.name in _SUMMARY_KEYS:
        return (_object(path) or {}).keys() >= _SUMMARY_KEYS[path.name]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), [])[:2] == ["category", "image_AUROC"]
    except (OSError, ValueError, csv.Error):
        return False


def is_plain_file(path: Path) -> bool:
    """Whether a file lies at a path, and no link or anything else."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _object(path: Path) -> dict[str, Any] | None:
    """A JSON object out of a file that is no link; None for everything else."""
    if not is_plain_file(path):
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def json_text(value: Any) -> str:
    """JSON of a file."""
    # allow_nan=False: NaN is no JSON, and an undefined value must have become null before.
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
