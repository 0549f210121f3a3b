"""What every reader hands out: categories of samples that were checked before any work starts."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from musc_jax.data.account import Account
from musc_jax.data.sample import DataError, Sample
from musc_jax.storage.paths import UnsafeNameError, below
from musc_jax.storage.prefetch import map_ahead

# Explanations above so many characters are not repeated.
_LONG = 120
# So many files of a kind are named.
_NAMED = 5

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Entry:
    """A sample that passed its checks.

    Attributes:
        name: unique in its category.
        digest: over the bytes of its files and whatever else decides what `read` gives.
        read: loads the sample at a working size; raises `DataError` if a file has changed since.
        picture: loads its picture as it is shown, with at most so many pixels; raises as `read` does. None where it is
            only known at the working size.
    """

    name: str
    digest: str
    read: Callable[[int], Sample]
    picture: Callable[[int], UInt8[np.ndarray, "h w 3"]] | None = None


class Remark(NamedTuple):
    """Something odd about a file that others may have in common with it: all of them share a warning.

    Attributes:
        topic: of the category's account.
        path: the file.
        text: what is odd.
    """

    topic: str
    path: Path
    text: str


class Checked(NamedTuple):
    """What checking a sample found; `entry` is None if and only if there are `faults`."""

    entry: Entry | None
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()


class SampleFiles(NamedTuple):
    """A sample's files, as far as their names tell.

    Attributes:
        picture: its picture, by whose size a copy that was scaled down is recognised.
        present: those that are there.
        missing: those that should be, each with what is to be said of it.
        label: 1 defective, 0 good; None where only a look into a file would tell.
    """

    picture: Path
    present: tuple[Path, ...]
    missing: tuple[tuple[Path, str], ...] = ()
    label: int | None = None


@runtime_checkable
class OnDisk(Protocol):
    """The files of one sample, with all that is needed to read them."""

    @property
    def name(self) -> str:
        """Unique in its category."""

    def check(self) -> Checked:
        """Read every file once and compare them; in any thread or process."""

    def list_files(self) -> SampleFiles:
        """What it has, without looking into any file."""


class Candidate(NamedTuple):
    """A sample found on disk, not yet looked into.

    Attributes:
        name: unique in its category.
        check: see `OnDisk`.
        list_files: see `OnDisk`; None where nothing is known beforehand that they could be compared with.
    """

    name: str
    check: Callable[[], Checked]
    list_files: Callable[[], SampleFiles] | None = None

    @classmethod
    def of(cls, sample: OnDisk) -> "Candidate":
        """The candidate that a sample's files are."""
        return cls(sample.name, sample.check, sample.list_files)


class Fault(NamedTuple):
    """A line of the report; the fields before it decide the order."""

    category: str
    position: int
    line: str


