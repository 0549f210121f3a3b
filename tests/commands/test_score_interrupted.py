"""`launch.score` that is killed, or that finds no room: the same command goes on and ends in the same files."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch import eval as evaluation
from launch import score
from musc_jax import pipeline

KILLED = Path(__file__).parent / "killed_command.py"
PICTURES, KEPT = 4, "cache/scores"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Noise, and a part with a bright corner."""
    folder, rng = tmp_path_factory.mktemp("data") / "parts", np.random.default_rng(0)
    folder.mkdir()
    for i in range(PICTURES):
        pixels = rng.integers(0, 90, (40, 60, 3), np.uint8)
        pixels[:20, :20] += np.uint8(160 * (i == 2))
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Compiled programs, once for all processes."""
    return tmp_path_factory.mktemp("programs")


def flags(folder, weights):
    places = [f"--output_dir={folder / 'results'}", f"--cache_dir={folder / 'cache'}"]
    return [f"--weights_rgb={weights}", "--image_size=32", "--blocks=0,1,2", *places]


# ---- Killed


@pytest.fixture
def run_killed(tmp_path, parts, image_weights, programs):
    """Runs the command that kills itself before the n-th change to its results or its cache; returns their folder."""

    def call(name, at, code):
        folder = tmp_path / name
        settings = {"KILLED_FOLDER": str(folder), "KILLED_AT": str(at), "JAX_COMPILATION_CACHE_DIR": str(programs)}
        done = subprocess.run(
            [sys.executable, KILLED, "score", str(parts), *flags(folder, image_weights)],
            env=os.environ | settings | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return folder

    return call


def results(folder):
    """What a run has written, without what differs between any two: times, and the places that it was given."""
    place = folder / "results" / "score"
    found = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for name in [name for name in found if name.endswith("run.json")]:
        run = json.loads(found[name])
        run["products"]["parts"]["seconds"] = None
        found[name] = json.dumps(run["products"])
    del found["parts/category.json"]
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_runs_go_on_to_the_same_files(run_killed):
    whole = run_killed("whole", 0, 0)
    changes = int(Path(f"{whole}.changes").read_text())
    expected = results(whole)
    kinds = [name.split("/")[1] for name in expected if name.count("/") == 2]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(("maps", "masks", "overlays"), PICTURES)
    assert {"parts/scores.csv", "parts/regions.csv", "parts/predictions.jsonl", "parts/report.html"} <= set(expected)
    # Before anything is written, and then, where the scores are there already, while what was written is replaced.
    run_killed("killed", changes // 4, -signal.SIGKILL)
    run_killed("killed", changes // 2, -signal.SIGKILL)
    assert results(run_killed("killed", 0, 0)) == expected


@pytest.mark.full
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_runs_killed_at_every_change_go_on_to_the_same_files(run_killed):
    whole = run_killed("whole", 0, 0)
    expected = results(whole)
    for at in range(1, int(Path(f"{whole}.changes").read_text()) + 1):
        folder = f"killed_{at}"
        run_killed(folder, at, -signal.SIGKILL)
        assert results(run_killed(folder, 0, 0)) == expected, at


# ---- No room


@pytest.fixture
def run(tmp_path, parts, image_weights, in_process, monkeypatch):
    monkeypatch.setattr("launch.score.keep_programs", lambda cache_dir: None)
    return lambda *more: in_process(score, parts, *flags(tmp_path, image_weights), *more)


@pytest.fixture
def scorings(monkeypatch):
    """How often something was computed."""
    calls, whole = [], pipeline.score_divisions
    monkeypatch.setattr(pipeline, "score_divisions", lambda *args, **more: calls.append(1) or whole(*args, **more))
    return calls


def refuse(patch, ending, error):
    write = Path.write_bytes

    def write_bytes(path, data):
        if path.name.endswith(ending):
            raise OSError(*error)
        return write(path, data)

    patch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        ("scores.csv", (28, "No space left on device")),
        ("2.jpg", (122, "Quota exceeded")),
        ("report.html", (5, "Input/output error")),
    ],
)
def test_a_full_disk_costs_no_second_computation(run, tmp_path, scorings, ending, error):
    place = tmp_path / "results" / "score" / "parts"
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, ending, error)
        code, out, err = run()
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert line == f"error: {place}: cannot be written ({error[1]}); make room or pass another --output_dir"
    # Tables come first and are there already.
    assert (place / "regions.csv").exists() == (ending != "scores.csv")
    code, out, err = run()
    assert code == 0, err
    assert "report.html" in out
    assert len(scorings) == 1


def test_a_cache_that_cannot_be_written_is_said(run, tmp_path, scorings):
    (tmp_path / "cache").mkdir()
    (tmp_path / KEPT).write_text("in the way")
    code, _, err = run()
    assert code == 0
    assert f"the scores could not be kept in {tmp_path / 'cache'}" in err


def test_room_is_looked_for_before_any_work(run, tmp_path, scorings, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 20}))
    code, out, err = run()
    assert (code, out, scorings) == (2, "", [])
    assert "results take at least" in err


def test_a_place_that_cannot_be_written_is_named_before_weights_are_looked_for(run, tmp_path):
    (tmp_path / "file").touch()
    code, out, err = run(f"--output_dir={tmp_path / 'file' / 'results'}", "--weights_rgb=nowhere")
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'file' / 'results' / 'score'}: cannot be written (Not a directory)")


# ---- The cache


def test_what_evaluation_forgets_stays_for_other_decisions(run, tmp_path, parts, image_weights, scorings, in_process):
    assert run()[0] == 0
    given = [*flags(tmp_path, image_weights), "--dataset=folder", f"--data_dir={parts}", "--unlabelled"]
    code, _, err = in_process(evaluation, *given)
    assert code == 0, err
    before = len(scorings)
    assert run("--threshold=rate:0.5")[0] == 0
    assert len(scorings) == before
