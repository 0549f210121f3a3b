"""The Eyecandies dataset, split test_public, in the layout it is published in.

    DIR/<Category>/test_public/data/<index>_<item>.<extension>

or one level deeper, DIR/Eyecandies/<Category>/... A sample is an index (of any number of digits)
with an `image_0.png`. It needs `mask.png`, and for points either `xyz.tiff` (metres, organised,
(0, 0, 0) = no point; taken as it is) or `depth.png`, `info_depth.yaml` and `pose.txt`, from which
the points are made and cleaned (`musc_jax.data.cleaning`). Everything else is optional.

The dataset's home is https://eyecan-ai.github.io/eyecandies. Nothing is ever written into its
folder: cleaned scans go to the cache directory.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from musc_jax.data import cache
from musc_jax.data.dataset import Candidate, Dataset, Fault, Progress, assemble
from musc_jax.data.eyecandies_scan import ITEMS, Scan
from musc_jax.data.sample import DataError

MODALITIES = ("rgb", "points", "rgb+points")

_SPLIT = Path("test_public", "data")
_FILE = re.compile("([0-9]+)_(" + "|".join(re.escape(item) for item in ITEMS) + ")")
_LAYOUT = "<Category>/test_public/data/<index>_image_0.png"
_HOME = "https://eyecan-ai.github.io/eyecandies"


def open_eyecandies(
    *,
    data_dir: Path | str | None,
    cache_dir: Path | str,
    categories: Sequence[str] | None = None,
    modality: str = "rgb+points",
    limit: int | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    workers: int = 2,
    progress: Progress | None = None,
    name: str = "eyecandies",
) -> Dataset:
    """Open a tree in the Eyecandies layout: find, check and clean every sample that will be used.

    Args:
        data_dir: the folder of the categories, or the one above.
        cache_dir: where cleaned scans are kept, by the digests of what they are made from.
        categories: default all those found, in alphabetical order.
        modality: `"rgb"` (points are not read, nor looked for), `"points"` or `"rgb+points"`.
        limit: take only the first so many samples of each category.
        skip_bad: leave faulty samples out and list them instead of refusing the dataset.
        seed: not used; every dataset is opened with the same keywords.
        workers: threads that check.
        progress: told how many samples are checked.
        name: the dataset's, for messages.

    Raises:
        DataError: a report of all that is wrong with the requested categories.
        ValueError: an option is out of its range.
    """
    if modality not in MODALITIES:
        raise ValueError(f"modality must be one of {', '.join(MODALITIES)}, received {modality!r}")
    folders, warnings = _find_categories(data_dir, requested=categories)
    if categories is None:
        categories = sorted(folders)
    faults: list[Fault] = []
    candidates: dict[str, list[Candidate]] = {}
    store = Path(cache_dir, "eyecandies_xyz")
    if modality != "rgb":
        _prepare_store(store, folders)
    for category in dict.fromkeys(categories):
        if category not in folders:
            existing = ", ".join(sorted(folders)) or "none"
            line = f"{data_dir}: no category {category!r}; take one of those that exist: {existing}"
            faults.append(Fault(category, -1, line))
            continue
        folder = folders[category]
        try:
            found = _find_samples(folder)
        except OSError as error:
            line = f"{folder}: cannot be read ({error.strerror}); make it readable"
            faults.append(Fault(category, -1, line))
            continue
        if not found:
            line = f"{folder}: has no samples; put the files {_LAYOUT} there, see {_HOME}"
            faults.append(Fault(category, -1, line))
            continue
        points = modality != "rgb"
        candidates[category] = [
            Candidate(index, Scan(category, folder, index, frozenset(items), points, store).check)
            for index, items in found.items()
        ]
    return assemble(
        name,
        candidates,
        faults=faults,
        warnings=warnings,
        limit=limit,
        skip_bad=skip_bad,
        workers=workers,
        progress=progress,
    )


def _find_categories(
    data_dir: Path | str | None, *, requested: Sequence[str] | None
) -> tuple[dict[str, Path], list[str]]:
    """Map every category on disk to its folder of files; empty ones only if requested."""
    expected = f"expected DATA_DIR/{_LAYOUT}; the dataset is at {_HOME}"
    if data_dir is None:
        raise DataError(f"eyecandies needs the folder it lies in (data_dir); {expected}")
    root = Path(data_dir)
    if not root.is_dir():
        raise DataError(f"{root}: is not a folder; {expected}")
    folders: dict[str, Path] = {}
    warnings = []
    for parent in (root, root / "Eyecandies"):
        for category in _subfolders(parent):
            folder = parent / category / _SPLIT
            if category in folders or not folder.is_dir():
                continue
            if requested is None and not _has_samples(folder):
                warnings.append(f"{folder}: has no samples; the category is left out")
                continue
            folders[category] = folder
    if not folders:
        hint = f"; give its parent folder {root.absolute().parent}" if _is_category(root) else ""
        raise DataError(f"{root}: has no categories{hint}; {expected}")
    return folders, warnings


def _prepare_store(store: Path, folders: Mapping[str, Path]) -> None:
    """Make the folder of cleaned scans, never within a category's own folder."""
    place = store.resolve()
    for folder in folders.values():
        # folder is CATEGORY/test_public/data
        if place.is_relative_to(folder.parents[1].resolve()):
            raise DataError(f"{store}: lies in the dataset, into which nothing is written; choose another cache_dir")
    try:
        store.mkdir(parents=True, exist_ok=True)
        cache.sweep(store)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{store}: cannot be made ({reason}); choose another cache_dir") from None
    if not os.access(store, os.W_OK):
        raise DataError(f"{store}: cannot be written; choose another cache_dir")


def _is_category(root: Path) -> bool:
    return (root / _SPLIT).is_dir()


def _subfolders(parent: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in parent.iterdir() if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{parent}: cannot be read ({error.strerror}); make it readable") from None


def _has_samples(folder: Path) -> bool:
    try:
        return bool(_find_samples(folder))
    except OSError:
        return True  # to be reported as what it is


def _find_samples(folder: Path) -> dict[str, set[str]]:
    """Map every index in a folder, in numerical order, to the items that it has.

    An index without an image counts: files that lack their image are a fault, not nothing.
    """
    found: dict[str, set[str]] = {}
    for entry in folder.iterdir():
        match = _FILE.fullmatch(entry.name)
        if match:
            found.setdefault(match[1], set()).add(match[2])
    return {index: found[index] for index in sorted(found, key=lambda text: (int(text), text))}
