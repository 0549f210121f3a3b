"""The results folder: whole categories appear at once, finished ones are found again, nothing half-written stays."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from launch.own_files import (
    RECORD,
    SAVED,
    SCORES,
    SUMMARIES,
    WAY_OUT,
    Origin,
    OutputError,
    is_plain_file,
    is_summary,
    json_text,
    read_record,
    refuse_foreign,
    replace_own,
    summary_origins,
)
from musc_jax.storage import atomic
from musc_jax.storage.paths import UnsafeNameError, below, link_between

Metrics = Mapping[str, float | None]

SCORES_COLUMNS = ("sample", "gt_label", "pred_score", "max_score", "name", "image_path")
"""Of each sample: its name here, label, score, score before re-scoring, and its own file's name and path."""


def saved_file(kind: str, sample: str) -> str:
    """The name, in its category's folder, of what is saved of a sample: kind is "maps" or "images"."""
    return SAVED[kind].format(sample)


def refuse_within(path: Path, data_folders: Iterable[Path], flag: str) -> None:
    """Refuses a folder to write into that lies in the dataset.

    Raises:
        OutputError: It does; names the flag that moves it.
    """
    if any(path.resolve().is_relative_to(folder.resolve()) for folder in data_folders):
        raise OutputError(f"{path}: lies in the dataset, into which nothing is written; pass {flag}")


class ResultsFolder:
    """OUTPUT_DIR/DATASET, with one folder for each category; a category `line1/left` lies in `line1`.

    A category is written under a temporary name and put in place when it is complete. A run that was killed leaves at
    most such unfinished entries, which the next run removes. What is there already is replaced only if a record of an
    earlier run lists it; everything else stays where it is, or the run is refused before any work.
    """

    def __init__(
        self, output_dir: Path, dataset: str, *, data_folders: Sequence[Path] = (), replace: bool = False
    ) -> None:
        self.path, self._data_folders, self._replaces = below(output_dir, dataset), data_folders, replace
        # Also with the default, in a folder of one's own parts: the next run would find this one's pictures there.
        refuse_within(self.path, data_folders, "--output_dir")
        with _explained(self.path), atomic.temporary(self.path / RECORD) as probe:
            probe.touch(exist_ok=False)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for one run at a time and clears away what a killed one left.

        Raises:
            OutputError: Another run is writing here.
        """
        descriptor = _lock(self.path)
        try:
            with _explained(self.path):
                atomic.sweep(self.path, alone=True)
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def folder(self, category: str) -> Path:
        """The folder of a category's results.

        Raises:
            OutputError: The name leads somewhere else.
        """
        try:
            return below(self.path, category)
        except UnsafeNameError as error:
            raise OutputError(f"category {error}") from None

    def expect(
        self, samples: Mapping[str, Sequence[str]], save: Sequence[str] = (), *, tables: Sequence[str] = (SCORES,)
    ) -> None:
        """Refuses, before any work, what could not be written in the end, or only over somebody else's files.

        Args:
            samples: Names of the samples by category, all that will be written.
            save: What is saved of each.
            tables: What is written beside it.

        Raises:
            OutputError: Names the file or folder that is in the way.
        """
        for name in SUMMARIES:
            path = self.path / name
            if os.path.lexists(path) and not is_summary(path):
                raise OutputError(f"{path}: is not of an earlier run, so it is not replaced; {WAY_OUT}")
        for category, names in samples.items():
            folder = self.folder(category)
            refuse_within(folder, self._data_folders, "--output_dir")
            first, *_ = category.split("/")
            if first.casefold() in SUMMARIES:
                raise OutputError(f"{folder}: is where the run's summary goes; rename the category {category!r}")
            files = [*tables, *(saved_file(kind, name) for kind in save if kind in SAVED for name in names)]
            with _explained(folder):
                self._expect_place(category, folder, samples)
                refuse_foreign(folder, files)
                _expect_short(folder / max(files, key=len))

    def expect_same_data(self, origins: Mapping[str, Origin]) -> None:
        """Refuses to replace the results of other samples, unless asked to; the same data may have changed.

        Args:
            origins: What each category that will be written is computed from.

        Raises:
            OutputError: Names the folder, and what its results were computed from.
        """
        if self._replaces:
            return
        for category, origin in origins.items():
            known = Origin.of(read_record(self.folder(category)))
            if known is not None and known.is_other(origin):
                raise OutputError(_of_other_samples(self.folder(category), known, origin))
        # The summary is replaced as a whole: also where no category is, it must not be that of another dataset.
        last = summary_origins(self.path)
        moved = any(not last[category].is_other(origins[category]) for category in last.keys() & origins.keys())
        same_place = {origin.root for origin in last.values()} & {origin.root for origin in origins.values()}
        if last and origins and not moved and not same_place:
            one, other = next(iter(last.values())), next(iter(origins.values()))
            raise OutputError(_of_other_samples(self.path / "metrics.json", one, other))

    def expect_space(self, needed: int) -> None:
        """Refuses to begin where so many bytes will surely not fit."""
        with _explained(self.path):
            free = shutil.disk_usage(self.path).free
        if needed > free:
            wanted, there = (f"{size / 1e9:.2f} GB" for size in (needed, free))
            raise OutputError(
                f"{self.path}: results take at least {wanted}, {there} are free; make room, save less (--save), or "
                "pass another --output_dir"
            )

    def _expect_place(self, category: str, folder: Path, others: Mapping[str, Any]) -> None:
        for other in others:
            inner = category.removeprefix(f"{other}/").split("/")[0]
            if category.startswith(f"{other}/") and inner in (RECORD, SCORES, *SAVED):
                raise OutputError(f"{folder}: is where {inner} of the category {other} goes; score them one by one")
        link = link_between(self.path, folder)
        if link is not None:
            raise OutputError(f"{link}: is a link, through which nothing is written; {WAY_OUT}")
        way = self.path
        for part in folder.relative_to(self.path).parts:
            way /= part
            if way.exists() and not way.is_dir():
                raise OutputError(f"{way}: is a file where a folder for {category} goes; {WAY_OUT}")

    def finished(self, category: str, digest: str, save: tuple[str, ...]) -> dict[str, Any] | None:
        """The record of a finished category, or None when it has to be computed.

        It counts only if everything that changes its numbers is the same, what is to be saved was saved, and its files
        are what was written.
        """
        folder = self.folder(category)
        record = read_record(folder)
        if record is None:
            return None
        try:
            fresh = record["digest"] == digest and set(save) <= set(record["saved"])
            intact = fresh and all(
                is_plain_file(folder / name) and hashlib.sha256((folder / name).read_bytes()).hexdigest() == value
                for name, value in record["files"].items()
            )
        except (OSError, TypeError):
            return None
        return record if intact else None

    def write_category(
        self,
        category: str,
        *,
        digest: str,
        save: tuple[str, ...],
        files: Mapping[str, bytes] | Iterable[tuple[str, bytes]],
        metrics: Metrics,
        timings: Mapping[str, float],
        warnings: list[str],
        num_samples: int,
        skipped: Sequence[str] = (),
        seeds: Mapping[str, Metrics] | None = None,
        origin: Origin | None = None,
    ) -> dict[str, Any]:
        """Writes a category's files and its record, in place of those that an earlier run wrote.

        Files may come one by one, as they are made.

        Raises:
            OutputError: No room or no permission; or what `expect` refuses has appeared meanwhile.
        """
        record: dict[str, Any] = {
            "digest": digest,
            "saved": list(save),
            "metrics": dict(metrics),
            "timings": dict(timings),
            "warnings": warnings,
            "num_samples": num_samples,
            "skipped": list(skipped),
            **({"seeds": {seed: dict(values) for seed, values in seeds.items()}} if seeds else {}),
            **(origin._asdict() if origin else {}),
            "files": {},
        }
        final = self.folder(category)
        with _explained(final), atomic.temporary(self.path / RECORD) as partial:
            for name, data in files.items() if isinstance(files, Mapping) else files:
                record["files"][name] = hashlib.sha256(data).hexdigest()
                _write_below(partial, name, data)
            _write_below(partial, RECORD, json_text(record).encode())
            self._expect_place(category, final, {})
            refuse_foreign(final, list(record["files"]))
            if os.path.lexists(final):
                replace_own(partial, final, record)
            else:
                final.parent.mkdir(parents=True, exist_ok=True)
                partial.rename(final)
        return record

    def write(self, name: str, text: str) -> None:
        """Writes one summary file, whole or not at all."""
        with _explained(self.path / name):
            atomic.write_text(self.path / name, text)

    def remove_summary(self) -> None:
        """Removes the summary of an earlier run, which would speak of categories that are about to change."""
        for path in (self.path / name for name in SUMMARIES):
            with _explained(path):
                path.unlink(missing_ok=True)

    def write_summary(
        self,
        categories: Mapping[str, Metrics],
        mean: Metrics,
        *,
        metrics_csv: str,
        run: Mapping[str, Any],
        note: str | None,
        repetitions: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes metrics.csv, run.json and, last, metrics.json."""
        self.write("metrics.csv", metrics_csv)
        self.write("run.json", json_text(run))
        summary: dict[str, Any] = {"note": note} if note else {}
        self.write("metrics.json", json_text(summary | {"categories": categories, "mean": mean, **(repetitions or {})}))


