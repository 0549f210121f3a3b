"""The composition: samples -> features -> patch scores -> maps -> results.

`score` is the whole of it. `launch.eval` extracts the features of a category itself and calls `score_features` with
them, once for each seed.

from musc_jax import Config, pipeline
import weights
config = Config.released(modality="rgb", image_backbone=weights.load("dino-vitb8", "dino_vitb8"))
results = pipeline.score(samples, config)
"""

import contextlib
import tempfile
from collections.abc import Iterable, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from musc_jax import _options
from musc_jax.config import Config, ConfigError
from musc_jax.data.sample import Sample, SampleError
from musc_jax.execution.devices import AXIS, gather_list, gather_rows, make_mesh, samples_of_process
from musc_jax.execution.extraction import Features, Progress, extract
from musc_jax.execution.feature_store import FeatureStore
from musc_jax.execution.free_memory import usable_memory
from musc_jax.execution.memory import Plan
from musc_jax.execution.programs import Programs
from musc_jax.execution.scoring import PatchScores, devices_for, plan_for, salient_features, score_patches
from musc_jax.maps import point_map, upsample_grid
from musc_jax.rescoring import rescore
from musc_jax.subsets import divide, expect_division


class Results(NamedTuple):
    """What N samples say about each other."""

    samples: list[Sample]
    """As read, without point maps."""
    pred_scores: Float[np.ndarray, "N"]
    """Sample scores, higher is more defective: re-scored, in [0, 1]; without re-scoring equal to `max_scores`."""
    max_scores: Float[np.ndarray, "N"]
    """Maxima of the anomaly maps, before re-scoring."""
    anomaly_maps: Float[np.ndarray, "N S S"]
    """Score of each pixel, higher is more defective, not bounded; with both modalities the sum of theirs."""
    patch_scores: PatchScores
    """Scores of the tokens that the maps are made of."""
    skipped: tuple[SampleError, ...] = ()
    """Why samples were left out, with their names; they are in nothing above."""


def _image_map(scores: jax.Array, *, size: int) -> jax.Array:
    side = round(scores.shape[0] ** 0.5)
    return upsample_grid(scores.reshape(side, side), size)


def _point_map(points: jax.Array, valid: jax.Array, centers: jax.Array, values: jax.Array, *, size: int) -> jax.Array:
    return point_map(points, jnp.arange(size * size), centers, values, size=size, valid=valid)


def make_maps(
    features: Features,
    scores: PatchScores,
    config: Config,
    programs: Programs,
    *,
    progress: Progress | None = None,
) -> Float[np.ndarray, "N S S"]:
    """Anomaly maps; with both modalities the sum of theirs."""
    size = config.image_size
    assert size is not None
    spread, clouds = features.spread, features.points
    # With several processes each makes the maps of the samples whose clouds it has.
    rows, first = np.arange(features.num_samples), 0
    if spread is not None:
        rows = np.flatnonzero(np.isin(spread.members, spread.own))
        first = spread.own.start
    own = np.zeros((len(rows), size, size), np.float32)
    for done, (map_, i) in enumerate(zip(own, rows, strict=True), start=1):
        if scores.image is not None:
            map_ += np.asarray(programs.run("maps", _image_map, scores.image[i], size=size))
        if scores.points is not None and clouds is not None:
            at = int(i if spread is None else spread.members[i] - first)
            cloud = clouds.points[at], clouds.valid[at], clouds.centers[i]
            map_ += np.asarray(programs.run("maps", _point_map, *cloud, scores.points[i], size=size))
        if progress:
            progress("maps", done, len(rows))
    if spread is None:
        return own
    maps = np.zeros((features.num_samples, size, size), np.float32)
    maps[gather_rows(rows)] = gather_rows(own)
    return maps


