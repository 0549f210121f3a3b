"""Samples to anomaly maps and sample scores."""

import dataclasses
from typing import NamedTuple

import numpy as np

from statement import aggregation, backbones, clouds, maps, scoring


@dataclasses.dataclass(frozen=True)
class Options:
    """Every switch there is, as a plain value."""

    variant: str = "released"
    images: bool = True
    points: bool = True
    size: int = 32
    image_blocks: tuple = (0, 1, 3)
    point_blocks: tuple = (0, 1, 2)
    point_norm: str = "cloud"
    num_groups: int = 16
    group_size: int = 12
    k_iter: int = 5
    curvature_threshold: float = 0.01
    degrees: tuple = (1, 3, 5)
    interval: float = 0.3
    precision: str = "full"
    references: int | None = None
    seed: int = 0
    nearest_images: int | None = None
    windows: tuple = (1, 7)
    expansion: bool = True
    weighting: bool = True
    enhancement: bool = True
    trust: bool = True
    rescoring: bool = True


class Outcome(NamedTuple):
    """What a run gives; None for a modality that is not looked at."""

    anomaly_maps: np.ndarray
    pred_scores: np.ndarray
    max_scores: np.ndarray
    image_scores: np.ndarray | None
    point_scores: np.ndarray | None
    salient: np.ndarray | None
    """What re-scoring compares; None without it."""


def _wide(tree):
    if hasattr(tree, "items"):
        return {name: _wide(value) for name, value in tree.items()}
    return np.asarray(tree, np.float64)


class _Cloud(NamedTuple):
    points: np.ndarray
    valid: np.ndarray
    pixels: np.ndarray
    centers: np.ndarray
    stages: list


def _image_stages(image, backbone, o):
    """Aggregated tokens of one image by stage (version 1: by stage and degree), and its embedding."""
    config = backbone.module.config
    tokens, summary = backbones.image_tokens(
        _wide(backbone.variables)["params"],
        image,
        mean=backbone.mean,
        std=backbone.std,
        patch=config.patch_size,
        heads=config.heads,
        blocks=o.image_blocks,
        depth=config.depth,
    )
    if o.variant == "v1":
        return [aggregation.lnamd_grid(t, degree=r) for t in tokens for r in o.degrees], summary
    options = {"degrees": o.degrees, "variant": o.variant, "weighting": o.weighting}
    return [aggregation.snamd_grid(t, **options) for t in tokens], summary


def _cloud(point_map, backbone, o):
    points, valid = clouds.normalize(point_map)
    pixels = clouds.farthest_points(points, valid, o.num_groups, variant=o.variant)
    members, bends = clouds.groups(
        points,
        valid,
        pixels,
        group_size=o.group_size,
        k_iter=o.k_iter,
        curvature_threshold=o.curvature_threshold,
        variant=o.variant,
        expansion=o.expansion,
    )
    centers, variables = points[pixels], _wide(backbone.variables)
    tokens = backbones.point_tokens(
        variables["params"],
        variables["batch_stats"],
        points[members] - centers[:, None],
        centers,
        heads=backbone.module.config.heads,
        blocks=o.point_blocks,
        point_norm=o.point_norm,
    )
    stages = [
        aggregation.snamd_points(
            t,
            centers,
            bends,
            degrees=o.degrees,
            curvature_threshold=o.curvature_threshold,
            variant=o.variant,
            weighting=o.weighting,
        )
        for t in tokens
    ]
    return _Cloud(points, valid, pixels, centers, stages)


def _patch_scores(modalities, patches, o):
    """For each modality (N, M): the mean over the stages of the interval averages."""
    count = len(modalities[0][0])
    scorers = scoring.columns(count, o.references, o.seed)
    if o.nearest_images is not None:
        scorers = scoring.most_similar([stage for stages in modalities for stage in stages], o.nearest_images)
    by_stage = []
    for stage in zip(*modalities, strict=True):
        by_others = [scoring.pair_scores(features, scorers, o.precision) for features in stage]
        averages = []
        for i in range(count):
            own = [scores[i] for scores in by_others]
            if len(own) == 2 and o.enhancement:
                own = scoring.enhance(*own, patches[i], variant=o.variant, trust=o.trust)
            averages.append([scoring.interval_average(d, o.interval) for d in own])
        by_stage.append([np.stack(own) for own in zip(*averages, strict=True)])
    return [np.mean(own, axis=0) for own in zip(*by_stage, strict=True)]


def run(samples, image_backbone, point_backbone, o):
    """Scores samples by each other; returns an `Outcome`."""
    count = len(samples)
    modalities, patches, found, embedding = [], None, [], None
    if o.images:
        images = [_image_stages(s.image, image_backbone, o) for s in samples]
        modalities.append([np.stack(stage) for stage in zip(*(stages for stages, _ in images))])
        embedding = np.stack([summary / np.sqrt((summary**2).sum()) for _, summary in images])
    if o.points:
        found = [_cloud(s.points, point_backbone, o) for s in samples]
        modalities.append([np.stack(stage) for stage in zip(*(cloud.stages for cloud in found))])
    if o.images and o.points:
        grid = round(modalities[0][0].shape[1] ** 0.5)
        p = o.size // grid
        patches = [cloud.pixels // o.size // p * grid + cloud.pixels % o.size // p for cloud in found]
    scores = _patch_scores(modalities, patches, o)
    of_image, of_points = scores[0] if o.images else None, scores[-1] if o.points else None
    anomaly_maps = np.zeros((count, o.size, o.size))
    for i in range(count):
        if o.images:
            anomaly_maps[i] += maps.image_map(of_image[i], o.size)
        if o.points:
            cloud = found[i]
            anomaly_maps[i] += maps.point_map(cloud.points, cloud.valid, cloud.centers, of_points[i], o.size)
    highest = anomaly_maps.max((1, 2))
    if not o.rescoring:
        return Outcome(anomaly_maps, highest, highest, of_image, of_points, None)
    if o.variant == "v1":
        salient = embedding
    else:
        parts = [scoring.salient(stages, own) for stages, own in zip(modalities, scores, strict=True)]
        salient = np.concatenate(parts, axis=1)
    pred = scoring.rescore(highest, salient, windows=o.windows, variant=o.variant)
    return Outcome(anomaly_maps, pred, highest, of_image, of_points, salient)
