"""What the README shows is what there is."""

import importlib
import re
from functools import partial
from pathlib import Path

import pytest
import yaml
from readme_parts import generate

import musc_jax
import weights
from launch.own_flags import OwnFlags
from musc_jax.data.datasets import published_datasets, synthetic

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()


def test_the_python_examples_run(tmp_path, monkeypatch, capsys):
    """As they are there, on a synthetic set of four small samples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic, "write", partial(synthetic.write, samples=4, size=64))
    shown = README + (DOCS / "python.md").read_text() + (DOCS / "features.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", shown, flags=re.S)
    assert len(blocks) >= 4
    for block in blocks:
        exec(block, {"__name__": "__main__"})
        assert capsys.readouterr().out


@pytest.mark.parametrize("page", generate.TABLES)
def test_tables_are_as_written_from_the_programs_own(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert generate.generated(page, text) == text, "run: python docs/generate.py"


def test_a_place_for_a_table_that_is_lost_is_noticed():
    text = (DOCS / "datasets.md").read_text(encoding="utf-8")
    for damaged in (text.replace("<!-- datasets: docs/generate.py -->", ""), text + text):
        with pytest.raises(ValueError, match="expected one place"):
            generate.generated("datasets.md", damaged)


def test_every_flag_dataset_and_backbone_is_listed():
    """Of all commands, also one that `docs/generate.py` has not heard of."""
    listed = set(re.findall(r"^\| `--(\w+)`", (DOCS / "flags.md").read_text(), flags=re.M))
    verbs = (path.stem for path in (ROOT / "launch").glob("*.py"))
    sets = [vars(importlib.import_module(f"launch.{verb}")).get("flags") for verb in verbs if verb != "__init__"]
    known = {flag.name for own in sets if isinstance(own, OwnFlags) for flag in own.all}
    assert "threshold_from" in known
    assert known == listed
    for page, names in (("backbones.md", weights.BACKBONES), ("datasets.md", published_datasets())):
        rows = re.findall(r"^\| `(\w+)`", (DOCS / page).read_text(), flags=re.M)
        assert set(names) <= set(rows)


def test_every_page_is_linked_and_every_link_leads_somewhere():
    pages = {*DOCS.glob("*.md"), *ROOT.glob("*.md")} - {ROOT / "README.md"}
    linked = set()
    for page in (*pages, ROOT / "README.md"):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                target = (page.parent / link).resolve()
                assert target.exists(), f"{page.name}: {link}"
                linked |= {target} if page.name == "README.md" else set()
    known = README + (ROOT / "CONTRIBUTING.md").read_text()
    listed = set(re.findall(r"^(\w+)$", (DOCS / "index.md").read_text(), flags=re.M))
    assert {page.stem for page in DOCS.glob("*.md")} == listed | {"index"}, "docs/index.md lists them"
    assert {
        page.name for page in pages if page not in linked and page.name not in known and page.stem not in listed
    } <= {
        "AGENTS.md",
        "index.md",
    }


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == musc_jax.__version__
    assert citation["license"] == re.search(r'^license = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
