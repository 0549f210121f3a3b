"""Neighbourhood aggregation: SNAMD of images and of points (eq. 5-6), and LNAMD of version 1."""

import numpy as np

from statement.clouds import distances
from statement.margins import note_split


def _unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def _pool(token, neighbors, *, variant, weighting):
    """Mean of the neighbours, each weighted by exp(-distance to the token)."""
    weights = np.exp(-np.sqrt(((neighbors - token) ** 2).sum(-1))) if weighting else np.ones(len(neighbors))
    return weights @ neighbors / (weights.sum() if variant == "released" else len(neighbors))


def _windows(tokens, degree):
    """For each cell of the grid its degree x degree neighbours, zeros beyond the border."""
    side = round(len(tokens) ** 0.5)
    padded = np.pad(tokens.reshape(side, side, -1), ((degree // 2,) * 2, (degree // 2,) * 2, (0, 0)))
    for row in range(side):
        for column in range(side):
            yield padded[row : row + degree, column : column + degree].reshape(degree**2, -1)


def snamd_grid(tokens, *, degrees, variant, weighting):
    """Of the square grid of an image; unit vectors."""
    pooled = [
        [
            _pool(t, window, variant=variant, weighting=weighting)
            for t, window in zip(tokens, _windows(tokens, r), strict=True)
        ]
        for r in degrees
    ]
    return _unit(np.mean(pooled, axis=0))


def snamd_points(tokens, centers, curvature, *, degrees, curvature_threshold, variant, weighting):
    """Of point groups: those of low curvature take up the groups with the nearest centres."""
    tokens = _unit(tokens)
    apart = distances(centers, centers)
    out = []
    for m, token in enumerate(tokens):
        if curvature[m] >= curvature_threshold:
            out.append(token)
            continue
        near = np.argsort(apart[m], kind="stable")
        pooled = []
        for r in degrees:
            note_split("distances of points", apart[m], r)
            pooled.append(_pool(token, tokens[near[:r]], variant=variant, weighting=weighting))
        if variant == "released":
            out.append(np.concatenate(pooled).reshape(len(token), len(degrees)).mean(1))
        else:
            out.append(np.mean(pooled, axis=0))
    return np.stack(out)


def lnamd_grid(tokens, *, degree):
    """Version 1: layer norm over channels and places together, plain mean, unit vectors."""
    normal = (tokens - tokens.mean()) / np.sqrt(tokens.var() + 1e-5)
    return _unit(np.stack([window.sum(0) / degree**2 for window in _windows(normal, degree)]))
