"""Compiled programs are kept between runs, by the commands alone, and nothing depends on it."""

import os
import subprocess
import sys

import pytest
from eyecandies_tree import write_category

SCRIPT = """
import sys
from pathlib import Path
import jax, numpy as np
import musc_jax, weights, launch.eval
from musc_jax.execution.programs import Programs
from launch.compilation import keep_programs
assert jax.config.jax_compilation_cache_dir is None or {own!r}, "set by an import"
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None)
keep_programs(Path({cache!r}))
{between}
def double(x): return x + x
assert Programs().run("test", double, np.arange(3.0, dtype=np.float32)).tolist() == [0, 2, 4]
print(len(hits), jax.config.jax_compilation_cache_dir)
"""


def start(*arguments, own=None):
    environment = dict(os.environ)
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    # Small programs take less than what is worth keeping otherwise.
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    if own:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(own)
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def script(cache, *, own=None, between=""):
    """(programs found, where they are kept) of a process that compiles one; it has nothing to say about it."""
    done = start("-c", SCRIPT.format(cache=str(cache), own=bool(own), between=between), own=own)
    assert done.stderr == ""
    hits, folder = done.stdout.split()
    return int(hits), folder


def entries(folder):
    return {path.relative_to(folder) for path in folder.rglob("*-cache")}


@pytest.mark.slow
def test_programs_are_found_again_and_damaged_ones_do_no_harm(tmp_path):
    assert script(tmp_path)[0] == 0
    kept = entries(tmp_path / "compiled")
    assert any("double" in path.name for path in kept)
    assert script(tmp_path)[0] >= 1
    assert entries(tmp_path / "compiled") == kept
    for path in kept:
        (tmp_path / "compiled" / path).write_bytes(b"spoiled")
    assert script(tmp_path)[0] == 0


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path):
    (tmp_path / "file").write_text("")
    assert script(tmp_path / "file")[1] == "None"
    # And one that is lost on the way.
    lost = "folder = Path(jax.config.jax_compilation_cache_dir); folder.rmdir(); folder.write_text('')"
    assert script(tmp_path / "lost", between=lost)[0] == 0


def test_ones_own_folder_is_used(tmp_path):
    assert script(tmp_path / "cache", own=tmp_path / "own")[1] == str(tmp_path / "own")
    assert entries(tmp_path / "own")
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_second_run_of_a_command_compiles_nothing_new(tmp_path, image_weights):
    write_category(tmp_path / "data", "Apple", ["00", "01"])
    settings = ("--dataset=eyecandies", f"--data_dir={tmp_path / 'data'}", "--modality=rgb", "--image_size=32")
    settings += (f"--weights_rgb={image_weights}", f"--cache_dir={tmp_path / 'cache'}")
    start("-m", "launch.eval", *settings, f"--output_dir={tmp_path / 'first'}")
    kept = entries(tmp_path / "cache" / "compiled")
    for stage in ("_image_tokens", "_aggregate_images", "_fill", "_finish_all", "_image_map", "rescore"):
        assert any(f"jit_{stage}-" in path.name for path in kept), stage
    done = start("-m", "launch.eval", *settings, f"--output_dir={tmp_path / 'second'}")
    assert entries(tmp_path / "cache" / "compiled") == kept
    assert "persistent" not in done.stderr
