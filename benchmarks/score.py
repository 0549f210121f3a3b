"""What `launch.score` spends on photographs outside of the backbone and the scoring: reading, deciding, writing.

    python -m benchmarks.score [--output=FILE]

Forty photographs of 1 to 12 megapixels are made here and scored with the default backbone (random weights: they take as
long) and the default outputs. The same command once more takes the scores from the cache, and all that it does, but for
loading the backbone's parameters, is what the first run did outside of the backbone and the scoring. CPU seconds of the
process, which other programs of a busy machine change less than they do the clock.
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

from benchmarks.machine import cores
from launch import score as command
from launch import start
from musc_jax.execution.programs import Programs
from musc_jax.storage import atomic

COUNT, SMALLEST, LARGEST = 40, 1, 12
MUST = 0.15


def photograph(seed: int, megapixels: float) -> Image.Image:
    """A disc on a table, with the grain of a sensor."""
    rng = np.random.default_rng(seed)
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    shade = Image.fromarray(rng.normal(0, 12, (height // 8, width // 8)).astype(np.float32))
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    disc = np.hypot(1.3 * x, y)[..., None] < 0.7
    colors = np.where(disc, np.float32([110, 80, 70]), np.float32([170, 150, 120]))
    colors += np.asarray(shade.resize((width, height), Image.Resampling.BICUBIC))[..., None]
    colors += rng.integers(-6, 7, (height, width, 1), np.int8)
    return Image.fromarray(np.clip(colors, 0, 255).astype(np.uint8))


class _Counting(Programs):
    """Programs that count the CPU seconds of compilation."""

    compiling = 0.0

    def run(self, *args: Any, **options: Any) -> Any:
        """The same."""
        before, started = self.count, time.process_time()
        result = super().run(*args, **options)
        if self.count > before:
            _Counting.compiling += time.process_time() - started
        return result


class _Run(NamedTuple):
    """CPU seconds of one run."""

    whole: float
    compiling: float
    loading: float
    """Of the backbone's parameters, which random ones are drawn for."""


def _timed_run(arguments: list[str]) -> _Run:
    loading, load = [0.0], start.with_backbones

    def watched(*args: Any) -> Any:
        began = time.process_time()
        found = load(*args)
        loading[0] += time.process_time() - began
        return found

    _Counting.compiling, began = 0.0, time.process_time()
    start.with_backbones = watched
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            code = command.main(["score", *arguments])
    finally:
        start.with_backbones = load
    if code:
        raise RuntimeError(f"launch.score ended with exit code {code}")
    return _Run(time.process_time() - began, _Counting.compiling, loading[0])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--backbone", default="dino_vitb8")
    arguments = parser.parse_args()
    command.Programs = _Counting  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photographs"
        folder.mkdir()
        sizes = np.linspace(SMALLEST, LARGEST, arguments.count)
        for i, megapixels in enumerate(sizes):
            photograph(i, float(megapixels)).save(folder / f"{i:03d}.jpg", quality=90)
        given = [str(folder), "--weights_rgb=random", f"--backbone={arguments.backbone}"]
        given += [f"--output_dir={name}/results", f"--cache_dir={name}/cache"]
        first, again = _timed_run(given), _timed_run(given)
    whole, outside = first.whole - first.compiling, again.whole - again.compiling - again.loading
    share = outside / whole
    found = {
        "command": "python -m benchmarks.score",
        "cores": cores(),
        "photographs": arguments.count,
        "megapixels": [SMALLEST, LARGEST],
        "backbone": arguments.backbone,
        "cpu_seconds": {"whole": round(whole, 1), "outside": round(outside, 1)},
        "besides": {"compilation": round(first.compiling, 1), "loading_parameters": round(again.loading, 1)},
        "share_outside": round(share, 3),
        "must_stay_below": MUST,
        "met": share < MUST,
    }
    print(json.dumps(found, indent=2))
    if arguments.output:
        atomic.write_text(arguments.output, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
