"""Point maps to tokens: groups, encoder and neighbourhood aggregation (paper III-A and III-B)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from musc_jax._arrays import Array, all_finite, join_stages
from musc_jax.aggregation import snamd_points
from musc_jax.data.sample import SampleError, SampleTokens
from musc_jax.execution.devices import everywhere, over_devices
from musc_jax.execution.feature_store import FeatureStore, StoredArray, StoreWriter
from musc_jax.execution.programs import InFlight, Programs, copy_to_host_async
from musc_jax.models import Backbone, GivenTokens
from musc_jax.resolved import PointPath
from musc_jax.tokens import group_centers, normalize_points, relative_groups


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


class _Groups(NamedTuple):
    """Tokens of a cloud's groups before they are aggregated, and where the groups lie; maybe of several clouds."""

    stages: tuple[Float[Array, "*N G C"], ...]
    centers: Float[Array, "*N G 3"]
    pixels: Int[Array, "*N G"]
    curvature: Float[Array, "*N G"]


def encode_points(
    points: Float[np.ndarray, "*N P 3"],
    valid: Bool[np.ndarray, "*N P"],
    encoder: Backbone,
    path: PointPath,
    variables: Any,
    programs: Programs,
    on_all: Callable = lambda function, *, shared=0: function,
) -> _Groups:
    """Groups of a cloud and their raw tokens; over several devices of a batch of clouds.

    Args:
        points: Of `normalize_points`.
        valid: Likewise.
        encoder: What they go through.
        path: The encoder's, with its options.
        variables: The encoder's parameters, where they are wanted.
        programs: Compiles and times.
        on_all: Makes of the function one that runs on several devices; its first `shared` arguments are on all.
    """
    run = programs.run
    common: dict[str, Any] = {"variant": path.variant, "implementation": path.implementation}
    pixels = run("point grouping", on_all(group_centers), points, valid, num_groups=path.num_groups, **common)
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
        on_all(_point_tokens, shared=1),
        variables,
        groups,
        centers,
        module=encoder.module,
        blocks=path.blocks,
        point_norm=path.point_norm,
    )
    return _Groups(tokens, centers, pixels, curvature)


class _Cloud(NamedTuple):
    """A cloud that waits, and its groups where they are given; else there are none."""

    points: Float[np.ndarray, "P 3"]
    valid: Bool[np.ndarray, "P"]
    groups: _Groups = _Groups((), np.zeros((0, 3), np.float32), np.zeros(0, np.int32), np.zeros(0, np.float32))


def _given_groups(
    name: str, points: np.ndarray, valid: np.ndarray, tokens: SampleTokens, blocks: tuple[int, ...]
) -> _Groups:
    """Groups that are given, their centres looked up in the cloud.

    Raises:
        SampleError: A centre's pixel is outside, or has no point.
    """
    pixels = tokens.pixels
    bad = np.flatnonzero((pixels < 0) | (pixels >= len(points)) | ~valid[np.clip(pixels, 0, len(points) - 1)])
    if len(bad):
        side = round(len(points) ** 0.5)
        raise SampleError(
            name,
            f"group {bad[0]} of its tokens lies at pixel {pixels[bad[0]]}, where a point map of {side} x {side} has no "
            "point; pixels are row * size + column of the map that is scored, and groups lie on points",
        )
    stages = tuple(tokens.points[i] for i in blocks)
    curvature = np.zeros(len(pixels), np.float32) if tokens.curvature is None else tokens.curvature
    return _Groups(stages, points[pixels], pixels, curvature)


