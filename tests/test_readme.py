"""What the README shows is what there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from readme_parts import generate

import weights
from launch import flags as options
from musc_jax.data import DATASETS

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.slow
def test_the_python_examples_run(tmp_path):
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.S):
        done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_every_flag_dataset_and_backbone_is_listed():
    known = {flag.name for flag in flags.FLAGS.flags_by_module_dict()[options.__name__]}
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
