"""Comparing a dataset on disk with what was published: categories, counts, and every sample's files.

Samples are found by the dataset's own reader, so this sees what a run would see. Files are looked for, not decoded:
`musc_jax.data.published.preparation` does that, and takes longer.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from musc_jax.data.dataset import SampleFiles
from musc_jax.data.datasets import DATASETS, published_datasets
from musc_jax.data.formats.files import DECODE_ERRORS
from musc_jax.data.formats.remarks import overheard
from musc_jax.data.opening import find_samples
from musc_jax.data.sample import DataError
from musc_jax.data.spec import Expected, Layout, Source
from musc_jax.data.trees import Found, Request, entries, is_folder
from musc_jax.storage.signatures import START, foreign

_ABOUT = frozenset({".txt", ".md", ".csv", ".json", ".pdf", ""})
_AGAIN = "copy it again from the dataset's archive"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as published.

    Attributes:
        category: where; "" for the dataset as a whole.
        path: the file or folder.
        line: what is wrong with it, and the way out.
        problem: whether results would differ; otherwise it is only odd.
        absent: whether it is that nothing of the category is there.
    """

    category: str
    path: Path
    line: str
    problem: bool = True
    absent: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.line}"


def check_layout(name: str, data_dir: Path | str, *, categories: Sequence[str] | None = None) -> list[Finding]:
    """Compare a tree on disk with the published dataset.

    Args:
        name: of a dataset with a `Source`.
        data_dir: its folder.
        categories: default all that were published.

    Returns:
        What is missing or odd: first of the whole dataset, then category by category in the published order and
        sample by sample. Empty if all is as published.

    Raises:
        DataError: no such dataset, no such category in it, or a folder that cannot be read.
    """
    published = published_datasets()
    if name not in published:
        raise DataError(f"no published dataset {name!r}; take one of: {', '.join(published)}")
    source, root = published[name], Path(data_dir)
    for category in categories or ():
        if category not in source.categories:
            known = ", ".join(source.categories)
            raise DataError(f"{source.title} has no category {category!r}; take some of: {known}")
    # Readers make a folder for what they derive; nothing is derived here.
    with tempfile.TemporaryDirectory() as store:
        try:
            found = find_samples(name, Request(root, store, modality=DATASETS[name].modalities[-1]))
        except DataError as error:
            line = str(error).removeprefix(f"{root}: ")
            return [Finding("", root, line)]
    findings = list(_around(source, root, found)) if categories is None else []
    for category, expected in source.categories.items():
        if categories is None or category in categories:
            home = _home(source, root, category)
            findings += _check_category(source.layout, category, expected, home, found)
    return findings


def _home(source: Source, root: Path, category: str) -> Path:
    """A category's folder, where its reader finds it."""
    places = [parent / category for parent in (root, *(root / wrapper for wrapper in source.wrappers))]
    return next((place for place in places if is_folder(place / source.layout.folder)), places[0])


def _around(source: Source, root: Path, found: Found) -> Iterator[Finding]:
    """What lies beside the categories."""
    for parent in (root, *(root / wrapper for wrapper in source.wrappers)):
        for path in entries(parent):
            if path.name in source.categories or path.name in source.layout.roots:
                continue
            if path.name in found.candidates and is_folder(path):
                yield Finding("", path, "is no published category, but would be scored with the others; move it away")
            elif is_folder(path) and not (parent == root and path.name in source.wrappers):
                yield Finding("", path, "is an unexpected folder; not used", problem=False)
            elif not is_folder(path) and path.suffix.lower() not in _ABOUT:
                yield Finding("", path, "is an unexpected file; not used", problem=False)