class PointExtractor:
    """Groups, encodes and aggregates a cloud at a time on each device; all are full grids with a mask: one program.

    Where tokens of groups are given they are aggregated only.

    Clouds are dispatched before those before them are waited for.

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
        self._stages: list[tuple[jax.Array, ...]] = []
        self._clouds: list[tuple] = []
        self._in_flight = InFlight(self._settle)

    def add(self, name: str, point_map: Float[np.ndarray, "S S 3"], tokens: SampleTokens | None = None) -> None:
        """Takes the next cloud, with its groups where they are given.

        Raises:
            SampleError: It has fewer points than a group; a group that is given lies where no point is.
        """
        group_size = self._path.group_size
        with self._programs.timed("point grouping"):
            points, valid = normalize_points(point_map)
        if isinstance(self._path.backbone, GivenTokens):
            groups = _given_groups(name, points, valid, tokens or SampleTokens(), self._path.blocks)
            self._waiting.append(_Cloud(points, valid, groups))
        elif valid.sum() < group_size:
            raise SampleError(name, f"{valid.sum()} points are fewer than the {group_size} of a group (group_size)")
        else:
            self._waiting.append(_Cloud(points, valid))
        if self._mesh is None or len(self._waiting) == self._mesh.size:
            self._dispatch()

    def flush(self) -> None:
        """Runs the clouds that wait, if there are any, and waits for all that were dispatched."""
        if self._waiting:
            self._dispatch()
        self._in_flight.drain()

    def _dispatch(self) -> None:
        """Runs the waiting clouds: one, or one on each device, filled up by repeating."""
        waiting, self._waiting = self._waiting, []
        if self._mesh is None:
            encoded = self._encode(*waiting[0])
            copy_to_host_async(encoded[:2] if self._store else encoded[1])
        else:
            filled = waiting + waiting[-1:] * (self._mesh.size - len(waiting))
            encoded = self._encode(*jax.tree.map(lambda *column: np.stack(column), *filled))
            copy_to_host_async(encoded)
        self._in_flight.add((waiting, encoded))

    def _settle(self, dispatched: tuple[list[_Cloud], tuple]) -> None:
        """Takes in clouds and what was computed of them."""
        waiting, encoded = dispatched
        if self._mesh is None:
            stages, finite, *groups = encoded
            self._keep(*waiting[0][:2], stages, bool(finite), *groups)
            return
        # To the host: in scoring, other devices hold these samples.
        stages, finite, *groups = jax.tree.map(np.asarray, encoded)
        for i, (points, valid, _) in enumerate(waiting):
            own = tuple(stage[i] for stage in stages)
            self._keep(points, valid, own, bool(finite[i]), *(column[i] for column in groups))

    def _on_all(self, function: Callable, *, shared: int = 0) -> Callable:
        return function if self._mesh is None else over_devices(function, self._mesh, shared=shared, one_by_one=True)

    def _encode(self, points: np.ndarray, valid: np.ndarray, groups: _Groups) -> tuple:
        """(stages, finite, centers, pixels, curvature) of a cloud; over several devices of a batch of them."""
        path, backbone, run = self._path, self._path.backbone, self._programs.run
        if isinstance(backbone, Backbone):
            groups = encode_points(points, valid, backbone, path, self._variables, self._programs, self._on_all)
        tokens, centers, pixels, curvature = groups
        if path.aggregated:
            stages, finite = run("point aggregation", self._on_all(_take_points), tokens, centers, curvature)
        else:
            stages, finite = run(
                "point aggregation",
                self._on_all(_aggregate_points),
                tokens,
                centers,
                curvature,
                degrees=path.degrees,
                curvature_threshold=path.curvature_threshold,
                similarity_weighting=path.similarity_weighting,
                variant=path.variant,
                implementation=path.implementation,
            )
        return stages, finite, centers, pixels, curvature

    def _keep(
        self,
        points: np.ndarray,
        valid: np.ndarray,
        stages: tuple,
        finite: bool,
        *groups: jax.Array | np.ndarray,
    ) -> None:
        """Puts a cloud's features where they stay."""
        self.finite.append(finite)
        if self._store is None:
            self._stages.append(stages)
            self._clouds.append((points, valid, *groups))
            return
        if not self._writers:
            self._writers = self._store.writers("points", len(stages), with_mean=True)
            self._cloud_writers = self._store.writers("cloud", 2)
        # What is not finite is left out or ends the run; until then it must not spoil the mean of all others.
        rows = [np.asarray(stage) if finite else np.zeros(stage.shape, stage.dtype) for stage in stages]
        for writer, array in zip((*self._writers, *self._cloud_writers), (*rows, points, valid), strict=True):
            writer.append(array[None])
        self._clouds.append(groups)

    def finish(self, kept: Int[np.ndarray, "n"]) -> PointFeatures:
        """Puts the samples that stay together; all of them must have been flushed."""
        everything = len(kept) == len(self.finite)
        self._clouds = [self._clouds[i] for i in kept]
        if self._store is not None:
            columns = (jnp.stack(column) for column in zip(*self._clouds, strict=True))
            stored = [writer.finish() for writer in (*self._writers, *self._cloud_writers)]
            *stages, clouds, masks = stored if everything else [array[kept] for array in stored]
            return PointFeatures(stages, clouds, masks, *columns)
        self._stages = [self._stages[i] for i in kept]
        points, valid, *groups = zip(*self._clouds, strict=True)
        return PointFeatures(
            join_stages(self._stages, jnp.stack if self._mesh is None else np.stack),
            np.stack(points),
            np.stack(valid),
            *(jnp.stack(column) for column in groups),
        )
