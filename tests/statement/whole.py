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


# Of what is outside of a region of interest; 0 for a backbone, as good as.
_BLANK = (124, 116, 104)


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


def _inside(sample):
    """Its region of interest."""
    return np.ones(sample.image.shape[:2], bool) if sample.roi is None else sample.roi


def _blank(sample):
    """What the backbones see: nothing outside."""
    keep = _inside(sample)[..., None]
    points = None if sample.points is None else np.where(keep, sample.points, 0)
    return np.where(keep, sample.image, _BLANK), points


def _patch_scores(modalities, patches, counts, o):
    """For each modality (N, M): the mean over the stages of the interval averages; 0 for tokens outside."""
    count = len(modalities[0][0])
    scorers = scoring.columns(count, o.references, o.seed)
    if o.nearest_images is not None:
        whole = [(stage, own) for stages, own in zip(modalities, counts, strict=True) for stage in stages]
        scorers = scoring.most_similar(*zip(*whole, strict=True), o.nearest_images)
    by_stage = []
    for stage in zip(*modalities, strict=True):
        by_others = [scoring.pair_scores(f, scorers, o.precision, own) for f, own in zip(stage, counts, strict=True)]
        averages = []
        for i in range(count):
            own = [scores[i] for scores in by_others]
            if len(own) == 2 and o.enhancement:
                # Patches that count, by their numbers among these.
                place = (np.cumsum(counts[0][i]) - 1)[patches[i]][counts[1][i]]
                own = scoring.enhance(*own, place, variant=o.variant, trust=o.trust)
            averages.append([scoring.interval_average(d, o.interval) for d in own])
        whole = [np.zeros(own.shape) for own in counts]
        for i, found in enumerate(averages):
            for scores, own, values in zip(whole, counts, found, strict=True):
                scores[i][own[i]] = values
        by_stage.append(whole)
    return [np.mean(own, axis=0) for own in zip(*by_stage, strict=True)]


def run(samples, image_backbone, point_backbone, o):
    """Scores samples by each other; returns an `Outcome`."""
    count = len(samples)
    modalities, patches, found, embedding, counts = [], None, [], None, []
    inside, seen = [_inside(s) for s in samples], [_blank(s) for s in samples]
    if o.images:
        images = [_image_stages(image, image_backbone, o) for image, _ in seen]
        modalities.append([np.stack(stage) for stage in zip(*(stages for stages, _ in images))])
        embedding = np.stack([summary / np.sqrt((summary**2).sum()) for _, summary in images])
        side = round(modalities[0][0].shape[1] ** 0.5)
        counts.append(np.stack([maps.cells(own, side).any(axis=-1) for own in inside]))
    if o.points:
        found = [_cloud(points, point_backbone, o) for _, points in seen]
        modalities.append([np.stack(stage) for stage in zip(*(cloud.stages for cloud in found))])
        counts.append(np.stack([own.reshape(-1)[cloud.pixels] for own, cloud in zip(inside, found, strict=True)]))
    if o.images and o.points:
        grid = round(modalities[0][0].shape[1] ** 0.5)
        p = o.size // grid
        patches = [cloud.pixels // o.size // p * grid + cloud.pixels % o.size // p for cloud in found]
    scores = _patch_scores(modalities, patches, counts, o)
    of_image, of_points = scores[0] if o.images else None, scores[-1] if o.points else None
    anomaly_maps = np.zeros((count, o.size, o.size))
    for i in range(count):
        if o.images:
            anomaly_maps[i] += maps.image_map(of_image[i], o.size, counts[0][i], inside[i])
        if o.points:
            cloud = found[i]
            where = cloud.points, cloud.valid, cloud.centers
            anomaly_maps[i] += maps.point_map(*where, of_points[i], o.size, counts[-1][i], inside[i])
    highest = anomaly_maps.max((1, 2))
    if not o.rescoring:
        return Outcome(anomaly_maps, highest, highest, of_image, of_points, None)
    if o.variant == "v1":
        salient = embedding
    else:
        parts = [scoring.salient(*own) for own in zip(modalities, scores, counts, strict=True)]
        salient = np.concatenate(parts, axis=1)
    pred = scoring.rescore(highest, salient, windows=o.windows, variant=o.variant)
    return Outcome(anomaly_maps, pred, highest, of_image, of_points, salient)
