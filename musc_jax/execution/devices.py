"""Many devices: which samples lie where, how they get there, and how small things come back.

The samples lie along one mesh axis in contiguous shares, filled up so that every device has equally many. With several
processes (hosts) every process calls the same functions with global arrays: `samples_of_process` says which samples it
extracts, `to_global` makes one array of what all have, `gather_rows` gives all of them what each has. How they score
each other is in `sharded`.
"""

import pickle
from collections.abc import Callable, Sequence
from functools import cache, partial, wraps
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from musc_jax._arrays import Array

AXIS = "x"
BY_SAMPLE, EVERYWHERE = PartitionSpec(AXIS), PartitionSpec()


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis.

    Args:
        devices: Default all devices of all processes.

    Returns:
        The mesh; the devices of a process lie side by side, so that its share of the samples is contiguous.
    """
    chosen = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(chosen), (AXIS,), axis_types=(AxisType.Auto,))


def padded_count(total: int, mesh: Mesh) -> int:
    """The lowest multiple of the mesh's number of devices that is not below `total`."""
    return -(-total // mesh.size) * mesh.size


def samples_of_process(total: int, mesh: Mesh) -> range:
    """Which of `total` samples this process extracts: those that its devices hold in scoring; may be none."""
    share = padded_count(total, mesh) // mesh.size
    own = [at for at, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    if not own:
        return range(0)
    return range(min(total, own[0] * share), min(total, (own[-1] + 1) * share))


def to_global(own: Array, total: int, mesh: Mesh) -> jax.Array:
    """Puts the samples of all processes together, without a copy to one place.

    Args:
        own: An array of this process's samples, in the order of `samples_of_process`, samples along the first axis.
        total: How many samples there are over all processes.
        mesh: As in `samples_of_process`.

    Returns:
        An array of `padded_count` samples, each device holding its share; what is padded is 0. Pass `count=total` to
        the scoring functions.

    Raises:
        ValueError: `own` has another number of samples than this process's share.
    """
    expected = len(samples_of_process(total, mesh))
    if own.shape[0] != expected:
        raise ValueError(f"own: expected this process's {expected} of {total} samples, received {own.shape[0]}")
    host = np.asarray(own)
    share = padded_count(total, mesh) // mesh.size
    rows = share * sum(device.process_index == jax.process_index() for device in mesh.devices.flat)
    if rows > expected:
        host = np.concatenate([host, np.zeros((rows - expected, *host.shape[1:]), host.dtype)])
    shape = (share * mesh.size, *host.shape[1:])
    return jax.make_array_from_process_local_data(NamedSharding(mesh, BY_SAMPLE), host, shape)


def everywhere(x: Any, mesh: Mesh) -> Any:
    """The same array, or tree of arrays, on every device of the mesh (parameters, what all processes have)."""
    return jax.device_put(x, NamedSharding(mesh, EVERYWHERE))


def on_every_device(x: jax.Array, mesh: Mesh) -> jax.Array:
    """Inside of a compiled function: the result is whole on each device, and so in each process."""
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, EVERYWHERE))


def local_mesh(mesh: Mesh | None) -> Mesh | None:
    """A mesh of this process's own devices, over which it extracts; None where that is but one."""
    if mesh is None:
        return None
    own = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    return make_mesh(own) if len(own) > 1 else None


def gather(x: jax.Array) -> np.ndarray:
    """A global array whole on every host."""
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def gather_rows(own: np.ndarray) -> np.ndarray:
    """The rows of all processes, in the order of the processes, on every host; a process may have none."""
    if jax.process_count() == 1:
        return own
    counts = np.asarray(multihost_utils.process_allgather(np.array(len(own), np.int32)))
    filled = np.zeros((int(counts.max()), *own.shape[1:]), own.dtype)
    filled[: len(own)] = own
    parts = np.asarray(multihost_utils.process_allgather(filled))
    return np.concatenate([part[:count] for part, count in zip(parts, counts, strict=True)])


def gather_list(own: list) -> list:
    """The lists of all processes joined in their order, on every host (samples, names)."""
    if jax.process_count() == 1:
        return own
    rows = np.frombuffer(pickle.dumps(own), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.array(len(rows), np.int32)))
    ends = np.cumsum(lengths)
    whole = gather_rows(rows)
    # From processes of this very program, over its own connection.
    parts = (pickle.loads(whole[end - length : end].tobytes()) for end, length in zip(ends, lengths, strict=True))
    return [item for part in parts for item in part]


def over_samples(function: Callable, *, shared: int = 0, together: int | None = None) -> Callable:
    """`function`, written for one sample, over a batch of samples.

    A batch of one runs the function as it is: that is what a CPU takes, whose caches then belong to one sample. Larger
    ones are for devices that a single sample does not fill.

    Args:
        function: Takes arrays (or trees of them) of one sample and returns the same.
        shared: So many of the first arguments are not of a sample but the same for all (parameters).
        together: So many samples of a batch at the most are mapped together, to bound the memory that takes; default
            all of them.

    Returns:
        A function of the same arguments with samples along the first axis; keyword arguments are passed on as they are.
        The same object for the same arguments, so that its program is compiled once.
    """
    return _over_samples(function, shared, together)


@cache
def _over_samples(function: Callable, shared: int, together: int | None) -> Callable:
    @wraps(function)
    def call(*args: Any, **static: Any) -> Any:
        common, samples = args[:shared], args[shared:]
        count = len(jax.tree.leaves(samples)[0])

        def one(sample: tuple) -> Any:
            return function(*common, *sample, **static)

        if count == 1:
            return jax.tree.map(lambda x: x[None], one(jax.tree.map(lambda x: x[0], samples)))
        if together is None or count <= together:
            return jax.vmap(one)(samples)
        return jax.lax.map(one, samples, batch_size=together)

    return call


@cache
def over_devices(function: Callable, mesh: Mesh, *, shared: int = 0) -> Callable:
    """`function` over a batch of samples, each device computing its part of the batch.

    No device waits for another, so a process may do this over its own devices alone:
    `over_devices(_image_tokens, make_mesh(jax.local_devices()), shared=1)(variables, images, **options)`.

    Args:
        function: Takes arrays (or trees of them) with samples along the first axis and returns the same; see
            `over_samples` for what is written for one sample.
        mesh: Its size must divide the number of samples in a batch.
        shared: So many of the first arguments are not samples but the same for all (parameters).

    Returns:
        A function of the same arguments; keyword arguments are passed on as they are. The same object for the same
        arguments, so that its program is compiled once.
    """

    def call(*args: Any, **static: Any) -> Any:
        specs = tuple(EVERYWHERE if at < shared else BY_SAMPLE for at in range(len(args)))
        share = partial(function, **static)
        # Nothing is exchanged inside, so what varies over the devices need not be kept apart from what does not.
        return jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=BY_SAMPLE, check_vma=False)(*args)

    return call
