"""Finished work survives: full disks, readers that stop reading, another dataset's results in the same place."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch import category_files, output
from launch import eval as command
from musc_jax import pipeline

ROOT = Path(__file__).parents[2]


def write_parts(folder, seed, count=3):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("data") / "parts", 0)


@pytest.fixture
def arguments(tmp_path, image_weights):
    """The command line without the folder of samples."""
    given = ["--dataset=folder", f"--output_dir={tmp_path / 'results'}", f"--cache_dir={tmp_path / 'cache'}"]
    return ["eval", *given, f"--weights_rgb={image_weights}", "--image_size=32", "--modality=rgb"]


@pytest.fixture
def run(arguments, parts, capsys):
    def call(*more, data=parts):
        code = command.main([*arguments, f"--data_dir={data}", *more])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def rows(folder):
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---- Another dataset's results


def test_results_of_other_samples_are_not_replaced(run, tmp_path):
    monday, tuesday = (write_parts(tmp_path / day / "images", seed) for seed, day in enumerate(("mon", "tue")))
    assert run(data=monday)[0] == 0
    place = tmp_path / "results" / "folder" / "images"
    before = (place / "scores.csv").read_bytes(), (place.parent / "metrics.json").read_bytes()
    code, out, err = run(data=tuesday)
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert line == (
        f"error: {place}: is the result of other samples, from {monday}, not from {tuesday}; pass another "
        "--output_dir, or --replace if it is no longer needed"
    )
    assert before == ((place / "scores.csv").read_bytes(), (place.parent / "metrics.json").read_bytes())
    # The same folder may have changed, and the same samples may have been moved.
    (monday / "0.png").unlink()
    assert run(data=monday)[0] == 0
    (tmp_path / "moved").mkdir()
    monday.rename(tmp_path / "moved" / "images")
    code, _, err = run(data=tmp_path / "moved" / "images")
    assert code == 0
    assert "finished before" in err
    assert run("--replace", data=tuesday)[0] == 0
    assert len(rows(place)) == 3
    assert {row["image_path"] for row in rows(place)} == {str(tuesday / f"{i}.png") for i in range(3)}


def test_nor_is_their_summary(run, tmp_path):
    """Categories of other names leave each other alone, but there is one metrics.json."""
    one, other = write_parts(tmp_path / "mon" / "a", 0), write_parts(tmp_path / "tue" / "b", 1)
    assert run(data=one)[0] == 0
    summary = tmp_path / "results" / "folder" / "metrics.json"
    before = summary.read_bytes()
    code, _, err = run(data=other)
    assert code == 2
    assert f"error: {summary}: is the result of other samples, from {one}, not from {other}" in err
    assert summary.read_bytes() == before
    assert not (summary.parent / "b").exists()
    # Other categories of the same dataset are no other dataset.
    write_parts(tmp_path / "mon" / "c", 2)
    assert run("--replace", "--categories=a", data=tmp_path / "mon")[0] == 0
    assert run("--categories=c", data=tmp_path / "mon")[0] == 0
    assert list(json.loads(summary.read_text())["categories"]) == ["c"]


def test_folders_elsewhere_count(run, tmp_path, parts):
    for day in ("mon", "tue"):
        write_parts(tmp_path / day, ord(day[0]))
    assert run(f"--normal_dir={tmp_path / 'mon'}")[0] == 0
    code, _, err = run(f"--normal_dir={tmp_path / 'tue'}")
    assert code == 2
    assert "is the result of other samples" in err


# ---- Disks


class Full:
    """Lets files of some kinds fail as on a full disk, for as long as it is meant to."""

    def __init__(self, monkeypatch, *endings, error=(28, "No space left on device")):
        self.failed, write = 0, Path.write_bytes

        def write_bytes(path, data):
            if str(path).endswith(endings):
                self.failed += 1
                raise OSError(*error)
            return write(path, data)

        monkeypatch.setattr(Path, "write_bytes", write_bytes)


@pytest.fixture
def scorings(monkeypatch):
    """How often something was computed."""
    calls, score = [], pipeline.score_divisions
    monkeypatch.setattr(pipeline, "score_divisions", lambda *args, **more: calls.append(1) or score(*args, **more))
    return calls


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        (("2.png",), (28, "No space left on device")),
        (("1.tiff",), (122, "Quota exceeded")),
        (("scores.csv", "category.json"), (5, "Input/output error")),
    ],
)
def test_a_full_disk_costs_no_second_computation(run, tmp_path, scorings, ending, error):
    place = tmp_path / "results" / "folder" / "parts"
    with pytest.MonkeyPatch.context() as patch:
        full = Full(patch, *ending, error=error)
        code, out, err = run("--save=maps,images", "--subsets=1")
    assert full.failed == 1
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert line == f"error: {place}: cannot be written ({error[1]}); make room or pass another --output_dir"
    assert f"parts: what was computed is kept in {tmp_path / 'cache' / 'unwritten'}" in err
    if "scores.csv" not in ending:  # scores come first and are there already
        assert len(rows(place)) == 3
        assert json.loads((place / "category.json").read_text())["metrics"]
    code, _, err = run("--save=maps,images")
    assert code == 0, err
    assert len(scorings) == 1
    assert not (tmp_path / "cache" / "unwritten").exists()
    first = {path: path.read_bytes() for path in place.rglob("*.*") if path.suffix in (".tiff", ".png", ".csv")}
    assert len(first) == 7
    # And it is what would have been written at once.
    (place / "category.json").rename(tmp_path / "record")
    for name in ("scores.csv", "maps", "images"):
        (place / name).rename(tmp_path / name)
    assert run("--save=maps,images")[0] == 0
    assert len(scorings) == 2
    assert first == {path: path.read_bytes() for path in first}


def test_a_full_disk_at_the_summary(run, tmp_path, scorings):
    with pytest.MonkeyPatch.context() as patch:
        Full(patch, "")  # names of temporary files tell nothing
        patch.setattr(output.ResultsFolder, "write_category", keep_record(output.ResultsFolder.write_category, patch))
        code, out, err = run()
    assert (code, out) == (2, "")
    assert "metrics.csv: cannot be written (No space left on device)" in err
    assert run()[0] == 0
    assert len(scorings) == 1


def keep_record(write, patch):
    """A category is written while there is room."""

    def call(*args, **more):
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Path, "write_bytes", WRITE)
            return write(*args, **more)

    return call


WRITE = Path.write_bytes


def test_what_cannot_be_kept_is_said(run, tmp_path, scorings):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "unwritten").write_text("in the way")
    with pytest.MonkeyPatch.context() as patch:
        Full(patch, "scores.csv")
        code, _, err = run()
    assert code == 2
    assert "parts: what was computed could not be kept" in err
    assert "Traceback" not in err


def test_what_was_kept_is_for_the_same_settings_only(run, tmp_path, scorings):
    # What nobody came back for goes, but nothing of somebody else's that is called alike.
    old, mine = (tmp_path / "cache" / "unwritten" / f"{name}.scores" for name in ("0123456789abcdef" * 2, "mine"))
    old.parent.mkdir(parents=True)
    for path in (old, mine):
        path.write_text("x")
        os.utime(path, (1, 1))
    with pytest.MonkeyPatch.context() as patch:
        Full(patch, "scores.csv")
        assert run()[0] == 2
    assert (old.exists(), mine.exists()) == (False, True)
    assert run("--ablate=ia")[0] == 0
    assert len(scorings) == 2


def test_interrupted_while_pictures_are_drawn(run, tmp_path, scorings, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(category_files.report, "png_bytes", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        code, _, err = run("--save=images")
    assert code == 130
    assert "is kept in" in err
    assert run("--save=images")[0] == 0
    assert len(scorings) == 1


def test_room_is_looked_for_before_any_work(run, tmp_path, scorings, monkeypatch):
    monkeypatch.setattr(output.shutil, "disk_usage", lambda _: os.terminal_size((0, 0)) and Usage(10_000))
    assert run()[0] == 0
    monkeypatch.setattr(output.shutil, "disk_usage", lambda _: Usage(20))
    code, _, err = run("--save=maps", "--ablate=ia")
    assert code == 2
    assert f"{tmp_path / 'results' / 'folder'}: results take at least 0.00 GB, 0.00 GB are free; make room, save" in err
    assert len(scorings) == 1


class Usage:
    def __init__(self, free):
        self.free = free


def test_a_place_that_is_too_deep(run, tmp_path, scorings):
    deep = "/".join(["d" * 200] * 19)
    (tmp_path / "results" / "folder").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "lstat", refuse_long(os.lstat))
        code, _, err = run("--save=maps")
    assert code == 2, deep
    assert "cannot be written (File name too long)" in err
    assert not scorings


def refuse_long(lstat):
    def call(path, **more):
        if str(path).endswith(".tiff"):
            raise OSError(36, "File name too long", str(path))
        return lstat(path, **more)

    return call


@pytest.mark.parametrize("number", [28, 5, 27, 30])
def test_a_write_that_fails_without_a_name_is_one_line(run, monkeypatch, number):
    monkeypatch.setattr(
        command, "_evaluate", lambda *a, **k: (_ for _ in ()).throw(OSError(number, os.strerror(number)))
    )
    code, out, err = run()
    assert (code, out) == (2, "")
    assert f"error: cannot write ({os.strerror(number)}); make room for --cache_dir and --output_dir" in err


# ---- Readers


def environment(**more):
    return os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | more


@pytest.fixture
def written(run):
    """A category that is computed already, so that another process has little to do."""
    assert run()[0] == 0


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_a_reader_that_stops_reading(written, arguments, parts, tmp_path, unbuffered):
    summary = tmp_path / "results" / "folder" / "metrics.json"
    summary.unlink()
    read, write = os.pipe()
    os.close(read)
    command_line = [sys.executable, "-m", "launch.eval", *arguments[1:], f"--data_dir={parts}"]
    done = subprocess.run(
        command_line, stdout=write, stderr=subprocess.PIPE, text=True, env=environment(PYTHONUNBUFFERED=unbuffered),
        check=False,
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE, done.stderr
    assert "Broken" not in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(summary.read_text())["categories"]


def test_messages_that_nobody_reads(run, tmp_path, monkeypatch):
    class Broken:
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

        def flush(self):
            raise BrokenPipeError(32, "Broken pipe")

        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stderr", Broken())
    assert run()[0] == 0
    assert (tmp_path / "results" / "folder" / "metrics.json").exists()
    monkeypatch.setattr(sys, "stdout", Broken())
    (tmp_path / "results" / "folder" / "metrics.json").unlink()
    assert run()[0] == 141
    assert (tmp_path / "results" / "folder" / "metrics.json").exists()


@pytest.mark.skipif(os.name != "posix", reason="file sizes are limited by POSIX")
def test_a_limit_of_file_sizes(run, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
        code, _, err = run("--save=maps")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 2
    assert "Traceback" not in err
    assert "cannot be written (File too large); make room or pass another --output_dir" in err


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such locale")
def test_a_locale_without_letters(arguments, image_weights, tmp_path):
    """A folder and files in another script, where the locale is ASCII and Python is told to believe it."""
    data = write_parts(tmp_path / "部品", 0)
    (data / "0.png").rename(data / "写真.png")
    locale = environment(LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    command_line = [sys.executable, "-m", "launch.eval", *arguments[1:], f"--data_dir={data}", "--save=maps,images"]
    done = subprocess.run(command_line, capture_output=True, env=locale, check=False)
    assert done.returncode == 0, done.stderr
    (place,) = [path for path in (tmp_path / "results" / "folder").iterdir() if path.is_dir()]
    assert place.name == "u90e8u54c1"
    table = {row["name"]: row for row in rows(place)}
    assert set(table) == {"1.png", "2.png", "写真.png"}
    assert table["写真.png"]["image_path"] == str(data / "写真.png")
    assert (place / "images" / f"{table['写真.png']['sample']}.png").is_file()
