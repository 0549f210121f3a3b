"""Copies of a sample in one's own folder change nobody's scores, whatever schedule, and very few samples are said."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch import eval as command

ROOT = Path(__file__).parents[2]


def picture(seed, *, defect=False):
    """Noise upon a pattern that all share; a defect is a block of another one."""
    y, x = np.mgrid[:32, :32]
    shared = 120 + 60 * np.sin(x / 3) * np.cos(y / 4)
    pixels = np.repeat(shared[..., None], 3, -1) + np.random.default_rng(seed).normal(size=(32, 32, 3)) * 8
    if defect:
        pixels[8:24, 8:24] = [230, 40, 40]
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write(folder, name, pixels):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    """Seven good samples and a defective one; the same with three copies of that."""
    root = tmp_path_factory.mktemp("copies")
    for name in ("single", "copied"):
        for i in range(7):
            write(root / name / "good", f"{i}.png", picture(i))
        write(root / name / "bad", "0.png", picture(99, defect=True))
    for i, ending in enumerate(("png", "bmp", "png"), start=1):
        write(root / "copied" / "bad", f"{i}.{ending}", picture(99, defect=True))
    return root


@pytest.fixture
def run(tmp_path, image_weights, capsys):
    def call(data, *more, output="results"):
        given = ["--dataset=folder", f"--data_dir={data}", f"--output_dir={tmp_path / output}", "--modality=rgb"]
        given += [f"--cache_dir={tmp_path / 'cache'}", f"--weights_rgb={image_weights}", "--image_size=32"]
        code = command.main(["eval", *given, *more])
        out = capsys.readouterr()
        assert "Traceback" not in out.err
        return code, tmp_path / output / "folder" / data.name, out.err

    call.flags = ("--normal_dir=good", "--abnormal_dir=bad")
    return call


def scores(folder):
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        return {row["sample"]: (float(row["pred_score"]), float(row["max_score"])) for row in csv.DictReader(file)}


@pytest.mark.parametrize("more", [(), ("--references=3",), ("--ablate=rescoring",)])
def test_a_copy_never_vouches_for_its_copies(run, trees, more):
    code, folder, _ = run(trees / "single", *run.flags, *more)
    assert code == 0
    single = scores(folder)
    code, folder, err = run(trees / "copied", *run.flags, *more, "--save=maps", output="copied")
    assert code == 0
    assert "warning: copied: 3 samples are copies of others: bad_0 = bad_1 = bad_2 = bad_3; they count as one" in err
    copied = scores(folder)
    assert len(copied) == 11
    assert {name: copied[name] for name in single} == single
    assert {copied[f"bad_{i}"] for i in range(4)} == {single["bad_0"]}
    metrics = json.loads((folder.parent / "metrics.json").read_text())["categories"]["copied"]
    assert metrics["image_AUROC"] == 1
    assert len({(folder / "maps" / f"bad_{i}.tiff").read_bytes() for i in range(4)}) == 1


def test_unless_asked_to(run, trees):
    code, folder, err = run(trees / "copied", *run.flags, "--copies=each")
    assert code == 0
    assert "lower each other's scores" in err
    highest = {name: score for name, (_, score) in scores(folder).items()}
    assert max(highest[f"bad_{i}"] for i in range(4)) < min(highest[f"good_{i}"] for i in range(7))


def test_with_parts_and_seeds(run, trees):
    code, folder, err = run(trees / "copied", *run.flags, "--subsets=2", "--seeds=0,1")
    assert code == 0, err
    assert len(scores(folder)) == 11
    assert len({scores(folder)[f"bad_{i}"] for i in range(4)}) == 1
    code, folder, err = run(trees / "copied", *run.flags, "--normal_ratio=1/2", "--seeds=0", output="half")
    assert code == 0, err
    assert len(scores(folder)) == 8  # 4 of 7 good ones, and all of the others


@pytest.mark.skipif(os.name != "posix", reason="a process of its own")
def test_over_several_devices(run, trees, tmp_path, image_weights):
    code, folder, _ = run(trees / "copied", *run.flags)
    assert code == 0
    given = ["--dataset=folder", f"--data_dir={trees / 'copied'}", f"--output_dir={tmp_path / 'three'}"]
    given += [
        f"--cache_dir={tmp_path / 'cache'}",
        f"--weights_rgb={image_weights}",
        "--image_size=32",
        "--modality=rgb",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "launch.eval", *given, *run.flags], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone, together = scores(folder), scores(tmp_path / "three" / "folder" / "copied")
    assert alone.keys() == together.keys()
    for name, values in alone.items():
        assert together[name] == pytest.approx(values, abs=2e-4)
    assert len({together[f"bad_{i}"] for i in range(4)}) == 1


def test_nothing_but_copies(run, tmp_path):
    for i in range(3):
        write(tmp_path / "same", f"{i}.png", picture(0))
    code, _, err = run(tmp_path / "same")
    assert code == 2
    assert "error: same: its 3 samples are copies of one another (0 = 1, ...), and a copy does not score its" in err
    assert run(tmp_path / "same", "--copies=each")[0] == 0


@pytest.mark.parametrize(("count", "text"), [(2, "not which is wrong"), (3, "what no other has"), (4, None)])
def test_very_few_samples_are_said(run, tmp_path, count, text):
    for i in range(count):
        write(tmp_path / "few", f"{i}.png", picture(i))
    write(tmp_path / "few", "copy.png", picture(0))  # counts as none
    code, folder, err = run(tmp_path / "few")
    assert code == 0
    said = [line for line in err.splitlines() if line.startswith(f"warning: few: {count} samples: ")]
    kept = json.loads((folder.parent / "run.json").read_text())["warnings"]
    assert [f"warning: {line}" for line in kept if " samples: each" in line] == said
    assert bool(said) == bool(text)
    assert text is None or text in said[0]


def test_an_odd_picture_is_said(run, tmp_path):
    for i in range(7):
        write(tmp_path / "odd", f"{i}.png", picture(i))
    write(tmp_path / "odd", "blank.png", np.full((32, 32, 3), 90, np.uint8))
    code, folder, err = run(tmp_path / "odd")
    assert code == 0
    assert "health of odd: 1 of 8 pictures is of one colour, or nearly so, with nothing to be seen: blank; " in err
    (facts,) = json.loads((folder.parent / "run.json").read_text())["inputs"]["odd"]["health"]
    assert facts["samples"] == ["blank"]
