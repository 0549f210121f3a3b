"""Loading samples as Eyecandies has them (512 x 512 picture, xyz, mask) beside reading them one after the other.

    python -m benchmarks.loading [--output=FILE]

The samples are made here: noise on a picture, which is harder to decode than a rendered one. Also counted: how often
scoring with the fastest backbone (ViT-S/16) has to wait for a sample, and what cleaning an 800 x 800 scan takes.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tifffile
from PIL import Image

from benchmarks.machine import peak
from musc_jax import Config
from musc_jax.data import Dataset, open_dataset
from musc_jax.data.sample import Sample
from musc_jax.execution.extraction import extract
from musc_jax.execution.programs import Programs
from musc_jax.storage import atomic

COUNT, SIDE, SIZE = 100, 512, 224


def make(root: Path) -> None:
    """Writes one category."""
    folder = root / "CandyCane" / "test_public" / "data"
    folder.mkdir(parents=True)
    row, column = np.mgrid[:SIDE, :SIDE]
    shape = np.hypot(row - 256, column - 256) < 200
    for i in range(COUNT):
        rng = np.random.default_rng(i)
        picture = np.where(shape[..., None], [180, 60, 90], [30, 30, 30]) + rng.integers(0, 8, (SIDE, SIDE, 3))
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{i:03d}_image_0.png")
        depth = np.where(shape, 1.4 + 0.01 * rng.random((SIDE, SIDE)), 0)
        xyz = np.stack([(column - 255.5) * depth, (row - 255.5) * depth, depth], -1).astype(np.float32)
        tifffile.imwrite(folder / f"{i:03d}_xyz.tiff", xyz, photometric="minisblack", planarconfig="contig")
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[200:220, 200:240] = 255 * (i % 2)
        Image.fromarray(mask).save(folder / f"{i:03d}_mask.png")


def plain(root: Path) -> None:
    """The same work, one file after the other, without checks."""
    folder = root / "CandyCane" / "test_public" / "data"
    target = np.arange(SIZE) * SIDE // SIZE
    for i in range(COUNT):
        with Image.open(io.BytesIO((folder / f"{i:03d}_image_0.png").read_bytes())) as picture:
            np.array(picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        with Image.open(folder / f"{i:03d}_mask.png") as picture:
            np.array(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        tifffile.imread(folder / f"{i:03d}_xyz.tiff")[target[:, None], target]


def rate(work: Any) -> float:
    """Samples a second."""
    started = time.perf_counter()
    work()
    return COUNT / (time.perf_counter() - started)


def waits(dataset: Dataset) -> tuple[int, float]:
    """How many samples after the first eight were not ready when asked for, and all such seconds."""
    import weights

    times: list[float] = []

    def watched() -> Iterator[Sample]:
        samples = dataset.samples("CandyCane", size=SIZE)
        while True:
            started = time.perf_counter()
            sample = next(samples, None)
            if sample is None:
                return
            times.append(time.perf_counter() - started)
            yield sample

    config = Config(modality="rgb", image_size=SIZE, image_backbone=weights.load("random", "dino_vits16"))
    extract(watched(), config.resolved(), Programs())
    # Taking what is ready needs some microseconds; a millisecond is a wait.
    late = [seconds for seconds in times[8:] if seconds > 1e-3]
    return len(late), sum(late)


def clean() -> dict[str, float]:
    """Cleaning one 800 x 800 scan in this process: seconds, and memory above what was there before."""
    import open3d  # noqa: F401 - its own memory does not count

    from musc_jax.data.cleaning import mvtec3d as plane_cleaning

    rng = np.random.default_rng(0)
    row, column = np.mgrid[:800, :800]
    xyz = np.stack([(column - 399.7) * 2e-4, (row - 399.7) * 2e-4, 0.5 + 5e-4 * rng.normal(size=(800, 800))], -1)
    xyz[250:550, 250:550, 2] -= 0.03
    before, started = peak(), time.perf_counter()
    plane_cleaning.clean_scan(xyz.astype(np.float32))
    return {"seconds": round(time.perf_counter() - started, 3), "mb": round((peak() - before) / 2**20, 1)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--clean", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.clean:
        print(json.dumps(clean()))
        return
    found: dict[str, Any] = {"command": "python -m benchmarks.loading", "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "data"
        make(root)
        opened = lambda: open_dataset("eyecandies", data_dir=root, cache_dir=Path(name) / "cache")  # noqa: E731
        rows = []
        for _ in range(3):
            dataset = opened()
            rows.append(
                {
                    "check": rate(opened),
                    "load": rate(lambda data=dataset: list(data.samples("CandyCane", size=SIZE))),
                    "plain": rate(lambda: plain(root)),
                }
            )
        found["samples_a_second"] = {key: round(max(row[key] for row in rows), 1) for key in rows[0]}
        found["load_to_plain"] = round(max(row["load"] / row["plain"] for row in rows), 2)
        found["late_samples"], late = waits(dataset)
        found["late_seconds"] = round(late, 4)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    taskset = ["taskset", "--cpu-list", "0"] if os.path.exists("/usr/bin/taskset") else []
    command = [*taskset, sys.executable, "-m", "benchmarks.loading", "--clean"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 0:
        found["clean_800x800_on_one_core"] = json.loads(done.stdout)
    print(json.dumps(found, indent=2))
    if arguments.output:
        atomic.write_text(arguments.output, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
