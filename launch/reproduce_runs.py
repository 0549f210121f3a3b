"""Runs of launch.eval for the paper's tables: where each has its data, which share tokens, what came out."""

import contextlib
import io
import json
import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from launch import eval as evaluation
from launch import features
from musc_jax.data.datasets import published_datasets
from musc_jax.models import VitConfig
from musc_jax.report.published_metrics import published_categories
from musc_jax.report.reproduction import Outcome, Run
from musc_jax.report.reproduction.declared import MEMORY, SECONDS
from weights.backbones import BACKBONES

# Switches that change tokens; all others change what is done with them.
_OF_TOKENS = ("k_iter", "curvature_threshold")
# Flags that tokens are made with, and that are refused where they are given.
_IN_TOKENS = frozenset({"weights_dir", "dtype", "num_groups", "group_size", "blocks"})
_RANDOM = frozenset({"subsets", "batch_size", "normal_ratio"})


class Interrupted(Exception):
    """Ctrl-C in one of the runs."""


def tokens_of(run: Run) -> Run:
    """The run that computes what this one scores: its switches are those that change tokens."""
    kept = [pair for pair in run.switches if pair[0] in (*_OF_TOKENS, "variant") or pair == ("ablate", "ipg")]
    return run._replace(switches=tuple(kept), timed=False)


class Runs:
    """Runs of one call.

    Args:
        runs: All of them, so that what they share is known.
        data_root: Has the datasets under their names.
        output: Runs write below it, each into a folder of its own.
        cache_dir: Of the runs; shared tokens lie in it.
        given: Flags that every run gets which has a use for them, and their values.
        weights: "pretrained" or "random".
    """

    def __init__(
        self,
        runs: Sequence[Run],
        data_root: Path,
        output: Path,
        cache_dir: Path,
        given: Mapping[str, str],
        weights: str,
    ) -> None:
        self._data_root, self._output, self._cache = data_root, output, cache_dir
        self._given, self._weights = dict(given), weights
        self._users = Counter(tokens_of(run) for run in runs if not run.timed and not self.missing(run))
        self._left = Counter(self._users)
        self._made: dict[Run, str] = {}

    def missing(self, run: Run) -> str:
        """Why a run cannot be made, as far as that is known without starting it; empty otherwise."""
        folder = self._data_root / run.dataset
        return "" if folder.is_dir() else f"no data: {folder}"

    def is_shared(self, run: Run) -> bool:
        """Whether other runs score the same tokens."""
        return not run.timed and self._users[tokens_of(run)] > 1

    def outcome(self, run: Run) -> Outcome:
        """Makes a run, or finds what an earlier call made of it.

        Raises:
            Interrupted: Ctrl-C.
        """
        if missing := self.missing(run):
            return Outcome(missing=missing)
        if not self.is_shared(run):
            return self._evaluated(run, [*run.arguments, *self._backbones(run)])
        tokens = tokens_of(run)
        folder = self._cache / "reproduce" / tokens.name
        try:
            if problem := self._extracted(tokens, folder):
                return Outcome(missing=problem)
            # What is in the tokens is refused beside them.
            own = [flag for flag in run.arguments if not flag.startswith(("--backbone=", "--k_iter="))]
            return self._evaluated(run, [*own, f"--features={folder}"], without=_IN_TOKENS)
        finally:
            self._left[tokens] -= 1

    def _backbones(self, run: Run) -> list[str]:
        return [
            *[f"--weights_rgb={self._weights}"] * (run.modality != "points"),
            *[f"--weights_points={self._weights}"] * (run.modality != "rgb"),
        ]

    def _extracted(self, tokens: Run, folder: Path) -> str:
        """Writes the tokens that are not there yet; the problem, where that fails."""
        if tokens not in self._made:
            known = {flag.name for flag in features.OF_EVAL.all}
            given = self._flags(self._given.keys() & known)
            arguments = [*tokens.arguments, *self._backbones(tokens), *given]
            arguments += [f"--data_dir={self._data_root / tokens.dataset}", f"--output_dir={folder}"]
            self._made[tokens] = self._called(features.main, "features", arguments, f"{tokens.name}.features")
        return self._made[tokens]

    def _flags(self, names: Collection[str]) -> list[str]:
        return [f"--{name}={value}" for name, value in self._given.items() if name in names]

    def _evaluated(self, run: Run, arguments: list[str], *, without: Collection[str] = ()) -> Outcome:
        output = self._output / "runs" / run.name
        names = self._given.keys() - set(without)
        if not any(flag in _RANDOM and value != "0" for flag, value in run.switches) or run.timed:
            names -= {"seeds"}
        arguments = [*arguments, *self._flags(names)]
        arguments += [f"--data_dir={self._data_root / run.dataset}", f"--output_dir={output}"]
        if problem := self._called(evaluation.main, "eval", arguments, run.name):
            return Outcome(missing=problem)
        return read_outcome(output / run.dataset, timed=run.timed)

    def _called(self, main: Callable[[list[str]], int], name: str, arguments: list[str], log: str) -> str:
        """Calls a command; what it prints goes to a file, progress stays on the screen. Its problem; empty if none."""
        printed, heard = io.StringIO(), _Heard()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(heard):
            code = main([name, *arguments])
        logs = self._output / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        call = f"musc-jax {name} {' '.join(arguments)}"
        (logs / f"{log}.txt").write_text(f"{call}\n\n{printed.getvalue()}", encoding="utf-8")
        if code == 130:
            raise Interrupted
        return "" if code == 0 else heard.error or f"exit code {code}"

    def close(self, *, keep: bool) -> None:
        """Removes shared tokens that nothing is left to use, unless they are kept."""
        for tokens, left in self._left.items():
            if left == 0 and not keep:
                shutil.rmtree(self._cache / "reproduce" / tokens.name, ignore_errors=True)


