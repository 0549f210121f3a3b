"""From token scores to pixel maps (paper III-C): upsampling, interpolation over points, blur."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from musc_jax import _options
from musc_jax._arrays import (
    PRECISION,
    Array,
    as_float,
    as_index,
    expect_shape,
    points_and_mask,
    safe_norm,
    same_dtype,
)
from musc_jax.kernels import operation

_CENTERS_PER_POINT = 3


@operation("nearest_centers")
def nearest_centers(points: jax.Array, valid: jax.Array, centers: jax.Array, *, k: int) -> jax.Array:
    """Indices (P, k) of the k nearest centres of each point, ties to the lower index; of invalid points, anything."""
    del valid

    def one(point: jax.Array) -> jax.Array:
        d = centers - point[None]
        return jax.lax.top_k(-(d[:, 0] ** 2 + d[:, 1] ** 2 + d[:, 2] ** 2), k)[1]

    return jax.lax.map(one, points)


def _apply(rows: np.ndarray, image: jax.Array, columns: np.ndarray) -> jax.Array:
    """A linear filter along both axes: rows @ image @ columns^T."""
    half = jnp.matmul(jnp.asarray(rows, image.dtype), image, precision=PRECISION)
    return jnp.matmul(half, jnp.asarray(columns.T, image.dtype), precision=PRECISION)


def _align_corners_weights(size: int, cells: int) -> np.ndarray:
    """(size, cells) bilinear weights; the first and last pixel fall on the first and last cell."""
    position = np.linspace(0, cells - 1, size) if size > 1 else np.zeros(1)
    distance = np.abs(position[:, None] - np.arange(cells)[None])
    return np.maximum(0, 1 - distance)


def upsample_grid(grid: Float[Array, "h w"], size: int) -> Float[jax.Array, "size size"]:
    """Bilinear upsampling with aligned corners.

    Args:
        grid: Patch scores.
        size: Side of the result in pixels (static).

    Returns:
        The map in the dtype of `grid`. (`jax.image.resize` does not align corners.)

    Raises:
        ValueError: No grid, a size below 1.
    """
    expect_shape("grid", grid, (None, None))
    size = _options.whole("size", size, lowest=1)
    if 0 in grid.shape:
        raise ValueError(f"grid: expected at least 1 x 1 scores, received {grid.shape}")
    wide, dtype = as_float(grid)
    rows, columns = (_align_corners_weights(size, cells) for cells in wide.shape)
    return _apply(rows, wide, columns).astype(dtype)


def interpolate_points(
    points: Float[Array, "P 3"],
    centers: Float[Array, "G 3"],
    values: Float[Array, "G"],
    *,
    valid: Bool[Array, "P"] | None = None,
    implementation: str = "auto",
) -> Float[jax.Array, "P"]:
    """Each point takes the mean of the values of its 3 nearest centres, weighted by 1 / (d^2 + 1e-8).

    Args:
        points: Where values are wanted. Invalid points may hold anything, NaN included, and get 0.
        centers: Group centres, in the unit of the points.
        values: A score for each group. With fewer than 3 groups all of them are used.
        valid: Which points count; all by default.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        Values in the dtype of `values`; differentiable with respect to all three.

    Raises:
        ValueError: Wrong shapes, no centre, an empty cloud, an unknown implementation.
    """
    expect_shape("centers", centers, (None, 3))
    expect_shape("values", values, (centers.shape[0],))
    if centers.shape[0] < 1:
        raise ValueError("centers: expected at least one group, received none")
    points, mask = points_and_mask(points, valid)
    dtype = as_float(values)[1]
    points, centers, values = same_dtype(points, centers, values)

    at, among = jax.lax.stop_gradient(points), jax.lax.stop_gradient(centers)
    k = min(_CENTERS_PER_POINT, len(among))
    index = nearest_centers(at, mask, among, k=k, implementation=implementation)
    distance = safe_norm(centers[index] - points[:, None])
    weight = 1 / (distance**2 + 1e-8)
    weight = weight / weight.sum(axis=1, keepdims=True)
    return jnp.where(mask, (weight * values[index]).sum(axis=1), 0).astype(dtype)


def _box_blur_weights(length: int, radius: float) -> np.ndarray:
    """(length, length) weights of one box pass: fractional ends, edges extended."""
    whole = int(radius)
    inner = 1 / (2 * radius + 1)
    ends = (1 - (2 * whole + 1) * inner) / 2
    weights = np.zeros((length, length))
    rows = np.arange(length)
    for offset in range(-whole - 1, whole + 2):
        column = np.clip(rows + offset, 0, length - 1)
        np.add.at(weights, (rows, column), ends if abs(offset) == whole + 1 else inner)
    return weights


def gaussian_blur(image: Float[Array, "H W"], *, sigma: float = 4.0) -> Float[jax.Array, "H W"]:
    """Gaussian blur as Pillow computes it: 3 box passes an axis, fractional box ends, edges extended.

    Args:
        image: Any values.
        sigma: Standard deviation in pixels (Pillow's "radius"); 0 changes nothing.

    Returns:
        The blurred image in the dtype of `image`, without Pillow's rounding to 8 bits between passes.

    Raises:
        ValueError: No image, a negative sigma.
    """
    expect_shape("image", image, (None, None))
    if sigma < 0 or 0 in image.shape:
        raise ValueError(f"sigma: expected an image and at least 0, received {image.shape} and {sigma}")
    wide, dtype = as_float(image)
    passes = 3
    variance = sigma**2 / passes
    # The widest whole box below that variance, and the share of the next pixel that makes up for the rest.
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    share = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    rows, columns = (np.linalg.matrix_power(_box_blur_weights(length, whole + share), passes) for length in wide.shape)
    return _apply(rows, wide, columns).astype(dtype)


def point_map(
    points: Float[Array, "P 3"],
    pixels: Int[Array, "P"],
    centers: Float[Array, "G 3"],
    values: Float[Array, "G"],
    *,
    size: int,
    sigma: float = 4.0,
    valid: Bool[Array, "P"] | None = None,
    implementation: str = "auto",
) -> Float[jax.Array, "size size"]:
    """Anomaly map of a cloud: group scores interpolated to its points, written at their pixels, blurred.

    Args:
        points: The cloud; invalid points may hold anything.
        pixels: Flat pixel of each point, row * size + column; of invalid points, anything. Behind `jit` or `vmap` one
            out of range counts as the nearest pixel in range.
        centers: Group centres.
        values: Group scores.
        size: Side of the map in pixels (static).
        sigma: Of the blur, in pixels.
        valid: Which points count; all by default.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        The map in the dtype of `values`; 0, before the blur, where there is no point. The released program passes
        through 8 bits at the blur; this does not.

    Raises:
        ValueError: Wrong shapes, no centre, an empty cloud, a size below 1, pixels out of range, an unknown
            implementation.
    """
    expect_shape("pixels", pixels, (points.shape[0],))
    if valid is not None:
        expect_shape("valid", valid, (points.shape[0],))
    size = _options.whole("size", size, lowest=1)
    pixels = as_index("pixels", pixels, size * size, where=valid)
    at_points = interpolate_points(points, centers, values, valid=valid, implementation=implementation)
    if valid is not None:
        pixels = jnp.where(jnp.asarray(valid).astype(bool), pixels, size * size)
    image = jnp.zeros(size * size, at_points.dtype).at[pixels].set(at_points, mode="drop")
    return gaussian_blur(image.reshape(size, size), sigma=sigma)
