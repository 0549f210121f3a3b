"""All datasets by name, behind one function."""

from collections.abc import Callable, Sequence
from pathlib import Path

from musc_jax.data.dataset import Dataset, Progress
from musc_jax.data.eyecandies import open_eyecandies
from musc_jax.data.sample import DataError
from musc_jax.data.synthetic import open_synthetic

DATASETS: dict[str, Callable[..., Dataset]] = {
    "eyecandies": open_eyecandies,
    "synthetic": open_synthetic,
}
"""A dataset's name to the function that opens it; all of them take `open_dataset`'s keywords."""


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
) -> Dataset:
    """Open a dataset and check every file that will be used before any work starts.

    Args:
        name: one of `DATASETS`.
        data_dir: the dataset's folder; nothing is ever written there. `"synthetic"` needs none.
        cache_dir: where derived files are kept (cleaned scans, the synthetic set itself).
        categories: default all.
        modality: `"rgb"`, `"points"` or `"rgb+points"`; in `"rgb"` points are not looked at.
        limit: take only the first so many samples of each category.
        skip_bad: leave faulty samples out (`Dataset.skipped`) instead of refusing the dataset.
        seed: of the synthetic set; others do not use it.
        workers: threads that check and clean.
        progress: called in this thread with (stage, done, total).

    Returns:
        The dataset; oddities that stopped nothing are in its `warnings`.

    Raises:
        DataError: one report with everything wrong with the requested categories, each line naming
            a file and the way out, in an order that does not depend on the file system.
        ValueError: an option is out of its range.
    """
    if name not in DATASETS:
        known = ", ".join(sorted(DATASETS))
        raise DataError(f"no dataset {name!r}; take one of: {known}")
    return DATASETS[name](
        data_dir=data_dir,
        cache_dir=cache_dir,
        categories=categories,
        modality=modality,
        limit=limit,
        skip_bad=skip_bad,
        seed=seed,
        workers=workers,
        progress=progress,
    )
