"""The steps of `benchmarks.gpu`, each in a process that has the device."""

import dataclasses
import json
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import musc_jax as m
import weights
from benchmarks import inputs
from benchmarks.hot_paths import difference
from musc_jax import Config, pipeline
from musc_jax.config import GroupingConfig, ScoringConfig
from musc_jax.data import Sample
from musc_jax.execution import dense
from musc_jax.execution.ahead import compile_ahead
from musc_jax.execution.extraction import Features, extract
from musc_jax.execution.image_extraction import ImageFeatures
from musc_jax.execution.memory import peak_memory
from musc_jax.execution.point_extraction import PointFeatures
from musc_jax.execution.programs import Programs
from musc_jax.execution.schedule import Machine
from musc_jax.execution.scoring import products_of, score_patches
from musc_jax.mutual import AverageInterval
from musc_jax.references import draw_references
from musc_jax.storage import atomic

# Runs of each timed call; the fastest counts.
_REPEATS = 3
FAST, FULL = ("bfloat16", "fast"), ("float32", "full")


@dataclasses.dataclass
class Bench:
    """What the steps share.

    Attributes:
        quick: Small sizes.
        started: When the process was started, in seconds since the epoch.
        until: When all must be done.
        file: Where figures are written after each step.
    """

    quick: bool
    started: float
    until: float
    file: Path

    def pick(self, full: Any, quick: Any) -> Any:
        """One of two sizes."""
        return quick if self.quick else full

    @property
    def few(self) -> int:
        """Samples of the table of stages."""
        return self.pick(24, 4)

    @property
    def many(self) -> int:
        """Samples of a category."""
        return self.pick(150, 6)

    @cached_property
    def size(self) -> int:
        """Side of images and maps."""
        return self.pick(224, 64)

    @cached_property
    def samples(self) -> list[Sample]:
        """The category."""
        return inputs.samples(self.many, self.size)

    def config(self, how: tuple[str, str], modality: str = "rgb+points") -> Config:
        """Full-size backbones of a type, scoring of a precision."""
        dtype, precision = how
        overrides = self.pick({}, {"width": 48, "depth": 3, "heads": 3, "mlp_width": 96})
        backbones = {"image_backbone": weights.load("random", "dino_vitb8", dtype=dtype, **overrides)}
        if modality != "rgb":
            backbones["point_backbone"] = weights.load("random", "point_mae", dtype=dtype, **overrides)
        return Config.released(
            modality=modality,
            image_size=self.size,
            grouping=self.pick(GroupingConfig(), GroupingConfig(num_groups=32, group_size=16, k_iter=10)),
            scoring=ScoringConfig(precision=precision),
            **backbones,
        )

    def record(self, step: str, figures: Any) -> None:
        """Adds a step's figures to the file."""
        found = json.loads(self.file.read_text()) if self.file.exists() else {}
        found[step] = [*found[step], figures] if isinstance(found.get(step), list) else figures
        atomic.write_text(self.file, json.dumps(found, indent=2) + "\n")


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


def fastest(run: Callable[[], Any], repeats: int = _REPEATS) -> float:
    """Seconds of the fastest of some runs, after one that compiles."""
    jax.block_until_ready(run())
    best = np.inf
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(run())
        best = min(best, time.perf_counter() - started)
    return best


def first(bench: Bench) -> None:
    """From the start of a process to the first features: how long, and how much of it was compiling."""
    began = time.time()
    samples = inputs.samples(bench.few, bench.size)  # which a program would read meanwhile
    making = time.time() - began
    config, programs = bench.config(FAST).resolved(), Programs()
    compile_ahead(config, programs, count=bench.few)
    features, _ = extract(samples, config, programs)
    jax.block_until_ready([stage for part in (features.image, features.points) if part for stage in part.stages])
    whole = time.time() - bench.started - making
    programs.cancel()
    kind = "second" if json.loads(bench.file.read_text()).get("first features") else "first"
    say(f"{kind} process, fast: features of {bench.few} samples {whole:.1f} s after its start, of that")
    say(f"    {programs.compile_seconds:.1f} s in {programs.count} programs")
    found = json.loads(bench.file.read_text())
    before = found.get("first features", [])
    figures = {"process": kind, "seconds": whole, "compiling": programs.compile_seconds, "programs": programs.count}
    atomic.write_text(bench.file, json.dumps(found | {"first features": [*before, figures]}, indent=2) + "\n")


def rates(bench: Bench) -> dict[str, float]:
    """Products of this device, in TFLOP/s: the scale of everything else."""
    side = bench.pick(8192, 256)
    found = {}
    for name, dtype, precision in (
        ("float16", jnp.float16, None),
        ("bfloat16", jnp.bfloat16, None),
        ("float32, default", jnp.float32, jax.lax.Precision.DEFAULT),
        ("float32, highest", jnp.float32, jax.lax.Precision.HIGHEST),
    ):
        x = jnp.ones((side, side), dtype)
        product = jax.jit(lambda x, p=precision: jnp.matmul(x, x, precision=p, preferred_element_type=jnp.float32))
        found[name] = 2 * side**3 / fastest(lambda x=x, f=product: f(x)) / 1e12
        say(f"products of {side}, {name}: {found[name]:.3g} TFLOP/s")
    return found


