"""A run's metrics minus those of another run or of the authors, category by category, in percent points.

Metrics come as fractions by `METRIC_KEYS`, None where undefined. Everything that leaves is in percent, differences in
percent points; what is undefined on either side has no difference. The published PRO is the one of 200 thresholds, so
it is our `pixel_PRO_200` that it is compared with.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from musc_jax.report.published_metrics import Published, published_categories
from musc_jax.report.tables import COLUMNS, METRIC_KEYS, Metrics

# What is published, by our names.
_PUBLISHED = {key.replace("pixel_PRO_200", "pixel_PRO"): key for key in METRIC_KEYS if key != "pixel_PRO"}
# The published means are rounded to two decimals, as are the rows they were computed from.
_ROUNDING = 0.011
_WIDTH = 8
_LINE = 110


class Cell(NamedTuple):
    """One metric: both sides in percent and their difference in percent points, None where undefined."""

    run: float | None
    reference: float | None
    difference: float | None


class Setting(NamedTuple):
    """A setting in which the two sides differ, as plain values."""

    name: str
    run: Any
    reference: Any


class Comparison(NamedTuple):
    """A run minus a reference."""

    keys: tuple[str, ...]
    """The metrics that are compared."""
    categories: dict[str, dict[str, Cell]]
    """The categories that both have; empty where the reference gives means alone."""
    mean: dict[str, Cell]
    """Means over the categories that both have and where both are defined."""
    counts: dict[str, int]
    """Over how many categories each mean runs."""
    only_run: tuple[str, ...]
    """Categories that the reference lacks."""
    only_reference: tuple[str, ...]
    """Categories that the run lacks."""
    deviation: dict[str, float]
    """Of the reference's means over random seeds, in percent, where published."""
    notes: tuple[str, ...]
    """Lines that belong under the table."""


def compare_runs(run: Mapping[str, Metrics], reference: Mapping[str, Metrics]) -> Comparison:
    """One run minus another.

    Args:
        run: Metrics as fractions by `METRIC_KEYS`, for each category.
        reference: The same of the other run.

    Raises:
        ValueError: No category in common.
    """
    return _by_category(METRIC_KEYS, _percent(run), _percent(reference))


def compare_with_published(dataset: str, run: Mapping[str, Metrics], reference: Published) -> Comparison:
    """A run minus published figures.

    Where these are given by category, the means run over the categories that both have. Where the means alone are
    published, they are compared with a mean of exactly the same categories: a metric that is undefined in one of them
    has none.

    Args:
        dataset: Name as in `--dataset`.
        run: Metrics as fractions by `METRIC_KEYS`, for each category.
        reference: One of `published_results` for this dataset.

    Raises:
        ValueError: No category in common, or means alone are published and categories are missing.
    """
    keys, ours = tuple(_PUBLISHED.values()), _percent(run)
    notes = ["PRO_200: PRO by 200 thresholds, the published kind"] if "pixel_PRO" in reference.mean else []
    if reference.categories:
        rows = {name: _renamed(row) for name, row in reference.categories.items()}
        found = _by_category(keys, ours, rows)
        if not found.only_reference:
            notes += _odd_means(found, _renamed(reference.mean))
        return found._replace(notes=tuple(notes))
    whole = published_categories(dataset)
    missing = sorted(whole - set(ours))
    if missing:
        raise ValueError(f"only the means over all {len(whole)} categories are published, and {_list(missing)} missing")
    theirs, deviation = _renamed(reference.mean), _renamed(reference.deviation)
    mean, counts = {}, {}
    for key in keys:
        values = [ours[name].get(key) for name in sorted(whole)]
        undefined = [name for name in sorted(whole) if ours[name].get(key) is None]
        if undefined and len(undefined) < len(whole) and theirs.get(key) is not None:
            notes.append(f"{key}: undefined for {', '.join(undefined)}, the published mean is over all categories")
        mean[key] = _cell(_mean(values), theirs.get(key))
        counts[key] = len(whole) if mean[key].difference is not None else 0
    extra = tuple(name for name in ours if name not in whole)
    return Comparison(keys, {}, mean, counts, extra, (), deviation, tuple(notes))


