"""Tables, pictures and comparisons with published figures. Nothing here prints or writes."""

from musc_jax.report.comparison import (
    Comparison,
    Setting,
    compare_runs,
    compare_with_published,
    comparison_json,
    comparison_table,
)
from musc_jax.report.pictures import color_scale, dimmed_outside, overlay_picture, png_bytes, sample_picture
from musc_jax.report.published_metrics import (
    Published,
    difference_line,
    published,
    published_results,
    published_settings_of,
)
from musc_jax.report.regions import Region, enlarge_inside, enlarge_map, find_regions
from musc_jax.report.settings import division, published_settings, run_settings
from musc_jax.report.tables import metrics_csv, metrics_table, timings_table

__all__ = [
    "Comparison",
    "Published",
    "Region",
    "Setting",
    "color_scale",
    "compare_runs",
    "compare_with_published",
    "comparison_json",
    "comparison_table",
    "difference_line",
    "dimmed_outside",
    "division",
    "enlarge_inside",
    "enlarge_map",
    "find_regions",
    "metrics_csv",
    "metrics_table",
    "overlay_picture",
    "png_bytes",
    "published",
    "published_results",
    "published_settings",
    "published_settings_of",
    "run_settings",
    "sample_picture",
    "timings_table",
]
