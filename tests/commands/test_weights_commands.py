"""`python -m launch.convert_weights` and `python -m launch.fetch_weights` as a user runs them."""

import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest

import weights
from launch import convert_weights, fetch_weights

GOLDEN = Path(__file__).parents[1] / "golden"
COMMANDS = {"convert": convert_weights, "fetch": fetch_weights}


@pytest.fixture
def run(in_process, tmp_path, monkeypatch):
    """Without a network, and with nothing fetched before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSC_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return lambda command, *arguments: in_process(COMMANDS[command], *arguments)


def test_convert(run, tmp_path):
    source, output = GOLDEN / "point_mae_tiny.pth", tmp_path / "out" / "point_mae.safetensors"
    code, out, err = run("convert", f"--source={source}", "--backbone=point_mae", f"--output={output}", "--heads=3")
    assert code == 0, err
    assert str(output) in out
    assert "3 blocks" in err
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
    code, _, err = run(*arguments)
    assert code == 2
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "x.safetensors").exists()


def test_fetch_tells_of_all_that_is_missing(run):
    code, _, err = run("fetch", "--backbone=dino_vitb8,point_mae")
    assert code == 2
    assert [line.split(":")[1].strip() for line in err.splitlines() if line.startswith("error: ")] == [
        "dino_vitb8",
        "point_mae",
    ]


def test_list(run, tmp_path):
    code, out, _ = run("fetch", "--list", f"--weights_dir={tmp_path}")
    assert code == 0
    for name, spec in weights.BACKBONES.items():
        line = next(line for line in out.splitlines() if line.startswith(f"{name} "))
        assert spec.licence in line


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, tmp_path):
    """As programs."""
    line = [sys.executable, "-m", COMMANDS[command].__name__, "--help"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "--backbone" in done.stdout
