"""From a raw Eyecandies scan to the object's points: back-projection, plane, cluster.

The steps and constants are those of MuSc-V2's released preparation of Eyecandies (Bonfiglioli et
al., "The Eyecandies Dataset", ACCV 2022), in float64. It differs on purpose in three places:

- The released rule takes the first label for noise and never keeps it. Without noise that drops the
  first cluster, and all points if there is no other. Here clusters are the labels >= 0.
- Without any cluster all points stay, and the caller is told.
- A depth of zero or less is no point; it would be the camera itself.
"""

import threading
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, UInt8, UInt16

VERSION = 1
"""Part of every cached result's key: raise it with any change that moves a number."""

FOCAL_LENGTH = 711.11
"""Of the dataset's camera, in pixels; its principal point is (width / 2, height / 2)."""

CLUSTER_RADIUS = 0.03
"""Metres."""

CLUSTER_MIN_POINTS = 30

PLANE_MARGIN = 0.01
"""As a share of the scene's extent along the world's Y axis."""

KEEP_PLANE_CATEGORIES = frozenset({"GummyBear", "LicoriceSandwich", "Marshmallow"})
"""Categories that the plane rule (`above_plane`) is not applied to."""

# dbscan starts threads of its own, and takes one call at a time.
CLUSTERING = threading.Lock()


class Cleaned(NamedTuple):
    """A cleaned scan.

    Attributes:
        points: (h, w, 3) metres; (0, 0, 0) = no point.
        clustered: False if no cluster was found, so that every point off the plane stayed.
    """

    points: Float32[np.ndarray, "h w 3"]
    clustered: bool


def clean_scan(
    depth: UInt16[np.ndarray, "h w"],
    depth_range: tuple[float, float],
    pose: Float64[np.ndarray, "4 4"],
    image: UInt8[np.ndarray, "h w 3"],
    *,
    keep_plane: bool = False,
) -> Cleaned:
    """Turn a depth picture into the point map of the object alone.

    Args:
        depth: 0 to 65535 over `depth_range`.
        depth_range: the depths in metres of the values 0 and 65535.
        pose: the rigid map from the world to the camera.
        image: the picture in which the object's cluster is the one that holds the brightest pixel.
        keep_plane: True for `KEEP_PLANE_CATEGORIES`.

    Returns:
        The object's points in world coordinates.
    """
    low, high = depth_range
    metres = depth / 65535 * (high - low) + low
    points = back_project(metres, pose)
    valid = metres > 0
    if not keep_plane:
        valid &= above_plane(points[..., 1], valid)
    points = np.where(valid[..., None], points, 0.0)
    valid = (points != 0).all(axis=-1)
    chosen = brightest_cluster(points[valid], image.max(axis=-1)[valid])
    clustered = chosen is not None
    if chosen is not None:
        valid[valid] = chosen
        points = np.where(valid[..., None], points, 0.0)
    return Cleaned(points.astype(np.float32), clustered)


def back_project(depth: Float[np.ndarray, "h w"], pose: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "h w 3"]:
    """Map every pixel into the world: inv(K @ pose) @ (u, v, 1, 1 / d) * d.

    u is the column and v the row of the pixel, without half a pixel added, and d its depth in
    metres along the optical axis. (The dataset's own later program uses pose @ inv(K) instead,
    which agrees only for the identity; the published results use this form.)
    """
    height, width = depth.shape
    camera = np.eye(4)
    camera[0, 0] = camera[1, 1] = FOCAL_LENGTH
    camera[0, 2], camera[1, 2] = width / 2, height / 2
    inverse = np.linalg.inv(camera @ pose)[:3]
    row, column = np.mgrid[:height, :width]
    # d is multiplied in, so that nothing is divided by a depth of zero.
    pixels = np.stack([column * depth, row * depth, depth, np.ones_like(depth)], axis=-1)
    return pixels @ inverse.T


def above_plane(vertical: Float64[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Keep what is not within `PLANE_MARGIN` of the largest vertical coordinate, where the plane is.

    The world's Y axis points down. A scene without extent keeps all its points.
    """
    heights = vertical[valid]
    if not heights.size or heights.max() == heights.min():
        return valid
    low, high = heights.min(), heights.max()
    return valid & ((vertical - low) / (high - low) < 1 - PLANE_MARGIN)


def brightest_cluster(
    points: Float64[np.ndarray, "n 3"], brightness: UInt8[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"] | None:
    """Mark the points of the cluster that reaches the highest brightness.

    Args:
        points: metres.
        brightness: of each point's pixel, its highest channel.

    Returns:
        True for the points of that cluster, the first one if several reach the same brightness
        (clusters count in the order of their first core point). None if there is no cluster.
    """
    labels, core = cluster(points)
    if not core.any():
        return None
    member = labels >= 0
    peak = np.zeros(labels.max() + 1, np.uint8)
    np.maximum.at(peak, labels[member], brightness[member])
    # How labels are numbered is up to the dbscan package; the order of first core points is up to the data alone.
    found, first = np.unique(labels[core], return_index=True)
    ordered = found[np.argsort(first)]
    return labels == ordered[np.argmax(peak[ordered])]


def cluster(
    points: Float64[np.ndarray, "n 3"],
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """DBSCAN with the constants above: each point's label (-1 is noise) and whether it is core."""
    from dbscan import DBSCAN  # with all of scikit-learn behind it, which takes a second

    with CLUSTERING:
        labels, core = DBSCAN(points, eps=CLUSTER_RADIUS, min_samples=CLUSTER_MIN_POINTS)
    return np.asarray(labels), np.asarray(core)
