"""Samples to features: what scoring needs of N samples, collected one by one."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from musc_jax.config import Config
from musc_jax.crossmodal import patch_index
from musc_jax.data.sample import Sample, SampleError
from musc_jax.execution.devices import gather_rows, local_mesh, samples_of_process, to_global
from musc_jax.execution.feature_store import FeatureStore
from musc_jax.execution.image_extraction import ImageExtractor, ImageFeatures
from musc_jax.execution.point_extraction import PointExtractor, PointFeatures
from musc_jax.execution.programs import Programs

# Called with a stage's name, how many samples are done, and how many there are (None: not known).
Progress = Callable[[str, int, int | None], None]


class Spread(NamedTuple):
    """How features lie over several devices.

    The stages are global arrays then, over all samples that were extracted and padding, and stay whole; clouds are
    those of this process's samples; all else is on every host, of the N samples that are meant.
    """

    mesh: Mesh
    num_extracted: int
    """Samples that were extracted, over all processes."""
    own: range
    """Those that this process extracted."""
    members: Int[np.ndarray, "N"]
    """Which of the extracted samples are meant."""

    @property
    def whole(self) -> bool:
        """Whether all that were extracted are meant."""
        return len(self.members) == self.num_extracted


class Features(NamedTuple):
    """All that scoring needs of N samples."""

    image: ImageFeatures | None
    points: PointFeatures | None
    spread: Spread | None = None
    """Where they lie over several devices; None where there is one."""

    @property
    def num_samples(self) -> int:
        """N."""
        if self.spread is not None:
            return len(self.spread.members)
        return len((self.image or self.points).stages[0])  # type: ignore[union-attr]

    def take(self, part: Int[np.ndarray, " n"]) -> "Features":
        """The features of some of the samples."""
        if self.spread is None:
            return jax.tree.map(lambda array: array[part], self)
        image, points = self.image, self.points
        if image is not None and image.embedding is not None:
            image = image._replace(embedding=image.embedding[part])
        if points is not None:
            points = points._replace(
                centers=points.centers[part],
                center_pixels=points.center_pixels[part],
                curvature=points.curvature[part],
            )
        return Features(image, points, self.spread._replace(members=self.spread.members[part]))


def extract(
    samples: Iterable[Sample],
    config: Config,
    programs: Programs,
    *,
    total: int | None = None,
    progress: Progress | None = None,
    store: FeatureStore | None = None,
    mesh: Mesh | None = None,
    whole: int | None = None,
) -> tuple[Features, list[Sample]]:
    """Runs the backbones over the samples and aggregates their tokens (paper III-A, III-B).

    Args:
        samples: Read one by one; may come from a generator that loads ahead. With several processes this one's share,
            see `samples_of_process`.
        config: A resolved config.
        programs: Compiles and times.
        total: How many samples there are, for the progress.
        progress: Called with ("features", done, total).
        store: Where features go; default they stay on the device.
        mesh: The devices over which samples are extracted and, without a store, features are spread; default one.
        whole: With several processes, how many samples all of them extract.

    Returns:
        The features, and the samples as read, without their point maps (the features hold those normalised).

    Raises:
        SampleError: A sample's size or modality is not what the config says, or a cloud has fewer points than a group.
        ValueError: Fewer than 2 samples.
    """
    own_devices = local_mesh(mesh)
    image = ImageExtractor(config, programs, store, own_devices) if config.uses_images else None
    points = PointExtractor(config, programs, store, own_devices) if config.uses_points else None
    size, seen = config.image_size, []
    iterator = iter(samples)
    while True:
        with programs.timed("loading"):
            sample = next(iterator, None)
        if sample is None:
            break
        if sample.image.shape != (size, size, 3):
            raise SampleError(sample.name, f"expected an image of {size} x {size}, received {sample.image.shape}")
        if image:
            image.add(sample.image)
        if points:
            if sample.points is None or sample.points.shape != (size, size, 3):
                received = None if sample.points is None else sample.points.shape
                raise SampleError(sample.name, f"expected points ({size}, {size}, 3), received {received}")
            points.add(sample.name, sample.points)
        seen.append(dataclasses.replace(sample, points=None))
        if progress:
            progress("features", len(seen), total)
    count = len(seen) if whole is None else whole
    if count < 2:
        raise ValueError(f"N = {count}: samples score each other, so at least 2 are needed")
    features = Features(image.finish() if image else None, points.finish() if points else None)
    return (features if mesh is None or store is not None else _spread(features, count, mesh)), seen


def _spread(features: Features, count: int, mesh: Mesh) -> Features:
    """Puts every device's share of the stages on it, and what is small on every host."""
    image, points, _ = features

    def stages(own: list) -> list:
        return [to_global(own.pop(0), count, mesh) for _ in range(len(own))]  # each is given up when it is placed

    def everyone(own: jax.Array) -> jax.Array:
        return jnp.asarray(gather_rows(np.asarray(own)))

    if image is not None:
        embedding = None if image.embedding is None else everyone(image.embedding)
        image = ImageFeatures(stages(list(image.stages)), embedding)
    if points is not None:
        small = (everyone(x) for x in (points.centers, points.center_pixels, points.curvature))
        points = PointFeatures(stages(list(points.stages)), points.points, points.valid, *small)
    return Features(image, points, Spread(mesh, count, samples_of_process(count, mesh), np.arange(count)))


def patches_of_groups(features: Features, config: Config) -> Int[jax.Array, "N G"]:
    """The image patch each point group belongs to."""
    assert features.image is not None
    assert features.points is not None
    assert config.image_size is not None
    tokens = features.image.stages[0].shape[1]
    grid = round(tokens**0.5)
    return patch_index(features.points.center_pixels, size=config.image_size, grid=grid)
