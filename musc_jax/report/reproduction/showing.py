"""A declared table with what came out, as text, CSV, Markdown and LaTeX: own figure, published figure, difference."""

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from musc_jax.report.reproduction.declared import MEMORY, SECONDS, Row, Run, Table

_LINE = 110
_HEADS = {
    "image_AUROC": "AUROC-cls", "image_F1Max": "F1-max-cls", "image_AP": "AP-cls",
    "pixel_AUROC": "AUROC-seg", "pixel_F1Max": "F1-max-seg", "pixel_AP": "AP-seg", "pixel_PRO": "PRO@30%",
    SECONDS: "ms/sample", MEMORY: "peak GB",
}  # fmt: skip


class Outcome(NamedTuple):
    """What a run gave.

    Attributes:
        figures: Percent by metric, the PRO of 200 thresholds as `pixel_PRO`; milliseconds and GB where it is timed.
        deviation: Standard deviations over seeds, percent.
        missing: Why there are no figures; empty where there are.
        remark: What the figures are of, where that is not what was published.
    """

    figures: Mapping[str, float] = {}
    deviation: Mapping[str, float] = {}
    missing: str = ""
    remark: str = ""


class Shown(NamedTuple):
    """A table with its outcomes.

    Attributes:
        table: As declared.
        outcomes: One for each of its rows.
        notes: Of this call, such as that weights were random.
    """

    table: Table
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...] = ()


def shown_table(table: Table, outcomes: Mapping[Run, Outcome], notes: Sequence[str] = ()) -> Shown:
    """Puts outcomes beside a table's rows; a row without a run says why."""

    def of(row: Row) -> Outcome:
        if row.run is None:
            return Outcome(missing=row.remark)
        return outcomes.get(row.run, Outcome(missing="not run"))

    return Shown(table, tuple(of(row) for row in table.rows), tuple(notes))


def _number(value: float | None, metric: str) -> str:
    return "-" if value is None else f"{value:.1f}" if metric in (SECONDS, MEMORY) else f"{value:.2f}"


def _as_published(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _difference(row: Row, outcome: Outcome, metric: str) -> float | None:
    ours, theirs = outcome.figures.get(metric), row.published.get(metric)
    return None if ours is None or theirs is None else ours - theirs


def _missing(shown: Shown) -> list[str]:
    """Rows that could not be made and why, one line for each reason."""
    reasons: dict[str, list[str]] = {}
    for row, outcome in zip(shown.table.rows, shown.outcomes):
        if outcome.missing:
            reasons.setdefault(outcome.missing, []).append(" ".join(row.cells))
    return [f"not made, {reason}: {', '.join(rows)}" for reason, rows in reasons.items()]


def _remarks(shown: Shown) -> list[str]:
    guessed: dict[str, list[str]] = {}
    for row, outcome in zip(shown.table.rows, shown.outcomes):
        for remark in (row.remark if row.run is not None else "", outcome.remark):
            if remark:
                guessed.setdefault(remark, []).append(" ".join(row.cells))
    return [f"{remark}: {', '.join(rows)}" for remark, rows in guessed.items()]


def notes_of(shown: Shown) -> list[str]:
    """All that has to be said below a table."""
    return [*shown.notes, *shown.table.notes, *_remarks(shown), *_missing(shown)]


def as_text(shown: Shown) -> str:
    """Three lines a row: own figures, the published ones, and the first minus the second, in percent points."""
    table = shown.table
    widths = [max(len(head), *(len(row.cells[i]) for row in table.rows)) for i, head in enumerate(table.heads)]
    front = sum(widths) + 2 * len(widths)
    lines = [table.title, ""]
    heads = "  ".join(head.ljust(width) for head, width in zip(table.heads, widths))
    lines.append(f"{heads:{front}}{'':10}" + "".join(f"{_HEADS[metric]:>11}" for metric in table.metrics))
    lines.append("-" * len(lines[-1]))
    for row, outcome in zip(table.rows, shown.outcomes):
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row.cells, widths))
        block = [(cells, "here", [_number(outcome.figures.get(m), m) for m in table.metrics])]
        if outcome.deviation:
            block.append(("", "  +-", [_number(outcome.deviation.get(m), m) for m in table.metrics]))
        if row.published:
            block.append(("", "published", [_as_published(row.published.get(m)) for m in table.metrics]))
            if outcome.figures:
                block.append(("", "  minus", [_signed(_difference(row, outcome, m)) for m in table.metrics]))
        lines += [f"{left:{front}}{name:10}{''.join(f'{v:>11}' for v in values)}" for left, name, values in block]
    lines.append("")
    for note in notes_of(shown):
        lines += textwrap.wrap(note, _LINE, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines).rstrip() + "\n"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def as_csv(shown: Shown) -> str:
    """A line for each figure, with both deviations, the difference, and why it is missing where it is."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ("metric", "here", "deviation", "published", "published_deviation", "difference", "missing")
    writer.writerow((*shown.table.heads, *heads))
    for row, outcome in zip(shown.table.rows, shown.outcomes):
        for metric in shown.table.metrics:
            values = (
                outcome.figures.get(metric),
                outcome.deviation.get(metric),
                row.published.get(metric),
                row.deviation.get(metric),
                _difference(row, outcome, metric),
            )
            writer.writerow((*row.cells, metric, *("" if v is None else f"{v:.6g}" for v in values), outcome.missing))
    return text.getvalue()


def _cells(shown: Shown, separator: str) -> list[tuple[str, ...]]:
    """Each row with one cell a figure: own figure, published one in parentheses."""
    lines = []
    for row, outcome in zip(shown.table.rows, shown.outcomes):
        cells = []
        for metric in shown.table.metrics:
            ours = _number(outcome.figures.get(metric), metric)
            if metric in outcome.deviation:
                ours += f"{separator}{_number(outcome.deviation[metric], metric)}"
            theirs = row.published.get(metric)
            cells.append(ours if theirs is None else f"{ours} ({theirs:.1f})")
        lines.append((*row.cells, *cells))
    return lines


def as_markdown(shown: Shown) -> str:
    """A table for Markdown; published figures stand in parentheses."""
    heads = (*shown.table.heads, *(_HEADS[metric] for metric in shown.table.metrics))
    lines = [f"### {shown.table.title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in _cells(shown, " ± ")]
    lines += ["", "Published figures in parentheses.", "", *(f"- {note}" for note in notes_of(shown))]
    return "\n".join(lines) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "λ": r"$\lambda$",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def as_latex(shown: Shown) -> str:
    """A table for LaTeX with booktabs; published figures stand in parentheses."""
    front, count = len(shown.table.heads), len(shown.table.metrics)
    heads = [*shown.table.heads, *(_HEADS[metric] for metric in shown.table.metrics)]
    lines = [
        r"\begin{table}",
        rf"\caption{{{_latex(shown.table.title)}. Published figures in parentheses.}}",
        rf"\begin{{tabular}}{{{'l' * front}{'r' * count}}}",
        r"\toprule",
        " & ".join(map(_latex, heads)) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(map(_latex, line)) + r" \\" for line in _cells(shown, " ± ")]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join([*lines, *(f"% {note}" for note in notes_of(shown))]) + "\n"
