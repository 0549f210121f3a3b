"""What the README shows is what there is."""

import re
from functools import partial
from pathlib import Path

import pytest
import yaml
from readme_parts import generate

import musc_jax
import weights
from launch import flags as options
from musc_jax.data import DATASETS
from musc_jax.data.datasets import synthetic

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_examples_run(tmp_path, monkeypatch, capsys):
    """As they are there, on a synthetic set of four small samples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic, "write", partial(synthetic.write, samples=4, size=64))
    shown = README + (ROOT / "docs" / "features.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", shown, flags=re.S)
    assert blocks
    for block in blocks:
        exec(block, {"__name__": "__main__"})
        assert capsys.readouterr().out


def test_every_flag_dataset_and_backbone_is_listed():
    known = {flag.name for flag in options.flags.all}
    listed = set(re.findall(r"`--(\w+)`", README))
    assert known <= listed
    for name in (*weights.BACKBONES, *DATASETS):
        assert f"`{name.removesuffix('_reg')}`" in README


def test_tables_are_as_written_from_the_programs_own():
    assert generate.generated(README) == README, "run: python docs/generate.py"


@pytest.mark.parametrize("lost", ["<!-- datasets: docs/generate.py -->", "| `--windows` |"])
def test_a_place_for_a_table_that_is_lost_is_noticed(lost):
    with pytest.raises(ValueError, match="expected one place"):
        generate.generated(README.replace(lost, ""))


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == musc_jax.__version__
    assert citation["license"] == re.search(r'^license = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
