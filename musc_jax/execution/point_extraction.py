"""Point maps to tokens: groups, encoder and neighbourhood aggregation (paper III-A and III-B)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from musc_jax._arrays import Array, all_finite, join_batches
from musc_jax.aggregation import snamd_points
from musc_jax.data.sample import SampleError, SampleTokens
from musc_jax.execution.devices import everywhere, over_devices, over_samples
from musc_jax.execution.feature_store import FeatureStore, StoredArray, StoreWriter
from musc_jax.execution.programs import InFlight, Programs, copy_to_host_async
from musc_jax.models import Backbone, GivenTokens
from musc_jax.resolved import PointPath
from musc_jax.tokens import group_centers, is_point, relative_groups, unit_cloud


class PointFeatures(NamedTuple):
    """Aggregated group tokens of N samples, and where the groups lie."""

    stages: Sequence[Float[Array, "N G C"] | StoredArray]
    points: Float[np.ndarray, "N P 3"] | StoredArray
    """All pixels of the point maps, centred and scaled to the unit sphere; 0 where there is no point."""
    valid: Bool[np.ndarray, "N P"] | StoredArray
    centers: Float[jax.Array, "N G 3"]
    center_pixels: Int[jax.Array, "N G"]
    """Flat pixel of each group's centre."""
    curvature: Float[jax.Array, "N G"]


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
    **options: Any,
) -> tuple[tuple[jax.Array, ...], Bool[jax.Array, ""]]:
    """(stages, whether all values are finite)."""
    stages = tuple(snamd_points(stage, centers, curvature, **options) for stage in tokens)
    return stages, all_finite((*stages, centers, curvature))


def _take_points(
    tokens: tuple[jax.Array, ...], centers: jax.Array, curvature: jax.Array
) -> tuple[tuple[jax.Array, ...], Bool[jax.Array, ""]]:
    """Tokens that are aggregated already."""
    return tokens, all_finite((*tokens, centers, curvature))


def _group_pixels(
    points: jax.Array, valid: jax.Array, **options: Any
) -> tuple[Float[jax.Array, "P 3"], Int[jax.Array, "G"]]:
    """(a cloud about its mean in the unit sphere, centres of its groups)."""
    points = unit_cloud(points, valid)
    return points, group_centers(points, valid, **options)


def _points_at(
    points: jax.Array, valid: jax.Array, pixels: jax.Array
) -> tuple[Float[jax.Array, "P 3"], Float[jax.Array, "G 3"]]:
    """(the same cloud, centres of the groups that are given)."""
    points = unit_cloud(points, valid)
    return points, points[pixels]


class Groups(NamedTuple):
    """Clouds about their means in the unit sphere, raw tokens of their groups, and where the groups lie."""

    points: Float[Array, "B P 3"]
    stages: tuple[Float[Array, "B G C"], ...]
    centers: Float[Array, "B G 3"]
    pixels: Int[Array, "B G"]
    curvature: Float[Array, "B G"]


# Clouds whose groups go through the encoder together: 256 groups of 128 points and 512 channels are 67 MB of each.
_ENCODED_TOGETHER = 8


def encode_points(
    points: Float[Array, "B P 3"],
    valid: Bool[Array, "B P"],
    encoder: Backbone,
    path: PointPath,
    variables: Any,
    programs: Programs,
    on_all: Callable = over_samples,
) -> Groups:
    """Groups of a batch of clouds and their raw tokens.

    Args:
        points: As they were read.
        valid: Which of them are there.
        encoder: What they go through.
        path: The encoder's, with its options.
        variables: The encoder's parameters, where they are wanted.
        programs: Compiles and times.
        on_all: Makes of a function of one cloud that of the batch, see `over_samples`.
    """
    run = programs.run
    common: dict[str, Any] = {"variant": path.variant, "implementation": path.implementation}
    sampled = run("point grouping", on_all(_group_pixels), points, valid, num_groups=path.num_groups, **common)
    points, pixels = sampled
    groups, centers, curvature = run(
        "point grouping",
        on_all(relative_groups),
        points,
        valid,
        pixels,
        group_size=path.group_size,
        k_iter=path.k_iter,
        curvature_threshold=path.curvature_threshold,
        expansion=path.expansion,
        **common,
    )
    tokens = run(
        "point backbone",
        on_all(_point_tokens, shared=1, together=_ENCODED_TOGETHER),
        variables,
        groups,
        centers,
        module=encoder.module,
        blocks=path.blocks,
        point_norm=path.point_norm,
    )
    return Groups(points, tokens, centers, pixels, curvature)


