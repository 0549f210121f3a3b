"""Similarity-weighted neighbourhood aggregation: SWPooling and SNAMD (paper III-B).

A token takes up the tokens around it, each weighted by how similar it is. A neighbourhood of several sizes (degrees)
makes defects of several sizes stand out; the weights keep a small defect from being diluted by the normal surface
around it.

All functions take the tokens of ONE sample and one stage; `jax.vmap` does many.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float

from musc_jax import _options
from musc_jax._arrays import (
    Array,
    as_float,
    expect_shape,
    expect_variant,
    safe_norm,
    same_dtype,
    square_side,
    unit,
)
from musc_jax.kernels import operation


@operation("window_pooling")
def window_pooling(
    grid: jax.Array, *, degrees: tuple[int, ...], by_count: bool, similarity_weighting: bool
) -> jax.Array:
    """The mean over the degrees r of each token's weighted mean over its r x r window (eq. 5-6).

    Args:
        grid: Tokens (h, w, C); around them lie zeros, which count as neighbours.
        degrees: Window sides, odd.
        by_count: Divide by the number of neighbours instead of the sum of the weights.
        similarity_weighting: Weigh a neighbour by exp(-||F(n) - F(m)||); else by 1.
    """
    height, width, _ = grid.shape
    pooled = jnp.zeros_like(grid)
    for degree in degrees:
        radius = degree // 2
        padded = jnp.pad(grid, ((radius, radius), (radius, radius), (0, 0)))
        offsets = [divmod(offset, degree) for offset in range(degree**2)]
        neighbors = jnp.stack([padded[row : row + height, column : column + width] for row, column in offsets])
        weights = jnp.ones((*neighbors.shape[:3], 1), grid.dtype)
        if similarity_weighting:
            weights = jnp.exp(-safe_norm(neighbors - grid[None], keepdims=True))
        total = (weights * neighbors).sum(axis=0)
        pooled = pooled + total / (degree**2 if by_count else weights.sum(axis=0))
    return pooled / len(degrees)


@operation("nearest_groups")
def nearest_groups(centers: jax.Array, *, k: int) -> jax.Array:
    """Indices (G, k) of the nearest centres of each centre, itself first even where centres coincide."""
    d = centers[:, None] - centers[None]
    squared = d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2
    itself = jnp.eye(len(centers), dtype=bool)
    return jax.lax.top_k(-jnp.where(itself, -1, squared), k)[1]


def snamd_grid(
    tokens: Float[Array, "M C"],
    *,
    degrees: Sequence[int] = (1, 3, 5),
    variant: str = "released",
    similarity_weighting: bool = True,
    implementation: str = "auto",
) -> Float[jax.Array, "M C"]:
    """SNAMD on the square token grid of an image (paper eq. 5-6).

    Each token becomes the similarity-weighted mean of its r x r window, averaged over the degrees r and L2-normalised.
    The border is padded with zeros, and the zeros count as neighbours.

    Args:
        tokens: Tokens of one stage in row order; M must be a square.
        degrees: Window sides, odd.
        variant: "released" divides by the sum of the weights, "paper" by the number of neighbours (eq. 6 as printed).
        similarity_weighting: False gives every neighbour the weight 1 (the ablation "w/o SWPooling").
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        Unit vectors, in the dtype of `tokens`.

    Raises:
        ValueError: No square grid, an even degree, an unknown variant or implementation.
    """
    expect_shape("tokens", tokens, (None, None))
    expect_variant(variant)
    degrees = _options.wholes("degrees", degrees, lowest=1, odd=True)
    wide, dtype = as_float(tokens)
    side = square_side(wide.shape[0])
    grid = wide.reshape(side, side, -1)
    pooled = window_pooling(
        grid,
        degrees=degrees,
        by_count=variant == "paper",
        similarity_weighting=similarity_weighting,
        implementation=implementation,
    )
    return unit(pooled).reshape(wide.shape).astype(dtype)


def snamd_points(
    tokens: Float[Array, "G C"],
    centers: Float[Array, "G 3"],
    curvature: Float[Array, "G"],
    *,
    degrees: Sequence[int] = (1, 3, 5),
    curvature_threshold: float = 0.01,
    variant: str = "released",
    similarity_weighting: bool = True,
    implementation: str = "auto",
) -> Float[jax.Array, "G C"]:
    """SNAMD on the tokens of point groups (paper eq. 5-6).

    Tokens are L2-normalised first. A group of low curvature takes up the r groups with the nearest centres, itself
    first; a group whose curvature reaches the threshold keeps its own token, because its neighbours may lie on another
    surface.

    Args:
        tokens: Tokens of one stage.
        centers: Group centres, any unit.
        curvature: Curvature of each group, 0 to 1/3.
        degrees: How many nearest groups, itself included.
        curvature_threshold: From here on a group stays alone.
        variant: "released" lays the pooled vectors of all degrees end to end and averages each run of len(degrees)
            neighbouring values, which mixes channels; "paper" takes their mean, and divides by the count instead of
            the weights.
        similarity_weighting: False gives every neighbour the weight 1.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        Aggregated tokens, not normalised again, in the dtype of `tokens`.

    Raises:
        ValueError: Wrong shapes, a degree below 1 or above G, an unknown variant or implementation.
    """
    expect_shape("tokens", tokens, (None, None))
    count = tokens.shape[0]
    expect_shape("centers", centers, (count, 3))
    expect_shape("curvature", curvature, (count,))
    expect_variant(variant)
    degrees = _options.wholes("degrees", degrees, lowest=1)
    if max(degrees) > count:
        raise ValueError(f"degrees: expected at most {count}, the number of groups, received {degrees}")
    dtype = as_float(tokens)[1]
    wide, centers, curvature = same_dtype(tokens, centers, curvature)
    wide = unit(wide)

    near = nearest_groups(jax.lax.stop_gradient(centers), k=max(degrees), implementation=implementation)
    neighbors = wide[near]
    if similarity_weighting:
        weights = jnp.exp(-safe_norm(neighbors - wide[:, None], keepdims=True))
    else:
        weights = jnp.ones((*near.shape, 1), wide.dtype)
    pooled = []
    for degree in degrees:
        weight = weights[:, :degree]
        total = jnp.sum(neighbors[:, :degree] * weight, axis=1)
        pooled.append(total / (weight.sum(axis=1) if variant == "released" else degree))
    if variant == "released":
        mixed = jnp.concatenate(pooled, axis=-1).reshape(*wide.shape, len(degrees)).mean(axis=-1)
    else:
        mixed = sum(pooled[1:], start=pooled[0]) / len(degrees)
    rough = curvature >= curvature_threshold
    return jnp.where(rough[:, None], wide, mixed).astype(dtype)