def comparison_table(found: Comparison, *, run: str, reference: str, settings: Sequence[Setting] = ()) -> str:
    """The comparison as text: percent points with two decimals, `-` where there is no difference.

    Args:
        found: From `compare_runs` or `compare_with_published`.
        run: What is compared, for people.
        reference: What with.
        settings: In what the two sides' settings differ.

    Returns:
        Lines of up to 110 columns, unless a name alone is longer.
    """
    lines = _wrap(f"{run} minus {reference}")
    for name, ours, theirs in settings:
        lines += _wrap(f"differs: {name}: {_shown(ours)}, reference: {_shown(theirs)}")
    for names, side in ((found.only_run, "the run"), (found.only_reference, "the reference")):
        if names:
            lines += _wrap(f"only in {side}: {', '.join(names)}")
    titles = [(above, title) for key, above, title in COLUMNS if key in found.keys]
    first = max(len("mean, reference"), *map(len, found.categories), 0) + 2
    above = "".join(
        f"{group if i == 0 or titles[i - 1][0] != group else '':>{_WIDTH}}" for i, (group, _) in enumerate(titles)
    )
    lines.append(f"{'':{first}}{above}".rstrip())
    lines.append(f"{'percent points':{first}}" + "".join(f"{title:>{_WIDTH}}" for _, title in titles))
    rule = "-" * (first + _WIDTH * len(titles))
    lines.append(rule)
    for name, row in found.categories.items():
        lines.append(f"{name:{first}}" + "".join(_signed(row[key].difference) for key in found.keys))
    if found.categories:
        lines.append(rule)
    lines.append(f"{'mean':{first}}" + "".join(_signed(found.mean[key].difference) for key in found.keys))
    for side in ("run", "reference"):
        cells = (_plain(getattr(found.mean[key], side)) for key in found.keys)
        lines.append(f"{f'mean, {side}':{first}}" + "".join(cells))
    if found.deviation:
        lines.append(f"{'  deviation':{first}}" + "".join(_plain(found.deviation.get(key)) for key in found.keys))
    partial = [f"{key} {n}" for key, n in found.counts.items() if 0 < n < len(found.categories)]
    if partial:
        total = len(found.categories)
        lines += _wrap(f"means over the categories where both are defined, of {total}: {', '.join(partial)}")
    for note in found.notes:
        lines += _wrap(note)
    return "\n".join(lines)


def comparison_json(found: Comparison, *, settings: Sequence[Setting] = ()) -> dict[str, Any]:
    """The comparison as plain values for JSON: percent, None where undefined, full precision."""
    return {
        "settings": [setting._asdict() for setting in settings],
        "only_run": list(found.only_run),
        "only_reference": list(found.only_reference),
        "categories": {
            name: {key: cell._asdict() for key, cell in row.items()} for name, row in found.categories.items()
        },
        "mean": {
            key: cell._asdict()
            | {"categories": found.counts[key]}
            | ({"reference_deviation": found.deviation[key]} if key in found.deviation else {})
            for key, cell in found.mean.items()
        },
        "notes": list(found.notes),
    }


def _percent(categories: Mapping[str, Metrics]) -> dict[str, dict[str, float | None]]:
    return {
        name: {key: None if (value := row.get(key)) is None else 100 * value for key in METRIC_KEYS}
        for name, row in categories.items()
    }


def _renamed(row: Mapping[str, float]) -> dict[str, float]:
    """Published figures by our names."""
    return {_PUBLISHED[key]: value for key, value in row.items()}


def _cell(run: float | None, reference: float | None) -> Cell:
    return Cell(run, reference, None if run is None or reference is None else run - reference)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, None where there is nothing or something is undefined."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def _by_category(keys: tuple[str, ...], run: Mapping[str, Metrics], reference: Mapping[str, Metrics]) -> Comparison:
    common = [name for name in run if name in reference]
    if not common:
        raise ValueError(f"no category in common: {_names(run)} here, {_names(reference)} there")
    categories = {name: {key: _cell(run[name].get(key), reference[name].get(key)) for key in keys} for name in common}
    mean, counts = {}, {}
    for key in keys:
        # Both means run over the same categories, or their difference would be one of categories, not of runs.
        both = [row[key] for row in categories.values() if row[key].difference is not None]
        counts[key] = len(both)
        mean[key] = _cell(_mean([cell.run for cell in both]), _mean([cell.reference for cell in both]))
    only_run = tuple(name for name in run if name not in reference)
    only_reference = tuple(name for name in reference if name not in run)
    return Comparison(keys, categories, mean, counts, only_run, only_reference, {}, ())


def _odd_means(found: Comparison, printed: Mapping[str, float]) -> list[str]:
    """Where the authors' own mean is not that of their rows, which are what is averaged here."""
    odd = []
    for key, value in printed.items():
        rows = _mean([row[key].reference for row in found.categories.values()])
        if rows is not None and abs(rows - value) > _ROUNDING:
            odd.append(f"{key}: the published mean is {value:.2f}, that of the published categories {rows:.2f}")
    return odd


def _names(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _list(names: Sequence[str]) -> str:
    return f"{_names(names)} {'is' if len(names) == 1 else 'are'}"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _LINE, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def _signed(value: float | None) -> str:
    # Rounded first: a difference that shows as zero has no sign.
    return f"{'-' if value is None else '0.00' if round(value, 2) == 0 else f'{value:+.2f}':>{_WIDTH}}"


def _plain(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.2f}':>{_WIDTH}}"


def _shown(value: Any) -> str:
    """A setting for people; of a digest its beginning is enough to tell it from another."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    text = str(value)
    return text[:12] if len(text) == 64 and set(text) <= set("0123456789abcdef") else text