class _Cloud(NamedTuple):
    """A cloud that waits, as it was read, and its groups where they are given; else there are none."""

    points: Float[np.ndarray, "P 3"]
    valid: Bool[np.ndarray, "P"]
    stages: tuple[Float[np.ndarray, "G C"], ...] = ()
    pixels: Int[np.ndarray, "G"] = np.zeros(0, np.int32)
    curvature: Float[np.ndarray, "G"] = np.zeros(0, np.float32)


def _with_groups(name: str, cloud: _Cloud, tokens: SampleTokens, blocks: tuple[int, ...]) -> _Cloud:
    """A cloud with the groups that are given.

    Raises:
        SampleError: A centre's pixel is outside, or has no point.
    """
    pixels, valid = tokens.pixels, cloud.valid
    bad = np.flatnonzero((pixels < 0) | (pixels >= len(valid)) | ~valid[np.clip(pixels, 0, len(valid) - 1)])
    if len(bad):
        side = round(len(valid) ** 0.5)
        raise SampleError(
            name,
            f"group {bad[0]} of its tokens lies at pixel {pixels[bad[0]]}, where a point map of {side} x {side} has no "
            "point; pixels are row * size + column of the map that is scored, and groups lie on points",
        )
    stages = tuple(tokens.points[i] for i in blocks)
    curvature = np.zeros(len(pixels), np.float32) if tokens.curvature is None else tokens.curvature
    return _Cloud(cloud.points, valid, stages, pixels, curvature)