class _Heard(io.TextIOBase):
    """Standard error, passed on, and the first error said there."""

    def __init__(self) -> None:
        self._there, self.error = sys.stderr, ""

    def write(self, text: str) -> int:
        if text.startswith("error: ") and not self.error:
            self.error = text.removeprefix("error: ").splitlines()[0]
        return self._there.write(text)

    def flush(self) -> None:
        self._there.flush()

    def isatty(self) -> bool:
        return self._there.isatty()


def read_outcome(folder: Path, *, timed: bool) -> Outcome:
    """What a finished run's files say.

    Args:
        folder: OUTPUT_DIR/DATASET of launch.eval.
        timed: Also milliseconds a sample and the peak of memory.
    """
    summary = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    figures = _percent(summary["mean"])
    deviation = _percent(summary.get("deviation", {}).get("mean", {}))
    if timed:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        counts, seconds = record["samples"], record["seconds_per_sample"]
        whole = sum(counts[name] * seconds[name]["all"] for name in counts)
        figures[SECONDS] = 1000 * whole / sum(counts.values())
        peak = record["peak_memory_bytes"]
        if place := next((place for place in ("device", "host") if place in peak), None):
            figures[MEMORY] = peak[place] / 1e9
    # A mean over some categories looks like the published one and is another.
    there, all_of_them = set(summary["categories"]), published_categories(folder.name)
    remark = "" if there == all_of_them else f"mean over {len(there)} categories, published over {len(all_of_them)}"
    return Outcome(figures, deviation, remark=remark)


def _percent(metrics: dict[str, Any]) -> dict[str, float]:
    """Published PRO is the one of 200 thresholds."""
    named = metrics | {"pixel_PRO": metrics.get("pixel_PRO_200")}
    return {key: 100 * value for key, value in named.items() if value is not None and key != "pixel_PRO_200"}


def estimate(runs: Sequence[Run], where: Runs, *, limit: int | None = None) -> str:
    """A line about what runs will take, from the products they consist of and this device's rate of products.

    Files are not read in it, and a backbone rarely reaches that rate: expect twice as much.

    Args:
        runs: Those that can be made.
        where: Knows which share tokens.
        limit: Samples of each category.
    """
    if not runs:
        return "nothing to run"
    flops, disk, shared = 0.0, 0.0, set()
    for run in runs:
        categories = published_datasets()[run.dataset].categories.values()
        counts = [min(c.good + c.defective, limit or math.inf) for c in categories]
        tokens = tokens_of(run)
        if not where.is_shared(run) or tokens not in shared:
            flops += sum(counts) * _extraction(run)
        if where.is_shared(run) and tokens not in shared:
            disk += sum(counts) * _token_bytes(run)
            shared.add(tokens)
        seeds = 10 if any(flag in _RANDOM for flag, _ in run.switches) and not run.timed else 1
        flops += seeds * sum(n * n / 2 for n in counts) * _pair(run)
    rate = _rate()
    return (
        f"about {_duration(flops / rate / 0.5)} at half of this device's {rate / 1e12:.2f} TFLOP/s, reading not counted"
        + (f"; shared tokens take up to {disk / 1e9:.1f} GB in the cache" if disk else "")
    )


def _grid(run: Run) -> int:
    config = BACKBONES[run.backbone].config
    return (run.size // config.patch_size) ** 2 if isinstance(config, VitConfig) else 0


def _extraction(run: Run) -> float:
    """Operations of the backbones for one sample."""
    total = 0.0
    if run.modality != "points":
        vit = BACKBONES[run.backbone].config
        total += vit.depth * (24 * _grid(run) * vit.width**2 + 4 * _grid(run) ** 2 * vit.width)
    if run.modality != "rgb":
        total += 190e9  # the mini-PointNet of 1024 groups of 128 points, and the transformer
    return total


def _pair(run: Run) -> float:
    """Operations of scoring two samples by each other, three stages; version 1 has three aggregations of each."""
    images = 2 * _grid(run) ** 2 * BACKBONES[run.backbone].config.width if run.modality != "points" else 0
    return 3 * (3 if ("variant", "v1") in run.switches else 1) * images + (
        3 * 2 * 1024**2 * 384 if run.modality != "rgb" else 0
    )


def _token_bytes(run: Run) -> float:
    images = _grid(run) * BACKBONES[run.backbone].config.width if run.modality != "points" else 0
    return 3 * 4 * (images + (1024 * 384 if run.modality != "rgb" else 0))


def _rate() -> float:
    """Operations a second of a product that is large enough."""
    side = 1024
    product = jax.jit(lambda a: a @ a)
    matrix = jnp.ones((side, side), jnp.float32)
    product(matrix).block_until_ready()
    best = math.inf
    for _ in range(3):
        started = time.perf_counter()
        product(matrix).block_until_ready()
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
