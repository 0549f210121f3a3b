"""Samples to raw tokens: what backbones say of them, before it is aggregated; to be kept and scored later."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from musc_jax.data.sample import Sample, SampleError, SampleTokens
from musc_jax.execution.image_extraction import encode_images
from musc_jax.execution.inside import without_outside
from musc_jax.execution.point_extraction import encode_points, read_cloud
from musc_jax.execution.programs import Programs
from musc_jax.models import Backbone
from musc_jax.resolved import ImagePath, PointPath, Resolved


def raw_tokens(
    samples: Iterable[Sample], config: Resolved, programs: Programs
) -> Iterator[tuple[Sample, SampleTokens | SampleError]]:
    """Runs the backbones as extraction does, on one device: the same programs on batches of the same size.

    Args:
        samples: Read one by one, as many ahead as a batch has.
        config: A resolved config, whose backbones are backbones.
        programs: Compiles and times.

    Yields:
        Each sample, in order, with its tokens on the host; or with what is wrong with it.

    Raises:
        ValueError: The config has tokens that are there already.
        SampleError: A region of interest that is none.
    """
    paths = [path for path in (config.image, config.points) if path is not None]
    at_once = math.lcm(*(path.at_once for path in paths))
    iterator = iter(samples)
    while batch := list(map(without_outside, islice(iterator, at_once))):
        found: list[SampleTokens | SampleError] = [SampleTokens()] * len(batch)
        if (path := config.image) is not None:
            found = [one for part in _parts(batch, path.at_once) for one in _images(part, path, programs)]
        if config.points is not None:
            _add_points(batch, found, config.points, programs)
        yield from ((sample, _checked(sample, one)) for sample, one in zip(batch, found, strict=True))


def _parts(rows: list, size: int) -> Iterator[list]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _images(batch: list[Sample], path: ImagePath, programs: Programs) -> list[SampleTokens]:
    backbone = _expect_backbone(path)
    filled = batch + batch[-1:] * (path.at_once - len(batch))
    images = np.stack([sample.image for sample in filled])
    stages, embedding = encode_images(images, backbone, path, backbone.variables, programs)
    host = [np.asarray(stage) for stage in stages]
    embeddings = None if embedding is None else np.asarray(embedding)
    return [
        SampleTokens(tuple(stage[i] for stage in host), embedding=None if embeddings is None else embeddings[i])
        for i in range(len(batch))
    ]


def _add_points(
    batch: list[Sample], found: list[SampleTokens | SampleError], path: PointPath, programs: Programs
) -> None:
    """Puts tokens of the clouds beside those of the images, or what is wrong with a cloud in their place."""
    encoder, clouds = _expect_backbone(path), {}
    for at, sample in enumerate(batch):
        if sample.points is not None:
            try:
                clouds[at] = read_cloud(sample.name, sample.points, path.group_size)
            except SampleError as error:
                found[at] = error
    for rows in _parts(list(clouds), path.at_once):
        columns = zip(*(clouds[at] for at in rows + rows[-1:] * (path.at_once - len(rows))), strict=True)
        points, valid = (np.stack(column) for column in columns)
        groups = encode_points(points, valid, encoder, path, encoder.variables, programs)
        stages, pixels, curvature = [np.asarray(x) for x in groups.stages], *map(np.asarray, groups[3:])
        for i, at in enumerate(rows):
            own, image = tuple(stage[i] for stage in stages), found[at]
            assert isinstance(image, SampleTokens)
            found[at] = dataclasses.replace(image, points=own, pixels=pixels[i], curvature=curvature[i])


def _expect_backbone(path: ImagePath | PointPath) -> Backbone:
    if not isinstance(path.backbone, Backbone):
        raise ValueError("expected backbones, received tokens that are there already")
    return path.backbone


def _checked(sample: Sample, tokens: SampleTokens | SampleError) -> SampleTokens | SampleError:
    if isinstance(tokens, SampleError):
        return tokens
    arrays = [*tokens.image, *tokens.points, tokens.curvature, tokens.embedding]
    if all(np.isfinite(array).all() for array in arrays if array is not None):
        return tokens
    return SampleError(sample.name, "its features are not finite")
