"""What stays where: decided before work starts, from the sizes that are known and the memory that is free."""

import contextlib
import math
import sys
from typing import NamedTuple

import jax
from jax.sharding import Mesh

# Of a budget, what plans leave for what the C library keeps of freed memory, and what cannot be foreseen.
_SPARE = 0.15
# At the most so many samples go through a step at once: more would not make it faster.
_LARGEST_PANEL = 32
_FLOAT = 4
# Compiling takes some tens of megabytes for each of a few programs, and the C library keeps a part of it.
_PROGRAMS = 90_000_000


class Tokens(NamedTuple):
    """Features of one modality: `stages` arrays (N, tokens, channels)."""

    tokens: int
    channels: int
    stages: int


class Plan(NamedTuple):
    """What stays where while a category is scored.

    Attributes:
        on_disk: Whether features go to the disk as they are extracted, or stay on the device.
        on_host: Whether they go to the memory of the device's host instead.
        whole_stages: Whether all pairs of a stage are scored at once; else `panel` samples by all, `chunk` at a time.
        panel: Samples that are scored at once.
        chunk: Samples that score them at once.
        keep_scores: Whether there is room for all scores of a stage, so that each pair need only be multiplied once.
        bytes: What all this takes at its peak, beside the program and the backbones.
        budget: What it may take.
        disk_bytes: What goes to the disk.
        devices: Over how many devices samples are spread.
    """

    on_disk: bool
    whole_stages: bool
    panel: int
    chunk: int
    bytes: int
    budget: int
    disk_bytes: int
    devices: int = 1
    keep_scores: bool = False
    on_host: bool = False

    @property
    def stored(self) -> bool:
        """Whether features leave the device as they are extracted, and come back in parts."""
        return self.on_disk or self.on_host

    @property
    def scarce(self) -> bool:
        """Whether memory that is freed must not be kept for later: what is kept could come to as much as is used."""
        return self.on_disk or self.bytes > self.budget // 2

    def describe(self) -> str:
        """One line for people."""
        where = "features on the device" if self.devices == 1 else f"features on {self.devices} devices"
        where = f"{_gb(self.disk_bytes)} of features on disk" if self.on_disk else where
        where = "features in the host's memory" if self.on_host else where
        how = "a stage at once" if self.whole_stages else f"{self.panel} samples by {self.chunk} at a time"
        return f"memory: {where}, scoring {how}; about {_gb(self.bytes)} of {_gb(self.budget)}"


class BudgetError(ValueError):
    """Not even the smallest plan fits; says what would."""


def plan_memory(
    count: int,
    modalities: list[Tokens],
    *,
    size: int,
    budget: int,
    references: int | None = None,
    listed: bool = False,
    mesh: Mesh | None = None,
    host: int | None = None,
) -> Plan:
    """Choose where features stay and how many samples are scored at once.

    Args:
        count: N.
        modalities: What each gives.
        size: Side of the anomaly maps in pixels; those and the pictures stay in memory in any case.
        budget: Bytes that may be used.
        references: R, where not all others score.
        listed: Whether each sample has R of its own, and not all the same.
        mesh: The devices that samples are spread over; default one. Features go to the disk only where one process
            has all devices, and one device scores them then.
        host: Bytes that may be used beside the device's, where its memory is its own: for pictures, masks and maps,
            and for features that the device has no room for. None: the budget is that of both.

    Raises:
        BudgetError: Not even one sample at a time fits.
    """
    if mesh is not None:
        return _over_devices(count, modalities, size, budget, references, listed, mesh, host)
    plan = _on_one_device(count, modalities, size, budget, references, listed, own=host is not None)
    if host is None:
        return plan
    pictures, room = _always(count, size) - _PROGRAMS, int(host * (1 - _SPARE))
    if pictures > room:
        raise BudgetError(
            f"memory: pictures and maps of {count} samples of {size} x {size} pixels take {_gb(pictures)} beside the "
            f"device, {_gb(room)} are free there; take fewer samples or a smaller image size"
        )
    if not plan.on_disk or pictures + plan.disk_bytes > room:
        return plan
    return plan._replace(on_disk=False, on_host=True, disk_bytes=0)


