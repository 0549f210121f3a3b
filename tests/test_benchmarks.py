"""The benchmark programs run; what they measure is judged on an idle machine."""

import importlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from musc_jax.kernels import FORMS, OPERATIONS

ROOT = Path(__file__).parents[1]


def run(*arguments):
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", FORMS)
def test_every_form_has_a_row_with_inputs(name, monkeypatch):
    """Of all platforms, also those that this machine does not have."""
    monkeypatch.syspath_prepend(ROOT)  # benchmarks are not installed
    forms = importlib.import_module("benchmarks.forms")
    quick = importlib.import_module("benchmarks.hot_paths").Setting(quick=True)
    assert name in forms.INPUTS, "an operation needs inputs in benchmarks/forms.py"
    arrays, options = forms.INPUTS[name](quick)
    statement = partial(OPERATIONS[name].statement, **options)
    want = jax.eval_shape(statement, *arrays)
    for form in FORMS[name].values():
        assert jax.eval_shape(partial(form.function, **options), *arrays) == want
    own = {key for key in ("default", jax.default_backend()) if key in FORMS[name]}
    titles = {f"form_{name}" + ("" if key == "default" else f"_{key}") for key in own}
    assert titles <= set(forms.rows())


@pytest.mark.slow
def test_rows_of_every_kind():
    out = run("benchmarks", "--quick", "--repeats=1", "--only=mutual,encoder,scaling,form_lowest_mean")
    for title in (
        "lowest_mean: by_bisection (default)",
        "mutual scoring (4 x 196 x 64)",
        "mini-PointNet encoder (64 x 128)",
        "growth of mutual scoring",
    ):
        assert title in out


@pytest.mark.slow
@pytest.mark.full
def test_all_that_a_borrowed_card_is_asked(tmp_path):
    """On a CPU in small: what is printed and written."""
    file = tmp_path / "gpu.json"
    out = run("benchmarks.gpu", "--quick", "--minutes=10", f"--output={file}")
    found = json.loads(file.read_text())
    first, second = found["first features"]
    assert (first["process"], second["process"]) == ("first", "second")
    assert first["compiling"] > 0
    assert set(found["stages, fast"]["stages_ms_per_sample"]) >= {"point grouping", "image backbone", "mutual scoring"}
    for step in ("rates", "category, fast", "pairs", "agreement", "scoring, full"):
        assert step in out
        assert found[step]
    assert 0.9 < found["agreement"]["correlation of maps, fast scoring alone"] <= 1
    assert "fast, xla" in found["pairs"]


def test_what_a_borrowed_card_has_no_time_for_is_left_out(tmp_path):
    file = tmp_path / "gpu.json"
    out = run("benchmarks.gpu", "--quick", "--minutes=10", "--only=rates", f"--output={file}")
    assert "rates" in out
    assert json.loads(file.read_text())["rates"]
    out = run("benchmarks.gpu", "--minutes=0.02", "--only=rates", f"--output={file}")
    assert "rates: left out, " in out or "measure: not done in time" in out
    assert "rates" not in json.loads(file.read_text())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_more_than_fits_into_memory(tmp_path):
    shape = ["--count=30", "--tokens=20", "--width=16", "--stages=2", "--size=16", "--memory_gb=0.2"]
    for more in ([], ["--references=5"], ["--references=5"]):
        run("benchmarks.memory", *shape, *more, f"--output={tmp_path / 'memory.json'}")
    runs = json.loads((tmp_path / "memory.json").read_text())
    assert [found["references"] for found in runs] == [None, 5]
    assert all(found["relative_difference"] < 1e-5 for found in runs)


def test_odd_files_are_told_of_in_a_line_each(tmp_path):
    """A picture, a cloud, a pointer, something nobody reads, and something broken."""
    header = [
        "ply",
        "format ascii 1.0",
        "element vertex 2",
        *(f"property float {name}" for name in "xyz"),
        "end_header",
    ]
    (tmp_path / "a.ply").write_text("\n".join([*header, "1 2 3", "2 3 4\n"]))
    (tmp_path / "b.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "c.mat").write_bytes(b"MATLAB")
    (tmp_path / "d.pcd").write_bytes(b"nothing")
    lines = run("benchmarks.odd", str(tmp_path)).splitlines()
    assert [line.removeprefix(f"{tmp_path}/") for line in lines] == [
        "a.ply: 2 points without a grid, 2 of them there, z 3 to 4",
        "b.pth: no weights: a Git LFS pointer, not the file itself; fetch that by `git lfs pull`",
        "c.mat: no reader",
        "d.pcd: no points: is no PCD file; copy it again from the dataset's archive",
    ]


def test_options_of_vouching_side_by_side(tmp_path):
    rng = np.random.default_rng(0)
    labels, masks = np.arange(12) % 4 == 0, np.zeros((12, 8, 8), bool)
    masks[labels, :2, :2] = True
    stages = rng.normal(size=(2, 1, 16, 6)) + 0.1 * rng.normal(size=(2, 12, 16, 6))
    stages[:, labels, 0] = rng.normal(size=(2, 3, 6))
    np.savez(tmp_path / "caps.npz", labels=labels, masks=masks, stage_0=stages[0], stage_1=stages[1])
    lines = run("benchmarks.vouching", str(tmp_path / "caps.npz"), "--rows=released,interval 0.1 filter").splitlines()
    assert lines[0] == "| image AUROC of the maximum / pixel AP | caps |"
    assert lines[2].startswith("| released | 100.0 / ")
    assert lines[3].startswith("| interval 0.1, filter | 100.0 / ")
