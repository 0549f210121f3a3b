"""The benchmark programs run; what they measure is judged on an idle machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments):
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_rows_of_every_kind():
    out = run("benchmarks", "--quick", "--repeats=1", "--only=mutual,encoder,scaling")
    for title in ("mutual scoring (4 x 196 x 64)", "mini-PointNet encoder (64 x 128)", "growth of mutual scoring"):
        assert title in out


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_more_than_fits_into_memory(tmp_path):
    shape = ["--count=30", "--tokens=20", "--width=16", "--stages=2", "--size=16", "--memory_gb=0.2"]
    for more in ([], ["--references=5"], ["--references=5"]):
        run("benchmarks.memory", *shape, *more, f"--output={tmp_path / 'memory.json'}")
    runs = json.loads((tmp_path / "memory.json").read_text())
    assert [found["references"] for found in runs] == [None, 5]
    assert all(found["relative_difference"] < 1e-5 for found in runs)
