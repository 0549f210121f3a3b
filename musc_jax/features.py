"""Samples to tokens: backbones, point groups and neighbourhood aggregation (paper III-A and III-B)."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float, Int, UInt8

from musc_jax.aggregation import lnamd_grid, snamd_grid, snamd_points
from musc_jax.config import Config
from musc_jax.crossmodal import patch_index
from musc_jax.data.sample import Sample
from musc_jax.grouping import iterative_point_grouping
from musc_jax.programs import Programs
from musc_jax.sampling import farthest_point_sampling

# Called with a stage's name, how many samples are done, and how many there are (None: not known).
Progress = Callable[[str, int, int | None], None]

# Images go through the backbone this many at a time. One keeps a CPU's caches warm; a GPU wants more, and gets it.
_IMAGES_AT_ONCE = {"cpu": 1}
_IMAGES_AT_ONCE_ELSEWHERE = 16


class ImageFeatures(NamedTuple):
    """Aggregated image tokens of N samples."""

    stages: list[Float[jax.Array, "N M C"]]
    """One array for each stage (version 1: for each degree of each stage)."""
    embedding: Float[jax.Array, "N D"] | None
    """Version 1 only: the L2-normalised image embedding that re-scoring compares."""


class PointFeatures(NamedTuple):
    """Aggregated group tokens of N samples, and where the groups lie."""

    stages: list[Float[jax.Array, "N G C"]]
    points: Float[np.ndarray, "N P 3"]
    """All pixels of the point maps, centred and scaled to the unit sphere; 0 where there is no point."""
    valid: Bool[np.ndarray, "N P"]
    centers: Float[jax.Array, "N G 3"]
    center_pixels: Int[jax.Array, "N G"]
    """Flat pixel of each group's centre."""
    curvature: Float[jax.Array, "N G"]


class Features(NamedTuple):
    """All that scoring needs of N samples."""

    image: ImageFeatures | None
    points: PointFeatures | None


def normalize_points(
    point_map: Float[np.ndarray, "height width 3"],
) -> tuple[Float[np.ndarray, "P 3"], Bool[np.ndarray, "P"]]:
    """Centres a point map on its mean and scales it to the unit sphere.

    Args:
        point_map: Organised map in metres; a pixel is a point when all three coordinates are non-zero.

    Returns:
        (points, valid) over all P = height * width pixels in row order. Which pixels are points is decided before
        centring: a point that lands on 0 in one coordinate remains a point.
    """
    points = point_map.reshape(-1, 3).astype(np.float64)
    valid = (points != 0).all(axis=-1)
    if valid.any():
        points = points - points[valid].mean(axis=0)
        points /= max(np.linalg.norm(points[valid], axis=-1).max(), 1e-12)
    return np.where(valid[:, None], points, 0).astype(np.float32), valid


def _image_tokens(
    variables: dict,
    images: UInt8[jax.Array, "B S S 3"],
    *,
    module: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    blocks: tuple[int, ...],
    embedding: bool,
) -> tuple:
    """Images stay uint8 until here: a quarter of the bytes to move."""
    shift, scale = (jnp.asarray(x, jnp.float32).reshape(1, 1, 1, 3) for x in (mean, std))
    scaled = (images.astype(jnp.float32) / 255 - shift) / scale
    if embedding:
        return module.apply(variables, scaled, blocks=blocks, embedding=True)
    return module.apply(variables, scaled, blocks=blocks), None


def _aggregate_images(
    tokens: tuple[jax.Array, ...], *, degrees: tuple[int, ...], variant: str, similarity_weighting: bool
) -> tuple[jax.Array, ...]:
    def one(sample: jax.Array) -> jax.Array:
        return snamd_grid(sample, degrees=degrees, variant=variant, similarity_weighting=similarity_weighting)

    return tuple(jax.lax.map(one, stage) for stage in tokens)


def _aggregate_images_v1(tokens: tuple[jax.Array, ...], *, degrees: tuple[int, ...]) -> tuple[jax.Array, ...]:
    return tuple(
        jax.lax.map(lambda sample, degree=degree: lnamd_grid(sample, degree=degree), stage)
        for stage in tokens
        for degree in degrees
    )