def read_cloud(name: str, point_map: Float[np.ndarray, "S S 3"], group_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(points, which of them are there) of a sample, in row order.

    Raises:
        SampleError: It has fewer points than a group.
    """
    valid = np.asarray(is_point(point_map)).reshape(-1)
    if valid.sum() < group_size:
        raise SampleError(name, f"{valid.sum()} points are fewer than the {group_size} of a group (group_size)")
    return np.asarray(point_map, np.float32).reshape(-1, 3), valid


class _Computed(NamedTuple):
    """What was dispatched for a batch of clouds."""

    stages: tuple[jax.Array, ...]
    finite: Bool[jax.Array, "B"]
    columns: tuple[Array, ...]
    """Points, centres, their pixels, curvature."""


_Batch = tuple[list[Bool[np.ndarray, "P"]], _Computed]
"""The masks of those that are clouds, and what was dispatched; padding follows."""


class PointExtractor:
    """Groups, encodes and aggregates clouds in batches of one shape; the last one is filled up by repeating.

    All clouds are full grids with a mask, so there is one program for them. Where tokens of groups are given they are
    aggregated only. A batch is dispatched before the one before it is waited for.

    Attributes:
        finite: Of each cloud that was taken in, whether all its features are finite.
    """

    def __init__(
        self, path: PointPath, programs: Programs, store: FeatureStore | None = None, mesh: Mesh | None = None
    ) -> None:
        self._path, self._programs, self._store, self._mesh = path, programs, store, mesh
        variables = None if isinstance(path.backbone, GivenTokens) else path.backbone.variables
        self._variables = variables if mesh is None or variables is None else everywhere(variables, mesh)
        self._writers: Sequence[StoreWriter] = ()
        self._cloud_writers: Sequence[StoreWriter] = ()
        self.finite: list[bool] = []
        self._waiting: list[_Cloud] = []
        self._stages: list[list[Array]] = []
        self._clouds: list[tuple[np.ndarray, np.ndarray]] = []
        self._groups: list[tuple[np.ndarray, ...]] = []
        self._batch = path.at_once * (1 if mesh is None else mesh.size)
        self._in_flight = InFlight(self._keep)

    def add(self, name: str, point_map: Float[np.ndarray, "S S 3"], tokens: SampleTokens | None = None) -> None:
        """Takes the next cloud, with its groups where they are given; runs the encoder when a batch is full.

        Raises:
            SampleError: It has fewer points than a group; a group that is given lies where no point is.
        """
        given = isinstance(self._path.backbone, GivenTokens)
        cloud = _Cloud(*read_cloud(name, point_map, 0 if given else self._path.group_size))
        if given:
            cloud = _with_groups(name, cloud, tokens or SampleTokens(), self._path.blocks)
        self._waiting.append(cloud)
        if len(self._waiting) == self._batch:
            self._dispatch()

    def flush(self) -> None:
        """Runs the clouds that wait, if there are any, and waits for all that were dispatched."""
        if self._waiting:
            self._dispatch()
        self._in_flight.drain()

    def _dispatch(self) -> None:
        """Runs the clouds that wait."""
        waiting, self._waiting = self._waiting, []
        filled = waiting + waiting[-1:] * (self._batch - len(waiting))
        found = self.compute(jax.tree.map(lambda *column: np.stack(column), *filled))
        copy_to_host_async((found.finite, found.columns))
        if self._mesh is not None or self._store is not None:
            copy_to_host_async(found.stages)
        self._in_flight.add(([cloud.valid for cloud in waiting], found))

    def example(self, size: int) -> _Cloud:
        """What `compute` takes where there is an encoder."""
        shape = self._batch, size * size
        shapes: Any = jax.ShapeDtypeStruct((*shape, 3), np.float32), jax.ShapeDtypeStruct(shape, np.bool_)
        return _Cloud(*shapes)

    def compute(self, clouds: _Cloud) -> _Computed:
        """Dispatches all that is computed of a batch."""
        groups = self._encode(clouds)
        stages, finite = self._aggregate(groups)
        # Of the clouds little is left to do on the device, and there are many: they go to the host.
        return _Computed(stages, finite, (groups.points, groups.centers, groups.pixels, groups.curvature))

    def _on_all(self, function: Callable, *, shared: int = 0, together: int | None = None) -> Callable:
        batch = over_samples(function, shared=shared, together=together)
        return batch if self._mesh is None else over_devices(batch, self._mesh, shared=shared)

    def _encode(self, clouds: _Cloud) -> Groups:
        """Groups of a batch, or as they are given."""
        points, valid, stages, pixels, curvature = clouds
        path, backbone = self._path, self._path.backbone
        if isinstance(backbone, Backbone):
            return encode_points(points, valid, backbone, path, self._variables, self._programs, self._on_all)
        points, centers = self._programs.run("point grouping", self._on_all(_points_at), points, valid, pixels)
        return Groups(points, stages, centers, pixels, curvature)

    def _aggregate(self, groups: Groups) -> tuple[tuple[jax.Array, ...], Bool[jax.Array, "B"]]:
        """(stages, whether all of a cloud's values are finite)."""
        path, run = self._path, self._programs.run
        arrays = groups.stages, groups.centers, groups.curvature
        if path.aggregated:
            return run("point aggregation", self._on_all(_take_points), *arrays)
        return run(
            "point aggregation",
            self._on_all(_aggregate_points),
            *arrays,
            degrees=path.degrees,
            curvature_threshold=path.curvature_threshold,
            similarity_weighting=path.similarity_weighting,
            variant=path.variant,
            implementation=path.implementation,
        )

    def _keep(self, batch: _Batch) -> None:
        """Puts a batch's features where they stay."""
        valid, (computed, finite, columns) = batch
        count = len(valid)
        whole = np.asarray(finite)[:count]
        self.finite += whole.tolist()
        points, *groups = (np.asarray(column)[:count] for column in columns)
        self._groups.append(tuple(groups))
        if self._store is None:
            # What several devices computed goes to the host: in scoring, others of them hold these samples.
            placed = computed if self._mesh is None else map(np.asarray, computed)
            self._stages.append([stage[:count] for stage in placed])
            self._clouds += zip(points, valid, strict=True)
            return
        if not self._writers:
            self._writers = self._store.writers("points", len(computed), with_mean=True)
            self._cloud_writers = self._store.writers("cloud", 2)
        # What is not finite is left out or ends the run; until then it must not spoil the mean of all others.
        rows = [np.asarray(stage)[:count] for stage in computed]
        rows = rows if whole.all() else [np.where(whole[:, None, None], stage, 0) for stage in rows]
        for writer, array in zip((*self._writers, *self._cloud_writers), (*rows, points, valid), strict=True):
            writer.append(np.asarray(array))

    def finish(self, kept: Int[np.ndarray, "n"]) -> PointFeatures:
        """Puts the samples that stay together; all of them must have been flushed."""
        everything = len(kept) == len(self.finite)
        groups = (jnp.asarray(np.concatenate(column)[kept]) for column in zip(*self._groups, strict=True))
        if self._store is not None:
            stored = [writer.finish() for writer in (*self._writers, *self._cloud_writers)]
            *stages, clouds, masks = stored if everything else [array[kept] for array in stored]
            return PointFeatures(stages, clouds, masks, *groups)
        points, valid = zip(*(self._clouds[i] for i in kept), strict=True)
        joined = join_batches(self._stages, kept, on_host=self._mesh is not None)
        return PointFeatures(joined, np.stack(points), np.stack(valid), *groups)