class Dataset:
    """Samples by category, each of them checked, loaded on demand.

    Attributes:
        name: the dataset's.
        categories: names of the categories.
        skipped: by category, the names of samples left out because of a fault.
        warnings: oddities that stopped nothing, and why samples were skipped.
        accounts: by category, what its files were read as and what was passed over.
    """

    def __init__(
        self,
        name: str,
        entries: Mapping[str, Sequence[Entry]],
        *,
        skipped: Mapping[str, Sequence[str]] | None = None,
        warnings: Sequence[str] = (),
        accounts: Mapping[str, Account] | None = None,
    ):
        self.name = name
        self._entries = {category: tuple(found) for category, found in entries.items()}
        self.categories = tuple(self._entries)
        self.skipped = {c: tuple((skipped or {}).get(c, ())) for c in self.categories}
        self.warnings = list(warnings)
        self.accounts = {c: (accounts or {}).get(c) or Account() for c in self.categories}

    def names(self, category: str) -> tuple[str, ...]:
        """Names of a category's samples, in the order of their indices.

        Args:
            category: one of `categories`.

        Returns:
            As many as there are samples, each of them once.

        Raises:
            ValueError: no such category; so do the other methods.
        """
        return tuple(entry.name for entry in self._of(category))

    def entries(self, category: str) -> tuple[Entry, ...]:
        """A category's samples that passed their checks, unread.

        Args:
            category: one of `categories`.

        Returns:
            As many as there are names.
        """
        return self._of(category)

    def digest(self, category: str) -> str:
        """SHA-256 over everything in the files that decides a category's samples.

        Args:
            category: one of `categories`.

        Returns:
            Hexadecimal digits; equal for equal content wherever the tree lies, others for another modality, selection
            of samples or rule of cleaning.
        """
        listing = [[entry.name, entry.digest] for entry in self._of(category)]
        return hashlib.sha256(json.dumps([category, listing]).encode()).hexdigest()

    def load(self, category: str, index: int, *, size: int) -> Sample:
        """Load one sample.

        Args:
            category: one of `categories`.
            index: position in `names(category)`.
            size: side of image, point grid and mask in pixels.

        Returns:
            The sample at that size.

        Raises:
            DataError: a file has changed or vanished since the dataset was opened.
        """
        return self._of(category)[index].read(size)

    def picture(self, category: str, index: int, *, max_pixels: int) -> UInt8[np.ndarray, "h w 3"] | None:
        """Load a sample's picture as it is shown, not made square.

        Args:
            category: one of `categories`.
            index: position in `names(category)`.
            max_pixels: a picture of more is scaled down.

        Returns:
            RGB; None where the sample has no picture of its own or its dataset's reader does not tell.

        Raises:
            DataError: a file has changed or vanished since the dataset was opened.
        """
        load = self._of(category)[index].picture
        return None if load is None else load(max_pixels)

    def samples(
        self, category: str, *, size: int, only: range | None = None, workers: int = 2, ahead: int = 8
    ) -> Iterator[Sample]:
        """Load a category's samples in order, in advance and in threads.

        Args:
            category: one of `categories`.
            size: as with `load`.
            only: indices of those that are wanted; default all.
            workers: threads.
            ahead: how many samples at most are loaded before they are asked for.

        Returns:
            An iterator; closing it ends the threads. What `load` raises is raised in its sample's place.
        """
        entries = self._of(category)
        entries = entries if only is None else entries[only.start : only.stop]
        return map_ahead(lambda entry: entry.read(size), entries, workers=workers, ahead=ahead)

    def _of(self, category: str) -> tuple[Entry, ...]:
        if category not in self._entries:
            known = ", ".join(self.categories)
            raise ValueError(f"no category {category!r} in {self.name}; there are: {known}")
        return self._entries[category]


