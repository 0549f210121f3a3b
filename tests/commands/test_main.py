"""`python -m musc_jax VERB`, and commands that are called from other programs."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dataset_trees import picture, save

import launch
import musc_jax
from musc_jax import __main__ as program


def test_every_command_is_a_verb():
    found = {module.name for module in pkgutil.iter_modules(launch.__path__)}
    commands = {name for name in found if hasattr(importlib.import_module(f"launch.{name}"), "main")}
    assert commands == set(program.VERBS) - {"weights"} | {"fetch_weights", "convert_weights"}


@pytest.mark.parametrize("given", [(), ("evaluate",), ("--dataset=folder",), ("launch.eval",), ("",)])
def test_what_is_no_verb_is_said_with_those_that_are(given, capsys):
    assert program.main(["musc_jax", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    received = repr(given[0]) if given else "none"
    assert line == (
        "error: expected a verb, one of score, eval, features, fetch, prepare, compare, reproduce, weights, doctor; "
        f"received {received}; see --help"
    )


@pytest.mark.parametrize("path", ["/usr/lib/musc_jax/__main__.py", "/usr/bin/musc-jax"])
def test_help_lists_the_verbs_under_the_name_it_was_called_by(path, capsys):
    name = {"__main__.py": "python -m musc_jax", "musc-jax": "musc-jax"}[path.rsplit("/", 1)[-1]]
    for flag in ("--help", "-h", "help"):
        assert program.main([path, flag]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"{name} VERB [flags]\n")
        for verb, what in program.VERBS.items():
            assert verb in out
            assert what in out


def test_a_verb_gets_its_flags(capsys):
    for verb in (["weights", "fetch"], ["fetch_weights"], ["fetch-weights"]):
        assert program.main(["musc_jax", *verb, "--backbone=resnet"]) == 2
        assert "no 'resnet'" in capsys.readouterr().err
        assert program.main(["musc_jax", *verb, "--help"]) == 0
        assert "--revision: Commit, tag or branch" in capsys.readouterr().out


def test_weights_are_listed_fetched_and_converted(capsys):
    for given in (["weights"], ["weights", "list"], ["weights", "fetch", "--list"]):
        assert program.main(["musc-jax", *given]) == 0
        assert "dino_vitb8" in capsys.readouterr().out
    assert program.main(["musc-jax", "weights", "convert"]) == 2
    assert "--source is needed" in capsys.readouterr().err
    assert program.main(["musc-jax", "weights", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("musc-jax weights VERB [flags]\n")
    for action in ("list", "fetch", "convert"):
        assert f"\n  {action} " in out
    assert program.main(["musc-jax", "weights", "remove"]) == 2
    assert capsys.readouterr().err == (
        "error: weights: expected one of list, fetch, convert; received 'remove'; see --help\n"
    )


def test_the_version_is_said(capsys):
    assert program.main(["musc-jax", "--version"]) == 0
    assert capsys.readouterr().out == f"musc-jax {musc_jax.__version__}\n"


def test_installed_it_is_a_command_of_its_own():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["musc-jax"].partition(":")
    assert getattr(importlib.import_module(module), function) is program.main


def test_another_launch_that_is_loaded_already_is_named(monkeypatch, tmp_path, capsys):
    """As from a notebook that uses ROS's; taking it away there would break what is not ours."""
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "__init__.py").write_text("")
    for name in [name for name in sys.modules if name.partition(".")[0] == "launch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("launch")
    assert program.main(["musc_jax", "eval"]) == 2
    assert str(tmp_path / "launch" / "__init__.py") in capsys.readouterr().err


def hostile(folder):
    """Packages of our names that end the process of whoever imports them."""
    for name in ("launch", "weights"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise SystemExit('{folder / name} was imported')")
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        # Its workers are processes of their own, which look for modules as it does.
        (["prepare", "--dataset=eyecandies", "--data_dir={candies}", "--workers=2"], 0, "12 samples are ready"),
        (["eval", "--limit=0"], 2, "error: --limit: expected at least 1, received 0"),
    ],
)
def test_ours_are_found_wherever_others_lie(tmp_path, candies, arguments, code, message):
    at_hand, on_path = hostile(tmp_path / "here"), hostile(tmp_path / "path")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(on_path), os.environ.get("PYTHONPATH", "")])}
    given = [argument.format(candies=candies) for argument in arguments] + [f"--cache_dir={tmp_path / 'cache'}"]
    done = subprocess.run(
        [sys.executable, "-m", "musc_jax", *given],
        cwd=at_hand,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert message in done.stdout + done.stderr
    assert "was imported" not in done.stdout + done.stderr


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors by a shell")
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_streams_end_nothing_and_their_numbers_go_to_no_file(closed):
    """As from a scheduler; what libraries print to 2 would else land in the next file that is opened."""
    code = (
        "import os, sys; from launch import command; command.prepare_process(); "
        "print('unread', file=sys.stderr); sys.exit(7 if os.open(os.devnull, os.O_RDONLY) > 2 else 1)"
    )
    done = subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code], check=False)
    assert done.returncode == 7


