"""The documentation: it builds without a warning, loads nothing from elsewhere, and its commands are ones that are."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from musc_jax.__main__ import VERBS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md"]


class Loads(HTMLParser):
    """What a browser would fetch to show a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video"):
            self.found.append(given.get("src") or "")
        elif tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon", "preconnect", "modulepreload"):
            self.found.append(given.get("href") or "")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_nb")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = sorted(tmp_path.glob("*.html"))
    assert {page.stem for page in DOCS.glob("*.md")} <= {page.stem for page in pages}
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.found
        for address in loads.found:
            assert not re.match(r"\w+:|//", address) or address.startswith("data:"), f"{page.name}: {address}"
            path = tmp_path / address.partition("?")[0].partition("#")[0]
            assert address.startswith("data:") or path.exists(), f"{page.name}: {address}"
    # Mathematics is drawn by a script that came along.
    assert "_static/mathjax/" in (tmp_path / "method.html").read_text(encoding="utf-8")
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"@import\s+url\(\W*https?:", style.read_text(encoding="utf-8")), style


def commands():
    """Lines of the pages that call this program."""
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M):
            for line in block.replace("\\\n", " ").splitlines():
                if called := re.search(r"(?:python -m launch\.|musc-jax |python -m musc_jax )([\w-]+)(.*)", line):
                    yield pytest.param(called[1].replace("-", "_"), called[2], id=f"{page.stem}: {called[0][:60]}")


@pytest.mark.parametrize(("verb", "rest"), list(commands()))
def test_a_command_that_is_shown_is_one_that_is(verb, rest):
    """Its verb is there and so are its flags; it is not run."""
    assert verb in {*VERBS, "fetch_weights", "convert_weights"}
    known = set(re.findall(r"^\| `--(\w+)`", (DOCS / "flags.md").read_text(encoding="utf-8"), flags=re.M))
    used = set(re.findall(r"(?<!\w)--(\w+)", rest.partition(" #")[0]))
    assert used <= known | {"help", "helpfull", "version"}
