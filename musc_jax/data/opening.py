"""Datasets opened by name."""

from collections.abc import Sequence
from pathlib import Path

from musc_jax.data.assembly import assemble
from musc_jax.data.batch_remarks import examine_health, remark_on_copies, remark_on_sizes
from musc_jax.data.dataset import Dataset, Progress
from musc_jax.data.datasets import DATASETS
from musc_jax.data.folder_layout import FolderLayout
from musc_jax.data.recognition import other_dataset
from musc_jax.data.sample import DataError
from musc_jax.data.spec import MODALITIES
from musc_jax.data.trees import Found, Request
from musc_jax.storage.paths import UnsafeNameError, below

HOW_COPIES_COUNT = ("once", "each")
"""What samples of equal content count as."""


def find_samples(name: str, request: Request) -> Found:
    """Find a dataset's samples, without looking into them.

    Raises:
        DataError: no such dataset, not there, or without what the modality asks for.
        ValueError: an option is out of its range.
    """
    if name not in DATASETS:
        known = ", ".join(sorted(DATASETS))
        raise DataError(f"no dataset {name!r}; take one of: {known}")
    if request.modality not in MODALITIES:
        raise ValueError(f"modality must be one of {', '.join(MODALITIES)}, received {request.modality!r}")
    spec = DATASETS[name]
    if request.modality not in spec.modalities:
        raise DataError(f"{name} has pictures only, no points; take modality rgb (--modality=rgb)")
    _check_categories(request.categories)
    try:
        found = spec.find(request)
    except DataError as error:
        raise DataError("\n  note: ".join([str(error), *_other(name, request)])) from None
    layout = request.folder
    flat = spec.user_layout and not (layout and (layout.normal_dir or layout.abnormal_dir))
    # A flat folder takes in all pictures there are: of a published dataset masks, depth and training samples, too.
    if found.faults or flat:
        found.warnings += _other(name, request)
    return found


def _other(name: str, request: Request) -> list[str]:
    """A note where the folder is another dataset's."""
    note = other_dataset(name, Path(request.data_dir)) if request.data_dir is not None else ""
    return [note] if note else []


def _check_categories(categories: Sequence[str] | None) -> None:
    """Refuse names that a reader would take for folders elsewhere, before it looks for any."""
    if categories is None:
        return
    if not categories:
        raise DataError("expected at least one category (--categories), received none; leave it out for all of them")
    refused = []
    for category in categories:
        try:
            below(Path(), category)
        except UnsafeNameError as error:
            refused.append(str(error))
    if refused:
        raise DataError(f"categories (--categories): {'; '.join(refused)}")


def open_dataset(
    name: str,
    *,
    data_dir: Path | str | None = None,
    cache_dir: Path | str,
    categories: Sequence[str] | None = None,
    modality: str = "rgb+points",
    limit: int | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    workers: int = 2,
    progress: Progress | None = None,
    folder: FolderLayout | None = None,
    working: tuple[int, int] | None = None,
    copies: str | None = None,
) -> Dataset:
    """Open a dataset and check every file that will be used before any work starts.

    Args:
        name: one of `DATASETS`.
        data_dir: the dataset's folder; nothing is ever written there. `"synthetic"` needs none.
        cache_dir: where derived files are kept (cleaned scans, the synthetic set itself).
        categories: default all.
        modality: `"rgb"`, `"points"` or `"rgb+points"`; in `"rgb"` points are not looked at.
        limit: take only so many samples of each category: the first ones; of `"folder"` some of each label.
        skip_bad: leave faulty samples out (`Dataset.skipped`) instead of refusing the dataset.
        seed: of the synthetic set; others do not use it.
        workers: threads that check and clean.
        progress: called in this thread with (stage, done, total).
        folder: where `"folder"`, a plain folder, has what; others do not use it.
        working: side in pixels of the samples as they will be loaded, and of a token in them: then it is said of masks
            of a plain folder which defects are lost or smaller than a token.
        copies: `"once"`: samples of equal content are one sample to whoever scores them (`Dataset.copies_count_once`);
            `"each"`: they are samples like any others. Default `"once"` for `"folder"`.

    Returns:
        The dataset; oddities that stopped nothing are in its `warnings`, those of a plain folder's batch in `health`.

    Raises:
        DataError: one report with everything wrong with the requested categories, each line naming
            a file and the way out, in an order that does not depend on the file system.
        ValueError: an option is out of its range.
    """
    if copies not in (None, *HOW_COPIES_COUNT):
        raise ValueError(f"copies must be one of {', '.join(HOW_COPIES_COUNT)}, received {copies!r}")
    request = Request(data_dir, cache_dir, categories, modality, seed, workers, progress, folder, working)
    found = find_samples(name, request)
    own = DATASETS[name].user_layout
    dataset = assemble(
        name,
        found.candidates,
        faults=found.faults,
        warnings=found.warnings,
        accounts=found.accounts,
        limit=limit,
        spread=own,
        skip_bad=skip_bad,
        copies_count_once=copies == "once" or (copies is None and own),
        workers=workers,
        progress=progress,
    )
    labels = {category: {one.name: one.label for one in found.candidates[category]} for category in dataset.categories}
    remark_on_copies(dataset, labels)
    for category, account in dataset.accounts.items():
        if not own:  # plain folders and tables have told more
            account.add("files", {"used": {"samples": len(dataset.names(category))}, "rules": "as published"})
    if own:
        remark_on_sizes(dataset)
        examine_health(dataset)
    return dataset
