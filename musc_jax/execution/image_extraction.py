"""Images to tokens: backbone and neighbourhood aggregation (paper III-A and III-B)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, UInt8

from musc_jax._arrays import Array, all_finite, join_batches
from musc_jax.aggregation import snamd_grid
from musc_jax.data.sample import SampleTokens
from musc_jax.execution.devices import everywhere, over_devices, over_samples
from musc_jax.execution.feature_store import FeatureStore, StoredArray, StoreWriter
from musc_jax.execution.programs import InFlight, Programs, copy_to_host_async
from musc_jax.models import Backbone, GivenTokens
from musc_jax.resolved import ImagePath
from musc_jax.tokens import normalized_images
from musc_jax.version1 import lnamd_grid


class ImageFeatures(NamedTuple):
    """Aggregated image tokens of N samples."""

    stages: Sequence[Float[Array, "N M C"] | StoredArray]
    """One array for each stage (version 1: for each degree of each stage)."""
    embedding: Float[jax.Array, "N D"] | None
    """Version 1 only: the L2-normalised image embedding that re-scoring compares."""


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
    scaled = normalized_images(images, mean=mean, std=std)
    if embedding:
        return module.apply(variables, scaled, blocks=blocks, embedding=True)
    return module.apply(variables, scaled, blocks=blocks), None


def _aggregate_images(
    tokens: tuple[jax.Array, ...], **options: Any
) -> tuple[tuple[jax.Array, ...], Bool[jax.Array, "B"]]:
    """(stages, whether all of a sample's values are finite)."""
    one = over_samples(snamd_grid)
    stages = tuple(one(stage, **options) for stage in tokens)
    return stages, all_finite(stages, samples=1)


def _aggregate_images_v1(
    tokens: tuple[jax.Array, ...], embedding: jax.Array, *, degrees: tuple[int, ...], implementation: str
) -> tuple[tuple[jax.Array, ...], Bool[jax.Array, "B"]]:
    stages = tuple(
        over_samples(lnamd_grid)(stage, degree=degree, implementation=implementation)
        for stage in tokens
        for degree in degrees
    )
    return stages, all_finite((*stages, embedding), samples=1)


def _take_images(
    tokens: tuple[jax.Array, ...], embedding: jax.Array | None
) -> tuple[tuple[jax.Array, ...], Bool[jax.Array, "B"]]:
    """Tokens that are aggregated already; an embedding is there for version 1 only."""
    return tokens, all_finite(tokens if embedding is None else (*tokens, embedding), samples=1)


def encode_images(
    images: UInt8[np.ndarray, "B S S 3"] | jax.ShapeDtypeStruct,
    backbone: Backbone,
    path: ImagePath,
    variables: Any,
    programs: Programs,
    on_all: Callable = lambda function, *, shared: function,
) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
    """Raw tokens (B, M, C) of each block, and for version 1 the embeddings (B, D).

    Args:
        images: A batch, or its shape where programs are only prepared.
        backbone: What it goes through.
        path: The backbone's, with its options.
        variables: The backbone's parameters, where they are wanted.
        programs: Compiles and times.
        on_all: Makes of the function one that runs on several devices; its first `shared` arguments are on all.
    """
    return programs.run(
        "image backbone",
        on_all(_image_tokens, shared=1),
        variables,
        images,
        module=backbone.module,
        mean=tuple(backbone.mean),
        std=tuple(backbone.std),
        blocks=path.blocks,
        embedding=path.version1,
    )


class _Computed(NamedTuple):
    """What was dispatched for a batch of images."""

    stages: tuple[jax.Array, ...]
    finite: Bool[jax.Array, "B"]
    embedding: Array | None


_Batch = tuple[int, _Computed]
"""How many of them are images, and what was dispatched; padding follows."""


class ImageExtractor:
    """Collects images, or their tokens, into batches of one shape; the last one is filled up by repeating.

    A batch is dispatched before the one before it is waited for.

    Attributes:
        finite: Of each image that was taken in, whether all its features are finite.
    """

    def __init__(
        self, path: ImagePath, programs: Programs, store: FeatureStore | None = None, mesh: Mesh | None = None
    ) -> None:
        self._path, self._programs, self._store, self._mesh = path, programs, store, mesh
        variables = None if isinstance(path.backbone, GivenTokens) else path.backbone.variables
        self._variables = variables if mesh is None or variables is None else everywhere(variables, mesh)
        self._writers: Sequence[StoreWriter] = ()
        self.finite: list[bool] = []
        self._waiting: list[np.ndarray | SampleTokens] = []
        self._stages: list[list[jax.Array | np.ndarray]] = []
        self._embeddings: list[jax.Array | np.ndarray] = []
        self._batch = path.at_once * (1 if mesh is None else mesh.size)
        self._in_flight = InFlight(self._keep)

    def add(self, image: UInt8[np.ndarray, "S S 3"] | SampleTokens) -> None:
        """Takes the next image, or its tokens where they are given; runs the backbone when a batch is full."""
        self._waiting.append(image)
        if len(self._waiting) == self._batch:
            self._dispatch()

    def flush(self) -> None:
        """Runs the images that wait, if there are any, and waits for all that were dispatched."""
        if self._waiting:
            self._dispatch()
        self._in_flight.drain()

    def _on_all(self, function: Callable, *, shared: int = 0) -> Callable:
        return function if self._mesh is None else over_devices(function, self._mesh, shared=shared)

    def _dispatch(self) -> None:
        """Runs the images that wait."""
        count = len(self._waiting)
        batch = self._waiting + self._waiting[-1:] * (self._batch - count)
        self._waiting = []
        found = self.compute(self._stacked(batch))
        copy_to_host_async(found.finite)
        if self._mesh is not None or self._store is not None:
            copy_to_host_async(found)
        self._in_flight.add((count, found))

    def _stacked(self, batch: Sequence[Any]) -> Any:
        """Images, or the (tokens of each stage, version 1's embeddings) that are given."""
        if isinstance(self._path.backbone, Backbone):
            return np.stack(batch)
        stages = tuple(np.stack([tokens.image[i] for tokens in batch]) for i in self._path.blocks)
        return stages, np.stack([tokens.embedding for tokens in batch]) if self._path.version1 else None

    def example(self, size: int) -> jax.ShapeDtypeStruct:
        """What `compute` takes where there is a backbone."""
        return jax.ShapeDtypeStruct((self._batch, size, size, 3), np.uint8)

    def compute(self, batch: Any) -> _Computed:
        """Dispatches all that is computed of a batch."""
        path, run, backbone = self._path, self._programs.run, self._path.backbone
        if isinstance(backbone, Backbone):
            batch = encode_images(batch, backbone, path, self._variables, self._programs, self._on_all)
        tokens, embedding = batch
        options: dict[str, Any] = {"degrees": path.degrees, "implementation": path.implementation}
        if path.aggregated:
            stages, finite = run("image aggregation", self._on_all(_take_images), tokens, embedding)
        elif path.version1:
            aggregate = self._on_all(_aggregate_images_v1)
            stages, finite = run("image aggregation", aggregate, tokens, embedding, **options)
        else:
            stages, finite = run(
                "image aggregation",
                self._on_all(_aggregate_images),
                tokens,
                variant=path.variant,
                similarity_weighting=path.similarity_weighting,
                **options,
            )
        return _Computed(stages, finite, embedding)

    def _keep(self, batch: _Batch) -> None:
        """Puts a batch's features where they stay."""
        count, (stages, finite, embedding) = batch
        whole = np.asarray(finite)[:count]
        self.finite += whole.tolist()
        if embedding is not None:
            self._embeddings.append(self._placed(embedding)[:count])
        if self._store is None:
            self._stages.append([self._placed(stage)[:count] for stage in stages])
            return
        self._writers = self._writers or self._store.writers("image", len(stages), with_mean=True)
        for writer, stage in zip(self._writers, stages, strict=True):
            rows = np.asarray(stage)[:count]
            # What is not finite is left out or ends the run; until then it must not spoil the mean of all others.
            writer.append(rows if whole.all() else np.where(whole[:, None, None], rows, 0))

    def _placed(self, x: Array) -> jax.Array | np.ndarray:
        """What several devices computed goes to the host: in scoring, others of them hold these samples."""
        return x if self._mesh is None else np.asarray(x)

    def finish(self, kept: Int[np.ndarray, "n"]) -> ImageFeatures:
        """Puts the samples that stay together; all of them must have been flushed."""
        everything = len(kept) == len(self.finite)
        embedding = None
        if self._embeddings:
            joined = jnp.concatenate([jnp.asarray(part) for part in self._embeddings])
            embedding = (joined / jnp.linalg.norm(joined, axis=1, keepdims=True))[kept]
        if self._store is not None:
            stored = [writer.finish() for writer in self._writers]
            return ImageFeatures(stored if everything else [stage[kept] for stage in stored], embedding)
        return ImageFeatures(join_batches(self._stages, kept, on_host=self._mesh is not None), embedding)
