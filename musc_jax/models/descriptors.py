"""Geometric descriptors of point groups, which stand where an encoder would: no parameters, nothing to fetch.

A stage is a radius, a share of the group's. What it says of a group does not change when the cloud is turned, mirrored
or scaled: shape of the covariance, bend of the surface, and histograms of angles between normals and offsets (as FPFH
has, without its sense of inside and outside).
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from musc_jax._arrays import safe_norm, safe_sqrt

# Centres of the triangular bins of sines; surfaces are nearly flat within a group, so they lie closer near 0.
_BINS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
# Radii of the rings in which the surface's bend is taken, in shares of the stage's radius.
_RINGS = (0.0, 0.35, 0.7, 1.05)
_ANCHORS = 12
# Of the group's radius: the neighbourhood that an anchor's normal is that of.
_NORMAL_RADIUS = 0.35
_SMALL = 1e-12
# Length of the cross product of rows, in shares of the trace squared, up to which they are parallel but for rounding.
_PARALLEL = 1e-6


@dataclasses.dataclass(frozen=True)
class DescriptorConfig:
    """Sizes of the descriptors.

    Attributes:
        radii: Of the stages, in shares of the group's radius, rising.
    """

    radii: tuple[float, ...] = (0.5, 0.75, 1.0)

    @property
    def depth(self) -> int:
        """Number of stages."""
        return len(self.radii)

    @property
    def width(self) -> int:
        """Channels of a token: a constant, shape of the covariance, bend at radii, histograms of three angles."""
        return 1 + 6 + 2 * (len(_RINGS) - 1) + 3 * len(_BINS)


class Shape(NamedTuple):
    """Eigenvalues of covariances, largest first, and the direction of the smallest."""

    values: Float[jax.Array, "*G 3"]
    normal: Float[jax.Array, "*G 3"]
    """A unit vector of either sign, without a gradient; 0 where there is none, as of a point or a line."""


def _perpendicular(rows: jax.Array) -> jax.Array:
    """What is perpendicular to three rows (..., 3, 3) of one plane, as a unit vector; 0 if they are on one line."""
    crossed = jnp.cross(rows, jnp.roll(rows, 1, axis=-2))
    longest = jnp.argmax((crossed**2).sum(-1), axis=-1)
    found = jnp.take_along_axis(crossed, longest[..., None, None], axis=-2)[..., 0, :]
    length = safe_norm(found, keepdims=True)
    return jnp.where(length > _PARALLEL, found / jnp.maximum(length, _PARALLEL), 0)


def eigen_shape(covariance: Float[jax.Array, "*G 3 3"]) -> Shape:
    """Eigenvalues of symmetric 3 x 3 matrices in closed form, and the direction of the smallest.

    The smallest one's direction is held fixed: it has no gradient, and eigenvalues have that of v^T C v and of the
    2 x 2 problem in the plane across it, which is theirs wherever they are single. Where the two largest are equal, as
    of a round flat patch, each has that of their mean; where there is no such direction the gradient is stopped.
    """
    fixed = jax.lax.stop_gradient(covariance)
    trace = jnp.maximum(jnp.trace(fixed, axis1=-2, axis2=-1), _SMALL)[..., None, None]
    scaled = fixed / trace
    eye = jnp.broadcast_to(jnp.eye(3, dtype=fixed.dtype), scaled.shape)
    mean = jnp.trace(scaled, axis1=-2, axis2=-1) / 3
    about = scaled - mean[..., None, None] * eye
    spread = safe_sqrt((about**2).sum((-2, -1)) / 6)
    first, second, third = (about[..., i, :] / jnp.maximum(spread, 1e-6)[..., None] for i in range(3))
    angle = jnp.arccos(jnp.clip((first * jnp.cross(second, third)).sum(-1) / 2, -1, 1)) / 3
    largest, smallest = (
        jnp.maximum(mean + 2 * spread * jnp.cos(angle + turn), 0) * trace[..., 0, 0] for turn in (0.0, 2 * np.pi / 3)
    )
    normal = _perpendicular(scaled - (smallest / trace[..., 0, 0])[..., None, None] * eye)
    found = (normal != 0).any(-1)
    # Two directions across it: the axis that it is farthest from, and the third one.
    axis = jax.nn.one_hot(jnp.argmin(jnp.abs(normal), axis=-1), 3, dtype=normal.dtype)
    across = jnp.cross(normal, axis)
    across = across / jnp.maximum(safe_norm(across, keepdims=True), _SMALL)
    along = jnp.cross(normal, across)

    def form(left: jax.Array, right: jax.Array) -> jax.Array:
        return (left[..., :, None] * right[..., None, :] * covariance).sum((-2, -1))

    # These are off by the square of what the direction is; the cosines are, where two are close, by half the digits.
    one, other, mixed = form(across, across), form(along, along), (form(across, along) + form(along, across)) / 2
    high = (one + other + safe_sqrt((one - other) ** 2 + 4 * mixed**2)) / 2
    high, low = jnp.where(found, high, largest), jnp.where(found, form(normal, normal), smallest)
    middle = jnp.trace(covariance, axis1=-2, axis2=-1) - high - low
    return Shape(jnp.stack([high, middle, low], axis=-1), normal)


def _moments(points: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weighted mean (..., 3) and covariance (..., 3, 3) of points (..., K, 3), by weights (..., K) of any sum."""
    share = weight / jnp.maximum(weight.sum(-1, keepdims=True), _SMALL)
    mean = (share[..., None] * points).sum(-2)
    about = points - mean[..., None, :]
    # Sums of six products, which XLA fuses, instead of a batch of thin matrix products.
    x, y, z = about[..., 0], about[..., 1], about[..., 2]
    xx, xy, xz, yy, yz, zz = ((share * p).sum(-1) for p in (x * x, x * y, x * z, y * y, y * z, z * z))
    rows = (jnp.stack(row, axis=-1) for row in ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz)))
    return mean, jnp.stack(list(rows), axis=-2)


