"""Waiting for what another process does by the trace it leaves: the one that is waited for decides, not a clock."""

import subprocess
import time
from collections.abc import Callable
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
