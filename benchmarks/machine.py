"""What the machine says about itself, where it does."""

import os
from pathlib import Path


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak() -> int:
    """Most memory of this process so far, in bytes.

    Linux's own account comes first: `getrusage` counts what the process was before it became this one, too.

    Raises:
        RuntimeError: The system does not say.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        from musc_jax.execution.memory import peak_memory  # JAX, which some measure without

        host = peak_memory().get("host")
        if host is None:
            raise RuntimeError("this system does not say how much memory a process took; run it on another") from None
        return host
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