def pairs(bench: Bench) -> dict[str, Any]:
    """One stage of mutual scoring, one modality, by precision and kernel: the rate of its useful products."""
    count, tokens, width = bench.many, bench.pick(784, 64), bench.pick(768, 48)
    z, references = inputs.unit_features(count, tokens, width), draw_references(count)
    useful = count * (count - 1) * tokens**2 * width
    found: dict[str, Any] = {}
    full = None
    for precision in ("full", "accurate", "fast"):
        config = bench.config(("float32", precision), "rgb").resolved()
        for kernel in kernels_of(config):
            products = products_of(config.scoring)._replace(**({} if kernel == "xla" else {"kernel": kernel}))
            programs = Programs()

            def run(programs: Programs = programs, products: Any = products) -> Any:
                machine = Machine(programs)
                return dense.score_stage([z], AverageInterval(0.3), references, machine, products=products)[0]

            seconds = fastest(run)
            scores = run()
            full = scores if full is None else full
            name = f"{precision}, {kernel}"
            found[name] = {
                "ms": 1000 * seconds,
                "useful_tflops": useful / seconds / 1e12,
                "relative_difference": difference(scores, full),
                "compile_seconds": programs.compile_seconds,
            }
            say(
                f"pairs, {name}: {1000 * seconds:.1f} ms a stage ({count} x {tokens} x {width}), "
                f"{useful / seconds / 1e12:.3g} TFLOP/s, off by {found[name]['relative_difference']:.1e}"
            )
    return found


def kernels_of(config: Any) -> tuple[str, ...]:
    """The ways of multiplying pairs that this device has."""
    return ("xla", "pallas") if getattr(config.device, "takes_pallas", False) else ("xla",)


def scoring(bench: Bench, how: tuple[str, str] = FAST) -> dict[str, float]:
    """Mutual scoring of a category with CAE, all stages: of features that lie on the device."""
    config, count = bench.config(how).resolved(), bench.many
    assert config.image is not None
    assert config.points is not None
    image, points = config.image, config.points
    keys = jax.random.split(jax.random.key(0), 6)

    def unit(key: jax.Array, tokens: int, width: int) -> jax.Array:
        z = jax.random.normal(key, (count, tokens, width))
        return z / jnp.linalg.norm(z, axis=-1, keepdims=True)

    pixels = jax.random.randint(keys[0], (count, points.num_groups), 0, bench.size**2)
    features = Features(
        ImageFeatures([unit(key, image.num_tokens, image.num_channels) for key in keys[:3]], None),
        PointFeatures(
            [unit(key, points.num_groups, points.num_channels) for key in keys[3:]],
            np.zeros((count, 0, 3), np.float32),
            np.zeros((count, 0), bool),
            jnp.zeros((count, points.num_groups, 3)),
            pixels,
            jnp.zeros((count, points.num_groups)),
        ),
    )
    programs = Programs()
    seconds = fastest(lambda: score_patches(features, config, programs), 2)
    figures = {"ms_per_sample": 1000 * seconds / count, "compile_seconds": programs.compile_seconds}
    say(f"mutual scoring of {count} samples, 3 stages with CAE, {how[1]}: {figures['ms_per_sample']:.2f} ms a sample")
    return figures


