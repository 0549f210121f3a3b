"""Loading keeps up with scoring. Bounds are those promised; what is measured lies three times and more above them.

What work costs is read off the processors' time: other work beside the tests does not count there.
"""

import os
import time

import numpy as np
import pytest
from dataset_trees import raw_scan
from eyecandies_tree import write_category

from musc_jax.data import open_dataset
from musc_jax.data.cleaning import mvtec3d as plane_cleaning

try:
    import open3d  # noqa: F401
except (ImportError, OSError):
    HAS_OPEN3D = False
else:
    HAS_OPEN3D = True


@pytest.fixture(scope="module")
def candies(tmp_path_factory):
    root = tmp_path_factory.mktemp("full size")
    indices = [f"{i:02d}" for i in range(40)]
    write_category(root, "CandyCane", indices, side=512, raw=False, xyz=True)
    return open_dataset("eyecandies", data_dir=root, cache_dir=root / "cache")


def test_forty_samples_a_second_on_two_cores(candies):
    seconds = []
    for _ in range(3):
        started = time.process_time()
        count = sum(1 for _ in candies.samples("CandyCane", size=224))
        seconds.append((time.process_time() - started) / count)
    assert count == 40
    assert min(seconds) <= 2 / 40


@pytest.mark.skipif(
    hasattr(os, "getloadavg") and os.getloadavg()[0] > 3 * (os.cpu_count() or 1),
    reason="others keep this machine busy; who waits for whom cannot be told",
)
def test_a_sample_is_ready_whenever_one_is_asked_for(candies):
    """With a consumer that takes as long as the fastest backbone on two cores."""

    def late():
        samples, count = candies.samples("CandyCane", size=224), 0
        for position in range(30):
            started = time.perf_counter()
            next(samples)
            count += position >= 8 and time.perf_counter() - started > 5e-3
            time.sleep(0.05)
        samples.close()
        return count

    # What else this machine does may come between once; a loader that is too slow is late every time.
    assert min(late() for _ in range(3)) == 0


@pytest.mark.skipif(not HAS_OPEN3D, reason="Open3D is not installed, or lacks system libraries")
def test_cleaning_a_large_scan_takes_no_time():
    xyz, _ = raw_scan(0, 800, 800)
    seconds = []
    for _ in range(2):
        started = time.process_time()
        assert plane_cleaning.clean_scan(xyz.astype(np.float32)).clustered
        seconds.append(time.process_time() - started)
    assert min(seconds) < 1.5
