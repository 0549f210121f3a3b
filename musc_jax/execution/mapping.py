"""Patch scores to anomaly maps of all samples (paper III-D), a few on the device at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from musc_jax._arrays import Array
from musc_jax.execution.devices import gather_rows, over_samples
from musc_jax.execution.extraction import Features, Progress
from musc_jax.execution.inside import Inside
from musc_jax.execution.programs import InFlight, Programs, copy_to_host_async
from musc_jax.execution.scoring import PatchScores
from musc_jax.maps import gaussian_blur, interpolate_points, point_map, upsample_grid
from musc_jax.resolved import Resolved

# Clouds lie in the unit sphere: a centre out here is nobody's neighbour, and its weight beside any other rounds to 0.
_FAR = 1e6


def _image_map(scores: jax.Array, *, size: int) -> jax.Array:
    side = round(scores.shape[0] ** 0.5)
    return upsample_grid(scores.reshape(side, side), size)


def _point_map(
    points: jax.Array, valid: jax.Array, centers: jax.Array, values: jax.Array, *, size: int, implementation: str
) -> jax.Array:
    pixels = jnp.arange(size * size)
    return point_map(points, pixels, centers, values, size=size, valid=valid, implementation=implementation)


def image_map_inside(
    scores: Float[Array, "M2"], patches: Bool[Array, "M2"], pixels: Bool[Array, "S S"], *, size: int
) -> Float[jax.Array, "S S"]:
    """A map of patch scores, 0 outside of a region of interest.

    Pixels inside are interpolated between patches that count; a pixel's own patch does, so there always is one.

    Args:
        scores: Patch scores.
        patches: Those that count.
        pixels: Those inside.
        size: S.
    """
    scores, counts = jnp.asarray(scores), jnp.asarray(patches).astype(scores.dtype)
    whole, share = (_image_map(x, size=size) for x in (scores * counts, counts))
    return jnp.where(pixels, whole / jnp.where(share > 0, share, 1), 0)


def _point_map_inside(
    points: jax.Array,
    valid: jax.Array,
    centers: jax.Array,
    values: jax.Array,
    groups: jax.Array,
    pixels: jax.Array,
    *,
    size: int,
    implementation: str,
) -> jax.Array:
    """Points inside are interpolated between groups that count; the blur is a mean over pixels inside."""
    among = jnp.where(groups[:, None], centers, _FAR)
    valid = valid & pixels.reshape(-1)
    at_points = interpolate_points(points, among, values, valid=valid, implementation=implementation)
    whole, share = (gaussian_blur(x) for x in (at_points.reshape(size, size), pixels.astype(at_points.dtype)))
    return jnp.where(pixels, whole / jnp.where(pixels, share, 1), 0)


def _of(inside: Inside | None, tokens: np.ndarray | None, part: np.ndarray) -> tuple[np.ndarray, ...]:
    """(tokens, pixels) that count of some samples; nothing where all do."""
    return () if inside is None or tokens is None else (tokens[part], inside.pixels[part])


def make_maps(
    features: Features,
    scores: PatchScores,
    config: Resolved,
    programs: Programs,
    *,
    inside: Inside | None = None,
    progress: Progress | None = None,
) -> Float[np.ndarray, "N S S"]:
    """Anomaly maps; with both modalities the sum of theirs.

    With `inside` they are 0 outside, also after interpolation and blur, and neither lessens what is inside: both run
    over what counts alone.
    """
    size = config.size
    spread, clouds = features.spread, features.points
    # With several processes each makes the maps of the samples whose clouds it has.
    rows = np.arange(features.num_samples)
    if spread is not None:
        rows = np.flatnonzero(np.isin(spread.members, spread.own))
    at_once = config.device.clouds_at_once
    own = np.zeros((len(rows), size, size), np.float32)

    def settle(job: tuple[int, list[jax.Array]]) -> None:
        start, maps = job
        for some in maps:
            own[start : start + at_once] += np.asarray(some)[: len(rows) - start]
        if progress:
            progress("maps", min(start + at_once, len(rows)), len(rows))

    in_flight = InFlight(settle)
    for start in range(0, len(rows), at_once):
        # The last ones are filled up by repeating, so that one program makes all.
        part = rows[np.minimum(np.arange(start, start + at_once), len(rows) - 1)]
        found = []
        if scores.image is not None:
            more = _of(inside, None if inside is None else inside.patches, part)
            image_map = over_samples(image_map_inside if more else _image_map)
            found.append(programs.run("maps", image_map, scores.image[part], *more, size=size))
        if scores.points is not None and clouds is not None:
            place = part if spread is None else spread.members[part] - spread.own.start
            # Clouds may lie on the disk, where one after the other is read.
            own_clouds = (np.stack([array[int(i)] for i in place]) for array in (clouds.points, clouds.valid))
            more = _of(inside, None if inside is None else inside.groups, part)
            of_points = over_samples(_point_map_inside if more else _point_map)
            arrays = *own_clouds, clouds.centers[part], scores.points[part], *more
            how = config.implementation
            found.append(programs.run("maps", of_points, *arrays, size=size, implementation=how))
        copy_to_host_async(found)
        in_flight.add((start, found))
    in_flight.drain()
    if spread is None:
        return own
    maps = np.zeros((features.num_samples, size, size), np.float32)
    maps[gather_rows(rows)] = gather_rows(own)
    return maps
