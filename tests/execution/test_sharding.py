"""Scoring over several devices: what needs no second one, and the rest where there are four."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from musc_jax.execution import sharded
from musc_jax.execution.devices import make_mesh


@pytest.mark.parametrize("share", range(1, 7))
def test_opposite_devices_divide_their_pairs(share):
    own, visitor = sharded._antipodal_pairs(share)
    first = list(zip(own[0], visitor[0], strict=True))
    second = list(zip(visitor[1], own[1], strict=True))  # turned: (sample of the first, sample of the second)
    assert len(first) == len(second) == (share * share + 1) // 2
    assert set(first) | set(second) == set(np.ndindex(share, share))


def test_a_patch_out_of_range_is_refused(rng):
    two, three = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    with pytest.raises(ValueError, match="patch_of_group: expected indices from 0 to 3, received 4"):
        sharded.sharded_multimodal_scores(two, three, np.full((3, 4), 4), make_mesh())


@pytest.mark.slow
def test_on_four_devices():
    """Devices are counted when JAX starts, so these tests have a process of their own."""
    file = Path(__file__).with_name("sharding_on_four.py")
    schedules = file.with_name("test_schedules.py")
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--durations=5",
            str(file),
            str(schedules),
            "-k",
            "sharding_on_four or sharded",
        ],
        env=settings | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"},
        cwd=file.parents[2],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
