"""`python -m launch.eval` on several devices and in several processes: the numbers of one."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from waiting import PATIENCE_SECONDS, reserved_port

GOLDEN = Path(__file__).parents[1] / "golden"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def start(tmp_path_factory, image_weights, candies):
    """Starts the command in a process of its own, which writes into a folder of its own."""
    root = tmp_path_factory.mktemp("runs")
    started = []

    def call(name, *arguments, devices=1):
        command = [
            *(sys.executable, "-m", "launch.eval", "--dataset=eyecandies", f"--data_dir={candies}"),
            *(f"--weights_rgb={image_weights}", f"--weights_points={GOLDEN / 'point_mae_tiny.pth'}"),
            *("--image_size=32", "--num_groups=48", "--group_size=24", "--k_iter=16", "--save=maps"),
            *(f"--cache_dir={root / 'cache'}", f"--output_dir={root / name}", *arguments),
        ]
        settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "TF_CPP_MIN_LOG_LEVEL": "3"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=os.environ | settings, **pipes))
        return started[-1], root / name / "eyecandies"

    yield call
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def together():
    """Flags of two processes."""
    with reserved_port() as port:
        yield [(f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={i}") for i in range(2)]


def finish(process):
    out, error = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, error
    return out, error


@pytest.fixture(scope="module")
def alone(start):
    """The results of one device, both categories."""
    process, folder = start("alone")
    finish(process)
    return folder


def expect_equal(got, want, tolerance):
    for category in ("Apple", "Berry"):
        rows = []
        for folder in (got, want):
            with (folder / category / "scores.csv").open(newline="") as file:
                rows.append(list(csv.DictReader(file)))
        for ours, theirs in zip(*rows, strict=True):
            assert ours["sample"] == theirs["sample"]
            for name in ("pred_score", "max_score"):
                assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=tolerance)
            maps = [tifffile.imread(f / category / "maps" / f"{ours['sample']}.tiff") for f in (got, want)]
            np.testing.assert_allclose(*maps, atol=tolerance)


# Rank matching swaps neighbours in rank on a rounding of the features.
TOLERANCE = 2e-3


def test_four_devices(start, alone):
    process, folder = start("four", devices=4)
    _, error = finish(process)
    assert "features on 4 devices" in error
    expect_equal(folder, alone, TOLERANCE)
    assert json.loads((folder / "run.json").read_text())["device"]["count"] == 4


def test_two_processes_of_two_devices(start, alone, together):
    """The first alone prints and writes, and finds again what is finished."""
    for attempt in ("anew", "again"):
        (first, folder), (second, _) = (start("two", *flags, devices=2) for flags in together)
        out, error = finish(first)
        other_out, other_error = finish(second)
        assert "mean" in out
        assert "process 1 of 2, with 2 of 4 devices" in other_error
        assert "Apple" not in other_out + other_error
        assert ("finished before" in error) == (attempt == "again")
        expect_equal(folder, alone, TOLERANCE)


def test_a_killed_process_ends_the_other(start, together):
    (first, folder), (second, _) = (start("killed", *flags, devices=2) for flags in together)
    for line in second.stderr:
        if line.startswith("process 1 of 2"):
            break
    second.send_signal(signal.SIGKILL)
    _, error = first.communicate(timeout=PATIENCE_SECONDS)
    assert first.returncode not in (0, None)
    assert "another process ended" in error or "another task died" in error
    assert not (folder / "metrics.json").exists()


def test_too_few_samples_for_the_processes(start, together):
    first, second = (start("few", *flags, "--limit=2", devices=2)[0] for flags in together)
    _, error = first.communicate(timeout=PATIENCE_SECONDS)
    assert first.returncode == 2
    assert "error: N = 2: too few samples for 2 processes" in error
    second.communicate(timeout=PATIENCE_SECONDS)
    assert second.returncode in (2, -signal.SIGABRT)  # the latter where it learns of the first's end before
