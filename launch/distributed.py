"""Several processes that work together, one for each host (or device), through JAX's own runtime.

Every process runs the same command. Slurm, TPU pods, Open MPI and Kubernetes jobs are recognised as JAX does it;
elsewhere

    python -m launch.eval --coordinator=10.0.0.1:1234 --num_processes=2 --process_id=0
    python -m launch.eval --coordinator=10.0.0.1:1234 --num_processes=2 --process_id=1

A command calls `start` before JAX touches a device, and `leave` with its exit code at the end.
"""

import contextlib
import hashlib
import inspect
import os
import re
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from launch.command import say
from launch.own_flags import OwnFlags
from musc_jax.config import ConfigError

flags = OwnFlags()

COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Several processes: address:port of the first, the same for all. Default: as the cluster says."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Several processes: how many there are.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Several processes: which this is, from 0.")

# A process that dies is noticed after this long, and the others end; that must be within a minute.
_HEARTBEAT_SECONDS = 30
# Those that are started by hand are up by then. A cluster may be minutes in starting its last host: JAX's default.
_START_SECONDS = 60
_CLUSTER_START_SECONDS = 300
# From then on it is said that others are waited for.
_PATIENCE_SECONDS = 5
# JAX's own limit comes this much later: where it finds nobody it aborts the process with a stack trace.
_GRACE_SECONDS = 30
# A process that is done waits this long for the others to be done, too.
_END_SECONDS = 600

# What the runtime's errors start with, of whatever class they come.
_STATUS = re.compile(r"[A-Z_]+: ")
# How the runtime and the collectives (Gloo on CPU, NCCL on GPU) report that the other end is gone.
_LOST = re.compile(
    r"gloo|nccl|connection (reset|closed|refused)|socket closed|coordination|heartbeat|preempted|deadline|barrier",
    re.IGNORECASE,
)


class LostProcessError(Exception):
    """Another process of the run ended or cannot be reached."""


def _flags() -> dict[str, Any] | None:
    """The three flags by JAX's names for them, checked; None if none is given."""
    given = [flag.value is not None for flag in (COORDINATOR, NUM_PROCESSES, PROCESS_ID)]
    if not any(given):
        return None
    if not all(given):
        missing = [f"--{f.name}" for f in (COORDINATOR, NUM_PROCESSES, PROCESS_ID) if f.value is None]
        raise ConfigError(
            f"--coordinator, --num_processes, --process_id: expected all three or none, {', '.join(missing)} missing"
        )
    address, count, own = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--coordinator: expected address:port such as 10.0.0.1:1234, received {address!r}")
    if count is None or count < 1:
        raise ConfigError(f"--num_processes: expected at least 1, received {count}")
    if own is None or not 0 <= own < count:
        raise ConfigError(f"--process_id: expected 0 to {count - 1} with --num_processes={count}, received {own}")
    return {"coordinator_address": address, "num_processes": count, "process_id": own}


def _is_alone(environment: Mapping[str, str]) -> bool:
    """Whether a scheduler started this process by itself: JAX would look at the whole allocation and wait for it.

    A single Slurm step inside an allocation of several tasks (also the shell that salloc opens), an MPI run of one, and
    a pod that is no part of an indexed job.
    """
    if "SLURM_JOB_ID" in environment:
        tasks = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1"))
        return tasks == "1" and "OMPI_MCA_orte_hnp_uri" not in environment
    if "OMPI_MCA_orte_hnp_uri" in environment:
        return environment.get("OMPI_COMM_WORLD_SIZE", "1") == "1"
    on_tpu = {"TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"} & environment.keys()
    return "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" not in environment and not on_tpu


