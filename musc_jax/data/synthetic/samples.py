"""One sample of the synthetic set, rendered: which candy, where, in which light, with which defect."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, UInt8, UInt16
from scipy.ndimage import distance_transform_edt

from musc_jax.data.cleaning.eyecandies import FOCAL_LENGTH
from musc_jax.data.synthetic.candies import (
    CANDIES,
    DEFECT_KINDS,
    Defect,
    apply_defect,
    defect_weight,
    make_candy,
    pick_tint,
)
from musc_jax.data.synthetic.scene import (
    CAMERA_DISTANCE,
    NATIVE_SIZE,
    Hit,
    Placement,
    Points,
    Rays,
    View,
    cast,
    shade,
    trace,
    world_scale,
)

VERSION = 1
"""Part of the cached set's name: raise it with any change that moves a byte."""

CATEGORIES = tuple(sorted(CANDIES))

_SUBTYPES = 3
_MASKED = 0.12  # a defect's mask is where its weight exceeds this
_DEPTH_NOISE = 1e-4  # metres
_PIXEL_NOISE = 1.0  # of 255


class Picture(NamedTuple):
    """A rendered sample: what the files of the layout are made of.

    Attributes:
        image: RGB.
        depth: 0 to 65535 over `depth_range`.
        depth_range: metres.
        pose: the rigid map from the world to the camera.
        mask: True on the defect.
        kind: of the defect; None for a good sample.
        subtype: which form of the category it is.
    """

    image: UInt8[np.ndarray, "size size 3"]
    depth: UInt16[np.ndarray, "size size"]
    depth_range: tuple[float, float]
    pose: Float64[np.ndarray, "4 4"]
    mask: Bool[np.ndarray, "size size"]
    kind: str | None
    subtype: int


def render(category: str, index: int, *, seed: int = 0, size: int = NATIVE_SIZE) -> Picture:
    """Render one sample; it depends on nothing but the arguments.

    Even indices are good, odd ones have a defect, its kind changing from one to the next, so that
    the first few samples of a category hold both.
    """
    place = CATEGORIES.index(category)
    rng = np.random.default_rng([seed, place, index])
    pair = index // 2
    subtype = pair % _SUBTYPES
    kind = DEFECT_KINDS[(pair + 2 * place) % len(DEFECT_KINDS)] if index % 2 else None
    solid = make_candy(category, subtype, rng)
    placement = Placement(rng.uniform(-0.06, 0.06), rng.uniform(-0.09, 0.09), rng.uniform(-0.7, 0.7))
    view = _view(rng)
    rays = cast(view, size)
    hit = trace(rays, solid, placement)
    mask = np.zeros(size * size, bool)
    if kind is not None:
        defect = _place_defect(kind, hit, size, rng)
        solid = apply_defect(solid, defect, rng)
        if kind in ("bumps", "dents"):
            hit = trace(rays, solid, placement)
        mask[hit.pixels] = defect_weight(defect, hit.local) > _MASKED
    color, depth = shade(rays, solid, placement, view, hit, _conveyor(rays, rng))
    scale = world_scale(size)
    metres = (depth + rng.normal(0, _DEPTH_NOISE, depth.shape)) * scale
    low, high = float(metres.min()), float(metres.max())
    coded = np.round((metres - low) / (high - low) * 65535).astype(np.uint16)
    bright = np.clip(color, 0, 1) ** (1 / 2.2) * 255 + rng.normal(0, _PIXEL_NOISE, color.shape)
    return Picture(
        np.clip(np.round(bright), 0, 255).astype(np.uint8).reshape(size, size, 3),
        coded.reshape(size, size),
        (low, high),
        rays.pose,
        mask.reshape(size, size),
        kind,
        subtype,
    )


def _view(rng: np.random.Generator) -> View:
    azimuth = np.radians(125 + rng.uniform(-8, 8))
    elevation = np.radians(52 + rng.uniform(-4, 4))
    light = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(elevation), np.sin(azimuth) * np.cos(elevation)])
    warmth = rng.uniform(-0.015, 0.015)
    key = rng.uniform(0.95, 1.05) * np.array([1 + warmth, 1, 1 - warmth]) * 0.95
    ambient = rng.uniform(0.95, 1.05) * np.array([0.4, 0.42, 0.45])
    tilt = np.radians(70 + rng.uniform(-1.5, 1.5))
    return View(tilt, np.radians(rng.uniform(-2, 2)), light, key, ambient)


def _conveyor(rays: Rays, rng: np.random.Generator) -> Points:
    """A plain dark belt with a fine weave."""
    reach = -rays.origin[1] / rays.direction[:, 1]
    x = rays.origin[0] + reach * rays.direction[:, 0]
    z = rays.origin[2] + reach * rays.direction[:, 2]
    weave = 1 + 0.05 * np.sin(x * 420) * np.sin(z * 420 + rng.uniform(0, 6))
    return (weave[:, None] * np.array([0.035, 0.038, 0.045])).astype(np.float32)


def _place_defect(kind: str, hit: Hit, size: int, rng: np.random.Generator) -> Defect:
    """Choose a spot that the camera sees whole and not too slantwise."""
    radius = rng.uniform(0.06, 0.085)
    shown = np.zeros(size * size, bool)
    shown[hit.pixels] = True
    inside = distance_transform_edt(shown.reshape(size, size)).ravel()[hit.pixels]
    margin = radius * FOCAL_LENGTH / CAMERA_DISTANCE * size / NATIVE_SIZE
    fit = np.flatnonzero((inside > 0.75 * margin) & (hit.facing > 0.6))
    chosen = fit[rng.integers(len(fit))] if len(fit) else np.argmax(inside)
    return Defect(kind, hit.local[chosen], radius, pick_tint(rng), rng.uniform(0, 2 * np.pi))
