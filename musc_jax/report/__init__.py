"""Tables, pictures and comparisons with published figures. Nothing here prints or writes."""

from musc_jax.report.pictures import color_scale, png_bytes, sample_picture
from musc_jax.report.published import Published, difference_line, published
from musc_jax.report.tables import metrics_csv, metrics_table, timings_table

__all__ = [
    "Published",
    "color_scale",
    "difference_line",
    "metrics_csv",
    "metrics_table",
    "png_bytes",
    "published",
    "sample_picture",
    "timings_table",
]
