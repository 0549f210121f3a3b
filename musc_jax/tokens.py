"""One image, or one cloud, to its aggregated tokens (paper III-A and III-B); `jax.vmap` does many.

tokens = jax.vmap(partial(image_tokens, backbone=backbone))(images)  # a tuple of (N, M, C), one for each stage
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from musc_jax._arrays import Array, expect_shape, points_and_mask
from musc_jax.aggregation import snamd_grid, snamd_points
from musc_jax.grouping import farthest_point_sampling, iterative_point_grouping
from musc_jax.models import Backbone

# Squared norm, in a cloud scaled to the unit sphere, up to which the released sampler picks no point.
_NEVER_PICKED = 1e-3


class CloudTokens(NamedTuple):
    """Aggregated tokens of a cloud's groups, and where they lie."""

    stages: tuple[Float[jax.Array, "G C"], ...]
    """For each block."""
    centers: Float[jax.Array, "G 3"]
    """Centre of each group, in the unit of the cloud."""
    center_indices: Int[jax.Array, "G"]
    """Position of each group's centre in the cloud."""
    curvature: Float[jax.Array, "G"]
    """0 (flat) to 1/3."""


def normalized_images(
    images: UInt8[Array, "*batch S S 3"], *, mean: Sequence[float], std: Sequence[float]
) -> Float[jax.Array, "*batch S S 3"]:
    """8-bit images to what a backbone takes: scaled to [0, 1], then standardised channel by channel.

    Args:
        images: RGB, 0 to 255.
        mean: Of the channels.
        std: Their standard deviations.
    """
    lead = (1,) * (images.ndim - 1)
    shift, scale = (jnp.asarray(x, jnp.float32).reshape(*lead, 3) for x in (mean, std))
    return (jnp.asarray(images).astype(jnp.float32) / 255 - shift) / scale


def image_tokens(
    image: UInt8[Array, "S S 3"],
    backbone: Backbone,
    *,
    variables: Any = None,
    blocks: Sequence[int] | None = None,
    degrees: Sequence[int] = (1, 3, 5),
    variant: str = "released",
    similarity_weighting: bool = True,
    implementation: str = "auto",
) -> tuple[Float[jax.Array, "M C"], ...]:
    """Tokens of one image from each block, aggregated over their neighbourhoods by SNAMD (paper eq. 5-6).

    Args:
        image: RGB, 0 to 255, of a side that is a multiple of the backbone's patch.
        backbone: Of `weights.load`.
        variables: Its parameters; default those it came with, which become constants of a program: pass them as an
            argument of what is jitted to keep it small.
        blocks: 0-based, rising; default the backbone's.
        degrees: See `snamd_grid`.
        variant: See `snamd_grid`.
        similarity_weighting: See `snamd_grid`.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        Unit vectors for each block, patches in row order.

    Raises:
        ValueError: Not one square image, or options that the backbone or `snamd_grid` refuse.
    """
    expect_shape("image", image, (image.shape[0], image.shape[0], 3))
    given = backbone.variables if variables is None else variables
    pixels = normalized_images(image, mean=backbone.mean, std=backbone.std)
    tokens = backbone.module.apply(given, pixels[None], blocks=tuple(blocks or backbone.blocks))
    options: dict[str, Any] = {"degrees": degrees, "variant": variant, "similarity_weighting": similarity_weighting}
    return tuple(snamd_grid(stage[0], **options, implementation=implementation) for stage in tokens)


def is_point(point_map: Float[Array, "*shape 3"]) -> Bool[Array, "*shape"]:
    """Which pixels of an organised map are points: those whose three coordinates are all non-zero."""
    x, y, z = (point_map[..., axis] for axis in range(3))
    return (x != 0) & (y != 0) & (z != 0)


def unit_cloud(points: Float[Array, "P 3"], valid: Bool[Array, "P"]) -> Float[jax.Array, "P 3"]:
    """Centres a cloud on its mean and scales it to the unit sphere; what is no point becomes 0.

    In float64, whatever the session's default: metres from a camera lose digits of a small part's shape in a float32
    mean, and farthest points that are nearly tied would be other ones. That type does not leave this function.
    """
    with jax.enable_x64(True):
        inside = valid[:, None]
        wide = jnp.where(inside, jax.lax.convert_element_type(points, np.float64), np.float64(0))
        total = jax.lax.convert_element_type(jnp.maximum(valid.sum(), 1), np.float64)
        wide = jnp.where(inside, wide - wide.sum(axis=0, keepdims=True) / total, np.float64(0))
        radius = jnp.maximum(jnp.sqrt((wide**2).sum(axis=1).max()), np.float64(1e-12))
        return jax.lax.convert_element_type(wide / radius, np.float32)


