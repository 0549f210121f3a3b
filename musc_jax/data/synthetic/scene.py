"""A small renderer: one solid on a conveyor, seen by a tilted camera, as colour, depth and mask.

Solids are signed distance functions over flat float32 arrays, found by marching every ray at once
(sphere tracing; Hart, "Sphere Tracing", The Visual Computer 1996). Coordinates are `(x, h, z)`: right,
up from the conveyor, away from the camera, in metres at a picture of 512 pixels. In the world that
is written to disk, Y points down, so y = -h, and the conveyor lies at the largest Y.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int

from musc_jax.data.cleaning.eyecandies import FOCAL_LENGTH

Flat = Float32[np.ndarray, " n"]
Points = Float32[np.ndarray, "n 3"]
Distance = Callable[[Points], Flat]

NATIVE_SIZE = 512
"""The size of picture for which the metres of a scene are metres of the world."""

CAMERA_DISTANCE = 1.4
"""From the camera to the middle of the scene, metres."""

_RAIL_X, _RAIL_HALF_WIDTH, _RAIL_HEIGHT = 0.46, 0.03, 0.05
_MARCH_STEPS, _MARCH_RELAXATION, _MARCH_END = 64, 0.8, 2e-4
_SHADOW_STEPS, _SHADOW_SHARPNESS = 12, 7.0


@dataclass(frozen=True)
class Solid:
    """What stands on the conveyor, in its own coordinates (centred, not yet turned).

    Attributes:
        distance: signed distance to the surface in metres, at least roughly.
        albedo: linear RGB of points on the surface, 0 to 1.
        reach: no part of it is farther from its vertical axis.
        height: no part of it is higher.
        gloss: strength of its highlights.
        translucency: how far light wraps around it, 0 to 1.
        normal_noise: added to the surface's normals for shading only; None for nothing.
    """

    distance: Distance
    albedo: Callable[[Points], Points]
    reach: float
    height: float
    gloss: float
    translucency: float
    normal_noise: Callable[[Points], Points] | None = None


class Placement(NamedTuple):
    """Where the solid stands (metres) and how it is turned about the vertical (radians)."""

    x: float
    z: float
    turn: float


class View(NamedTuple):
    """The camera and the light.

    Attributes:
        tilt: angle of the optical axis below the horizontal, radians.
        roll: about the optical axis, radians.
        light: unit vector towards the light in (x, h, z).
        key: linear RGB of the light.
        ambient: linear RGB of the light from all around.
    """

    tilt: float
    roll: float
    light: Float64[np.ndarray, "3"]
    key: Float64[np.ndarray, "3"]
    ambient: Float64[np.ndarray, "3"]


class Rays(NamedTuple):
    """A ray a pixel, row by row; `direction` has length 1 along the optical axis."""

    origin: Float32[np.ndarray, "3"]
    direction: Points
    pose: Float64[np.ndarray, "4 4"]


class Hit(NamedTuple):
    """Where the rays meet the solid.

    Attributes:
        pixels: flat indices of the pixels that show it.
        depth: along the optical axis.
        local: the points in the solid's own coordinates.
        normals: unit normals there, in the solid's own coordinates.
        facing: cosine between normal and ray back to the camera.
    """

    pixels: Int[np.ndarray, " n"]
    depth: Flat
    local: Points
    normals: Points
    facing: Flat


def world_scale(size: int) -> float:
    """How much smaller the world of a smaller picture is.

    The camera's focal length is fixed in pixels, so a smaller picture shows the same scene only if it
    is farther away or smaller. It is both, equally: at the same distance its parts would come too
    near to one another for the clustering of scans, at the same size its points too far apart.
    """
    return float(np.sqrt(size / NATIVE_SIZE))


def cast(view: View, size: int) -> Rays:
    """Make the rays of a camera that looks at the middle of the conveyor.

    The matrix is the rigid map from the world (Y down, metres of the picture's own scale) to the
    camera.
    """
    sin, cos = np.sin(view.tilt), np.cos(view.tilt)
    # Rows are the camera's axes in the world: right, down in the picture, forward.
    axes = np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    sin, cos = np.sin(view.roll), np.cos(view.roll)
    axes = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ axes
    target = np.array([0.0, -0.06, 0.0])
    center = target - axes[2] * CAMERA_DISTANCE * NATIVE_SIZE / size
    pose = np.eye(4)
    pose[:3, :3] = axes
    pose[:3, 3] = -axes @ center * world_scale(size)
    row, column = np.mgrid[:size, :size].astype(np.float64)
    pixels = np.stack([column - size / 2, row - size / 2, np.full_like(row, FOCAL_LENGTH)], -1)
    direction = (pixels / FOCAL_LENGTH).reshape(-1, 3) @ axes
    up = np.array([1.0, -1.0, 1.0])
    return Rays((center * up).astype(np.float32), (direction * up).astype(np.float32), pose)


def trace(rays: Rays, solid: Solid, placement: Placement) -> Hit:
    """March every ray that can meet the solid down to its surface."""
    origin = _to_local(rays.origin[None], placement)[0]
    direction = _turn(rays.direction, -placement.turn)
    fall = -direction[:, 1]
    begin = (origin[1] - solid.height) / fall
    end = origin[1] / fall
    # The horizontal distance to the axis is convex along a ray: its least value between the solid's
    # top and the conveyor tells whether the ray can meet it.
    flat, start = direction[:, [0, 2]], origin[[0, 2]]
    nearest = np.clip(-(flat @ start) / np.maximum((flat * flat).sum(-1), 1e-9), begin, end)
    miss = np.linalg.norm(start + nearest[:, None] * flat, axis=-1)
    pixels = np.flatnonzero(miss < solid.reach)

    depth = begin[pixels]
    active = np.arange(len(pixels))
    touching = np.zeros(len(pixels), bool)
    for _ in range(_MARCH_STEPS):
        gap = solid.distance(origin + depth[active, None] * direction[pixels[active]])
        touching[active] = gap < _MARCH_END
        depth[active] += _MARCH_RELAXATION * gap
        active = active[(gap >= _MARCH_END) & (depth[active] < end[pixels[active]])]
    touching &= depth < end[pixels]
    pixels, depth = pixels[touching], depth[touching]
    local = origin + depth[:, None] * direction[pixels]
    normals = normals_at(solid.distance, local)
    facing = -(normals * _unit(direction[pixels])).sum(-1)
    return Hit(pixels, depth, local, normals, facing)


def normals_at(distance: Distance, points: Points) -> Points:
    """Unit normals of a surface, by four differences of its distance."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
    step = np.float32(1.5e-3)
    total = sum(corner * distance(points + step * corner)[:, None] for corner in corners)
    return _unit(np.asarray(total))


def shade(rays: Rays, solid: Solid, placement: Placement, view: View, hit: Hit, ground: Points) -> tuple[Points, Flat]:
    """Give every pixel its linear colour and its depth along the optical axis.

    Args:
        rays: of all the pixels.
        solid: what stands on the conveyor.
        placement: where.
        view: the light.
        hit: where the rays meet it.
        ground: colour of the conveyor under each pixel's ray.
    """
    depth, normals, albedo = _surroundings(rays, ground)
    points = _to_local(rays.origin + depth[:, None] * rays.direction, placement)
    normals = _turn(normals, -placement.turn)
    depth[hit.pixels], points[hit.pixels] = hit.depth, hit.local
    normals[hit.pixels], albedo[hit.pixels] = hit.normals, solid.albedo(hit.local)
    if solid.normal_noise is not None:
        noisy = hit.normals + solid.normal_noise(hit.local)
        normals[hit.pixels] = _unit(noisy)
    wrap, gloss = np.zeros_like(depth), np.full_like(depth, 0.02)
    wrap[hit.pixels], gloss[hit.pixels] = solid.translucency, solid.gloss

    light = _turn(view.light.astype(np.float32)[None], -placement.turn)[0]
    near = np.linalg.norm(points[:, [0, 2]], axis=-1) < solid.reach + 0.5
    lit, open_sky = np.ones_like(depth), np.ones_like(depth)
    lit[near] = _visible(solid, points[near] + 4e-3 * normals[near], light)
    probe = 0.09
    open_sky[near] = np.clip(solid.distance(points[near] + probe * normals[near]) / probe, 0.0, 1.0)

    facing = normals @ light
    diffuse = np.clip((facing + wrap) / (1 + wrap), 0.0, 1.0) * lit
    eye = _unit(_turn(-rays.direction, -placement.turn))
    half = _unit(light + eye)
    shine = gloss * np.clip((normals * half).sum(-1), 0.0, 1.0) ** 48 * lit
    sky = (0.45 + 0.55 * open_sky) * (0.7 + 0.3 * normals[:, 1])
    color = albedo * (diffuse[:, None] * view.key + sky[:, None] * view.ambient)
    return (color + shine[:, None] * view.key).astype(np.float32), depth


def _surroundings(rays: Rays, ground: Points) -> tuple[Flat, Points, Points]:
    """Depth, normal and albedo of the conveyor and the two rails that guide it."""
    origin, direction = rays.origin, rays.direction
    depth = -origin[1] / direction[:, 1]
    normals = np.tile(np.array([0, 1, 0], np.float32), (len(depth), 1))
    albedo = ground.copy()
    for side in (-1, 1):
        low = np.array([side * _RAIL_X - _RAIL_HALF_WIDTH, 0], np.float32)
        high = np.array([side * _RAIL_X + _RAIL_HALF_WIDTH, _RAIL_HEIGHT], np.float32)
        across = direction[:, :2].copy()
        across[across == 0] = 1e-9
        first, second = (low - origin[:2]) / across, (high - origin[:2]) / across
        enter, leave = np.minimum(first, second), np.maximum(first, second)
        meets = (enter.max(-1) < leave.min(-1)) & (enter.max(-1) < depth)
        from_top = enter[:, 1] >= enter[:, 0]
        depth[meets] = enter.max(-1)[meets]
        flank = np.array([-side, 0, 0], np.float32)
        normals[meets & ~from_top] = flank
        albedo[meets] = np.array([0.07, 0.075, 0.085], np.float32)
    return depth, normals, albedo


def _visible(solid: Solid, points: Points, light: Float32[np.ndarray, "3"]) -> Flat:
    """How much of a soft light reaches each point past the solid, 0 to 1."""
    reached = np.ones(len(points), np.float32)
    travelled = np.full(len(points), 0.012, np.float32)
    active = np.arange(len(points))
    for _ in range(_SHADOW_STEPS):
        at = points[active] + travelled[active, None] * light
        gap = solid.distance(at)
        share = np.clip(0.5 + 0.5 * _SHADOW_SHARPNESS * gap / travelled[active], 0.0, 1.0)
        reached[active] = np.minimum(reached[active], share)
        travelled[active] += np.clip(gap, 0.015, 0.12)
        active = active[(share > 0) & (at[:, 1] < solid.height)]
    return reached * reached * (3 - 2 * reached)


def _to_local(points: Points, placement: Placement) -> Points:
    shift = np.array([placement.x, 0, placement.z], np.float32)
    return _turn(points - shift, -placement.turn)


def _turn(points: Points, angle: float) -> Points:
    """Turn about the vertical axis."""
    sin, cos = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    x, z = points[:, 0], points[:, 2]
    return np.stack([cos * x + sin * z, points[:, 1], cos * z - sin * x], axis=-1)


def _unit(vectors: Points) -> Points:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(length, 1e-9)).astype(np.float32)