def _sample_centers(points: jax.Array, valid: jax.Array, *, num_groups: int, variant: str) -> jax.Array:
    """Farthest point sampling from the first valid pixel; the released sampler never picks a point near the middle."""
    candidates = valid
    if variant == "released":
        candidates = valid & (jnp.sum(points**2, axis=-1) > 1e-3)
    start = jnp.argmax(valid)
    return farthest_point_sampling(points, num_groups, candidates=candidates, start=start)


def _group(
    points: jax.Array,
    valid: jax.Array,
    centers: jax.Array,
    *,
    group_size: int,
    k_iter: int,
    curvature_threshold: float,
    variant: str,
    expansion: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(groups relative to their centres (G, K, 3), centres (G, 3), curvature (G,))."""
    groups = iterative_point_grouping(
        points,
        centers,
        group_size=group_size,
        k_iter=k_iter,
        curvature_threshold=curvature_threshold,
        valid=valid,
        variant=variant,
        expansion=expansion,
    )
    at = points[centers]
    return points[groups.indices] - at[:, None], at, groups.curvature


def _point_tokens(
    variables: dict,
    groups: jax.Array,
    centers: jax.Array,
    *,
    module: nn.Module,
    blocks: tuple[int, ...],
    point_norm: str,
) -> tuple[jax.Array, ...]:
    return module.apply(variables, groups, centers, blocks=blocks, point_norm=point_norm)


def _aggregate_points(
    tokens: tuple[jax.Array, ...],
    centers: jax.Array,
    curvature: jax.Array,
    *,
    degrees: tuple[int, ...],
    curvature_threshold: float,
    variant: str,
    similarity_weighting: bool,
) -> tuple[jax.Array, ...]:
    return tuple(
        snamd_points(
            stage,
            centers,
            curvature,
            degrees=degrees,
            curvature_threshold=curvature_threshold,
            variant=variant,
            similarity_weighting=similarity_weighting,
        )
        for stage in tokens
    )


class _ImageExtractor:
    """Collects images into batches of one shape; the last one is filled up by repeating."""

    def __init__(self, config: Config, programs: Programs) -> None:
        self._config, self._programs = config, programs
        self._waiting: list[np.ndarray] = []
        self._stages: list[list[jax.Array]] = []
        self._embeddings: list[jax.Array] = []
        self._batch = _IMAGES_AT_ONCE.get(jax.default_backend(), _IMAGES_AT_ONCE_ELSEWHERE)

    def add(self, image: UInt8[np.ndarray, "S S 3"]) -> None:
        self._waiting.append(image)
        if len(self._waiting) == self._batch:
            self._flush()

    def _flush(self) -> None:
        config, run = self._config, self._programs.run
        backbone = config.image_backbone
        assert backbone is not None
        assert config.blocks is not None
        count = len(self._waiting)
        filled = self._waiting + self._waiting[-1:] * (self._batch - count)
        self._waiting = []
        tokens, embedding = run(
            "image backbone",
            _image_tokens,
            backbone.variables,
            np.stack(filled),
            module=backbone.module,
            mean=tuple(backbone.mean),
            std=tuple(backbone.std),
            blocks=config.blocks,
            embedding=config.variant == "v1",
        )
        degrees = config.aggregation.degrees
        if config.variant == "v1":
            stages = run("image aggregation", _aggregate_images_v1, tokens, degrees=degrees)
            self._embeddings.append(embedding[:count])
        else:
            stages = run(
                "image aggregation",
                _aggregate_images,
                tokens,
                degrees=degrees,
                variant=config.variant,
                similarity_weighting="swpooling" not in config.ablate,
            )
        self._stages.append([stage[:count] for stage in stages])

    def finish(self) -> ImageFeatures:
        if self._waiting:
            self._flush()
        embedding = None
        if self._embeddings:
            joined = jnp.concatenate(self._embeddings)
            embedding = joined / jnp.linalg.norm(joined, axis=1, keepdims=True)
        return ImageFeatures(_join(self._stages, jnp.concatenate), embedding)


class _PointExtractor:
    """Groups, encodes and aggregates one cloud at a time; every cloud is a full grid with a mask: one program."""

    def __init__(self, config: Config, programs: Programs) -> None:
        self._config, self._programs = config, programs
        self._stages: list[tuple[jax.Array, ...]] = []
        self._clouds: list[tuple] = []

    def add(self, name: str, point_map: Float[np.ndarray, "S S 3"]) -> None:
        config, run = self._config, self._programs.run
        backbone, grouping = config.point_backbone, config.grouping
        assert backbone is not None
        with self._programs.timed("point grouping"):
            points, valid = normalize_points(point_map)
        if valid.sum() < grouping.group_size:
            raise ValueError(
                f"sample {name}: {valid.sum()} points are fewer than the {grouping.group_size} of one group; "
                f"leave the sample out or pass a smaller group_size"
            )
        pixels = run(
            "point grouping",
            _sample_centers,
            points,
            valid,
            num_groups=grouping.num_groups,
            variant=config.variant,
        )
        groups, centers, curvature = run(
            "point grouping",
            _group,
            points,
            valid,
            pixels,
            group_size=grouping.group_size,
            k_iter=grouping.k_iter,
            curvature_threshold=grouping.curvature_threshold,
            variant=config.variant,
            expansion="ipg" not in config.ablate,
        )
        blocks = backbone.blocks if config.uses_images else config.blocks
        assert blocks is not None
        assert config.point_norm is not None
        tokens = run(
            "point backbone",
            _point_tokens,
            backbone.variables,
            groups,
            centers,
            module=backbone.module,
            blocks=tuple(blocks),
            point_norm=config.point_norm,
        )
        stages = run(
            "point aggregation",
            _aggregate_points,
            tokens,
            centers,
            curvature,
            degrees=config.aggregation.degrees,
            curvature_threshold=grouping.curvature_threshold,
            variant=config.variant,
            similarity_weighting="swpooling" not in config.ablate,
        )
        self._stages.append(stages)
        self._clouds.append((points, valid, centers, pixels, curvature))

    def finish(self) -> PointFeatures:
        points, valid, *groups = zip(*self._clouds, strict=True)
        return PointFeatures(
            _join(self._stages, jnp.stack),
            np.stack(points),
            np.stack(valid),
            *(jnp.stack(column) for column in groups),
        )


def _join(per_sample: list, join: Callable) -> list[jax.Array]:
    """Samples by stages to stages by samples, giving up each stage's parts before the next is joined."""
    columns = [list(column) for column in zip(*per_sample, strict=True)]
    per_sample.clear()
    joined = []
    for column in columns:
        joined.append(join(column))
        column.clear()
    return joined


def extract(
    samples: Iterable[Sample],
    config: Config,
    programs: Programs,
    *,
    total: int | None = None,
    progress: Progress | None = None,
) -> tuple[Features, list[Sample]]:
    """Runs the backbones over the samples and aggregates their tokens (paper III-A, III-B).

    Args:
        samples: Read one by one; may come from a generator that loads ahead.
        config: A resolved config.
        programs: Compiles and times.
        total: How many samples there are, for the progress.
        progress: Called with ("features", done, total).

    Returns:
        The features, and the samples as read, without their point maps (the features hold those normalised).

    Raises:
        ValueError: A sample's size or modality is not what the config says, or a cloud has fewer points than a group;
            names the sample.
    """
    image = _ImageExtractor(config, programs) if config.uses_images else None
    points = _PointExtractor(config, programs) if config.uses_points else None
    size, seen = config.image_size, []
    iterator = iter(samples)
    while True:
        with programs.timed("loading"):
            sample = next(iterator, None)
        if sample is None:
            break
        if sample.image.shape != (size, size, 3):
            raise ValueError(
                f"sample {sample.name}: expected an image of {size} x {size}, received {sample.image.shape}"
            )
        if image:
            image.add(sample.image)
        if points:
            if sample.points is None or sample.points.shape != (size, size, 3):
                received = None if sample.points is None else sample.points.shape
                raise ValueError(f"sample {sample.name}: expected points ({size}, {size}, 3), received {received}")
            points.add(sample.name, sample.points)
        seen.append(dataclasses.replace(sample, points=None))
        if progress:
            progress("features", len(seen), total)
    if len(seen) < 2:
        raise ValueError(f"N = {len(seen)}: samples score each other, so at least 2 are needed")
    return Features(image.finish() if image else None, points.finish() if points else None), seen


def patches_of_groups(features: Features, config: Config) -> Int[jax.Array, "N G"]:
    """The image patch each point group belongs to."""
    assert features.image is not None
    assert features.points is not None
    assert config.image_size is not None
    tokens = features.image.stages[0].shape[1]
    grid = round(tokens**0.5)
    return patch_index(features.points.center_pixels, size=config.image_size, grid=grid)
