"""What every reader hands out: categories of samples that were checked before any work starts."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from musc_jax.data.account import Account
from musc_jax.data.health import Finding, Look
from musc_jax.data.sample import Sample
from musc_jax.storage.prefetch import map_ahead

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
        content: digest over what is scored, without labels and masks; equal for copies. "" where nobody knows.
        size: (height, width) of its picture as it is shown; None where it has none or nobody asks.
        look: at its picture and scan; None where nobody compares samples.
    """

    name: str
    digest: str
    read: Callable[[int], Sample]
    picture: Callable[[int], UInt8[np.ndarray, "h w 3"]] | None = None
    content: str = ""
    size: tuple[int, int] | None = None
    look: Look | None = None


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
        label: 1 defective, 0 good; None where that is not known beforehand, or `list_files` tells.
    """

    name: str
    check: Callable[[], Checked]
    list_files: Callable[[], SampleFiles] | None = None
    label: int | None = None

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
        copies_count_once: whether samples of equal content are one sample to whoever scores them, see `copies`.
        health: by category, what is odd about its samples as a batch.
    """

    def __init__(
        self,
        name: str,
        entries: Mapping[str, Sequence[Entry]],
        *,
        skipped: Mapping[str, Sequence[str]] | None = None,
        warnings: Sequence[str] = (),
        accounts: Mapping[str, Account] | None = None,
        copies_count_once: bool = False,
        health: Mapping[str, Sequence[Finding]] | None = None,
    ):
        self.name = name
        self._entries = {category: tuple(found) for category, found in entries.items()}
        self.categories = tuple(self._entries)
        self.skipped = {c: tuple((skipped or {}).get(c, ())) for c in self.categories}
        self.warnings = list(warnings)
        self.copies_count_once = copies_count_once
        self.accounts = {c: (accounts or {}).get(c) or Account() for c in self.categories}
        self.health = {c: tuple((health or {}).get(c, ())) for c in self.categories}

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
        # A listing without copies is what it was before anybody looked for them.
        once = [self.copies(category)] if self.copies_count_once and self.copies(category) else []
        return hashlib.sha256(json.dumps([category, listing, *once]).encode()).hexdigest()

    def copies(self, category: str) -> tuple[tuple[int, ...], ...]:
        """Indices of the samples that are copies of each other, group by group.

        Args:
            category: one of `categories`.

        Returns:
            Groups of at least two, in the order of their first samples.
        """
        groups: dict[str, list[int]] = {}
        for i, entry in enumerate(self._of(category)):
            if entry.content:
                groups.setdefault(entry.content, []).append(i)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    def sizes(self, category: str) -> tuple[tuple[int, int] | None, ...]:
        """Sizes of the pictures as they are shown.

        Args:
            category: one of `categories`.

        Returns:
            (height, width) of each sample's; None where it has none or the dataset's reader does not tell.
        """
        return tuple(entry.size for entry in self._of(category))

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
            max_pixels: a picture of more is scaled down, to half as many at least.

        Returns:
            RGB; None where the sample has no picture of its own or its dataset's reader does not tell.

        Raises:
            DataError: a file has changed or vanished since the dataset was opened.
        """
        load = self._of(category)[index].picture
        return None if load is None else load(max_pixels)

    def samples(
        self, category: str, *, size: int, only: Sequence[int] | None = None, workers: int = 2, ahead: int = 8
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
        entries = entries if only is None else tuple(entries[i] for i in only)
        return map_ahead(lambda entry: entry.read(size), entries, workers=workers, ahead=ahead)

    def _of(self, category: str) -> tuple[Entry, ...]:
        if category not in self._entries:
            known = ", ".join(self.categories)
            raise ValueError(f"no category {category!r} in {self.name}; there are: {known}")
        return self._entries[category]