def classify(
    features: Features,
    scores: PatchScores,
    maps: Float[np.ndarray, "N S S"],
    config: Config,
    programs: Programs,
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """(pred_scores, max_scores): sample scores after and before RsCon (paper III-D)."""
    highest = maps.max(axis=(1, 2))
    if "rescoring" in config.ablate:
        return highest, highest
    windows = (len(maps),) if "window" in config.ablate else config.rescoring.windows
    rescored = programs.run(
        "re-scoring",
        rescore,
        highest,
        salient_features(features, scores, programs),
        windows=tuple(windows),
        variant="paper" if config.variant == "paper" else "released",
    )
    return np.asarray(rescored), highest


def _report_part(
    progress: Progress, before: int, size: int, whole: int, stage: str, done: int, total: int | None
) -> None:
    """Mutual scoring of a part as samples of all parts; the last of them counts when its part is done."""
    if stage == "mutual scoring" and total:
        progress("scoring", before + min(size * done // total, size - 1), whole)


def score_features(
    features: Features,
    samples: Sequence[Sample],
    config: Config,
    programs: Programs,
    *,
    parts: Sequence[Int[np.ndarray, " _"]] | None = None,
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> Results:
    """Scores samples whose features are extracted, all by each other or part by part.

    Args:
        features: Of all samples.
        samples: As `extract` gave them; with several processes those of all, in order.
        config: A resolved config.
        programs: Compiles and times.
        parts: Indices of the samples that score each other, see `musc_jax.subsets`; each part is scored, re-scored and
            mapped by itself. Samples in no part are left out. Default: one part with all.
        plan: How many samples are scored at once, see `plan_for`.
        progress: Called with (stage, done, total).

    Returns:
        Results of the samples that are in a part, in the order of `samples`.
    """
    if parts is None or (len(parts) == 1 and len(parts[0]) == len(samples)):
        patch_scores = score_patches(features, config, programs, plan=plan, progress=progress)
        maps = make_maps(features, patch_scores, config, programs, progress=progress)
        return Results(list(samples), *classify(features, patch_scores, maps, config, programs), maps, patch_scores)
    found, done, total = [], 0, sum(map(len, parts))
    for part in parts:
        own = [samples[i] for i in part]
        within = partial(_report_part, progress, done, len(part), total) if progress else None
        found.append(score_features(features.take(part), own, config, programs, plan=plan, progress=within))
        done += len(part)
        if progress:
            progress("scoring", done, total)
    order = np.argsort(np.concatenate(parts))

    def together(*values: np.ndarray | jax.Array) -> np.ndarray:
        return np.concatenate([np.asarray(value) for value in values])[order]

    image, points = (
        None if own[0] is None else jnp.asarray(together(*own))
        for own in zip(*(results.patch_scores for results in found), strict=True)
    )
    return Results(
        [samples[i] for i in np.concatenate(parts)[order]],
        together(*(results.pred_scores for results in found)),
        together(*(results.max_scores for results in found)),
        together(*(results.anomaly_maps for results in found)),
        PatchScores(image, points),
    )


def score(
    samples: Iterable[Sample],
    config: Config,
    *,
    subsets: int = 1,
    batch_size: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    memory_bytes: int | float | None = None,
    scratch_dir: Path | str | None = None,
    mesh: Mesh | None = None,
    programs: Programs | None = None,
    progress: Progress | None = None,
) -> Results:
    """Scores N unlabeled samples of one product by each other (MuSc-V2).

    Args:
        samples: At least 2, of the config's image size; a list, or a generator that loads them as they are needed.
        config: What to compute and with which backbones.
        subsets: Divide the samples at random into so many parts that are scored apart (paper, Table I).
        batch_size: Or into parts of so many samples (Table VII); default all together.
        seed: Of the division.
        skip_bad: Leave out samples that cannot be scored instead of refusing all (not with several processes).
        memory_bytes: What features, scores and maps may take; default most of what is free. Beyond that features go to
            a temporary folder, and few samples are scored at a time. Without effect where nobody knows how many samples
            there are (a generator).
        scratch_dir: Where that folder is made; default the system's.
        mesh: The devices that share the work, see `musc_jax.execution.devices.make_mesh`; default all there are. With
            several processes (`jax.distributed`) each of them calls this with the same list of samples, reads its own
            share of it and gets all results.
        programs: Pass one object to several calls to compile once and to read the times; by default a new one.
        progress: Called with (stage, done, total).

    Returns:
        Scores and maps in the order of the samples.

    Raises:
        ConfigError: Options that contradict each other or make no sense, or a missing backbone; before any sample is
            read.
        SampleError: A sample whose size or modality does not fit, with fewer points than a group, or with features that
            are not finite.
        BudgetError: Too little memory.
        ValueError: Fewer than 2 samples. With several processes: samples that cannot be counted, or fewer than there
            are shares.
    """
    config = _options.instance("config", config, Config).resolved()
    expect_division(subsets=subsets, batch_size=batch_size, seed=seed)
    _options.instance("skip_bad", skip_bad, bool)
    _expect_resources(memory_bytes, scratch_dir, mesh, programs, progress)
    programs = programs or Programs()
    mesh = usual_mesh() if mesh is None else mesh
    if not isinstance(samples, Iterable):
        raise _options.refuse("samples", "a list or a generator of samples", samples)
    total = len(samples) if isinstance(samples, Sized) else None
    if total is not None and total < 2:
        raise ValueError(f"N = {total}: samples score each other, so at least 2 are needed")
    own: Iterable[Sample] = samples
    if jax.process_count() > 1:
        if not isinstance(samples, Sequence):
            raise ValueError("samples: with several processes expected a sequence, the same for all of them")
        assert mesh is not None
        own = (samples[i] for i in own_share(len(samples), mesh))
    plan = None
    if total is not None:
        plan = plan_for(config, total, usable_memory() if memory_bytes is None else int(memory_bytes), mesh)
    with contextlib.ExitStack() as stack:
        store = None
        if plan is not None and plan.on_disk:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch_dir)))
            store = stack.enter_context(FeatureStore(folder))
        whole = total if jax.process_count() > 1 else None
        mesh = devices_for(plan, mesh)
        skipped: list[SampleError] = []
        features, seen = extract(
            own,
            config,
            programs,
            total=total,
            progress=progress,
            store=store,
            mesh=mesh,
            whole=whole,
            skipped=skipped if skip_bad else None,
        )
        seen = gather_list(seen)
        parts = divide(len(seen), subsets=subsets, batch_size=batch_size, seed=seed)
        results = score_features(features, seen, config, programs, parts=parts, plan=plan, progress=progress)
        return results._replace(skipped=tuple(skipped))


def _expect_resources(
    memory_bytes: int | float | None,
    scratch_dir: Path | str | None,
    mesh: Mesh | None,
    programs: Programs | None,
    progress: Progress | None,
) -> None:
    """Refuses what `score` could not work with."""
    if memory_bytes is not None:
        _options.number("memory_bytes", memory_bytes, expected="a number above 0", above=0.0)
    if scratch_dir is not None and not (isinstance(scratch_dir, str | Path) and Path(scratch_dir).is_dir()):
        raise _options.refuse("scratch_dir", "a folder", scratch_dir)
    if mesh is not None and _options.instance("mesh", mesh, Mesh).axis_names != (AXIS,):
        raise _options.refuse("mesh", "one of musc_jax.execution.devices.make_mesh", mesh)
    if programs is not None:
        _options.instance("programs", programs, Programs)
    if progress is not None and not callable(progress):
        raise _options.refuse("progress", "a function of (stage, done, total)", progress)


def usual_mesh() -> Mesh | None:
    """All devices of all processes; None where there is but one."""
    return make_mesh() if jax.device_count() > 1 else None


def own_share(total: int, mesh: Mesh) -> range:
    """Which of `total` samples this process reads and extracts.

    Raises:
        ConfigError: So few samples that a process would have none.
    """
    share = -(-total // mesh.size)
    last = [device.process_index for device in mesh.devices.flat][: -(-total // share)]
    if len(set(last)) < jax.process_count():
        raise ConfigError(
            f"N = {total}: too few samples for {jax.process_count()} processes with {mesh.size} devices; start fewer"
        )
    return samples_of_process(total, mesh)
