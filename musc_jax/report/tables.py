"""Plain-text tables and CSV of metrics and times."""

import csv
import io
import textwrap
from collections.abc import Mapping

Metrics = Mapping[str, float | None]

# key, heading above, heading
COLUMNS = (
    ("image_AUROC", "image", "AUROC"),
    ("image_F1Max", "image", "F1-max"),
    ("image_AP", "image", "AP"),
    ("pixel_AUROC", "pixel", "AUROC"),
    ("pixel_F1Max", "pixel", "F1-max"),
    ("pixel_AP", "pixel", "AP"),
    ("pixel_PRO", "pixel", "PRO"),
    ("pixel_PRO_200", "pixel", "PRO_200"),
)
METRIC_KEYS = tuple(key for key, _, _ in COLUMNS)
_WIDTH = 8
_LINE = 110


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else f'{100 * value:.2f}':>{_WIDTH}}"


def metrics_table(
    categories: Mapping[str, Metrics],
    mean: Metrics,
    counts: Mapping[str, int],
    *,
    deviation: Metrics | None = None,
    note: str | None = None,
) -> str:
    """A row for each category and their mean, percent with two decimals, `-` where a metric is undefined.

    Args:
        categories: Metrics as fractions by `METRIC_KEYS`, for each category.
        mean: Their means.
        counts: Over how many categories each mean runs; where these are not all, a line below says so.
        deviation: Standard deviations of the means, where the run was repeated.
        note: A remark under the table, such as that the weights are random.

    Returns:
        Lines of up to 110 columns, unless a category's name alone is longer than 44.
    """
    first = max(8, *map(len, categories), 0) + 1
    groups = f"{'':{first}}{'image':>{_WIDTH}}{'':{2 * _WIDTH}}{'pixel':>{_WIDTH}}"
    lines = [groups.rstrip(), f"{'percent':{first}}" + "".join(f"{title:>{_WIDTH}}" for _, _, title in COLUMNS)]
    rule = "-" * (first + _WIDTH * len(COLUMNS))
    lines.append(rule)
    for name, row in categories.items():
        lines.append(f"{name:{first}}" + "".join(_cell(row.get(key)) for key in METRIC_KEYS))
    lines += [rule, f"{'mean':{first}}" + "".join(_cell(mean.get(key)) for key in METRIC_KEYS)]
    if deviation is not None:
        lines.append(f"{'+-':{first}}" + "".join(_cell(deviation.get(key)) for key in METRIC_KEYS))
    partial = [f"{key} {counts[key]}" for key in METRIC_KEYS if 0 < counts.get(key, 0) < len(categories)]
    if partial:
        text = f"means over the categories where a metric is defined, of {len(categories)}: {', '.join(partial)}"
        lines += textwrap.wrap(text, _LINE, subsequent_indent="  ")
    if note:
        lines.append(f"NOTE {note}")
    return "\n".join(lines)


def metrics_csv(categories: Mapping[str, Metrics], mean: Metrics, deviation: Metrics | None = None) -> str:
    """The same rows as CSV: fractions, an empty cell where a metric is undefined."""
    summary = [("mean", mean)] if deviation is None else [("mean", mean), ("deviation", deviation)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("category", *METRIC_KEYS))
    for name, row in (*categories.items(), *summary):
        writer.writerow((name, *("" if row.get(key) is None else repr(row[key]) for key in METRIC_KEYS)))
    return text.getvalue()


def timings_table(timings: Mapping[str, Mapping[str, float]]) -> str:
    """Seconds a sample of the whole, and by stage where these are known; compilation excluded.

    A column for each category; where these do not fit into 110 columns, the mean over the categories, the lowest and
    the highest.

    Args:
        timings: Seconds per sample by stage and of `all`, for each category; where `all` is missing, the stages' sum.
    """
    stages = list(dict.fromkeys(stage for row in timings.values() for stage in row if stage != "all"))
    heading = "seconds a sample, without compilation"
    first = max(len(heading), *(len(stage) + 2 for stage in stages), 0) + 1
    # The wholes first: the lowest is that of one category, not the sum of the lowest stages.
    columns = {
        name: [*(row.get(stage, 0.0) for stage in stages), row.get("all", sum(row.values()))]
        for name, row in timings.items()
    }
    if first + sum(max(_WIDTH, len(name)) + 1 for name in columns) > _LINE:
        rows = list(zip(*columns.values(), strict=True))
        columns = {
            "mean": [sum(row) / len(row) for row in rows],
            "lowest": [min(row) for row in rows],
            "highest": [max(row) for row in rows],
        }
    widths = {name: max(_WIDTH, len(name)) + 1 for name in columns}
    lines = [f"{heading:{first}}" + "".join(f"{name:>{width}}" for name, width in widths.items())]
    for i, stage in enumerate([*stages, "all"]):
        cells = (f"{columns[name][i]:{width}.3f}" for name, width in widths.items())
        lines.append(f"{'  ' + stage:{first}}" + "".join(cells))
    return "\n".join(lines)
