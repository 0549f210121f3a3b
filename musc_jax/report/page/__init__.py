"""The page: one HTML file with pictures, scores and decisions, which needs no network and no other file."""

from musc_jax.report.page.html import charts_script, report_html
from musc_jax.report.page.parts import Page, PageCloud, PagePicture, PageRegion, PageSample, PageWarning

__all__ = [
    "Page",
    "PageCloud",
    "PagePicture",
    "PageRegion",
    "PageSample",
    "PageWarning",
    "charts_script",
    "report_html",
]
