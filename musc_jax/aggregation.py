"""Similarity-weighted neighbourhood aggregation: SWPooling and SNAMD (paper III-B), and version 1's LNAMD.

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
    smallest,
    square_side,
    unit,
)


def _window_sums(
    grid: jax.Array, weights: Sequence[jax.Array] | None, radius: int
) -> tuple[jax.Array, jax.Array | float]:
    """Weighted sum of the (2 radius + 1)^2 neighbours of each cell, and the sum of the weights."""
    height, width, _ = grid.shape
    padded = jnp.pad(grid, ((radius, radius), (radius, radius), (0, 0)))
    side = 2 * radius + 1
    total = jnp.zeros_like(grid)
    norm: jax.Array | float = 0.0
    for offset in range(side * side):
        row, column = divmod(offset, side)
        neighbor = padded[row : row + height, column : column + width]
        weight: jax.Array | float = 1.0 if weights is None else weights[offset]
        total, norm = total + neighbor * weight, norm + weight
    return total, norm


def _similarities(grid: jax.Array, radius: int) -> list[jax.Array]:
    """exp(-||F(n) - F(m)||) for each offset of a window, each (h, w, 1); outside the grid F(n) is zero (eq. 5)."""
    height, width, _ = grid.shape
    padded = jnp.pad(grid, ((radius, radius), (radius, radius), (0, 0)))
    side = 2 * radius + 1
    return [
        jnp.exp(
            -safe_norm(
                padded[row : row + height, column : column + width] - grid,
                keepdims=True,
            )
        )
        for row, column in (divmod(offset, side) for offset in range(side * side))
    ]


def snamd_grid(
    tokens: Float[Array, "M C"],
    *,
    degrees: Sequence[int] = (1, 3, 5),
    variant: str = "released",
    similarity_weighting: bool = True,
) -> Float[jax.Array, "M C"]:
    """SNAMD on the square token grid of an image (paper eq. 5-6).

    Each token becomes the similarity-weighted mean of its r x r window, averaged over the degrees r and L2-normalised.
    The border is padded with zeros, and the zeros count as neighbours.

    Args:
        tokens: Tokens of one stage in row order; M must be a square.
        degrees: Window sides, odd.
        variant: "released" divides by the sum of the weights, "paper" by the number of neighbours (eq. 6 as printed).
        similarity_weighting: False gives every neighbour the weight 1 (the ablation "w/o SWPooling").

    Returns:
        Unit vectors, in the dtype of `tokens`.

    Raises:
        ValueError: No square grid, an even degree, an unknown variant.
    """
    expect_shape("tokens", tokens, (None, None))
    expect_variant(variant)
    degrees = _options.wholes("degrees", degrees, lowest=1, odd=True)
    wide, dtype = as_float(tokens)
    side = square_side(wide.shape[0])
    grid = wide.reshape(side, side, -1)

    largest = max(degrees) // 2
    similar = _similarities(grid, largest) if similarity_weighting else None
    pooled = jnp.zeros_like(grid)
    for degree in degrees:
        radius = degree // 2
        inner = range(largest - radius, largest + radius + 1)
        weights = similar and [similar[row * (2 * largest + 1) + col] for row in inner for col in inner]
        total, norm = _window_sums(grid, weights, radius)
        pooled = pooled + total / (norm if variant == "released" else degree**2)
    return unit(pooled / len(degrees)).reshape(wide.shape).astype(dtype)


def snamd_points(
    tokens: Float[Array, "G C"],
    centers: Float[Array, "G 3"],
    curvature: Float[Array, "G"],
    *,
    degrees: Sequence[int] = (1, 3, 5),
    curvature_threshold: float = 0.01,
    variant: str = "released",
    similarity_weighting: bool = True,
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

    Returns:
        Aggregated tokens, not normalised again, in the dtype of `tokens`.

    Raises:
        ValueError: Wrong shapes, a degree below 1 or above G, an unknown variant.
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

    near = _nearest_centers(centers, max(degrees))
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


def _nearest_centers(centers: jax.Array, k: int) -> jax.Array:
    """Indices (G, k) of the nearest centres, each group itself first even where centres coincide."""
    centers = jax.lax.stop_gradient(centers)
    count = len(centers)

    def one(index: jax.Array) -> jax.Array:
        difference = centers - centers[index][None]
        squared = difference[:, 0] ** 2 + difference[:, 1] ** 2 + difference[:, 2] ** 2
        return smallest(squared.at[index].set(-1), k)[1]

    return jax.lax.map(one, jnp.arange(count), batch_size=min(128, count))


def lnamd_grid(tokens: Float[Array, "M C"], *, degree: int) -> Float[jax.Array, "M C"]:
    """LNAMD of MuSc version 1 (ICLR 2024): layer norm of the whole grid, plain r x r mean, L2 norm.

    Args:
        tokens: Tokens of one stage in row order; M must be a square.
        degree: Window side r, odd. The border is padded with zeros, which count.

    Returns:
        Unit vectors, in the dtype of `tokens`. The layer norm runs over channels and positions together (eps 1e-5).

    Raises:
        ValueError: No square grid, an even degree.
    """
    expect_shape("tokens", tokens, (None, None))
    (degree,) = _options.wholes("degree", (degree,), lowest=1, odd=True)
    wide, dtype = as_float(tokens)
    side = square_side(wide.shape[0])
    centered = wide - wide.mean()
    normal = centered * jax.lax.rsqrt(jnp.mean(centered**2) + 1e-5)
    total, _ = _window_sums(normal.reshape(side, side, -1), None, degree // 2)
    return unit(total / degree**2).reshape(wide.shape).astype(dtype)