def assemble(
    name: str,
    candidates: Mapping[str, Sequence[Candidate]],
    *,
    faults: Sequence[Fault] = (),
    warnings: Sequence[str] = (),
    accounts: Mapping[str, Account] | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
    workers: int = 2,
    progress: Progress | None = None,
) -> Dataset:
    """Check every sample that will be used and make the dataset of those that are sound.

    Args:
        name: the dataset's.
        candidates: by category, in the order of their indices.
        faults: what was found before, of whole categories.
        warnings: oddities found before.
        accounts: by category, what its files are read as; what checking finds out is added.
        limit: take only the first so many samples of each category, sound or not.
        skip_bad: leave faulty samples out and list them instead of refusing the dataset.
        workers: threads that check.
        progress: told how many samples are checked.

    Raises:
        DataError: one report with all that is wrong with all categories.
        ValueError: `limit` is less than 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, received {limit}")
    taken = {category: tuple(found[:limit]) for category, found in candidates.items()}
    jobs = [candidate for found in taken.values() for candidate in found]
    results = iter(_check_all(jobs, workers, progress))
    report, notes = [*faults, *_unsafe_categories(name, taken)], list(warnings)
    entries: dict[str, list[Entry]] = {}
    skipped: dict[str, list[str]] = {}
    accounts = {category: (accounts or {}).get(category) or Account() for category in taken}
    for category, found in taken.items():
        sound: list[Entry] = []
        bad: list[Fault] = []
        remarks: list[Remark] = []
        skipped[category] = []
        for position, candidate in enumerate(found):
            checked = next(results)
            notes.extend(checked.warnings)
            remarks.extend(checked.remarks)
            if checked.entry is not None:
                sound.append(checked.entry)
                continue
            skipped[category].append(candidate.name)
            bad.extend(Fault(category, position, line) for line in checked.faults)
        entries[category] = sound
        notes.extend(_shared(remarks, accounts[category]))
        if skip_bad and len(sound) >= 2:
            notes.extend(f"skipped {category} {fault.line}" for fault in bad)
            continue
        report.extend(bad)
        if len(sound if skip_bad else found) < 2:
            report.append(Fault(category, -1, _too_few(name, category, len(sound), limit)))
    if report:
        # What belongs to nothing may be what is missing elsewhere, under another name.
        raise DataError(_text(name, report, warnings))
    return Dataset(name, entries, skipped=skipped, warnings=notes, accounts=accounts)


def _shared(remarks: Sequence[Remark], account: Account) -> Iterator[str]:
    """A warning for each kind of remark, naming some of its files; the account has all of them."""
    topics: dict[str, dict[str, list[Path]]] = {}
    for topic, path, text in remarks:
        topics.setdefault(topic, {}).setdefault(text, []).append(path)
    for topic, texts in topics.items():
        account.add(topic, {text: [str(path) for path in paths] for text, paths in texts.items()})
        for text, (first, *others) in texts.items():
            if not others:
                yield f"{first}: {text}"
                continue
            named = ", ".join("/".join(path.parts[-2:]) for path in others[:_NAMED])
            more = f" and {len(others) - _NAMED} others" if len(others) > _NAMED else ""
            yield f"{first}: {text}; the same of {named}{more}"


def _check_all(jobs: Sequence[Candidate], workers: int, progress: Progress | None) -> list[Checked]:
    # All of them, although some may stop the run: the report names every fault at once.
    if progress is not None:
        progress("check samples", 0, len(jobs))
    results: list[Checked] = []
    for checked in map_ahead(_check, jobs, workers=workers, ahead=4 * workers):
        results.append(checked)
        if progress is not None:
            progress("check samples", len(results), len(jobs))
    return results


def _check(candidate: Candidate) -> Checked:
    """Check a sample; one whose name cannot be a file's is not looked into, since its results are called so."""
    try:
        below(Path(), candidate.name)
    except UnsafeNameError as error:
        return Checked(None, (f"sample {error}; rename its files",))
    if "/" in candidate.name:
        return Checked(None, (f"sample {candidate.name!r}: expected a name without slashes; rename its files",))
    return candidate.check()


def _unsafe_categories(name: str, categories: Iterable[str]) -> Iterator[Fault]:
    """Categories that a dataset has under names that are no folders' below another one."""
    for category in categories:
        try:
            below(Path(), category)
        except UnsafeNameError as error:
            yield Fault(category, -1, f"{name}: category {error}; rename it")


def _too_few(name: str, category: str, count: int, limit: int | None) -> str:
    way_out = "add samples" if limit is None or limit >= 2 else "raise the limit"
    samples = "1 sample" if count == 1 else f"{count} samples"
    return (
        f"{name} {category}: {samples} to score, but samples score each other, so a category "
        f"needs at least 2; {way_out} or leave the category out"
    )


def shortened(lines: Sequence[str]) -> list[str]:
    """The lines of a report, "PATH: what is wrong"; a long explanation is given once and then referred to."""
    seen: set[str] = set()
    short = []
    for line in lines:
        path, _, text = line.partition(": ")
        short.append(f"{path}: the same" if text in seen and len(text) > _LONG else line)
        seen.add(text)
    return short


def _text(name: str, report: Sequence[Fault], oddities: Sequence[str]) -> str:
    lines = shortened([fault.line for fault in sorted(report)])
    notes = [f"  note: {line}" for line in oddities]
    if len(lines) == 1:
        return "\n".join([lines[0], *notes])
    head = f"{len(lines)} problems in dataset {name} (skip_bad leaves faulty samples out):"
    return "\n".join([head, *(f"  {line}" for line in lines), *notes])