def _histogram(sines: jax.Array, weight: jax.Array) -> jax.Array:
    """Shares (..., bins) of sines (..., K) in triangular bins, which sum to 1."""
    centers = np.asarray((-1.0, *_BINS, 2.0), np.float32)
    share = weight / jnp.maximum(weight.sum(-1, keepdims=True), _SMALL)
    bins = []
    for before, at, after in zip(centers[:-2], centers[1:-1], centers[2:], strict=True):
        rising = (sines - float(before)) / float(at - before)
        falling = (float(after) - sines) / float(after - at)
        if at == _BINS[0]:
            rising = jnp.ones_like(sines)
        if at == _BINS[-1]:
            falling = jnp.ones_like(sines)
        bins.append((share * jnp.clip(jnp.minimum(rising, falling), 0, 1)).sum(-1))
    return jnp.stack(bins, axis=-1)


class Descriptors(nn.Module):
    """Point groups to geometric descriptors; has no parameters.

    Attributes:
        config: The radii.
        implementation: As every encoder has it; there is one form.
    """

    config: DescriptorConfig
    implementation: str = "auto"

    @nn.compact
    def __call__(
        self,
        groups: Float[jax.Array | np.ndarray, "G K 3"],
        centers: Float[jax.Array | np.ndarray, "G 3"],
        *,
        blocks: Sequence[int],
        point_norm: str = "cloud",
    ) -> tuple:
        """Describes the groups of ONE cloud.

        Args:
            groups: Points relative to their group's centre; K >= 3.
            centers: The centres, which change nothing.
            blocks: Stages, rising.
            point_norm: Changes nothing.

        Returns:
            For each of `blocks` descriptors (G, width), float32; of about 1, apart from a constant first one.

        Raises:
            ValueError: Wrong shapes, stages that do not exist or do not rise.
        """
        if np.ndim(groups) != 3 or groups.shape[-1] != 3 or np.shape(centers) != (groups.shape[0], 3):
            raise ValueError(
                f"groups, centers: expected shapes (G, K, 3) and (G, 3), "
                f"received {np.shape(groups)} and {np.shape(centers)}"
            )
        blocks, depth = tuple(blocks), self.config.depth
        if list(blocks) != sorted(set(blocks)) or not blocks or blocks[0] < 0 or blocks[-1] >= depth:
            raise ValueError(f"blocks: expected rising numbers from 0 to {depth - 1}, received {blocks}")
        del centers, point_norm
        points = jnp.asarray(groups, jnp.float32)
        # All lengths in shares of the group's radius: density and distance of the sensor change nothing.
        points = points / jnp.maximum(safe_norm(points).max(-1), _SMALL)[:, None, None]
        anchors, normals = _anchors(points)
        return tuple(_describe(points, anchors, normals, self.config.radii[block]) for block in blocks)


