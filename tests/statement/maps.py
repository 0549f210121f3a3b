"""Token scores to pixel maps."""

import math

import numpy as np

from statement.clouds import distances
from statement.margins import note_split


def cells(pixels, side):
    """(side * side, pixels of a patch): what lies in each patch."""
    p = len(pixels) // side
    return pixels.reshape(side, p, side, p).swapaxes(1, 2).reshape(side * side, p * p)


def image_map(scores, size, counts, inside):
    """Bilinear upsampling of the grid of patches, corners aligned; between patches that count, 0 outside."""
    side = round(len(scores) ** 0.5)
    at, out = np.linspace(0, side - 1, size), np.zeros((size, size))
    near = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(side)))
    for y, x in np.argwhere(inside):
        weights = np.outer(near[y], near[x]).reshape(-1)[counts]
        out[y, x] = weights @ scores[counts] / weights.sum()
    return out


def _box(lines, radius):
    """One box pass along each line: fractional ends, edges extended."""
    whole = int(radius)
    padded = np.pad(lines, ((0, 0), (whole + 1, whole + 1)), mode="edge")
    out = np.empty_like(lines)
    for i in range(lines.shape[1]):
        window = padded[:, i : i + 2 * whole + 3]
        ends = (radius - whole) * (window[:, 0] + window[:, -1])
        out[:, i] = (window[:, 1:-1].sum(1) + ends) / (2 * radius + 1)
    return out


def blur(image, sigma=4.0):
    """Gaussian blur as Pillow does it: three box passes an axis."""
    variance = sigma**2 / 3
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    for _ in range(2):
        for _ in range(3):
            image = _box(image, whole + part)
        image = image.T
    return image


def point_map(points, valid, centers, scores, size, counts, inside):
    """Each point takes the weighted mean of its 3 nearest centres; 0 where there is none; blurred.

    The blur is a mean over what is inside.
    """
    out = np.zeros(size * size)
    apart = distances(points, centers[counts])
    for pixel in np.flatnonzero(valid & inside.reshape(-1)):
        note_split("distances of points", apart[pixel], 3)
        near = np.argsort(apart[pixel], kind="stable")[:3]
        weights = 1 / (apart[pixel][near] ** 2 + 1e-8)
        out[pixel] = weights @ scores[counts][near] / weights.sum()
    blurred, share = blur(out.reshape(size, size)), blur(inside.astype(float))
    return np.divide(blurred, share, out=np.zeros_like(blurred), where=inside)
