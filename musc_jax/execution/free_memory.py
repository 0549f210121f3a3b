"""How much memory is free: of the first device, of the machine, and of the container the process runs in."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

# Of the memory that is free, what is planned with; the rest is for what cannot be foreseen.
_USABLE = 0.8


def usable_memory() -> int:
    """Bytes on the first device that may be planned with: the share `_USABLE` of what is free.

    On a CPU that is the machine's memory, or what its container is allowed.
    """
    device = jax.local_devices()[0]
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if statistics and "bytes_limit" in statistics:
        return int(_USABLE * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)))
    return int(_USABLE * min(_free_of_machine(), free_of_container()))


def usable_beside_device() -> int | None:
    """Bytes of the host that may be planned with beside the first device's own; None where both are the same."""
    if jax.local_devices()[0].platform == "cpu":
        return None
    return int(_USABLE * min(_free_of_machine(), free_of_container()))


def _free_of_machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 8 << 30  # a modest guess where the system does not say


class _Hierarchy(NamedTuple):
    """Where a version of cgroups keeps what it knows of memory."""

    controller: str
    """In the list of the process's cgroups."""
    folder: str
    """Of the topmost cgroup, below the root of all."""
    limit: str
    usage: str
    inactive_file: str
    """Key of `memory.stat`; of the cgroup and those below it, as the usage is."""


_HIERARCHIES = (
    _Hierarchy("", "", "memory.max", "memory.current", "inactive_file"),
    _Hierarchy("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_of_container(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that the process may still take: the least that its cgroup (version 1 or 2), or one around it, has free.

    The usage that the kernel reports includes the page cache, which after reading a large dataset is most of it. Pages
    of files that were not used again (`inactive_file`) are given up first when memory runs short, so they count as
    free, as Kubernetes counts them.

    Args:
        root: Where cgroups are mounted. A container may see its own as the topmost one, or all around it as well.
        membership: The list of the process's cgroups, lines of `id:controllers:path`.

    Returns:
        At least 0; `sys.maxsize` without a limit, and where there are no cgroups or they cannot be read.
    """
    paths = _paths(membership)
    return min(
        _free_of(folder, hierarchy)
        for hierarchy in _HIERARCHIES
        for folder in _from_the_top(root / hierarchy.folder, paths.get(hierarchy.controller, "/"))
    )


def _paths(membership: Path) -> dict[str, str]:
    """The path of the process's cgroup for each controller; that of version 2 has no name."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except (OSError, ValueError):
        return {}
    return {name: entry[2] for entry in lines if len(entry) == 3 for name in entry[1].split(",")}


def _from_the_top(top: Path, path: str) -> Iterator[Path]:
    """The topmost cgroup, and each on the way to the process's own; those that cannot be seen do not exist."""
    yield top
    parts = [part for part in path.split("/") if part]
    if ".." in parts:  # the process is not below what can be seen
        return
    for part in parts:
        top = top / part
        yield top


def _free_of(folder: Path, hierarchy: _Hierarchy) -> int:
    try:
        limit, usage = (int((folder / name).read_text()) for name in (hierarchy.limit, hierarchy.usage))
    except (OSError, ValueError):  # no such cgroup, or "max": no limit
        return sys.maxsize
    if limit < 0:  # as some emulations say that there is none
        return sys.maxsize
    return max(0, limit - max(0, usage - _inactive_file(folder, hierarchy.inactive_file)))


def _inactive_file(folder: Path, key: str) -> int:
    try:
        lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
        return next((int(line[1]) for line in lines if line[:1] == [key]), 0)
    except (OSError, ValueError, IndexError):
        return 0
