"""`python -m launch.prepare`: what it leaves, what it says, and what it survives."""

import os
import signal
import subprocess
import sys
import time

import pytest
from dataset_trees import write_mvtec3d
from eyecandies_tree import fingerprint

from musc_jax.data import open_dataset
from musc_jax.data.cleaning import mvtec3d as plane_cleaning

pytest.importorskip("open3d", exc_type=ImportError)


@pytest.fixture
def tree(tmp_path):
    write_mvtec3d(tmp_path / "data", categories=("bagel",), samples=6)
    return tmp_path / "data"


def start(tree, *arguments):
    command = [sys.executable, "-m", "launch.prepare", "--dataset=mvtec3d", f"--data_dir={tree}"]
    command += [f"--cache_dir={tree.parent / 'cache'}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tree.parent)


def stored(tree):
    return sorted((tree.parent / "cache" / "mvtec3d_masks").glob("*.masks"))


def children(process):
    """Processes started by a process that have started threads of work, oldest first; Linux only."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            with open(f"/proc/{entry}/cmdline") as file:
                line = file.read()
        except (OSError, IndexError, NotADirectoryError):
            continue
        if entry.isdigit() and int(fields[1]) == process.pid and "spawn_main" in line:
            found.append(int(entry))
    return sorted(found)


def test_everything_is_ready_afterwards(tree, monkeypatch):
    before = fingerprint(tree)
    process = start(tree, "--workers=2")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.startswith("12 samples are ready")
    assert fingerprint(tree) == before
    assert len(stored(tree)) == 12
    monkeypatch.setattr(plane_cleaning, "clean_scan", None)
    dataset = open_dataset("mvtec3d", data_dir=tree, cache_dir=tree.parent / "cache")
    assert len(list(dataset.samples("bagel", size=32))) == 12


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="finds its workers in /proc")
def test_a_killed_worker_costs_nothing(tree):
    process = start(tree, "--workers=4")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(children(process)) < 4:
        time.sleep(0.02)
    os.kill(children(process)[-1], signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.startswith("12 samples are ready")
    assert len(stored(tree)) == 12


def test_killed_and_continued(tree):
    process = start(tree, "--workers=1")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(stored(tree)) < 3:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=120)
    done = {path: path.stat().st_mtime_ns for path in stored(tree)}
    assert done
    process = start(tree, "--workers=1")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert len(stored(tree)) == 12
    assert all(path.stat().st_mtime_ns == changed for path, changed in done.items())


def test_the_home_folder_may_be_written_short(tree):
    command = [sys.executable, "-m", "launch.prepare", "--dataset=mvtec3d", "--data_dir=~/data", "--workers=1"]
    environment = os.environ | {"HOME": str(tree.parent)}
    done = subprocess.run(
        [*command, "--cache_dir=~/cache"], env=environment, cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("12 samples are ready"), done.stderr
    assert len(stored(tree)) == 12


def test_all_that_is_wrong_comes_in_one_report(tree):
    (tree / "bagel" / "test" / "good" / "xyz" / "001.tiff").write_bytes(b"II*\0 no scan")
    (tree / "bagel" / "test" / "crack" / "gt" / "002.png").unlink()
    process = start(tree, "--workers=1")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "error: 2 problems" in err
    assert "001.tiff" in err
    assert "002.png: is missing" in err
    assert "Traceback" not in err
    assert len(stored(tree)) == 10