def _on_one_device(
    count: int,
    modalities: list[Tokens],
    size: int,
    budget: int,
    references: int | None,
    listed: bool,
    *,
    own: bool,
) -> Plan:
    """Features on the device or elsewhere; with memory of its `own`, pictures and maps are not in it."""
    room = int(budget * (1 - _SPARE))
    scorers = count if references is None else min(references + 1, count)
    stages = max(m.stages for m in modalities)
    one_stage = sum(count * m.tokens * m.channels for m in modalities) * _FLOAT
    features = one_stage * stages
    tokens = sum(m.tokens for m in modalities)
    always = _PROGRAMS if own else _always(count, size)
    # As they come out of the products, in the order of the samples, and their square roots.
    scores = 3 * count * (scorers - 1) * tokens * _FLOAT
    # One stage is there twice: when its parts are put together, and when the mean is subtracted.
    whole = always + features + one_stage + scores
    pairs_meet = references is None or listed
    if pairs_meet and whole <= room:
        return Plan(False, True, count, count, whole, budget, 0)
    if references is not None and always + features + one_stage <= room:
        panel, chunk, needed = _panels(count, scorers, modalities, room - always - features, listed)
        if panel:
            return Plan(False, False, panel, chunk, always + features + needed, budget, 0)
    staged = always + 2 * one_stage + scores
    if pairs_meet and staged <= room:
        return Plan(True, True, count, count, staged, budget, features)
    if references is None:
        block, needed = _blocks(count, modalities, room - always)
        if block:
            return Plan(True, False, block, block, always + needed, budget, features, keep_scores=True)
    panel, chunk, needed = _panels(count, scorers, modalities, room - always, listed)
    if not panel:
        needed = int((always + needed) / (1 - _SPARE)) + 1
        others = ", or take fewer samples, a smaller image size, or --references" if room > _PROGRAMS else ""
        raise BudgetError(
            f"memory: {count} samples of {size} x {size} pixels need {_gb(needed)} at least, {_gb(budget)} "
            f"may be used; raise --memory_gb to {_enough(needed)}{others}"
        )
    return Plan(True, False, panel, chunk, always + needed, budget, features)


