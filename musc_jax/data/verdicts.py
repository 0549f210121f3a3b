"""A person's verdicts on samples, as the report page saves them: a CSV file with columns sample and verdict."""

import csv
import io
from collections.abc import Collection
from pathlib import Path

from musc_jax.data.datasets.table import LABELS
from musc_jax.data.sample import DataError
from musc_jax.storage.paths import readable

_MOST_BYTES = 50_000_000
_NAMED = 3
_WORDS = {0: "good", 1: "defective"}


def read_verdicts(path: Path, names: Collection[str], *, left_out: Collection[str] = ()) -> dict[str, int]:
    """What a person has said of samples: 1 defective, 0 good.

    Args:
        path: a CSV file in UTF-8, its cells separated by commas, semicolons or tabs. An empty verdict is none; other
            columns are not read.
        names: of the samples.
        left_out: names of samples that could not be read, on which verdicts are passed over.

    Raises:
        DataError: it is no such file, or names a sample that is not there, or one with two different verdicts.
    """
    shown = readable(path)
    found: dict[str, int] = {}
    lines: dict[str, int] = {}
    unknown: list[str] = []
    for line, name, word in _rows(path):
        verdict = LABELS.get(word.casefold(), -1)
        if verdict is None:
            continue
        if verdict < 0:
            raise DataError(f"{shown}: line {line}: expected good or defective, received {word!r}; mend it")
        if name in left_out:
            continue
        if name not in names:
            unknown.append(f"{name!r} (line {line})")
            continue
        if found.get(name, verdict) != verdict:
            raise DataError(
                f"{shown}: lines {lines[name]} and {line} call {name!r} {_WORDS[found[name]]} and {_WORDS[verdict]}; "
                "keep one of them"
            )
        found[name], lines[name] = verdict, lines.get(name, line)
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise DataError(
            f"{shown}: there is no sample {', '.join(unknown[:_NAMED])}{more}; names are those of scores.csv, such as "
            f"{next(iter(names))!r}, and a spreadsheet may have changed them"
        )
    if not found:
        raise DataError(f"{shown}: has no verdict; save one by the report page, or leave --verdicts out")
    return found


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """(line, sample, verdict) of each row.

    Raises:
        DataError: it is no such file.
    """
    shown = readable(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{shown}: is too large for verdicts; give the CSV file that the report page saved")
        # Bytes: a name may have a line's end of any kind in it.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{shown}: is not UTF-8; save it as CSV in UTF-8") from None
    except OSError as error:
        raise DataError(
            f"{shown}: cannot be read ({error.strerror}); give the file that the report page saved"
        ) from None
    first = text.split("\n", 1)[0]
    delimiter = next((mark for mark in (",", ";", "\t") if mark in first), ",")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = reader.fieldnames = [(name or "").strip() for name in reader.fieldnames or ()]
        if not {"sample", "verdict"} <= set(columns):
            raise DataError(
                f"{shown}: expected columns sample and verdict, received {', '.join(columns) or 'none'}; give the file "
                "that the report page saved"
            )
        rows = []
        for row in reader:
            name, word = row["sample"], row["verdict"]
            if name is None or word is None or None in row:
                raise DataError(f"{shown}: line {reader.line_num} has not as many cells as the first one; mend it")
            if name or word.strip():
                rows.append((reader.line_num, name, word.strip()))
    except csv.Error as error:
        raise DataError(f"{shown}: line {reader.line_num} is no CSV ({error}); save it again") from None
    return rows