def _anchors(points: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Some of each group's points (G, A, 3), spread over the order they are in, and the normals there."""
    count = points.shape[1]
    anchors = points[:, np.unique(np.linspace(0, count - 1, min(_ANCHORS, count)).astype(int))]
    offsets = points[:, None] - anchors[:, :, None]
    near = jnp.exp(-(offsets**2).sum(-1) / _NORMAL_RADIUS**2)
    return anchors, eigen_shape(_moments(offsets, near)[1]).normal


def _describe(points: jax.Array, anchors: jax.Array, normals: jax.Array, radius: float) -> jax.Array:
    """One stage (G, width)."""
    distance = safe_norm(points)
    weight = jnp.exp(-((distance / radius) ** 4))
    mean, covariance = _moments(points, weight)
    shape = eigen_shape(covariance)
    first, second, third = (shape.values[:, i] for i in range(3))
    total = jnp.maximum(shape.values.sum(-1), _SMALL)
    largest = jnp.maximum(first, _SMALL)
    normal = shape.normal[:, None]
    height = ((points - mean[:, None]) * normal).sum(-1)
    middle = (mean * normal[:, 0]).sum(-1)  # of the centre, which is 0, by its size
    covariance_features = [
        (first - second) / largest,
        (second - third) / largest,
        third / largest,
        3 * third / total,
        3 * safe_sqrt(third / total),
        4 * jnp.abs(middle) / radius,
    ]
    rings = []
    for inner, outer in itertools.pairwise(_RINGS):
        within = distance / radius
        ring = jax.nn.sigmoid((within - inner) * 30) * jax.nn.sigmoid((outer - within) * 30)
        share = ring / jnp.maximum(ring.sum(-1, keepdims=True), _SMALL)
        at = (share * height).sum(-1)
        rings += [4 * jnp.abs(at) / radius, 4 * safe_sqrt((share * (height - at[:, None]) ** 2).sum(-1)) / radius]
    far = safe_norm(anchors)
    at_anchors = jnp.exp(-((far / radius) ** 4))
    # The centre has no offset, so no angle.
    away = jnp.where(far > 1e-6, at_anchors, 0)
    direction = anchors / jnp.maximum(far, 1e-6)[..., None]
    angles = (
        # Not the root of 1 - cos^2, which has half the digits where normals are nearly parallel.
        (safe_norm(jnp.cross(normals, jnp.broadcast_to(normal, normals.shape))), at_anchors),
        (jnp.abs((direction * normal).sum(-1)), away),
        (jnp.abs((direction * normals).sum(-1)), away),
    )
    histograms = [_histogram(sines, of) for sines, of in angles]
    columns = jnp.stack([jnp.ones_like(first), *covariance_features, *rings], axis=-1)
    return jnp.concatenate([columns, *histograms], axis=-1)
