"""The results folder: whole categories appear at once, finished ones are found again, nothing half-written stays."""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

_PARTIAL = ".partial-"
_RECORD = "category.json"

Metrics = Mapping[str, float | None]


class OutputError(ValueError):
    """The results folder cannot be used; the message says why and what to pass instead."""


class ResultsFolder:
    """OUTPUT_DIR/DATASET, with one folder for each category.

    A category is written into a hidden folder and renamed when it is complete. A run that was killed leaves at most
    such hidden entries, which the next run removes.
    """

    def __init__(self, output_dir: Path, dataset: str, *, data_dir: str | None = None) -> None:
        self.path = output_dir / dataset
        if data_dir is not None and self.path.resolve().is_relative_to(Path(data_dir).resolve()):
            # Also with the default, in a folder of one's own parts: the next run would find this one's pictures there.
            raise OutputError(f"{self.path}: lies in the dataset, into which nothing is written; pass --output_dir")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f"{_PARTIAL}probe"
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); pass another --output_dir") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for one run at a time and clears away what a killed one left.

        Raises:
            OutputError: Another run is writing here.
        """
        descriptor = os.open(self.path, os.O_RDONLY) if os.name == "posix" else None
        try:
            if descriptor is not None:
                import fcntl  # not on Windows

                try:
                    # The kernel gives the lock up when the process dies, however it dies; no lock file can go stale.
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise OutputError(
                        f"{self.path}: another run is writing there; wait for it or pass another --output_dir"
                    ) from None
                except OSError:
                    pass  # a file system without locks
            for entry in self.path.glob(f"{_PARTIAL}*"):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def finished(self, category: str, digest: str, save: tuple[str, ...]) -> dict[str, Any] | None:
        """The record of a finished category, or None when it has to be computed.

        It counts only if everything that changes its numbers is the same, what is to be saved was saved, and its files
        are what was written.
        """
        folder = self.path / category
        try:
            record = json.loads((folder / _RECORD).read_text())
            fresh = record["digest"] == digest and set(save) <= set(record["saved"])
            intact = fresh and all(
                hashlib.sha256((folder / name).read_bytes()).hexdigest() == value
                for name, value in record["files"].items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return record if intact else None

    def write_category(
        self,
        category: str,
        *,
        digest: str,
        save: tuple[str, ...],
        files: Mapping[str, bytes],
        metrics: Metrics,
        timings: Mapping[str, float],
        warnings: list[str],
        num_samples: int,
        skipped: Sequence[str] = (),
        seeds: Mapping[str, Metrics] | None = None,
    ) -> dict[str, Any]:
        """Writes a category's files and its record, and puts them in place of what was there."""
        record = {
            "digest": digest,
            "saved": list(save),
            "metrics": dict(metrics),
            "timings": dict(timings),
            "warnings": warnings,
            "num_samples": num_samples,
            "skipped": list(skipped),
            **({"seeds": {seed: dict(values) for seed, values in seeds.items()}} if seeds else {}),
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        }
        partial = self.path / f"{_PARTIAL}{category}"
        shutil.rmtree(partial, ignore_errors=True)
        for name, data in files.items():
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        (partial / _RECORD).write_text(_json(record))
        final = self.path / category
        if final.exists():
            # Renamed first: a folder half deleted under its own name could be taken for a finished one.
            old = self.path / f"{_PARTIAL}old-{category}"
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
            partial.rename(final)
            shutil.rmtree(old)
        else:
            partial.rename(final)
        return record

    def write(self, name: str, text: str) -> None:
        """Writes one summary file under a temporary name and renames it."""
        partial = self.path / f"{_PARTIAL}{name}"
        partial.write_text(text)
        partial.replace(self.path / name)

    def remove_summary(self) -> None:
        """Removes the summary of an earlier run, which would speak of categories that are about to change."""
        for name in ("metrics.json", "metrics.csv", "run.json"):
            (self.path / name).unlink(missing_ok=True)

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
        self.write("run.json", _json(run))
        summary: dict[str, Any] = {"note": note} if note else {}
        self.write("metrics.json", _json(summary | {"categories": categories, "mean": mean, **(repetitions or {})}))


def _json(value: Any) -> str:
    # allow_nan=False: NaN is no JSON, and an undefined value must have become null before.
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def scores_csv(rows: list[dict[str, Any]]) -> bytes:
    """The per-sample table: sample, gt_label, pred_score, max_score (before re-scoring)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ("sample", "gt_label", "pred_score", "max_score"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def map_tiff(anomaly_map: np.ndarray) -> bytes:
    """One raw float32 map as TIFF."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, anomaly_map.astype(np.float32), photometric="minisblack")
    return buffer.getvalue()


def digest_of(value: Any) -> str:
    """SHA-256 of a value's JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