def _in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether a scheduler that JAX knows has left its marks."""
    marks = ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "JOB_COMPLETION_INDEX", "TPU_WORKER_HOSTNAMES")
    return any(name in environment for name in (*marks, "TPU_PROCESS_ADDRESSES", "JAX_COORDINATOR_ADDRESS"))


def _initialize(**parameters: Any) -> None:
    known = inspect.signature(jax.distributed.initialize).parameters
    jax.distributed.initialize(**{name: value for name, value in parameters.items() if name in known})


def _initialize_within(seconds: float, **parameters: Any) -> None:
    """`_initialize` in a thread of its own: JAX waits for the others without an ear for Ctrl-C.

    Raises:
        LostProcessError: Not all processes came in time.
    """
    outcome: list[Exception | None] = []

    def join() -> None:
        try:
            _initialize(**parameters, initialization_timeout=int(seconds) + _GRACE_SECONDS)
            outcome.append(None)
        except Exception as error:  # noqa: BLE001 - raised again by who waits
            outcome.append(error)

    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    place = parameters.get("coordinator_address", "the address of the first")
    patience = min(seconds, _PATIENCE_SECONDS)
    thread.join(patience)
    if not outcome and patience < seconds:
        say(f"waiting for the other processes at {place}, {seconds:g} s at most")
        thread.join(seconds - patience)
    if not outcome:
        raise LostProcessError(
            f"the processes do not find each other: not all are there after {seconds:g} s; is each of them started, "
            f"and does it reach {place}?"
        )
    if outcome[0] is not None:
        raise outcome[0]


def start(*, heartbeat_seconds: int = _HEARTBEAT_SECONDS, start_seconds: float = _START_SECONDS) -> bool:
    """Joins the other processes, if there are any; must come before the first use of a device.

    Args:
        heartbeat_seconds: A process that has not been heard of for so long counts as dead, and ends the others.
        start_seconds: How long processes that are started by hand wait for each other.

    Returns:
        Whether there are other processes.

    Raises:
        ConfigError: Flags that are incomplete or out of range, a cluster that JAX cannot make out.
        LostProcessError: The others do not answer.
    """
    asked = _flags()
    timeouts = {"heartbeat_timeout_seconds": heartbeat_seconds, "shutdown_timeout_seconds": _END_SECONDS}
    if _is_alone(os.environ) if asked is None else asked["num_processes"] == 1:
        return False
    if asked is not None and asked["process_id"] == 0:
        _expect_free(asked["coordinator_address"])
    # JAX would only take note of SIGTERM, for programs that save their state then: nobody could end a run politely.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if asked is not None:
            # All devices of the host are this process's; a cluster's word on that is not asked for.
            detection = {"cluster_detection_method": "deactivate"}
            _initialize_within(start_seconds, **asked, **timeouts, **detection)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a pod without the package `kubernetes` is told so on each start
                _initialize_within(_CLUSTER_START_SECONDS, **timeouts)
    except (ValueError, TypeError) as error:
        # What JAX says where it recognises no cluster: a plain process, unless its variables are half set.
        if asked is None and str(error).startswith("coordinator_address should be defined"):
            return False
        raise ConfigError(f"several processes: {_first_line(error)}") from None
    except RuntimeError as error:
        if asked is None and not _in_cluster(os.environ) and "before any JAX calls" in str(error):
            return False  # called from a program that has used JAX already, and is no part of anything
        raise LostProcessError(f"the processes do not find each other: {_first_line(error)}") from None
    if jax.process_count() == 1:
        return False
    _leave_on_errors()
    devices = f"{jax.local_device_count()} of {jax.device_count()} devices"
    say(f"process {jax.process_index()} of {jax.process_count()}, with {devices}")
    return True


def _expect_free(address: str) -> None:
    """Refuses a port that something listens on: JAX crashes on it."""
    port = int(address.rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        problem = os.strerror(error.errno).lower() if error.errno else str(error)
        raise ConfigError(
            f"--coordinator: port {port} of this machine cannot be listened on ({problem}); choose another, or end "
            "what uses it"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _leave_on_errors() -> None:
    """After a traceback the process is gone at once: JAX would make it wait for the others, which wait for it."""
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        usual(kind, error, trace)
        leave(1)

    sys.excepthook = hook


def leave(code: int) -> int:
    """Ends a process that failed without waiting for the others, who learn of it and end; returns 0 as it is."""
    if code and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def together(
    work: Callable[[], None], *, heartbeat_seconds: int = _HEARTBEAT_SECONDS, start_seconds: float = _START_SECONDS
) -> Callable[[], None]:
    """`work` after `start`; what a collective says when another process is gone becomes a `LostProcessError`."""

    def run() -> None:
        several = start(heartbeat_seconds=heartbeat_seconds, start_seconds=start_seconds)
        try:
            with _first_alone_speaks():
                work()
        except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
            # Under `jit` JAX 0.10 raises some of them as a ValueError; those of ours have no status.
            ours = isinstance(error, ValueError) and not _STATUS.match(str(error))
            if not several or ours or not _LOST.search(str(error)):
                raise
            raise LostProcessError(
                f"process {jax.process_index()} of {jax.process_count()}: another process ended or cannot be reached; "
                f"see its messages ({_first_line(error)})"
            ) from None

    return run


@contextlib.contextmanager
def _first_alone_speaks() -> Iterator[None]:
    """Tables, progress and warnings are the same for all processes; errors are said after this."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def is_first() -> bool:
    """Whether this process writes the files and prints; true where there is but one."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def agreed(answer: bool) -> bool:
    """The first process's answer, for all; the others' is not looked at."""
    if not jax.distributed.is_initialized():
        return answer
    return bool(multihost_utils.broadcast_one_to_all(np.array(answer)))


def differing(digests: Mapping[str, str]) -> list[str]:
    """The names under which not all processes have the same text; all of them get the same answer."""
    if not jax.distributed.is_initialized():
        return []
    own = np.array([list(hashlib.sha256(text.encode()).digest()) for text in digests.values()], np.uint8)
    everyone = np.asarray(multihost_utils.process_allgather(own[None], tiled=True))
    return [name for at, name in enumerate(digests) if (everyone[:, at] != everyone[0, at]).any()]


def barrier(name: str) -> None:
    """Waits until all processes are here; `name` must be the same for all."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
