"""The candies of the synthetic set: two categories of three sub-types each, and their defects."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from scipy.ndimage import gaussian_filter, map_coordinates

from musc_jax.data.synthetic.scene import Flat, Points, Solid

DEFECT_KINDS = ("bumps", "dents", "colors", "normals")
"""As in Eyecandies, whose masks bear these names."""

_LATTICE = 32


class Defect(NamedTuple):
    """A defect on a solid.

    Attributes:
        kind: one of `DEFECT_KINDS`.
        center: on the surface, in the solid's coordinates.
        radius: metres.
        tint: linear RGB of a colour defect, with mean 1.
        phase: decides the outline.
    """

    kind: str
    center: Float32[np.ndarray, "3"]
    radius: float
    tint: Float32[np.ndarray, "3"]
    phase: float


class Noise:
    """Smooth noise in space with standard deviation 1, periodic."""

    def __init__(self, rng: np.random.Generator, *, smoothness: float = 0.6):
        lattice = rng.standard_normal((_LATTICE, _LATTICE, _LATTICE))
        lattice = gaussian_filter(lattice, smoothness, mode="wrap")
        self._lattice = (lattice / lattice.std()).astype(np.float32)

    def __call__(self, points: Points, grain: float) -> Flat:
        """Evaluate with a feature size of about `grain` metres."""
        where = (points / np.float32(grain)).T
        return map_coordinates(self._lattice, where, order=1, mode="grid-wrap", output=np.float32)


def _praline(kind: int, noise: Noise, color: Float32[np.ndarray, "3"]) -> Solid:
    """Chocolate with a rippled coat: a dome, a cushion or a six-lobed dome."""

    def distance(points: Points) -> Flat:
        x, h, z = points.T
        ripples = 0.0007 * np.sin(x * 190 + 2.2 * np.sin(z * 21)) * np.clip(h / 0.06, 0, 1)
        if kind == 1:
            return _box(points, half=(0.23, 0.12, 0.2), rounding=0.105) - ripples
        lobes = 1 + 0.035 * np.cos(6 * np.arctan2(z, x)) if kind == 2 else 1.0
        height = 0.17 if kind == 2 else 0.2
        return _ellipsoid(points, radii=(0.27, height, 0.27), base=0.045, lobes=lobes) - ripples

    def albedo(points: Points) -> Points:
        return color * (1 + 0.05 * noise(points, 0.02) + 0.03 * noise(points, 0.008))[:, None]

    return Solid(distance, albedo, reach=0.34, height=0.27, gloss=0.06, translucency=0.1)


def _jelly(kind: int, noise: Noise, color: Float32[np.ndarray, "3"]) -> Solid:
    """Sugared fruit jelly: a ring, a bar or a five-lobed flower."""

    def distance(points: Points) -> Flat:
        x, h, z = points.T
        if kind == 0:
            return np.hypot(np.hypot(x, z) - 0.17, (h - 0.085) * 1.05) - np.float32(0.095)
        if kind == 1:
            along = np.maximum(np.abs(x) - 0.17, 0)
            return np.hypot(np.hypot(along, z), (h - 0.09) * 1.3) * 0.9 - np.float32(0.12)
        lobes = 1 + 0.08 * np.cos(5 * np.arctan2(z, x))
        return _ellipsoid(points, radii=(0.26, 0.15, 0.26), base=0.04, lobes=lobes)

    def albedo(points: Points) -> Points:
        sugar = 0.025 * np.clip(noise(points, 0.007), 0, None)
        return color * (1 + 0.04 * noise(points, 0.02))[:, None] + sugar[:, None]

    return Solid(distance, albedo, reach=0.34, height=0.24, gloss=0.15, translucency=0.35)


_PRALINE_COLORS = ((0.14, 0.063, 0.034), (0.18, 0.085, 0.043), (0.23, 0.116, 0.06))
_JELLY_COLORS = ((0.4, 0.04, 0.06), (0.44, 0.09, 0.04), (0.4, 0.06, 0.11))
# Hues that none of the candies has.
_TINTS = ((0.04, 0.2, 0.7), (0.03, 0.5, 0.5), (0.42, 0.06, 0.55))

CANDIES: dict[str, tuple[Callable[..., Solid], tuple[tuple[float, float, float], ...]]] = {
    "FruitJelly": (_jelly, _JELLY_COLORS),
    "Praline": (_praline, _PRALINE_COLORS),
}
"""A category's name to the maker of its solids and the colours of its sub-types."""