def _over_devices(
    count: int,
    modalities: list[Tokens],
    size: int,
    budget: int,
    references: int | None,
    listed: bool,
    mesh: Mesh,
    host: int | None,
) -> Plan:
    """A stage at once, spread over all devices; else as with one."""
    # Devices of a CPU share the memory of their process.
    accelerators = mesh.devices.flat[0].platform != "cpu"
    own = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)
    share = -(-count // mesh.size) * (1 if accelerators else own)
    # From half of all on, meeting everybody is less work than keeping to the lists.
    meets_all = references is None or (listed and 2 * references >= count - 1)
    scorers = count if meets_all or references is None else min(references + 1, count)
    tokens = sum(m.tokens for m in modalities)
    one_stage = share * sum(m.tokens * m.channels for m in modalities) * _FLOAT
    # A stage is there three times: its share, the visitor, and what is on its way; each has its mean subtracted.
    needed = max(m.stages for m in modalities) * one_stage + 5 * one_stage + 3 * share * (scorers - 1) * tokens * _FLOAT
    if references is not None and not listed:
        needed += 2 * scorers * sum(m.tokens * m.channels for m in modalities) * _FLOAT
    needed += _always(count, size) if host is None else _PROGRAMS
    if needed <= budget * (1 - _SPARE):
        return Plan(False, True, count, count, needed, budget, 0, mesh.size)
    if own < mesh.size:
        needed = int(needed / (1 - _SPARE)) + 1
        raise BudgetError(
            f"memory: {count} samples of {size} x {size} pixels need {_gb(needed)} on each of {mesh.size} devices, "
            f"{_gb(budget)} may be used; raise --memory_gb to {_enough(needed)}, start more processes, or take a "
            "smaller image size"
        )
    return plan_memory(count, modalities, size=size, budget=budget, references=references, listed=listed, host=host)


def _always(count: int, size: int) -> int:
    """Pictures, masks, maps and a copy of these while they are judged; the same whatever the plan."""
    return _PROGRAMS + count * size * size * (3 + 1 + 3 * _FLOAT)


def _blocks(count: int, modalities: list[Tokens], budget: int) -> tuple[int, int]:
    """(samples in a block, bytes) where the scores of all pairs stay and blocks of samples meet; 0 if nothing fits."""
    sample = max(m.tokens * m.channels for m in modalities) * _FLOAT
    tokens = sum(m.tokens for m in modalities)
    needed = 0
    for block in (16, 8, 4, 2):
        rows = -(-count // block) * block
        # All scores; of a block, its scores by all twice; its tokens and those of the block it meets as read, on the
        # device and centred, and two blocks that are read ahead.
        needed = rows * rows * tokens * _FLOAT + 2 * block * rows * tokens * _FLOAT + 8 * block * sample
        if needed <= budget:
            return min(block, count), needed
    return 0, needed


def _panels(count: int, scorers: int, modalities: list[Tokens], budget: int, listed: bool) -> tuple[int, int, int]:
    """(samples scored at once, samples that score at once, bytes); 0 samples and the bytes of one if nothing fits."""
    sample = max(m.tokens * m.channels for m in modalities) * _FLOAT
    tokens = sum(m.tokens for m in modalities)
    # Its tokens twice (as read, centred), its scores by all twice: as found, and those that count.
    row = 2 * sample + 2 * scorers * tokens * _FLOAT
    # Those that score: as read, on the device, centred; and where they do not stay, the two that are read ahead.
    resident, passing = 3 * scorers * sum(m.tokens * m.channels for m in modalities) * _FLOAT, 5 * sample
    # Those of one sample do not stay for the next, where each has its own.
    stay = [] if listed else [(scorers, resident)]
    most, enough = (1, 1) if listed else (_LARGEST_PANEL, 8)
    for chunk, needed in (*stay, *((chunk, chunk * passing) for chunk in (16, 8, 4, 2, 1))):
        panel = min((budget - needed) // row, most, count)
        # Reading all others again for hardly any samples would take for ever; fewer at a time are better then.
        if panel >= min(enough, count) or (panel >= 1 and chunk == 1):
            return int(panel), min(chunk, scorers), int(panel * row + needed)
    return 0, 0, row + passing


def return_freed_memory(*, scarce: bool = True) -> None:
    """Fixes from which size on the C library gives freed arrays back to the system. For entry points, not libraries.

    glibc raises its thresholds with every large array it sees, and keeps what is smaller in arenas of each thread: a
    process then grows to several times what it holds.

    Args:
        scarce: From 4 MB on, which keeps to a plan's budget, and costs products with more scratch memory, as those of a
            ViT's MLP, a tenth of their time; 1 MB would cost the point encoder a third. Else from 32 MB on, where glibc
            would end.
    """
    if sys.platform != "linux":
        return
    import ctypes

    threshold, trim = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    size = (4 if scarce else 32) << 20
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(threshold, size)
        mallopt(trim, 2 * size)


def peak_memory() -> dict[str, int]:
    """The most memory so far in bytes: of this process (not on Windows), and of the first device where it says."""
    found = {}
    try:
        import resource
    except ImportError:  # on Windows; absent is not zero
        pass
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        found["host"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        found["device"] = int(statistics["peak_bytes_in_use"])
    return found


def _gb(size: int) -> str:
    if size < 1e9:
        return f"{size / 1e6:.1f} MB"
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"


def _enough(size: int) -> str:
    """A value of --memory_gb that is not below a size."""
    return f"{math.ceil(size / 1e5) / 1e4:g}" if size < 1e9 else f"{math.ceil(size / 1e7) / 100:.2f}"