class Whole:
    """Runs of the pipeline by precision; the first one is what the others are compared with."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._full: pipeline.Results | None = None
        self._fast: pipeline.Results | None = None

    def stages(self, how: tuple[str, str]) -> dict[str, Any]:
        """Milliseconds a sample by stage, waited for one by one, and in one go."""
        bench, programs = self._bench, Programs()
        samples, config = bench.samples[: bench.few], bench.config(how)
        results = pipeline.score(samples, config, programs=programs)
        seconds = min(_seconds(samples, config, programs) for _ in range(2))
        programs.profile = True
        waited = _seconds(samples, config, programs)
        each = {stage: 1000 * value / len(samples) for stage, value in programs.seconds.items()}
        name = ", ".join(how)
        say(
            f"{name}, N = {len(samples)}: {1000 * seconds / len(samples):.2f} ms a sample in one go, "
            f"{1000 * waited / len(samples):.2f} stage by stage:"
        )
        for stage, value in sorted(each.items(), key=lambda item: -item[1]):
            say(f"    {stage:<20} {value:8.2f}")
        figures = {
            "ms_per_sample": 1000 * seconds / len(samples),
            "stages_ms_per_sample": each,
            "compile_seconds": programs.compile_seconds,
            "programs": programs.count,
            "peak_gb": {where: size / 1e9 for where, size in peak_memory().items()},
            "pixel_AUROC": _auroc(samples, results),
        }
        say(f"    compiled {programs.count} programs in {programs.compile_seconds:.1f} s; peak {figures['peak_gb']}")
        if how == FULL:
            self._full = results
        elif how == FAST:
            self._fast = results
        return figures

    def agreement(self) -> dict[str, float]:
        """Maps of fast against full: correlation, largest difference, both pixel AUROC."""
        bench = self._bench
        samples = bench.samples[: bench.few]
        for how in (FULL, FAST):
            if (self._full if how == FULL else self._fast) is None:
                found = pipeline.score(samples, bench.config(how))
                self._full, self._fast = (found, self._fast) if how == FULL else (self._full, found)
        half = pipeline.score(samples, bench.config(("float32", "fast")))
        assert self._full is not None
        assert self._fast is not None
        figures = {"pixel_AUROC of full": _auroc(samples, self._full)}
        for name, results in (("fast scoring alone", half), ("bfloat16 backbones, too", self._fast)):
            maps, full = results.anomaly_maps, self._full.anomaly_maps
            figures |= {
                f"correlation of maps, {name}": float(np.corrcoef(maps.ravel(), full.ravel())[0, 1]),
                f"largest difference of maps, {name}": difference(maps, full),
                f"largest difference of sample scores, {name}": difference(results.pred_scores, self._full.pred_scores),
                f"pixel_AUROC, {name}": _auroc(samples, results),
            }
        for what, value in figures.items():
            say(f"    {what}: {value:.6g}")
        return figures

    def category(self, how: tuple[str, str], modality: str = "rgb+points") -> dict[str, float]:
        """A category in one go, compiled before."""
        bench, programs = self._bench, Programs()
        config = bench.config(how, modality)
        pipeline.score(bench.samples, config, programs=programs)
        seconds = min(_seconds(bench.samples, config, programs) for _ in range(2))
        each = 1000 * seconds / bench.many
        say(f"{modality}, {', '.join(how)}, N = {bench.many}: {each:.2f} ms a sample, no reading of files")
        return {"ms_per_sample": each, "compile_seconds": programs.compile_seconds}


def _seconds(samples: list[Sample], config: Config, programs: Programs) -> float:
    programs.seconds.clear()
    started = time.perf_counter()
    pipeline.score(samples, config, programs=programs)
    return time.perf_counter() - started


def _auroc(samples: list[Sample], results: pipeline.Results) -> float:
    masks = np.stack([sample.gt_mask for sample in samples if sample.gt_mask is not None])
    return m.metrics.pixel_metrics(masks, results.anomaly_maps)["AUROC"] or float("nan")


def steps(bench: Bench) -> dict[str, tuple[float, Callable[[], Any]]]:
    """By name, in order of importance: seconds that a step takes on a card at the most, and the step."""
    whole = Whole(bench)
    return {
        "rates": (12, lambda: rates(bench)),
        "stages, fast": (25, lambda: whole.stages(FAST)),
        "category, fast": (15, lambda: whole.category(FAST)),
        "pairs": (25, lambda: pairs(bench)),
        "stages, full": (35, lambda: whole.stages(FULL)),
        "agreement": (20, whole.agreement),
        "category, image only, fast": (12, lambda: whole.category(FAST, "rgb")),
        "category, full": (25, lambda: whole.category(FULL)),
        "scoring, fast": (15, lambda: scoring(bench)),
        "scoring, full": (20, lambda: scoring(bench, FULL)),
    }


def run(step: str, bench: Bench, cache: str, only: list[str] | None) -> None:
    """One of `benchmarks.gpu`'s processes."""
    for name, value in (
        ("jax_compilation_cache_dir", cache),
        ("jax_persistent_cache_min_compile_time_secs", 0.05),
        ("jax_persistent_cache_min_entry_size_bytes", -1),
    ):
        jax.config.update(name, value)
    if step == "first":
        first(bench)
        return
    device = m.resolved.Device.of(jax.devices()[0])
    say(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}: {device}")
    bench.record("device", {"kind": jax.devices()[0].device_kind, "jax": jax.__version__} | dataclasses.asdict(device))
    known = steps(bench)
    if unknown := set(only or ()) - set(known):
        raise ValueError(f"--only: expected some of {', '.join(known)}; received {', '.join(sorted(unknown))}")
    for name, (needed, work) in known.items():
        if only and name not in only:
            continue
        left = bench.until - time.time()
        if left < (0 if bench.quick else needed):
            say(f"{name}: left out, {max(0, left):.0f} s are left and it takes up to {needed:.0f}")
            continue
        started = time.time()
        bench.record(name, work())
        say(f"    ({name}: {time.time() - started:.0f} s)")