def _write_below(folder: Path, name: str, data: bytes) -> None:
    target = below(folder, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def _expect_short(path: Path) -> None:
    """Lets the file system say whether a path is too long as a whole; of anything else others speak."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise


def _of_other_samples(place: Path, known: Origin, origin: Origin) -> str:
    return (
        f"{place}: is the result of other samples, from {known}, not from {origin}; pass another --output_dir, or "
        "--replace if it is no longer needed"
    )


@contextlib.contextmanager
def _explained(place: Path) -> Iterator[None]:
    """What the file system says while something is written there, as one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{place}: cannot be written ({reason}); make room or pass another --output_dir") from None


def _lock(folder: Path) -> int | None:
    """A descriptor that holds a folder as long as it is open; None where that is not possible."""
    if os.name != "posix":
        return None
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # The kernel gives the lock up when the process dies, however it dies; no lock file can go stale.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OutputError(f"{folder}: another run is writing there; wait for it or pass another --output_dir") from None
    except OSError:
        pass  # a file system without locks
    return descriptor


def scores_csv(rows: list[dict[str, Any]]) -> bytes:
    """The per-sample table: `SCORES_COLUMNS`; what is not given is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, SCORES_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def map_tiff(anomaly_map: np.ndarray, *, packed: bool = False) -> bytes:
    """One raw float32 map as TIFF; large ones are smaller packed, by deflate."""
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, anomaly_map.astype(np.float32), photometric="minisblack", compression="zlib" if packed else None
    )
    return buffer.getvalue()


def digest_of(value: Any) -> str:
    """SHA-256 of a value's JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
