"""Loading costs no more than a few times what cannot be avoided, and is done while others work.

What something costs is read off the processor's time and held against another piece of work of the same minute: how
fast this machine is, and what else it does, says nothing about the code. Rates are in `benchmarks`.
"""

import io
import threading
import time

import numpy as np
import pytest
import tifffile
from dataset_trees import raw_scan
from eyecandies_tree import write_category
from PIL import Image
from scipy.spatial import cKDTree
from waiting import PATIENCE_SECONDS

from musc_jax.data import open_dataset
from musc_jax.data.cleaning import mvtec3d as plane_cleaning

try:
    import open3d  # noqa: F401
except (ImportError, OSError):
    HAS_OPEN3D = False
else:
    HAS_OPEN3D = True

SIZE = 224


def times_as_much(work, yardstick, repeats=3):
    """Processor time of one piece of work in that of another; the least of several, by turns."""
    seconds = []
    for _ in range(repeats):
        for call in (work, yardstick):
            started = time.process_time()
            call()
            seconds.append(time.process_time() - started)
    return min(seconds[::2]) / min(seconds[1::2])


@pytest.fixture(scope="module")
def candies(tmp_path_factory):
    root = tmp_path_factory.mktemp("full size")
    write_category(root, "CandyCane", [f"{i:02d}" for i in range(12)], side=512, raw=False, xyz=True)
    return open_dataset("eyecandies", data_dir=root, cache_dir=root / "cache")


def test_a_sample_costs_little_more_than_reading_its_files(candies):
    def plain():
        at = np.arange(SIZE) * 512 // SIZE
        for path in (sample.image_path for sample in samples):
            stem = str(path).removesuffix("image_0.png")
            for item, method in (("image_0.png", Image.Resampling.BICUBIC), ("mask.png", Image.Resampling.BILINEAR)):
                with open(stem + item, "rb") as file, Image.open(io.BytesIO(file.read())) as picture:
                    np.array(picture.resize((SIZE, SIZE), method))
            tifffile.imread(stem + "xyz.tiff")[at[:, None], at]

    samples = list(candies.samples("CandyCane", size=SIZE))
    assert len(samples) == 12
    ratio = times_as_much(lambda: list(candies.samples("CandyCane", size=SIZE)), plain)
    assert ratio < 6  # 2.5 to 2.9


def test_samples_are_loaded_while_the_consumer_works(candies, monkeypatch):
    """It takes one and waits for more to be loaded, without asking for them."""
    loaded, open_picture = threading.Semaphore(0), Image.open

    def counted(*arguments, **options):
        loaded.release()
        return open_picture(*arguments, **options)

    monkeypatch.setattr(Image, "open", counted)
    samples = candies.samples("CandyCane", size=SIZE)
    next(samples)
    for _ in range(2 * 9):  # a picture and a mask of the one taken and of eight more
        assert loaded.acquire(timeout=PATIENCE_SECONDS)
    samples.close()


@pytest.mark.skipif(not HAS_OPEN3D, reason="Open3D is not installed, or lacks system libraries")
def test_cleaning_a_large_scan_costs_little_more_than_a_look_around_each_point():
    xyz = raw_scan(0, 800, 800)[0].astype(np.float32)
    points = xyz[::4, ::4].reshape(-1, 3)
    ratio = times_as_much(lambda: plane_cleaning.clean_scan(xyz), lambda: cKDTree(points).query(points, 8), repeats=2)
    assert ratio < 5  # 1.1 to 1.3
