"""A table of one product's samples: a CSV file that names the files of each, relative to itself.

    image_path,points_path,mask_path,label,roi_path
    left/0001.png,scans/0001.ply,,good,

A column that is absent is absent for all samples, an empty cell for one. Files are read by the rules of plain folders,
`docs/inputs.md`. The file's own name is the category.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from musc_jax.data.account import Account
from musc_jax.data.dataset import Candidate
from musc_jax.data.datasets.folder import with_checked_roi
from musc_jax.data.folder_files import counted
from musc_jax.data.folder_layout import FolderLayout
from musc_jax.data.folder_sample import FolderSample
from musc_jax.data.picture_rules import decide_picture_rules
from musc_jax.data.sample import DataError
from musc_jax.data.sample_names import safe_name, safe_names
from musc_jax.data.scan_rules import decide_scan_rules
from musc_jax.data.spec import DatasetSpec
from musc_jax.data.trees import Found, Request, add_candidates

COLUMNS = ("image_path", "points_path", "mask_path", "label", "roi_path")
"""What a table may have; others are not read, and said."""

LABELS = {
    **dict.fromkeys(("0", "good", "ok", "normal", "false"), 0),
    **dict.fromkeys(("1", "defective", "bad", "ng", "nok", "ko", "defect", "anomaly", "abnormal", "true"), 1),
    "": None,
}
"""What a label may be, in lower case."""

_MOST_BYTES = 200_000_000


def find_table(request: Request) -> Found:
    """Find every sample that a table names, and decide how its files are read."""
    if request.data_dir is None:
        raise DataError("table needs a CSV file (--data_dir)")
    path = Path(request.data_dir)
    if request.categories is not None:
        raise DataError(f"{path}: a table is one product; leave --categories out")
    rows, others = _rows(path)
    layout = _with_roi(request.folder or FolderLayout(), path, rows)
    category, found = safe_name(path.stem), Found()
    account = found.accounts.setdefault(category, Account())
    if others:
        account.add("columns", {"not_read": others}, f"columns that are not read: {', '.join(others)}")
    samples = _samples(path, rows, request.modality, partial(found.fault, category))
    if layout.roi is not None:
        account.add("roi", {"file": layout.roi}, f"roi: only what is bright in {layout.roi} counts, of every sample")
        samples = [replace(sample, roi=Path(layout.roi)) for sample in samples]
    elif count := sum(sample.roi is not None for sample in samples):
        line = f"roi: of {count} of {len(samples)} samples only what is bright in their mask (roi_path) counts"
        account.add("roi", {"samples": count}, line)
    if samples and not found.faults:
        used = {
            "pictures": sum(sample.image is not None for sample in samples),
            "masks": sum(sample.mask is not None for sample in samples),
            "scans": sum(sample.points is not None for sample in samples),
        }
        account.add("files", {"used": used}, f"files: {counted(used)}")
        report = partial(found.fault, category)
        workers, progress = request.workers, request.progress
        scans = decide_scan_rules(samples, layout, account, report, workers=workers, progress=progress)
        pictures = decide_picture_rules(samples, layout, account, workers=workers, progress=progress)
        samples = [replace(sample, scans=scans, pictures=pictures, working=request.working) for sample in samples]
        add_candidates(found, category, path, [Candidate(one.name, one.check, label=one.label) for one in samples])
    return found


def _with_roi(layout: FolderLayout, path: Path, rows: Sequence[tuple[int, Mapping[str, str]]]) -> FolderLayout:
    """The layout with one region of interest for all samples, looked into; or with none.

    Raises:
        DataError: it is none, or the table names some, too.
    """
    if layout.roi is None:
        return layout
    if any(row.get("roi_path", "").strip() for _, row in rows):
        raise DataError(f"{path}: has a column roi_path, and --roi is given; keep one of them")
    if (path.parent / layout.roi).is_dir():
        raise DataError(
            f"--roi: {layout.roi}: is a folder; a table names a mask for each sample in its column roi_path"
        )
    return with_checked_roi(layout, path.parent)


def table_modality(path: Path) -> str:
    """What the columns of a table have: "rgb", "points" or "rgb+points".

    Raises:
        DataError: It is no table of samples.
    """
    rows, _ = _rows(path)
    has = [any(row.get(column, "").strip() for _, row in rows) for column in ("image_path", "points_path")]
    return {(True, True): "rgb+points", (False, True): "points"}.get((has[0], has[1]), "rgb")


def _rows(path: Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """The rows with their lines' numbers, and the columns that are not read.

    Raises:
        DataError: It is no table of samples.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path}: is too large for a table of samples; give the CSV file that names them")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8; save the table as CSV in UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a CSV file") from None
    first = text.split("\n", 1)[0]
    # What spreadsheets write where the comma is the decimal point, or as plain columns.
    delimiter = next((mark for mark in (",", ";", "\t") if mark in first), ",")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [(name or "").strip().casefold() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is no CSV ({error}); save the table as CSV") from None
    if not {"image_path", "points_path"} & set(columns):
        raise DataError(
            f"{path}: has neither a column image_path nor points_path (its columns are: "
            f"{', '.join(columns) or 'none'}); name them in its first line"
        )
    if len(set(columns)) < len(columns):
        raise DataError(f"{path}: has a column twice ({', '.join(columns)}); keep one of them")
    crooked = next((line for line, row in rows if None in row or None in row.values()), None)
    if crooked is not None:
        raise DataError(f"{path}: line {crooked} has not as many cells as the first one; mend it")
    filled = [(line, row) for line, row in rows if any(cell.strip() for cell in row.values())]
    return filled, [name for name in columns if name not in COLUMNS]


def _samples(
    path: Path, rows: Sequence[tuple[int, Mapping[str, str]]], modality: str, report: partial
) -> list[FolderSample]:
    wants_images, wants_points = modality != "points", modality != "rgb"
    found: list[FolderSample] = []
    named: list[str] = []
    lines: dict[str, int] = {}
    for line, row in rows:
        missing: list[str] = []

        def file(
            column: str, line: int = line, row: Mapping[str, str] = row, missing: list[str] = missing
        ) -> tuple[Path | None, Path | None]:
            """What a cell names, and the file if it is there."""
            own = _named(path.parent, row.get(column, "").strip())
            if own is None:
                return None, None
            # The same file may be written in many ways.
            other = lines.setdefault(os.path.realpath(own), line)
            if other != line:
                report(f"{path}: lines {other} and {line} both name {own}; keep one of them")
            if not os.path.lexists(own):
                missing.append(f"{own}: is not there, the {column} of line {line}; paths are relative to the table")
                return own, None
            return own, own

        (image, image_file), (points, points_file), (_, mask) = map(file, ("image_path", "points_path", "mask_path"))
        roi = _named(path.parent, row.get("roi_path", "").strip())  # one may be of many samples
        label = row.get("label", "").strip().casefold()
        if label not in LABELS:
            report(f"{path}: line {line}: label: expected good or defective, 0 or 1, or nothing, received {label!r}")
        if wants_images and image is None:
            report(f"{path}: line {line} names no image_path; add it, or score scans alone by --modality=points")
        if wants_points and points is None:
            report(f"{path}: line {line} names no points_path; add it, or score pictures alone by --modality=rgb")
        named.append(os.path.normpath(image or points or path.parent / f"line {line}"))
        points_file = points_file if wants_points else None
        found.append(FolderSample("", image_file, points_file, mask, LABELS.get(label), tuple(missing), roi=roi))
    begin = os.path.commonpath([os.path.dirname(own) for own in named]) if named else "."
    names = safe_names([Path(os.path.relpath(own, begin)).with_suffix("").as_posix() for own in named])
    return [replace(sample, name=name) for name, sample in zip(names, found, strict=True)]


def _named(folder: Path, cell: str) -> Path | None:
    """The path that a cell means; None of an empty one."""
    # No path holds this sign, and systems raise about it instead of not finding it.
    cell = cell.replace("\0", "\ufffd")
    if not cell:
        return None
    own = folder / cell
    if "\\" in cell and not os.path.lexists(own):  # a table that was written on Windows
        own = folder / cell.replace("\\", "/")
    return own


DATASET = DatasetSpec(name="table", find=find_table, user_layout=True, rank=101)
