"""`python -m launch.doctor`: a line for each thing, and an exit code that says whether a run would get anywhere."""

import jax
import numpy as np
import pytest
from eyecandies_tree import write_category

import weights
from launch import doctor


@pytest.fixture
def examine(tmp_path, monkeypatch, capsys):
    """Runs the command without this machine's own settings; returns the exit code and the lines by their topics."""
    monkeypatch.delenv("MUSC_WEIGHTS_DIR", raising=False)
    monkeypatch.setattr(weights, "default_folder", lambda: tmp_path / "cache" / "weights")

    def call(*arguments):
        code = doctor.main(["doctor", f"--cache_dir={tmp_path / 'cache'}", *arguments])
        lines = capsys.readouterr().out.splitlines()
        assert all(line.startswith(("ok  ", "FAIL")) for line in lines)
        assert (code == 2) == any(line.startswith("FAIL") for line in lines)
        found = {}
        for line in lines:
            found.setdefault(line[6:14].strip(), []).append(line[16:])
        return code, found

    return call


def test_what_is_here(examine, tmp_path):
    code, found = examine()
    assert code == 0
    assert f"jax {jax.__version__}" in found["versions"][0]
    assert f"numpy {np.__version__}" in found["versions"][0]
    assert found["devices"] == [f"{jax.device_count()} of cpu (JAX_PLATFORMS=cpu)"] or "cpu" in found["devices"][0]
    assert "not there yet" in found["cache"][0]
    assert found["weights"] == [
        f"none in {tmp_path / 'cache' / 'weights'}; launch.eval fetches what it needs, launch.fetch_weights beforehand"
    ]
    assert "dataset" not in found
    assert not (tmp_path / "cache").exists()


def test_caches_and_weights_have_sizes(examine, tmp_path):
    own, given = tmp_path / "cache" / "weights", tmp_path / "given"
    for folder, name, size in ((own, "dino_vitb8", 3_000_000), (given, "point_mae", 2_000_000)):
        folder.mkdir(parents=True)
        (folder / f"{name}.safetensors").write_bytes(bytes(size))
    code, found = examine(f"--weights_dir={given}")
    assert code == 0
    assert "weights 3 MB" in found["cache"][0]
    assert sorted(found["weights"]) == [f"dino_vitb8 in {own}, 3 MB", f"point_mae in {given}, 2 MB"]


def test_weights_that_are_nowhere(examine, tmp_path):
    code, found = examine(f"--weights_dir={tmp_path / 'nowhere'}")
    assert code == 2
    assert found["weights"] == [f"--weights_dir: {tmp_path / 'nowhere'} is not a folder"]


@pytest.mark.parametrize(("name", "way_out"), [("_NVIDIA", "musc-jax[cuda]"), ("_TPU", "musc-jax[tpu]")])
def test_an_accelerator_that_is_not_used(examine, monkeypatch, tmp_path, name, way_out):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(doctor, name, (tmp_path,))
    code, found = examine()
    assert code == 2
    assert way_out in found["devices"][1]
    # Whoever asks for the CPU has a reason.
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert examine()[0] == 0


def test_no_device_at_all(examine, monkeypatch):
    def none():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "devices", none)
    code, found = examine()
    assert code == 2
    assert "Unable to initialize" in found["devices"][0]


def test_little_memory(examine, monkeypatch):
    monkeypatch.setattr(doctor, "usable_memory", lambda: 10**9)
    code, found = examine()
    assert code == 2
    assert found["memory"][0].startswith("1.0 GB may be planned with")


def test_a_cache_that_cannot_be_written(examine, tmp_path):
    (tmp_path / "cache").write_text("a file")
    code, found = examine()
    assert code == 2
    assert "cannot be written; pass another --cache_dir" in found["cache"][0]


def test_a_dataset(examine, tmp_path):
    write_category(tmp_path / "data", "CandyCane", range(3))
    code, found = examine("--dataset=eyecandies", f"--data_dir={tmp_path / 'data'}")
    assert code == 0
    assert found["dataset"][0].startswith(f"eyecandies in {tmp_path / 'data'}: 1 of 10 categories")
    (tmp_path / "empty").mkdir()
    assert examine("--dataset=eyecandies", f"--data_dir={tmp_path / 'empty'}")[0] == 2
    assert examine("--dataset=eyecandies", f"--data_dir={tmp_path / 'nowhere'}")[0] == 2
    assert examine("--dataset=eyecandies")[0] == 2
    assert examine(f"--data_dir={tmp_path}")[0] == 2
    assert examine("--dataset=synthetic")[1]["dataset"] == ["synthetic is made on first use"]
    assert examine("--dataset=folder", f"--data_dir={tmp_path / 'data'}")[0] == 0
