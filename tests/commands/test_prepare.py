"""`python -m launch.prepare`: what it leaves, what it says, and what it survives."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dataset_trees import write_mvtec3d
from eyecandies_tree import fingerprint
from waiting import PATIENCE_SECONDS, until

from musc_jax.data import open_dataset
from musc_jax.data.cleaning import mvtec3d as plane_cleaning

pytest.importorskip("open3d", exc_type=ImportError)


@pytest.fixture
def tree(tmp_path):
    write_mvtec3d(tmp_path / "data", categories=("bagel",), samples=3)
    return tmp_path / "data"


def start(tree, *arguments, program=("-m", "launch.prepare"), **environment):
    command = [sys.executable, *program, "--dataset=mvtec3d", f"--data_dir={tree}"]
    command += [f"--cache_dir={tree.parent / 'cache'}", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=tree.parent, env=os.environ | environment, **pipes)


def start_held(tree, *arguments, after, **environment):
    """With workers that stop when so many scans are cleaned; the folder in which they leave their ids."""
    folder = tree.parent / "held"
    folder.mkdir()
    program = (Path(__file__).with_name("held_prepare.py"),)
    environment |= {"HELD_FOLDER": str(folder), "HELD_AFTER": str(after)}
    return start(tree, *arguments, program=program, **environment), folder


def finish(process, expected=0):
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == expected, err
    return out, err


def stored(tree):
    return sorted((tree.parent / "cache" / "mvtec3d_masks").glob("*.masks"))


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_everything_is_ready_afterwards_and_a_killed_worker_costs_nothing(tree, monkeypatch):
    """Killed in the middle of a sample. The home folder may be written short."""
    before = fingerprint(tree)
    short = ("--data_dir=~/data", "--cache_dir=~/cache")
    process, held = start_held(tree, *short, "--workers=2", after=0, HOME=str(tree.parent))
    worker = until(lambda: next(held.iterdir(), None), process)
    os.kill(int(worker.name), signal.SIGKILL)
    (held / "go on").touch()
    out, _ = finish(process)
    assert out.startswith("6 samples are ready")
    assert fingerprint(tree) == before
    assert len(stored(tree)) == 6
    monkeypatch.setattr(plane_cleaning, "clean_scan", None)
    dataset = open_dataset("mvtec3d", data_dir=tree, cache_dir=tree.parent / "cache")
    assert len(list(dataset.samples("bagel", size=32))) == 6


def test_killed_and_continued(tree):
    """Killed with its worker in the middle of the third sample."""
    process, held = start_held(tree, "--workers=1", after=2)
    until(lambda: list(held.iterdir()), process)
    process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)  # the worker has ended, too: it has the other end of the pipes
    done = {path: path.stat().st_mtime_ns for path in stored(tree)}
    assert len(done) == 2
    finish(start(tree, "--workers=1"))
    assert len(stored(tree)) == 6
    assert all(path.stat().st_mtime_ns == changed for path, changed in done.items())


def test_all_that_is_wrong_comes_in_one_report(tree):
    (tree / "bagel" / "test" / "good" / "xyz" / "001.tiff").write_bytes(b"II*\0 no scan")
    (tree / "bagel" / "test" / "crack" / "gt" / "002.png").unlink()
    _, err = finish(start(tree, "--workers=1"), expected=2)
    assert "error: 2 problems" in err
    assert "001.tiff" in err
    assert "002.png: is missing" in err
    assert "Traceback" not in err
    assert len(stored(tree)) == 4
