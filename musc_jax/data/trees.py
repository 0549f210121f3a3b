"""Finding categories and files in a dataset's folder, the same whatever order the file system gives them in."""

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from musc_jax.data.account import Account
from musc_jax.data.dataset import Candidate, Fault, Progress
from musc_jax.data.folder_layout import FolderLayout
from musc_jax.data.formats.pictures import EXTENSIONS
from musc_jax.data.sample import DataError
from musc_jax.storage import atomic

_NUMBERS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Request:
    """What a reader is asked for: `open_dataset`'s arguments.

    Attributes:
        data_dir: the dataset's folder.
        cache_dir: where derived files are kept.
        categories: default all.
        modality: "rgb", "points" or "rgb+points".
        seed: of the synthetic set.
        workers: threads.
        progress: told how far work on a dataset that is made first is.
        folder: where a plain folder has what.
        working: side of the resized samples and of a token in them, if that is known.
    """

    data_dir: Path | str | None
    cache_dir: Path | str
    categories: Sequence[str] | None = None
    modality: str = "rgb+points"
    seed: int = 0
    workers: int = 2
    progress: Progress | None = None
    folder: FolderLayout | None = None
    working: tuple[int, int] | None = None


@dataclass
class Found:
    """What a reader found before looking into any file.

    Attributes:
        candidates: by category, in the order of their indices.
        faults: of whole categories, or of files that belong to no sample.
        warnings: oddities that stop nothing.
        accounts: by category, what its files are read as, where that is decided for all of them at once.
    """

    candidates: dict[str, list[Candidate]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)

    def fault(self, category: str, line: str) -> None:
        """Add a line to the report."""
        self.faults.append(Fault(category, -1, line))


def natural(text: str) -> list[tuple[int, int | str]]:
    """Sort key: numbers by their value, so that 9 comes before 10; ① and ² are letters."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in _NUMBERS.split(text) if part]


def natural_order(text: str) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key that also tells 01 from 1, which `natural` leaves to the order in which the file system lists them."""
    return natural(text), text


def entries(folder: Path) -> list[Path]:
    """What is in a folder and not hidden, in natural order.

    Raises:
        DataError: it cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); make it readable") from None
    return sorted(found, key=lambda path: natural_order(path.name))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; a link that leads in a circle is none.

    Raises:
        DataError: a folder above it may not be looked into, so nobody knows.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except PermissionError as error:
        raise DataError(f"{path}: cannot be looked at ({error.strerror}); make it readable") from None
    except (OSError, ValueError):
        return False


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, in natural order."""
    return [path for path in entries(folder) if is_folder(path)]


def pictures(
    folder: Path, report: Callable[[str], None], *, extensions: frozenset[str] = EXTENSIONS
) -> dict[str, Path]:
    """The pictures in a folder by their stems, in natural order.

    Two files of one stem are reported, because either could be the one that is meant.
    """
    found: dict[str, Path] = {}
    try:
        listed = entries(folder)
    except DataError as error:
        report(str(error))
        return {}
    for path in listed:
        if path.suffix.lower() not in extensions or is_folder(path):
            continue
        if path.stem in found:
            report(f"{path}: has the same stem as {found[path.stem].name}; keep one of them")
            continue
        found[path.stem] = path
    return found


def root_of(name: str, data_dir: Path | str | None, *, layout: str, home: str) -> Path:
    """The dataset's folder.

    Raises:
        DataError: none was given, or it is none.
    """
    expected = f"expected DATA_DIR/{layout}; the dataset is at {home}"
    if data_dir is None:
        raise DataError(f"{name} needs the folder it lies in (--data_dir); {expected}")
    root = Path(data_dir)
    if not is_folder(root):
        raise DataError(f"{root}: is not a folder; {expected}")
    return root


def find_categories(
    root: Path,
    requested: Sequence[str] | None,
    found: Found,
    *,
    wrappers: Sequence[str],
    is_category: Callable[[Path], bool],
    layout: str,
    home: str,
) -> Mapping[str, Path]:
    """Map the requested categories to their folders, in `root` or in a folder that archives wrap around them.

    Args:
        root: the dataset's folder.
        requested: names, default all that are there.
        found: gets a fault for each that is not.
        wrappers: names of such folders.
        is_category: whether a folder has the layout of one.
        layout: for messages.
        home: for messages.

    Raises:
        DataError: there is none at all.
    """
    folders: dict[str, Path] = {}
    closed: dict[str, str] = {}
    for parent in (root, *(root / wrapper for wrapper in wrappers)):
        for folder in subfolders(parent):
            try:
                if folder.name not in folders and is_category(folder):
                    folders[folder.name] = folder
            except DataError as error:
                closed[folder.name] = str(error)
    if report_closed(found, closed, requested) and not folders:
        return {}
    expected = f"expected DATA_DIR/{layout}; the dataset is at {home}"
    if not folders:
        hint = f"; give its parent folder {root.absolute().parent}" if is_category(root) else ""
        raise DataError(f"{root}: has no categories{hint}; {expected}")
    if requested is None:
        return folders
    chosen = {}
    for category in dict.fromkeys(requested):
        if category in folders:
            chosen[category] = folders[category]
        elif category not in closed:
            existing = ", ".join(sorted(folders))
            found.fault(category, f"{root}: no category {category!r}; take one of those that exist: {existing}")
    return chosen


def report_closed(found: Found, closed: Mapping[str, str], requested: Sequence[str] | None) -> bool:
    """Report folders that may be categories and cannot be looked into: a mean without them would be another.

    Args:
        found: gets the faults.
        closed: by name, what is wrong.
        requested: categories, default all that are there.

    Returns:
        Whether there are any that matter.
    """
    way_out = ", or name the categories that are meant (--categories)" if requested is None else ""
    faults = {name: line for name, line in closed.items() if requested is None or name in requested}
    for name, line in faults.items():
        found.fault(name, line + way_out)
    return bool(faults)


def add_candidates(found: Found, category: str, folder: Path, samples: Sequence[Candidate]) -> None:
    """Add a category's samples; none at all, and names that come twice, are faults."""
    if not samples:
        found.fault(category, f"{folder}: has no samples to score; see the layout in --help and docs/datasets.md")
        return
    names: dict[str, Candidate] = {}
    for sample in samples:
        if sample.name in names:
            found.fault(category, f"{folder}: two samples are called {sample.name!r}; rename one of them")
        names[sample.name] = sample
    found.candidates[category] = list(names.values())


def require_writable(store: Path, dataset: Path) -> None:
    """Make a folder for derived files, never within the dataset.

    Raises:
        DataError: it would lie there, or cannot be written.
    """
    if store.resolve().is_relative_to(dataset.resolve()):
        raise DataError(f"{store}: lies in the dataset, into which nothing is written; choose another cache_dir")
    try:
        store.mkdir(parents=True, exist_ok=True)
        atomic.sweep(store)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{store}: cannot be made ({reason}); choose another cache_dir") from None
    if not os.access(store, os.W_OK):
        raise DataError(f"{store}: cannot be written; choose another cache_dir")
