"""Two processes on this machine: they score as one, and none is left waiting for another that died."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from one_of_two import features
from waiting import PATIENCE_SECONDS, reserved_port, until

import musc_jax
from launch import distributed
from launch.own_flags import parse
from musc_jax.config import ConfigError


def run_two(case, file="", ids=(0, 1), sent=None):
    """(exit codes, messages) of both, or of those that are started; `sent` goes to the last when `file` is there."""
    script = Path(__file__).with_name("one_of_two.py")
    devices = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    settings = os.environ | devices | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = []
    with reserved_port() as port:
        try:
            for i in ids:
                asked = (f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={i}")
                command = [sys.executable, script, case, file, *asked]
                processes.append(subprocess.Popen(command, env=settings, **pipes))
            if sent is not None:
                until(Path(file).exists, processes[-1])
                processes[-1].send_signal(sent)
            messages = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
    return [process.returncode for process in processes], messages


def test_two_processes_score_as_one(tmp_path):
    codes, messages = run_two("scores", str(tmp_path / "found"))
    assert codes == [0, 0], messages
    assert "process 1 of 2, with 2 of 4 devices" in messages[1]
    image, points, patch = features()
    want = jax.jit(musc_jax.multimodal_scores)(image, points, patch)
    for process, own in enumerate([(0, 4), (4, 7)]):
        with np.load(tmp_path / f"found_{process}.npz") as found:
            np.testing.assert_allclose(found["image"], want[0], atol=1e-5)
            np.testing.assert_allclose(found["points"], want[1], atol=1e-5)
            np.testing.assert_array_equal(found["names"], [f"sample {i}" for i in range(7)])
            np.testing.assert_array_equal(found["whole"][:7], image)
            assert tuple(found["own"]) == own
            assert found["first"]


# Whichever notices first speaks: the operation that waits for the other (an error of ours, exit code 2), or JAX's
# runtime, which ends the process by SIGABRT.
LOST = "another process ended or cannot be reached|most likely indicates that another task died"


@pytest.mark.parametrize(
    ("case", "ends", "code", "message"),
    [
        ("while_others_wait", 1, 3, ""),
        ("while_others_compute", 0, 3, ""),
        ("silent", 1, 3, ""),
        ("defect", 1, 1, "KeyError: 'a defect of the second process'"),
        ("bad_input", 0, 2, "error: a file of the first process alone is broken"),
    ],
)
def test_a_process_that_ends_ends_the_others(case, ends, code, message):
    """They would wait for ever. How soon: `test_a_cluster_is_recognised_as_jax_does`."""
    codes, messages = run_two(case)
    assert codes[ends] == code, messages
    assert message in messages[ends]
    assert codes[1 - ends] in (2, -6), messages
    assert re.search(LOST, messages[1 - ends])


@pytest.mark.parametrize("own", [0, 1])
def test_a_process_that_finds_no_others_says_so(own):
    """In one line, and not in the stack trace in which JAX's runtime ends."""
    codes, messages = run_two("nobody", ids=[own])
    assert codes == [2], messages
    assert messages[0].startswith("error: the processes do not find each other: not all are there after 2 s")
    assert messages[0].count("\n") == 1


@pytest.fixture
def given():
    yield lambda *arguments: parse(["test", *arguments], distributed.flags)
    parse(["test"], distributed.flags)


def test_a_port_that_is_taken_is_refused(given, monkeypatch):
    """JAX would crash on it."""
    monkeypatch.setattr(distributed, "_initialize", None)
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        given(f"--coordinator=127.0.0.1:{port}", "--num_processes=2", "--process_id=0")
        with pytest.raises(ConfigError, match=rf"--coordinator: port {port} of this machine .*in use"):
            distributed.start()


def test_processes_that_were_started_differently_all_refuse(tmp_path):
    codes, messages = run_two("unlike", str(tmp_path / "knows"))
    assert codes[0] == 2, messages
    assert codes[1] in (2, -6), messages  # the end of the first may come first
    assert "error: these differ: ['that']" in messages[0]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"), True),  # JAX 0.10 under `jit`
        (RuntimeError("UNAVAILABLE: coordination service"), True),
        (ConfigError("--save: expected a list of maps, images; received 'barrier'"), False),
    ],
)
def test_an_error_of_the_runtime_is_known_by_its_status(error, lost, monkeypatch):
    monkeypatch.setattr(distributed, "start", lambda **_: True)

    def work():
        raise error

    with pytest.raises(distributed.LostProcessError if lost else type(error)):
        distributed.together(work)()


def test_a_process_ends_when_it_is_told_to(tmp_path):
    codes, messages = run_two("told_to_end", str(tmp_path / "ready"), sent=signal.SIGTERM)
    assert codes[1] == -signal.SIGTERM, messages


ALL = {"coordinator": "10.0.0.1:1234", "num_processes": "2", "process_id": "1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"process_id": None}, "all three or none, --process_id missing"),
        ({"coordinator": None, "process_id": None}, "--coordinator, --process_id missing"),
        ({"coordinator": "10.0.0.1"}, "--coordinator: expected address:port"),
        ({"coordinator": ":1234"}, "--coordinator: expected address:port"),
        ({"coordinator": "host:99999"}, "--coordinator: expected address:port"),
        ({"num_processes": "0"}, "--num_processes: expected at least 1, received 0"),
        ({"process_id": "2"}, "--process_id: expected 0 to 1 with --num_processes=2, received 2"),
        ({"process_id": "-1"}, "--process_id: expected 0 to 1"),
    ],
)
def test_flags_are_checked(given, changes, message):
    given(*(f"--{name}={value}" for name, value in (ALL | changes).items() if value is not None))
    with pytest.raises(ConfigError, match=message):
        distributed.start()


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
MPI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911", "OMPI_COMM_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "alone"),
    [
        ({}, False),  # JAX is asked, and recognises nothing
        (SLURM, False),
        (SLURM | {"SLURM_NTASKS": "1"}, True),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, True),  # the shell of salloc, one step inside of it
        (MPI, False),
        (MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "TPU_WORKER_HOSTNAMES": "a,b"}, False),
    ],
)
def test_who_is_alone(environment, alone):
    assert distributed._is_alone(environment) == alone


def test_a_cluster_is_recognised_as_jax_does(given, monkeypatch):
    """Slurm's variables lead to its first node; nothing leads nowhere."""
    given()
    asked = []
    monkeypatch.setattr(distributed, "_initialize", lambda **parameters: asked.append(parameters))
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert not distributed.start()  # the runtime was not really started: one process
    (parameters,) = asked
    timeouts = {"heartbeat_timeout_seconds", "shutdown_timeout_seconds", "initialization_timeout"}
    assert set(parameters) == timeouts
    assert parameters["heartbeat_timeout_seconds"] < 60


def test_alone_nothing_is_started(given, monkeypatch):
    """In a process of its own, as JAX must not have touched a device."""
    code = (
        "import jax; from launch import distributed as d; from launch.own_flags import parse; parse(['t'], d.flags);"
        "assert not d.start(); assert not jax.distributed.is_initialized();"
        "assert d.is_first() and d.agreed(True) and not d.agreed(False);"
        "d.barrier('x'); assert d.leave(2) == 2"
    )
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "KUBERNETES_", "JAX_COORDINATOR")):
            monkeypatch.delenv(name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