CALLS = """
import launch.compare, launch.eval, launch.fetch, launch.prepare
from launch import flags as options
from launch import input_flags as inputs
scoring = ["eval", "--dataset=folder", "--data_dir={pictures}", "--weights_rgb={weights}", "--image_size=32",
           "--blocks=0,1,2", "--output_dir={results}", "--cache_dir={cache}"]
assert launch.eval.main([*scoring, "--seed=5"]) == 0
assert (options.SEED.value, inputs.LIMIT.value) == (5, None)
# What one call was given is nothing that the next one keeps.
assert launch.eval.main([*scoring, "--limit=1", "--subsets=0"]) == 2
assert (options.SEED.value, inputs.LIMIT.value) == (0, 1)
assert launch.eval.main(["eval", "--nonsense"]) == 2
assert launch.eval.main(["eval", "--noskip_bad=1"]) == 2
assert launch.eval.main(["eval", "--help"]) == 0
assert launch.fetch.main(["fetch", "--list"]) == 0
assert launch.compare.main(["compare", "{results}/folder", "--to={results}"]) == 0
assert launch.prepare.main(["prepare"]) == 2
"""


def run_code(code, folder):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_commands_are_called_as_functions(tmp_path, image_weights):
    """As in a notebook, where nobody has parsed absl's flags."""
    for i in range(3):
        save(tmp_path / "pictures" / f"{i}.png", picture(i))
    places = {name: tmp_path / name for name in ("pictures", "results", "cache")}
    done = run_code(CALLS.format(**places, weights=image_weights), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--ablate: Parts to switch off" in done.stdout
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        "error: --subsets: expected at least 1, received 0",
        "error: Unknown command line flag 'nonsense'; see --help",
        "error: --noskip_bad=1 does not take an argument; see --help",
        "error: --dataset is needed; see --help",
    ]
    record = json.loads((tmp_path / "results" / "folder" / "run.json").read_text())
    assert record["command"][1] == "--dataset=folder"  # and not that of the process


BESIDE = """
from absl import flags
flags.DEFINE_string("dataset", "mine", "")
flags.DEFINE_integer("seed", 3, "")
flags.DEFINE_string("needed", None, "", required=True)
import launch.compare, launch.eval, launch.fetch, launch.prepare
assert launch.eval.main(["eval", "--subsets=0", "--seed=9"]) == 2
assert not flags.FLAGS.is_parsed()
flags.FLAGS(["program", "--seed=7", "--needed=x"])
assert launch.eval.main(["eval", "--subsets=-1", "--seed=9"]) == 2
assert (flags.FLAGS.seed, flags.FLAGS.dataset, flags.FLAGS.needed) == (7, "mine", "x")
"""


def test_other_flags_of_the_same_names_stay_as_they_are(tmp_path):
    """Those of another program, before it parses them and after."""
    done = run_code(BESIDE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f"error: --subsets: expected at least 1, received {number}" for number in (0, -1)
    ]
