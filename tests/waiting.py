"""Processes beside the tests: waited for by the traces they leave, as those decide and not a clock; ports for them."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

Found = TypeVar("Found")

# Reached by nothing but a defect, and still before a runner gives the whole suite up.
PATIENCE_SECONDS = 600


def until(condition: Callable[[], Found], process: subprocess.Popen) -> Found:
    """The first true value of `condition()`; an error if the process ends, or waits itself, without one."""
    for _ in range(PATIENCE_SECONDS * 100):
        running = process.poll() is None
        if found := condition():
            return found
        assert running, f"ended with exit code {process.returncode} before what was waited for"
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"waited for {PATIENCE_SECONDS} s")


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port of this machine that nobody else is given meanwhile, and that may be listened on all the same.

    It is bound and not listened on. The system hands it out to nobody, and whoever asks for it by number and, as
    servers do, for the reuse of addresses gets it.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
