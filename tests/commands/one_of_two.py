"""One of the two processes of `test_distributed.py`: `one_of_two.py CASE FILE --coordinator=... ...`."""

import os
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np

from launch import command, distributed
from launch.own_flags import parse
from musc_jax.config import ConfigError
from musc_jax.execution import devices, sharded


def features():
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(7, 9, 6)).astype(np.float32), rng.normal(size=(7, 12, 5)).astype(np.float32)
    return *arrays, rng.integers(0, 9, (7, 12)).astype(np.int32)


def scores(file):
    """What a run does: each process has its own samples' features, and all get all scores."""
    mesh = devices.make_mesh()
    own = devices.samples_of_process(7, mesh)
    arrays = features()
    image, points, patch = (devices.to_global(x[own.start : own.stop], 7, mesh) for x in arrays)
    found = jax.jit(lambda *a: sharded.sharded_multimodal_scores(*a, mesh, count=7))(image, points, patch)
    names = devices.gather_list([f"sample {i}" for i in own])
    first = distributed.agreed(distributed.is_first())
    whole = devices.gather(image)
    distributed.barrier("scored")
    file = f"{file}_{jax.process_index()}.npz"
    np.savez(file, image=found[0], points=found[1], names=names, first=first, whole=whole, own=[own.start, own.stop])


def while_others_wait(_):
    distributed.barrier("before")
    if jax.process_index() == 1:
        os._exit(3)
    distributed.barrier("after")


def bad_input(_):
    distributed.barrier("before")
    if jax.process_index() == 0:
        raise ConfigError("a file of the first process alone is broken")
    while True:
        distributed.barrier("after")


def unlike(file):
    distributed.barrier("before")
    own = {"this": "same", "that": str(jax.process_index()), "those": "same"}
    if different := distributed.differing(own):
        # The end of one may end the other; not before both know.
        Path(f"{file}_{jax.process_index()}").touch()
        while not Path(f"{file}_{1 - jax.process_index()}").exists():
            time.sleep(0.01)
        raise ConfigError(f"these differ: {different}")


def nobody(_):
    raise AssertionError("the other was never started")


def defect(_):
    distributed.barrier("before")
    if jax.process_index() == 1:
        raise KeyError("a defect of the second process")
    distributed.barrier("after")


def for_ever():
    threading.Event().wait()


def while_others_compute(_):
    distributed.barrier("before")
    if jax.process_index() == 0:
        os._exit(3)
    for_ever()


def silent(_):
    distributed.barrier("before")
    if jax.process_index() == 1:
        os._exit(3)
    for_ever()


def told_to_end(file):
    distributed.barrier("before")
    if jax.process_index() == 1:
        Path(file).touch()
        for_ever()
    distributed.barrier("after")


def main(argv):
    case, file = parse(argv, distributed.flags)
    work = distributed.together(
        lambda: globals()[case](file),
        heartbeat_seconds=4 if case == "silent" else 30,
        start_seconds=2 if case == "nobody" else 60,
    )
    bad = (ConfigError, distributed.LostProcessError)
    own = {"own": (distributed.flags,), "takes_arguments": True}
    return distributed.leave(command.execute(argv, work, bad, interrupted="interrupted", **own))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
