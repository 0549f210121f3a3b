"""Point maps to tokens: groups, encoder and neighbourhood aggregation (paper III-A and III-B)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from musc_jax._arrays import join_stages
from musc_jax.aggregation import snamd_points
from musc_jax.config import Config
from musc_jax.feature_store import FeatureStore, StoredArray, StoreWriter
from musc_jax.grouping import iterative_point_grouping
from musc_jax.programs import Programs
from musc_jax.sampling import farthest_point_sampling


class PointFeatures(NamedTuple):
    """Aggregated group tokens of N samples, and where the groups lie."""

    stages: Sequence[Float[jax.Array, "N G C"] | StoredArray]
    points: Float[np.ndarray, "N P 3"] | StoredArray
    """All pixels of the point maps, centred and scaled to the unit sphere; 0 where there is no point."""
    valid: Bool[np.ndarray, "N P"] | StoredArray
    centers: Float[jax.Array, "N G 3"]
    center_pixels: Int[jax.Array, "N G"]
    """Flat pixel of each group's centre."""
    curvature: Float[jax.Array, "N G"]


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


class PointExtractor:
    """Groups, encodes and aggregates one cloud at a time; every cloud is a full grid with a mask: one program."""

    def __init__(self, config: Config, programs: Programs, store: FeatureStore | None = None) -> None:
        self._config, self._programs, self._store = config, programs, store
        self._writers: Sequence[StoreWriter] = ()
        self._cloud_writers: Sequence[StoreWriter] = ()
        self._stages: list[tuple[jax.Array, ...]] = []
        self._clouds: list[tuple] = []

    def add(self, name: str, point_map: Float[np.ndarray, "S S 3"]) -> None:
        """Groups and encodes the next cloud; ValueError names a sample with fewer points than a group."""
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
        if self._store is None:
            self._stages.append(stages)
            self._clouds.append((points, valid, centers, pixels, curvature))
            return
        if not self._writers:
            self._writers = self._store.writers("points", len(stages), with_mean=True)
            self._cloud_writers = self._store.writers("cloud", 2)
        for writer, array in zip((*self._writers, *self._cloud_writers), (*stages, points, valid), strict=True):
            writer.append(np.asarray(array)[None])
        self._clouds.append((centers, pixels, curvature))

    def finish(self) -> PointFeatures:
        """Puts all samples together."""
        if self._store is not None:
            columns = (jnp.stack(column) for column in zip(*self._clouds, strict=True))
            stored = [writer.finish() for writer in self._writers]
            clouds, masks = (writer.finish() for writer in self._cloud_writers)
            return PointFeatures(stored, clouds, masks, *columns)
        points, valid, *groups = zip(*self._clouds, strict=True)
        return PointFeatures(
            join_stages(self._stages, jnp.stack),
            np.stack(points),
            np.stack(valid),
            *(jnp.stack(column) for column in groups),
        )