def _check_category(layout: Layout, category: str, expected: Expected, home: Path, found: Found) -> Iterator[Finding]:
    if not is_folder(home / layout.folder):
        has = f"has no {layout.folder}" if is_folder(home) else "is missing"
        count = f"{expected.good} good and {expected.defective} defective samples"
        line = f"{has}, published with {count}; fetch it again"
        yield Finding(category, home, line, absent=not is_folder(home))
        return
    used: set[Path] = set()
    for fault in found.faults:
        if fault.category == category:
            place, colon, line = fault.line.partition(": ")
            used.add(Path(place))
            yield Finding(category, Path(place) if colon else home, line if colon else place)
    candidates = found.candidates.get(category, ())
    samples = [candidate.list_files() for candidate in candidates if candidate.list_files is not None]
    for sample in samples:
        yield from _check_sample(category, sample, used)
    yield from _check_counts(category, expected, home, len(candidates), [sample.label for sample in samples])
    yield from _check_size(layout, category, expected, samples)
    for path in entries(home):
        if is_folder(path) and path.name not in layout.known:
            yield Finding(category, path, "is an unexpected folder; not used", problem=False)
        elif not is_folder(path) and path.suffix.lower() not in _ABOUT:
            yield Finding(category, path, "is an unexpected file; not used", problem=False)
    if len(samples) < len(candidates):
        return  # nobody knows which files belong to those
    for folder in layout.scored:
        yield from _check_rest(layout, category, home, home / folder, used)


def _check_sample(category: str, sample: SampleFiles, used: set[Path]) -> Iterator[Finding]:
    for place, line in sample.missing:
        yield Finding(category, place, f"{line}; {_AGAIN}")
    for path in sorted(sample.present):
        used.add(path)
        line = _fault_of(path)
        if line:
            yield Finding(category, path, line)


def _fault_of(path: Path) -> str:
    try:
        if not path.exists():
            return f"is missing; {_AGAIN}"
        if not path.is_file():
            return f"is no file; {_AGAIN}"
        size = path.stat().st_size
        if not size:
            return f"is empty; {_AGAIN}"
        if size > START:  # what stands for a file is short; all others would take long to open
            return ""
        with path.open("rb") as file:
            other = foreign(file.read(START))
        return f"is {other.what}; {other.way_out}" if other is not None else ""
    except OSError as error:
        return f"cannot be looked at ({error.strerror}); {_AGAIN}"


def _check_counts(
    category: str, expected: Expected, home: Path, total: int, labels: Sequence[int | None]
) -> Iterator[Finding]:
    again = "unpack it again, or move away what was added"
    if None in labels or len(labels) < total:
        if total != expected.good + expected.defective:
            published = expected.good + expected.defective
            yield Finding(category, home, f"has {total} samples, published with {published}; {again}")
        return
    good = labels.count(0)
    for what, count, published in (("good", good, expected.good), ("defective", total - good, expected.defective)):
        if count != published:
            yield Finding(category, home, f"has {count} {what} samples, published with {published}; {again}")


def _check_size(layout: Layout, category: str, expected: Expected, samples: Sequence[SampleFiles]) -> Iterator[Finding]:
    """A copy that somebody scaled down has all its files; its first picture's header tells."""
    if expected.size is None or not samples:
        return
    path = samples[0].picture
    try:
        with overheard(), Image.open(path) as picture:
            size = picture.size
    except DECODE_ERRORS:
        return
    squared = (max(expected.size),) * 2 if layout.padded else expected.size
    if size not in (expected.size, squared):
        published = f"{expected.size[0]} x {expected.size[1]}"
        line = f"is {size[0]} x {size[1]}, published as {published}; results would not be comparable"
        yield Finding(category, path, line, problem=False)


def _check_rest(layout: Layout, category: str, home: Path, folder: Path, used: set[Path]) -> Iterator[Finding]:
    """Files that belong to no sample."""
    for path in entries(folder):
        if is_folder(path):
            if path.relative_to(home).as_posix() not in layout.unread:
                yield from _check_rest(layout, category, home, path, used)
        elif path not in used and not (layout.others and layout.others.fullmatch(path.name)):
            yield Finding(category, path, _why_unused(layout, path.relative_to(home)), problem=False)


def _why_unused(layout: Layout, path: Path) -> str:
    """Why a file belongs to no sample; `path` is relative to its category."""
    if layout.others is not None:
        return "has a name that no file of a sample has; not used"
    if path.suffix.lower() not in layout.extensions_in(path.parent.name):
        return "has an unknown extension; not used"
    is_mask = layout.masks.intersection(path.parent.parts)
    return "is a mask without an image; not used" if is_mask else "belongs to no sample; not used"
