"""Tables, pictures and comparisons with published figures. Nothing here prints or writes."""

from musc_jax.report.comparison import (
    Comparison,
    Setting,
    compare_runs,
    compare_with_published,
    comparison_json,
    comparison_table,
)
from musc_jax.report.pictures import color_scale, png_bytes, sample_picture
from musc_jax.report.published_metrics import Published, difference_line, published, published_results
from musc_jax.report.settings import division, published_settings, run_settings
from musc_jax.report.tables import metrics_csv, metrics_table, timings_table

__all__ = [
    "Comparison",
    "Published",
    "Setting",
    "color_scale",
    "compare_runs",
    "compare_with_published",
    "comparison_json",
    "comparison_table",
    "difference_line",
    "division",
    "metrics_csv",
    "metrics_table",
    "png_bytes",
    "published",
    "published_results",
    "published_settings",
    "run_settings",
    "sample_picture",
    "timings_table",
]
