"""Pooling of square windows, offset by offset (operation `window_pooling`)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from musc_jax._arrays import safe_norm


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


def by_offsets(grid: jax.Array, *, degrees: tuple[int, ...], by_count: bool, similarity_weighting: bool) -> jax.Array:
    """Similarities of the largest window serve all smaller ones, and no window is written down."""
    largest = max(degrees) // 2
    similar = _similarities(grid, largest) if similarity_weighting else None
    pooled = jnp.zeros_like(grid)
    for degree in degrees:
        radius = degree // 2
        inner = range(largest - radius, largest + radius + 1)
        weights = similar and [similar[row * (2 * largest + 1) + col] for row in inner for col in inner]
        total, norm = _window_sums(grid, weights, radius)
        pooled = pooled + total / (degree**2 if by_count else norm)
    return pooled / len(degrees)