def make_candy(category: str, subtype: int, rng: np.random.Generator) -> Solid:
    """Make one piece of a sub-type: size, colour and grain differ a little from piece to piece."""
    maker, colors = CANDIES[category]
    color = np.array(colors[subtype]) * rng.uniform(0.95, 1.05) * rng.uniform(0.98, 1.02, 3)
    solid = maker(subtype, Noise(rng), color.astype(np.float32))
    grow = np.float32(rng.uniform(0.95, 1.05))
    inner = solid.distance
    return replace(
        solid,
        distance=lambda points: inner(points / grow) * grow,
        reach=solid.reach * float(grow),
        height=solid.height * float(grow),
    )


def pick_tint(rng: np.random.Generator) -> Float32[np.ndarray, "3"]:
    """Draw the colour of a colour defect: linear RGB with mean 1."""
    tint = np.array(_TINTS[rng.integers(len(_TINTS))], np.float32)
    return tint / tint.mean()


def apply_defect(solid: Solid, defect: Defect, rng: np.random.Generator) -> Solid:
    """Give a solid a defect.

    Bumps and dents change the surface, and with it the shading. Colours change the picture alone.
    Normals change the shading, like a roughened coat, and hardly the surface.
    """
    height = np.float32(0.38 * defect.radius)
    if defect.kind in ("bumps", "dents"):
        sign = np.float32(1 if defect.kind == "bumps" else -1)
        inner = solid.distance
        return replace(
            solid,
            distance=lambda points: inner(points) - sign * height * defect_weight(defect, points),
            height=solid.height + float(height),
            reach=solid.reach + float(height),
        )
    if defect.kind == "colors":
        plain = solid.albedo

        def stained(points: Points) -> Points:
            share = np.clip(3 * defect_weight(defect, points), 0, 1)[:, None]
            color = plain(points)
            # Rather darker than what it covers: a hue to be found, not a lamp.
            stain = 0.75 * color.mean(axis=-1, keepdims=True) * defect.tint
            return color * (1 - share) + stain * share

        return replace(solid, albedo=stained)
    rough = [Noise(rng) for _ in range(3)]

    def normal_noise(points: Points) -> Points:
        share = np.clip(3 * defect_weight(defect, points), 0, 1)[:, None]
        bumpy = np.stack([noise(points, 0.012) for noise in rough], axis=-1)
        return (1.1 * share * bumpy).astype(np.float32)

    return replace(solid, normal_noise=normal_noise)


def defect_weight(defect: Defect, points: Points) -> Flat:
    """How strongly the defect shows at each point: 1 in its middle, smoothly 0 at its radius."""
    offset = (points - defect.center) / np.float32(defect.radius)
    distance = np.linalg.norm(offset, axis=-1)
    # A blot is not a disc.
    outline = np.sin(3 * offset @ np.array([1.0, 0.7, -0.8], np.float32) + np.float32(defect.phase))
    squared = (distance * (1 + np.float32(0.12) * outline)) ** 2
    return np.where(squared < 1, (1 - squared) ** 2, np.float32(0)).astype(np.float32)


def _ellipsoid(
    points: Points,
    *,
    radii: tuple[float, float, float],
    base: float,
    lobes: Float32[np.ndarray, " n"] | float,
) -> Flat:
    """Distance to an ellipsoid whose middle is at height `base`, its outline scaled by `lobes`."""
    squeezed = points - np.array([0, base, 0], np.float32)
    squeezed[:, [0, 2]] /= np.reshape(lobes, (-1, 1))
    scaled = squeezed / np.array(radii, np.float32)
    length = np.linalg.norm(scaled, axis=-1)
    slope = np.linalg.norm(scaled / np.array(radii, np.float32), axis=-1)
    return (length * (length - 1) / np.maximum(slope, 1e-6)).astype(np.float32)


def _box(points: Points, *, half: tuple[float, float, float], rounding: float) -> Flat:
    """Distance to a rounded box that stands on the conveyor."""
    middle = np.array([0, half[1] - rounding / 2, 0], np.float32)
    outside = np.abs(points - middle) - (np.array(half, np.float32) - np.float32(rounding))
    inside = np.minimum(outside.max(axis=-1), 0)
    return np.linalg.norm(np.maximum(outside, 0), axis=-1) + inside - np.float32(rounding)
