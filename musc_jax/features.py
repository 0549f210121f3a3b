"""Samples to features: what scoring needs of N samples, collected one by one."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
from jaxtyping import Int

from musc_jax.config import Config
from musc_jax.crossmodal import patch_index
from musc_jax.data.sample import Sample
from musc_jax.feature_store import FeatureStore
from musc_jax.image_features import ImageExtractor, ImageFeatures
from musc_jax.point_features import PointExtractor, PointFeatures
from musc_jax.programs import Programs

# Called with a stage's name, how many samples are done, and how many there are (None: not known).
Progress = Callable[[str, int, int | None], None]


class Features(NamedTuple):
    """All that scoring needs of N samples."""

    image: ImageFeatures | None
    points: PointFeatures | None


def extract(
    samples: Iterable[Sample],
    config: Config,
    programs: Programs,
    *,
    total: int | None = None,
    progress: Progress | None = None,
    store: FeatureStore | None = None,
) -> tuple[Features, list[Sample]]:
    """Runs the backbones over the samples and aggregates their tokens (paper III-A, III-B).

    Args:
        samples: Read one by one; may come from a generator that loads ahead.
        config: A resolved config.
        programs: Compiles and times.
        total: How many samples there are, for the progress.
        progress: Called with ("features", done, total).
        store: Where features go; default they stay on the device.

    Returns:
        The features, and the samples as read, without their point maps (the features hold those normalised).

    Raises:
        ValueError: A sample's size or modality is not what the config says, or a cloud has fewer points than a group;
            names the sample.
    """
    image = ImageExtractor(config, programs, store) if config.uses_images else None
    points = PointExtractor(config, programs, store) if config.uses_points else None
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
