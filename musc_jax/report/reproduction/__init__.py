"""The paper's tables and figures as runs: which evaluations each needs, and how what came out is shown beside it."""

from musc_jax.report.reproduction.declared import Row, Run, Table, declared_tables
from musc_jax.report.reproduction.drawing import draw_figure
from musc_jax.report.reproduction.showing import Outcome, Shown, as_csv, as_latex, as_markdown, as_text, shown_table

__all__ = [
    "Outcome",
    "Row",
    "Run",
    "Shown",
    "Table",
    "as_csv",
    "as_latex",
    "as_markdown",
    "as_text",
    "declared_tables",
    "draw_figure",
    "shown_table",
]
