"""From a raw MVTec 3D-AD scan to the object's points: the plane it lies on, the square, the cluster.

The steps and constants are those of the published preparation of MVTec 3D-AD (the same in every program that has one),
with Open3D's RANSAC seeded, so that two runs agree. It differs on purpose in three places:

- The published rule counts noise as a cluster and keeps it if it is the most frequent label. Here the largest cluster
  is kept, and without any cluster all points stay, and the caller is told.
- The published programs overwrite the dataset and remove "a plane" from what is left when they are run again. Here
  nothing is overwritten, and a scan with hardly a point along its border is taken for cleaned already and used as it
  is.
- Points of equal label count in the order of their pixels, not of a hash.
"""

import threading
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from musc_jax.data.cleaning.eyecandies import CLUSTERING
from musc_jax.data.formats.files import brief
from musc_jax.data.sample import DataError

VERSION = 2
"""Part of every cached result's key: raise it with any change that moves a number."""

BORDER = 10
"""Rows and columns at each edge of the scan in which the plane is looked for."""

CLEANED_SHARE = 0.05
"""Of a raw scan's border nearly all is measured, of a cleaned one's at most where the object reaches the edge: below
this share it is the latter."""

FIT_DISTANCE, FIT_POINTS, FIT_ITERATIONS = 0.004, 50, 1000
"""Of RANSAC: inliers within metres, points of a trial, trials."""

PLANE_DISTANCE = 0.005
"""Points this near to the plane, in metres, are removed."""

CLUSTER_RADIUS, CLUSTER_MIN_POINTS = 0.006, 30
"""Metres; points within that radius, itself included, from which a point is a core point."""

SQUARE_STEP = 100
"""The square's side is the larger side, rounded up to a multiple of this many pixels."""

_INSTALL = (
    "cleaning raw MVTec 3D-AD scans needs Open3D: pip install 'musc-jax[open3d]', and on Debian or Ubuntu "
    "apt-get install libusb-1.0-0 libegl1 libgl1 libx11-6 libidn2-0 libgomp1"
)
# Open3D's generator is one for the whole process.
_FITTING = threading.Lock()


class CleanedScan(NamedTuple):
    """What is left of a scan, pixel by pixel, at its own size.

    Attributes:
        points: True where the point stays.
        colors: True where the picture stays; what was never measured keeps its colour.
        clustered: False if no cluster was found, so that every point off the plane stayed.
    """

    points: Bool[np.ndarray, "h w"]
    colors: Bool[np.ndarray, "h w"]
    clustered: bool


def clean_scan(points: Float[np.ndarray, "h w 3"], *, seed: int = 0) -> CleanedScan:
    """Find the object in a scan.

    Args:
        points: metres in the camera's frame; (0, 0, 0) = no point.
        seed: of RANSAC.

    Raises:
        DataError: Open3D is missing; says how to get it.
    """
    metres = points.astype(np.float64)
    valid = (metres != 0).all(axis=-1)
    border = border_points(metres)
    if is_cleaned(border, valid.shape):
        return CleanedScan(valid, np.ones_like(valid), True)
    normal, offset = fit_plane(border, seed=seed)
    # Zero points are as far from the plane as the camera, so they are not among these.
    on_plane = np.abs(metres @ normal + offset) < PLANE_DISTANCE
    kept = valid & ~on_plane
    member = largest_cluster(metres[kept])
    dropped = np.zeros_like(kept)
    if member is not None:
        dropped[kept] = ~member
    return CleanedScan(kept & ~dropped, ~on_plane & ~dropped, member is not None)


def border_points(points: Float64[np.ndarray, "h w 3"]) -> Float64[np.ndarray, "n 3"]:
    """The measured points in the rows and columns along the edges; those in corners come twice."""
    b = BORDER
    parts = (points[:b], points[-b:], points[:, :b], points[:, -b:])
    flat = np.concatenate([part.reshape(-1, 3) for part in parts])
    return flat[(flat != 0).all(axis=-1)]


def is_cleaned(border: Float64[np.ndarray, "n 3"], size: tuple[int, ...]) -> bool:
    """Whether a scan of this (height, width) was cleaned by another program: hardly a point is left along its border.

    A count as small as what RANSAC needs would not do: of an object that reaches the edge, "a plane" would be removed.
    """
    height, width = size
    pixels = 2 * width * min(BORDER, height) + 2 * height * min(BORDER, width)
    return len(border) < max(FIT_POINTS, CLEANED_SHARE * pixels)


def fit_plane(points: Float64[np.ndarray, "n 3"], *, seed: int) -> tuple[Float64[np.ndarray, "3"], float]:
    """The plane that most points lie on, by RANSAC: its normal and offset, normal . p + offset = 0."""
    open3d = _open3d()
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    with _FITTING:
        open3d.utility.random.seed(seed)
        model, _ = cloud.segment_plane(
            distance_threshold=FIT_DISTANCE, ransac_n=FIT_POINTS, num_iterations=FIT_ITERATIONS
        )
    model = np.asarray(model, np.float64)
    return model[:3], float(model[3])


def largest_cluster(points: Float64[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"] | None:
    """Mark the points of DBSCAN's largest cluster, of the first one if several are as large; None without any."""
    if not len(points):
        return None
    from dbscan import DBSCAN  # takes a second, see `eyecandies.cluster`

    with CLUSTERING:
        labels, _ = DBSCAN(points, eps=CLUSTER_RADIUS, min_samples=CLUSTER_MIN_POINTS)
    labels = np.asarray(labels)
    found, first, counts = np.unique(labels[labels >= 0], return_index=True, return_counts=True)
    if not len(found):
        return None
    largest = np.lexsort((first, -counts))[0]
    return labels == found[largest]


def square_side(height: int, width: int) -> int:
    """Side of the square that a scan is padded to, in pixels."""
    return -(-max(height, width) // SQUARE_STEP) * SQUARE_STEP


def pad_to_square(pixels: np.ndarray, side: int) -> np.ndarray:
    """Pad a picture or a map with zeros, centrally; top and left get the smaller half."""
    top, left = ((side - length) // 2 for length in pixels.shape[:2])
    out = np.zeros((side, side, *pixels.shape[2:]), pixels.dtype)
    out[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return out


def _open3d() -> Any:
    try:
        import open3d
    except (ImportError, OSError) as error:  # the latter where a system library is missing
        raise DataError(f"{_INSTALL} ({brief(error)})") from None
    return open3d
