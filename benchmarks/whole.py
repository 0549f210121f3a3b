"""The whole of `eval` without reading files, and how its scoring grows with the number of samples."""

import dataclasses
import inspect
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

import musc_jax as m
import weights
from benchmarks import inputs
from benchmarks.hot_paths import Setting, difference
from benchmarks.timing import Comparison, Probe, Row, alternate, exponent
from musc_jax import Config, pipeline
from musc_jax.config import GroupingConfig, ScoringConfig
from musc_jax.data import Sample
from musc_jax.execution import dense
from musc_jax.execution.extraction import Features
from musc_jax.execution.image_extraction import ImageFeatures
from musc_jax.execution.programs import Programs
from musc_jax.execution.schedule import Machine
from musc_jax.execution.similar import choose_references
from musc_jax.models import PointTransformerConfig, VitConfig
from musc_jax.mutual import AverageInterval
from musc_jax.resolved import Scoring

SIZE = 224


def _block_operations(tokens: int, width: int, mlp_width: int) -> int:
    """Of one transformer block: four projections, attention, MLP."""
    return 2 * tokens * width * (4 * width + 2 * tokens + 2 * mlp_width)


def vit_operations(config: VitConfig, size: int, depth: int) -> int:
    """Products of a Vision Transformer for one image, 2 a multiply-add."""
    patches = (size // config.patch_size) ** 2
    tokens = patches + 1 + config.num_registers
    embedding = 2 * patches * 3 * config.patch_size**2 * config.width
    return embedding + depth * _block_operations(tokens, config.width, config.mlp_width)


def encoder_operations(config: PointTransformerConfig, groups: int, group_size: int) -> int:
    """Products of the mini-PointNet, the part that a group's points share made once."""
    first, second, third = config.conv_widths
    a_point = 3 * first + first * second + second * third + third * config.width
    return 2 * groups * (group_size * a_point + second * third)


def point_operations(config: PointTransformerConfig, groups: int, depth: int) -> int:
    """Products of the point transformer behind the encoder."""
    return depth * _block_operations(groups, config.width, config.mlp_width)


def pair_operations(shapes: list[tuple[int, int]], stages: int, samples: int) -> float:
    """Products of a sample's share of the unordered pairs; shapes: (tokens, width) of each modality."""
    return stages * (samples - 1) / 2 * sum(2 * tokens**2 * width for tokens, width in shapes)


def operations_per_sample(config: Config, samples: int) -> dict[str, float]:
    """What is counted of a run on images and points."""
    config = config.resolved().config
    assert config.image_backbone is not None
    assert config.point_backbone is not None
    assert config.image_size is not None
    assert config.blocks is not None
    image, points = config.image_backbone.module.config, config.point_backbone.module.config
    groups, patches = config.grouping.num_groups, (config.image_size // image.patch_size) ** 2
    shapes = [(patches, image.width), (groups, points.width)]
    return {
        "ViT": vit_operations(image, config.image_size, config.blocks[-1] + 1),
        "encoder": encoder_operations(points, groups, config.grouping.group_size),
        "point transformer": point_operations(points, groups, config.point_backbone.blocks[-1] + 1),
        "pairs": pair_operations(shapes, len(config.blocks), samples),
    }


def _config(setting: Setting, dtype: str = "float32", precision: str = "full") -> Config:
    """Full-size backbones, or three small blocks each."""
    small = {"width": 48, "depth": 3, "heads": 3, "mlp_width": 96}
    overrides = setting.pick({}, small)
    backbones = {
        "image_backbone": weights.load("random", "dino_vitb8", dtype=dtype, **overrides),
        "point_backbone": weights.load("random", "point_mae", dtype=dtype, **overrides),
    }
    grouping = setting.pick(GroupingConfig(), GroupingConfig(num_groups=128))
    scoring = ScoringConfig(precision=precision)
    return Config.released(image_size=SIZE, grouping=grouping, scoring=scoring, **backbones)


class _Run(NamedTuple):
    """One run, compiled beforehand."""

    results: pipeline.Results
    seconds: float
    stages: dict[str, float]
    rates: tuple[float, ...]
    """Mean rate of each probe meanwhile."""


def _timed(samples: list[Sample], config: Config, programs: Programs, probes: Sequence[Probe] = ()) -> _Run:
    """One run, with the products' rate measured after every sample's features and after every stage of the scoring.

    Between two of these lies about the same work, so the products' mean rate is what the machine gave meanwhile. With
    probes, the programs must wait for their results: else these products would run beside those of the run.
    """
    programs.seconds.clear()
    for probe in probes:
        probe.reset()

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage in ("features", "mutual scoring"):
            for probe in probes:
                probe()

    started = time.perf_counter()
    results = pipeline.score(samples, config, programs=programs, progress=progress)
    seconds = time.perf_counter() - started - sum(probe.seconds for probe in probes)
    return _Run(results, seconds, dict(programs.seconds), tuple(probe.mean for probe in probes))


def evaluation(setting: Setting) -> Row:
    """`eval` on image+points, compiled beforehand: share of the products' rate, and what the stages add up to."""
    count = setting.pick(20, 3)
    samples, config, programs = inputs.samples(count, SIZE), _config(setting), Programs(profile=True)
    probes = [Probe(), Probe(maxima=True)]
    _timed(samples, config, programs)
    compiled = programs.count
    counted = operations_per_sample(config, count)
    total = count * sum(counted.values())
    runs = [_timed(samples, config, programs, probes) for _ in range(setting.repeats)]
    best = max(runs, key=lambda run: total / run.seconds / run.rates[0])
    row = Row(f"eval, image+points, {SIZE}, {count} samples", 1000 * best.seconds)
    covered = min(sum(run.stages.values()) / run.seconds for run in runs)
    for name, rate in zip(("products alone", "products, maximum of each"), best.rates, strict=True):
        share = total / best.seconds / rate
        row.comparisons.append(Comparison(f"share of the rate of {name}, meanwhile", share, "%", 0.55))
    row.comparisons += [
        Comparison("share of the best rate of products alone", total / best.seconds / probes[0].best, "%"),
        Comparison("stages' times as a share of the whole", covered, "%", 0.95),
    ]
    row.details |= {
        "gflop_per_sample": {name: value / 1e9 for name, value in counted.items()},
        "share_of_the_whole": {name: seconds / best.seconds for name, seconds in best.stages.items()},
        "product_gflops": best.rates[0] / 1e9,
        "product_and_maximum_gflops": best.rates[1] / 1e9,
        "shares_of_all_runs": [total / run.seconds / run.rates[0] for run in runs],
        "programs": compiled,
        "programs_compiled_later": programs.count - compiled,
    }
    row.notes.append(f"{sum(counted.values()) / 1e9:.0f} GFLOP a sample counted; " + _stages(best))
    _beside_plain(row, samples, config, best)
    return row


def _stages(run: _Run) -> str:
    """The stages' shares as text."""
    shares = sorted(((seconds / run.seconds, name) for name, seconds in run.stages.items()), reverse=True)
    return ", ".join(f"{name} {share:.0%}" for share, name in shares if share >= 0.005)


def _beside_plain(row: Row, samples: list[Sample], config: Config, ours: _Run) -> None:
    """The same by the library's plain statements: once, without compilation, because it takes minutes."""
    programs = Programs(profile=True)
    plain = dataclasses.replace(config, implementation="plain")
    started = time.perf_counter()
    found = pipeline.score(samples, plain, programs=programs)
    seconds = time.perf_counter() - started - programs.compile_seconds
    row.comparisons.append(Comparison("plain statements", seconds / ours.seconds, milliseconds=1000 * seconds))
    for name, own, other in (
        ("patch scores", ours.results.patch_scores.image, found.patch_scores.image),
        ("group scores", ours.results.patch_scores.points, found.patch_scores.points),
        ("maps", ours.results.anomaly_maps, found.anomaly_maps),
        ("sample scores", ours.results.pred_scores, found.pred_scores),
    ):
        row.details[f"correlation of {name}"] = float(np.corrcoef(np.ravel(own), np.ravel(other))[0, 1])


def _growth(score: Callable, counts: list[int], tokens: int, width: int, repeats: int) -> dict[int, float]:
    """Seconds by number of samples."""
    jitted = jax.jit(score)
    features = {str(n): inputs.unit_features(n, tokens, width) for n in counts}
    runs = {name: (lambda z=z: jitted(z)) for name, z in features.items()}
    return {int(name): seconds for name, seconds in alternate(runs, repeats).items()}


def scaling(setting: Setting) -> Row:
    """Mutual scoring of 10 to 200 samples: the exponent of its growth, for all references and for a fixed number."""
    counts, tokens, width = setting.pick(([10, 20, 50, 100, 200], 196, 256), ([10, 20, 40], 49, 32))
    row = Row(f"growth of mutual scoring, N = {counts[0]} to {counts[-1]} (x {tokens} x {width})")
    everyone = _growth(m.mutual_scores, counts, tokens, width, setting.repeats)
    found = {"all references": (everyone, 2.05)}
    if "references" in inspect.signature(m.mutual_scores).parameters:
        fixed = _growth(lambda z: m.mutual_scores(z, references=8, seed=0), counts, tokens, width, setting.repeats)
        found["8 references"] = (fixed, 1.05)
    else:
        row.notes.append("fixed references: left out, this mutual_scores has no `references`")
    for name, (seconds, must) in found.items():
        fitted = exponent(list(seconds), list(seconds.values()))
        row.comparisons.append(Comparison(f"exponent in N, {name}", fitted, "", must, at_most=True))
        row.details[f"ms, {name}"] = {str(n): 1000 * t for n, t in seconds.items()}
        row.notes.append(f"{name}: " + ", ".join(f"N = {n} {1000 * t:.1f} ms" for n, t in seconds.items()))
    return row


def similar(setting: Setting) -> Row:
    """A stage by the 25 most similar samples beside all others, choosing them included, as a run computes it."""
    count, wanted, tokens, width = setting.pick((200, 25, 196, 256), (24, 3, 49, 32))
    row = Row(f"{wanted} most similar of N = {count} samples (x {tokens} x {width})")
    features, programs, finish = inputs.unit_features(count, tokens, width), Programs(), AverageInterval(0.3)
    stage = jax.numpy.asarray(features)

    def by(nearest: int | None) -> Callable[[], tuple[jax.Array, ...]]:
        scoring = Scoring(0.3, "full", "bfloat16", None, 0, nearest, "off", "released", True, True, "auto")

        def run() -> tuple[jax.Array, ...]:
            references = choose_references(Features(ImageFeatures([stage], None), None), scoring, programs)
            return dense.score_stage([stage], finish, references, Machine(programs))

        return run

    seconds = alternate({"all": by(None), "similar": by(wanted)}, setting.repeats)
    ratio = seconds["similar"] / seconds["all"]
    row.comparisons.append(Comparison("share of the time of all others", ratio, "", 0.3, at_most=True))
    row.details["ms"] = {name: 1000 * value for name, value in seconds.items()}
    return row


def by_stage(setting: Setting) -> Row:
    """On a GPU: milliseconds a sample by stage, precision by precision, agreement with full precision, memory."""
    count = setting.pick(150, 4)
    samples = inputs.samples(count, SIZE)
    masks = np.stack([sample.gt_mask for sample in samples if sample.gt_mask is not None])
    row = Row(f"eval, image+points, {SIZE}, N = {count}: ms a sample")
    full: _Run | None = None
    for dtype, precision in (("float32", "full"), ("float32", "accurate"), ("float32", "fast"), ("bfloat16", "fast")):
        config, programs = _config(setting, dtype, precision), Programs()
        _timed(samples, config, programs)
        best = min((_timed(samples, config, programs) for _ in range(setting.repeats)), key=lambda run: run.seconds)
        programs.profile = True
        stages = _timed(samples, config, programs)
        full = full or best
        name = f"{dtype} backbones, {precision} scoring"
        must = 15.0 if precision == "fast" else None
        row.comparisons.append(Comparison(name, 1000 * best.seconds / count, "ms", must, at_most=True))
        row.details[name] = {
            "ms_per_sample": {stage: 1000 * seconds / count for stage, seconds in stages.stages.items()},
            "relative_difference_of_maps": difference(best.results.anomaly_maps, full.results.anomaly_maps),
            "pixel_AUROC": m.metrics.pixel_metrics(masks, best.results.anomaly_maps)["AUROC"],
        }
        row.notes.append(f"{name}: {_stages(stages)}")
    memory = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in memory:
        row.details["memory_peak_of_the_process_gb"] = memory["peak_bytes_in_use"] / 1e9
    return row


ROWS: dict[str, Callable[[Setting], Row]] = {"eval": evaluation, "scaling": scaling, "similar": similar}
GPU_ROWS: dict[str, Callable[[Setting], Row]] = {"stages": by_stage}