def normalize_points(
    point_map: Float[Array, "height width 3"],
) -> tuple[Float[jax.Array, "P 3"], Bool[jax.Array, "P"]]:
    """Centres a point map on its mean and scales it to the unit sphere.

    Args:
        point_map: Organised map in metres; a pixel is a point when all three coordinates are non-zero.

    Returns:
        (points, valid) over all P = height * width pixels in row order. Which pixels are points is decided before
        centring: a point that lands on 0 in one coordinate remains a point.
    """
    valid = jnp.asarray(is_point(point_map).reshape(-1))
    return unit_cloud(jnp.asarray(point_map).reshape(-1, 3), valid), valid


def group_centers(
    points: Float[Array, "P 3"],
    valid: Bool[Array, "P"],
    *,
    num_groups: int,
    variant: str = "released",
    implementation: str = "auto",
) -> Int[jax.Array, "num_groups"]:
    """Farthest point sampling from the first valid point on; the released sampler never picks one near the middle.

    Args:
        points: A cloud scaled to the unit sphere about its mean.
        valid: Which points count.
        num_groups: How many are picked.
        variant: "released" or "paper".
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        Positions in the cloud.
    """
    candidates = valid
    if variant == "released":
        candidates = valid & (jnp.sum(points**2, axis=-1) > _NEVER_PICKED)
    start = jnp.argmax(valid)
    return farthest_point_sampling(
        points, num_groups, candidates=candidates, start=start, implementation=implementation
    )


def relative_groups(
    points: Float[jax.Array, "P 3"], valid: Bool[jax.Array, "P"], centers: Int[jax.Array, "G"], **options: Any
) -> tuple[Float[jax.Array, "G K 3"], Float[jax.Array, "G 3"], Float[jax.Array, "G"]]:
    """(groups relative to their centres, centres, curvature); `options` are those of `iterative_point_grouping`."""
    groups = iterative_point_grouping(points, centers, valid=valid, **options)
    at = points[centers]
    return points[groups.indices] - at[:, None], at, groups.curvature


def point_tokens(
    points: Float[Array, "P 3"],
    backbone: Backbone,
    *,
    valid: Bool[Array, "P"] | None = None,
    variables: Any = None,
    blocks: Sequence[int] | None = None,
    point_norm: str = "cloud",
    num_groups: int = 1024,
    group_size: int = 128,
    k_iter: int = 80,
    curvature_threshold: float = 0.01,
    expansion: bool = True,
    degrees: Sequence[int] = (1, 3, 5),
    variant: str = "released",
    similarity_weighting: bool = True,
    implementation: str = "auto",
) -> CloudTokens:
    """Tokens of one cloud's groups from each block, aggregated over their neighbourhoods by SNAMD (paper eq. 1-6).

    Args:
        points: A cloud centred on its mean and scaled to the unit sphere, see `musc_jax.tokens.normalize_points`.
        backbone: A point encoder of `weights.load`.
        valid: Which points count; default all.
        variables: As in `image_tokens`.
        blocks: 0-based, rising; default the backbone's.
        point_norm: "cloud" or "checkpoint", see `musc_jax.models.PointTransformer`.
        num_groups: Groups of the cloud.
        group_size: See `iterative_point_grouping`.
        k_iter: See `iterative_point_grouping`.
        curvature_threshold: From here on a group is expanded, and aggregated with no other.
        expansion: See `iterative_point_grouping`.
        degrees: See `snamd_points`.
        variant: "released" or "paper", of sampling, grouping and aggregation.
        similarity_weighting: See `snamd_points`.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        The tokens of each block, and where the groups lie.

    Raises:
        ValueError: Wrong shapes, an empty cloud, or options that the parts refuse.
    """
    points, mask = points_and_mask(points, valid)
    given = backbone.variables if variables is None else variables
    chosen = group_centers(points, mask, num_groups=num_groups, variant=variant, implementation=implementation)
    shared: dict[str, Any] = {
        "curvature_threshold": curvature_threshold,
        "variant": variant,
        "implementation": implementation,
    }
    relative, centers, curvature = relative_groups(
        points, mask, chosen, group_size=group_size, k_iter=k_iter, expansion=expansion, **shared
    )
    tokens = backbone.module.apply(
        given, relative, centers, blocks=tuple(blocks or backbone.blocks), point_norm=point_norm
    )
    stages = tuple(
        snamd_points(stage, centers, curvature, degrees=degrees, similarity_weighting=similarity_weighting, **shared)
        for stage in tokens
    )
    return CloudTokens(stages, centers, chosen, curvature)
