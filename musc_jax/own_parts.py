"""A folder of one's own parts to predictions, in one call; what `launch.score` does, without its files."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from musc_jax import pipeline
from musc_jax.config import Config, ConfigError
from musc_jax.copies import expect_several, representatives, with_copies
from musc_jax.data import Dataset, FolderLayout, Sample, open_dataset
from musc_jax.data.datasets.folder import DATASET as FOLDER
from musc_jax.data.health import few_samples
from musc_jax.decisions import DEFAULT_RULE, check_rule
from musc_jax.predictions import Predictions, predict


class _Samples:
    """Samples of a dataset's category: as many as are there, loaded as they are needed."""

    def __init__(self, dataset: Dataset, category: str, size: int, only: Sequence[int]) -> None:
        self._dataset, self._category, self._size, self._only = dataset, category, size, only

    def __len__(self) -> int:
        return len(self._only)

    def __iter__(self) -> Iterator[Sample]:
        return self._dataset.samples(self._category, size=self._size, only=self._only)


def score_folder(
    folder: Path | str,
    config: Config,
    *,
    points: Path | str | None = None,
    layout: FolderLayout | None = None,
    roi: Path | str | None = None,
    threshold: str = DEFAULT_RULE,
    pixel_threshold: float | None = None,
    skip_bad: bool = True,
    cache_dir: Path | str | None = None,
    memory_bytes: int | float | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Predictions:
    """Scores the samples in a folder, and the folders in it, by each other, and decides which of them are defective.

    Args:
        folder: Of pictures, or of scans with modality "points". Nothing is written into it.
        config: What to compute and with which backbones.
        points: The folder of the point data that belongs to the pictures; default beside them.
        layout: How files are read, and where is what; default pictures without labels.
        roi: The region of interest, a mask for all samples or a folder of masks, one a sample: what is not bright in it
            never counts, neither as a defect nor as a match.
        threshold: The rule that decides, see `musc_jax.decisions.decide`.
        pixel_threshold: Of the maps; default one for the batch.
        skip_bad: Leave out samples that cannot be read or scored; they are in `results.skipped` or `unreadable`.
        cache_dir: Where derived files are kept; default a folder that is removed again.
        memory_bytes: What features, scores and maps may take; default most of what is free.
        progress: Called with (stage, done, total).

    Returns:
        The batch, with what files were read as in `inputs` and what is odd about them in `warnings`,
        and about the batch as a whole in `health`.

    Raises:
        DataError: One report with all that is wrong with the folder.
        ConfigError: Options that contradict each other, or a missing backbone; before any file is read.
        ValueError: No such rule.
        SampleError, BudgetError: See `musc_jax.pipeline.score`.
    """
    check_rule(threshold)
    if points is not None and layout is not None and layout.has_depth:
        raise ConfigError("points, layout: expected one of them to name point data, received both")
    if layout is None:
        layout = FolderLayout(unlabelled=True, depth_dir=None if points is None else str(Path(points).absolute()))
    if roi is not None:
        layout = replace(layout, roi=str(Path(roi).absolute()))
    resolved = config.resolved()
    size = resolved.size
    with tempfile.TemporaryDirectory() as scratch:
        dataset = open_dataset(
            FOLDER.name,
            data_dir=folder,
            cache_dir=scratch if cache_dir is None else cache_dir,
            modality=config.modality,
            skip_bad=skip_bad,
            progress=progress,
            folder=layout,
        )
        (category,) = dataset.categories
        copies, names = dataset.copies(category), dataset.names(category)
        expect_several(category, names, copies)
        samples = _Samples(dataset, category, size, representatives(copies, len(names)).tolist())
        results = pipeline.score(samples, config, skip_bad=skip_bad, memory_bytes=memory_bytes, progress=progress)
        results = with_copies(results, copies, names, lambda i: dataset.load(category, i, size=size))
    found = predict(results, threshold=threshold, pixel_threshold=pixel_threshold)
    few = few_samples(len(samples), resolved.scoring.interval)
    return found.with_inputs(
        inputs=tuple(dataset.accounts[category].lines),
        warnings=(*dataset.warnings, *([few] if few else [])),
        health=dataset.health[category],
        unreadable=tuple(dataset.skipped[category]),
    )
