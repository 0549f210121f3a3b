"""Samples to raw tokens: what backbones say of them, before it is aggregated; to be kept and scored later."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from musc_jax.data.sample import Sample, SampleError, SampleTokens
from musc_jax.execution.image_extraction import encode_images
from musc_jax.execution.point_extraction import encode_points
from musc_jax.execution.programs import Programs
from musc_jax.models import Backbone
from musc_jax.resolved import ImagePath, PointPath, Resolved
from musc_jax.tokens import normalize_points


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
    """
    at_once = 1 if config.image is None else config.image.at_once
    iterator = iter(samples)
    while batch := list(islice(iterator, at_once)):
        images = [SampleTokens()] * len(batch) if config.image is None else _images(batch, config.image, programs)
        for sample, tokens in zip(batch, images, strict=True):
            try:
                yield sample, _expect_finite(sample, _with_points(sample, tokens, config, programs))
            except SampleError as error:
                yield sample, error


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


def _with_points(sample: Sample, tokens: SampleTokens, config: Resolved, programs: Programs) -> SampleTokens:
    path = config.points
    if path is None or sample.points is None:
        return tokens
    encoder = _expect_backbone(path)
    points, valid = normalize_points(sample.points)
    if valid.sum() < path.group_size:
        problem = f"{valid.sum()} points are fewer than the {path.group_size} of a group (group_size)"
        raise SampleError(sample.name, problem)
    found = encode_points(points, valid, encoder, path, encoder.variables, programs)
    return SampleTokens(
        tokens.image,
        tuple(np.asarray(stage) for stage in found.stages),
        np.asarray(found.pixels),
        np.asarray(found.curvature),
        tokens.embedding,
    )


def _expect_backbone(path: ImagePath | PointPath) -> Backbone:
    if not isinstance(path.backbone, Backbone):
        raise ValueError("expected backbones, received tokens that are there already")
    return path.backbone


def _expect_finite(sample: Sample, tokens: SampleTokens) -> SampleTokens:
    arrays = [*tokens.image, *tokens.points, tokens.curvature, tokens.embedding]
    if all(np.isfinite(array).all() for array in arrays if array is not None):
        return tokens
    raise SampleError(sample.name, "its features are not finite")
