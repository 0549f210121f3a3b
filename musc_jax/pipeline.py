"""The composition: samples -> features -> patch scores -> maps -> results. What `launch.eval` calls.

from musc_jax import Config, pipeline
import weights
config = Config.released(modality="rgb", image_backbone=weights.load("dino-vitb8", "dino_vitb8"))
results = pipeline.score(samples, config)
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from musc_jax.config import Config
from musc_jax.crossmodal import multimodal_scores
from musc_jax.data.sample import Sample
from musc_jax.feature_store import FeatureStore, StoredArray
from musc_jax.features import Features, Progress, extract, patches_of_groups
from musc_jax.maps import point_map, upsample_grid
from musc_jax.memory import Plan, Tokens, plan_memory, usable_memory
from musc_jax.mutual import mutual_scores
from musc_jax.programs import Programs
from musc_jax.rescoring import rescore
from musc_jax.streaming import stream_scores
from musc_jax.subsets import divide


class PatchScores(NamedTuple):
    """Patch scores, the mean over the stages (paper eq. 9)."""

    image: Float[jax.Array, "N M2"] | None
    points: Float[jax.Array, "N M3"] | None


class Results(NamedTuple):
    """What N samples say about each other."""

    samples: list[Sample]
    """As read, without point maps."""
    pred_scores: Float[np.ndarray, "N"]
    """Sample scores, higher is more defective: re-scored, in [0, 1]; without re-scoring equal to `max_scores`."""
    max_scores: Float[np.ndarray, "N"]
    """Maxima of the anomaly maps, before re-scoring."""
    anomaly_maps: Float[np.ndarray, "N S S"]
    patch_scores: PatchScores


def plan_for(config: Config, count: int, budget: int) -> Plan:
    """What stays where while `count` samples are scored in `budget` bytes.

    Raises:
        BudgetError: Not even the smallest plan fits.
    """
    modalities = []
    assert config.image_size is not None
    assert config.blocks is not None
    stages = len(config.blocks) * (len(config.aggregation.degrees) if config.variant == "v1" else 1)
    if config.image_backbone is not None and config.uses_images:
        tokens = (config.image_size // config.image_backbone.patch_size) ** 2
        modalities.append(Tokens(tokens, config.image_backbone.module.config.width, stages))
    if config.point_backbone is not None and config.uses_points:
        width = config.point_backbone.module.config.width
        modalities.append(Tokens(config.grouping.num_groups, width, stages))
    return plan_memory(count, modalities, size=config.image_size, budget=budget, references=config.scoring.references)


def _on_device(stage: jax.Array | StoredArray) -> jax.Array:
    return jnp.asarray(stage.load()) if isinstance(stage, StoredArray) else stage


def score_patches(
    features: Features,
    config: Config,
    programs: Programs,
    *,
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> PatchScores:
    """Mutual scores of all patches, averaged over the stages (paper III-C); by `plan`, default a stage at once."""
    interval = 1.0 if "ia" in config.ablate else config.scoring.interval
    image, points = features.image, features.points
    count = len((image or points).stages)  # type: ignore[union-attr]
    total: tuple[jax.Array, ...] | None = None
    patches = patches_of_groups(features, config) if image and points else None
    options: dict[str, Any] = {
        "interval": interval,
        "precision": config.scoring.precision,
        "references": config.scoring.references,
        "seed": config.scoring.seed,
    }
    both: dict[str, Any] = {
        "variant": config.variant,
        "enhancement": "cae" not in config.ablate,
        "trust": "trust" not in config.ablate,
    }
    for stage in range(count):
        own = [modality.stages[stage] for modality in (image, points) if modality]
        scores: Sequence[jax.Array]
        if plan is not None and not plan.whole_stages:
            part: Callable | None = None
            if progress:
                part = lambda done, size, stage=stage: progress("mutual scoring", stage * size + done, count * size)  # noqa: E731
            extra = both if patches is not None else {}
            scores = stream_scores(own, patches, plan, programs, progress=part, **options, **extra)
        elif patches is not None:
            arrays = (*map(_on_device, own), patches)
            scores = programs.run("mutual scoring", multimodal_scores, *arrays, **options, **both)
        else:
            scores = (programs.run("mutual scoring", mutual_scores, _on_device(own[0]), **options),)
        total = tuple(scores) if total is None else tuple(a + b for a, b in zip(total, scores, strict=True))
        if progress and (plan is None or plan.whole_stages):
            progress("mutual scoring", stage + 1, count)
    assert total is not None
    mean = [x / count for x in total]
    return PatchScores(mean[0] if image else None, mean[-1] if points else None)


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
    count = len(scores.image if scores.image is not None else scores.points)  # type: ignore[arg-type]
    maps = np.zeros((count, size, size), np.float32)
    for i in range(count):
        if scores.image is not None:
            maps[i] += np.asarray(programs.run("maps", _image_map, scores.image[i], size=size))
        if scores.points is not None and features.points is not None:
            cloud = features.points
            maps[i] += np.asarray(
                programs.run(
                    "maps",
                    _point_map,
                    cloud.points[i],
                    cloud.valid[i],
                    cloud.centers[i],
                    scores.points[i],
                    size=size,
                )
            )
        if progress:
            progress("maps", i + 1, count)
    return maps


def salient_features(features: Features, scores: PatchScores) -> Float[jax.Array, "N D"]:
    """The feature of each sample's highest-scoring token at the second-to-last stage (paper eq. 12-13).

    Image and point parts are concatenated. Version 1 compares image embeddings instead.
    """
    if features.image is not None and features.image.embedding is not None:
        return features.image.embedding
    parts = []
    for modality, own in ((features.image, scores.image), (features.points, scores.points)):
        if modality is not None and own is not None:
            stage = modality.stages[max(0, len(modality.stages) - 2)]
            best = jnp.argmax(own, axis=1)
            if isinstance(stage, StoredArray):
                parts.append(jnp.asarray(np.stack([stage[i][token] for i, token in enumerate(np.asarray(best))])))
            else:
                parts.append(stage[jnp.arange(len(own)), best])
    return jnp.concatenate(parts, axis=1)


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
        salient_features(features, scores),
        windows=tuple(windows),
        variant="paper" if config.variant == "paper" else "released",
    )
    return np.asarray(rescored), highest


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
        samples: As `extract` gave them.
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
    found = []
    for done, part in enumerate(parts, start=1):
        own = jax.tree.map(lambda array, part=part: array[part], features)
        found.append(score_features(own, [samples[i] for i in part], config, programs, plan=plan))
        if progress:
            progress("scoring", done, len(parts))
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
    memory_bytes: int | None = None,
    scratch_dir: Path | str | None = None,
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
        memory_bytes: What features, scores and maps may take; default most of what is free. Beyond that features go to
            a temporary folder, and few samples are scored at a time. Without effect where nobody knows how many samples
            there are (a generator).
        scratch_dir: Where that folder is made; default the system's.
        programs: Pass one object to several calls to compile once and to read the times; by default a new one.
        progress: Called with (stage, done, total).

    Returns:
        Scores and maps in the order of the samples.

    Raises:
        ConfigError: Options that contradict each other or a missing backbone.
        ValueError: Fewer than 2 samples, or one that does not fit; names the sample. `BudgetError`: too little memory.
    """
    config = config.resolved()
    programs = programs or Programs()
    total = len(samples) if isinstance(samples, Sized) else None
    plan = None
    if total is not None and total > 1:
        plan = plan_for(config, total, usable_memory() if memory_bytes is None else memory_bytes)
    with contextlib.ExitStack() as stack:
        store = None
        if plan is not None and plan.on_disk:
            store = FeatureStore(Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch_dir))))
        features, seen = extract(samples, config, programs, total=total, progress=progress, store=store)
        parts = divide(len(seen), subsets=subsets, batch_size=batch_size, seed=seed)
        return score_features(features, seen, config, programs, parts=parts, plan=plan, progress=progress)
