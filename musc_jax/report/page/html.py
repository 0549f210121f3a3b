"""The page as text: template, style and scripts from this package, and the content as data that no name can leave."""

import base64
import gzip
import hashlib
import json
import re
from functools import cache
from html import escape
from importlib import resources
from typing import Any

from musc_jax.report.page.content import content
from musc_jax.report.page.parts import Page

# In the order in which they rely on each other.
SCRIPTS = (
    "base.js",
    "decision.js",
    "pictures.js",
    "charts.js",
    "labels.js",
    "list.js",
    "detail.js",
    "verdicts.js",
    "page.js",
)
_PICTURES = 300


def charts_script() -> str | None:
    """The script that draws clouds and curves, of the package plotly; None where that is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return None
    return get_plotlyjs()


def report_html(page: Page, *, pictures: int = _PICTURES, charts: bool = True) -> str:
    """The page as one self-contained HTML document.

    It opens from a disk or a mail, asks for nothing from any network, and forbids its browser to. Names, paths and
    texts cannot become markup or script, whatever they hold. Images are made smaller as there are more of them; with
    200 samples the document takes less than 15 MB.

    Args:
        page: what it shows.
        pictures: so many samples have pictures, those that the decision got wrong and the worst first; the others are
            in the table and the histogram.
        charts: include the script for clouds and curves (2 MB) if there is something to draw and plotly is installed;
            without it the page says how to get it.

    Raises:
        ValueError: two samples of one name; a finished picture of an unknown kind.
    """
    found = content(page, limit=pictures)
    drawn = found["metrics"] is not None or any(sample.get("cloud") for sample in found["samples"])
    library = charts_script() if charts and drawn else None
    script = _script()
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in (script, library) if text is not None)
    parts = {
        "policy": (
            f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
            "connect-src 'none'; base-uri 'none'; form-action 'none'"
        ),
        "title": _escaped(page.title),
        "style": _file("page.css"),
        "plain": _plain_table(found),
        "content": as_data(found),
        "charts": "" if library is None else _packed(library),
        "script": script,
    }
    # In one pass: a name that looks like a place of the template is none.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _file("template.html"))


def as_data(value: Any) -> str:
    """JSON that may stand inside a script element: plain ASCII, without the characters that markup begins with."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _file(name: str) -> str:
    return (resources.files(__package__) / "files" / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    """The page's own scripts as one, whose names stay inside it."""
    return "\n" + "\n".join(('"use strict";\n(() => {', *map(_file, SCRIPTS), "})();")) + "\n"


@cache
def _packed(library: str) -> str:
    return base64.b64encode(gzip.compress(library.encode(), 9, mtime=0)).decode()


def _digest(text: str) -> str:
    """By which a browser knows the one script that it may run."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _escaped(text: object) -> str:
    """Text fit for markup; halves of characters, which undecodable file names hold, are replaced."""
    return escape(str(text).encode("utf-8", "replace").decode())


def _plain_table(found: dict[str, Any]) -> str:
    """The samples without any script, for previews that run none."""
    words = {0: "good", 1: "defective", None: ""}
    rows = (
        f"<tr><td>{row['rank']}<td><bdi>{_escaped(row['name'])}</bdi>"
        f"<td>{'' if row['score'] is None else format(row['score'], '.5g')}<td>{words[row['label']]}"
        for row in found["samples"]
    )
    notes = "".join(f"<p><strong>{_escaped(note)}</strong>" for note in found["notes"])
    return f"{notes}<table><tr><th>rank<th>sample<th>pred_score<th>decision{''.join(rows)}</table>"
