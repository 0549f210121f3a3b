"""`python -m launch.convert_weights` and `python -m launch.fetch_weights` as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import weights

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def run(tmp_path):
    def call(command, *arguments):
        blocked = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        # No address is reached through a proxy that is not there, wherever the tests run.
        blocked |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
        environment = {k: v for k, v in os.environ.items() if k not in ("MUSC_WEIGHTS_DIR", "no_proxy", "NO_PROXY")}
        return subprocess.run(
            [sys.executable, "-m", f"launch.{command}_weights", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment | blocked,
        )

    return call


def test_convert(run, tmp_path):
    source, output = GOLDEN / "point_mae_tiny.pth", tmp_path / "out" / "point_mae.safetensors"
    done = run("convert", f"--source={source}", "--backbone=point_mae", f"--output={output}", "--heads=3")
    assert done.returncode == 0, done.stderr
    assert str(output) in done.stdout
    assert "3 blocks" in done.stderr
    loaded = weights.load(output, "point_mae")
    assert loaded.module.config.heads == 3
    assert loaded.digest == weights.load(source, "point_mae", heads=3).digest


TINY = f"--source={GOLDEN / 'point_mae_tiny.pth'}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert",), "is needed; see --help"),
        (("convert", "--source=/nowhere", "--backbone=dino_vitb8", "--output=x.safetensors"), "/nowhere: no such file"),
        (
            ("convert", f"--source={GOLDEN}/point_mae_tiny.pth", "--backbone=dino_vitb8", "--output=x.safetensors"),
            "point_mae",
        ),
        (("fetch",), "--list"),
        (("fetch", "--backbone=resnet"), "resnet"),
        (("fetch", "--backbone=dino_vitb8"), "HF_HUB_OFFLINE is set"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.safetensors").exists()


def test_fetch_tells_of_all_that_is_missing(run):
    done = run("fetch", "--backbone=dino_vitb8,point_mae")
    assert done.returncode == 2
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        "dino_vitb8",
        "point_mae",
    ]


def test_list_and_help(run, tmp_path):
    done = run("fetch", "--list", f"--weights_dir={tmp_path}")
    assert done.returncode == 0
    for name, spec in weights.BACKBONES.items():
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{name} "))
        assert spec.licence in line
    assert run("fetch", "--help").returncode == 0
