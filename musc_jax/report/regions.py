"""Hot regions of an anomaly map in pixels of the original picture: boxes, areas, peaks.

Maps have the working size, in which pictures are squashed, padded or cropped to a square (`--fit`); here they are put
back onto the picture as it is shown. SciPy labels the regions. None of this is in the paper.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from scipy import ndimage

from musc_jax.data.formats.resizing import FITS

# Also over corners: what touches is one defect.
_TOUCHING = np.ones((3, 3), int)


class Region(NamedTuple):
    """Pixels above a threshold that touch each other.

    Attributes:
        box: (left, top, right, bottom) in pixels; right and bottom are the first ones outside.
        area: how many pixels.
        peak: the highest value.
        mean: of the values.
        centroid: (x, y), the mean position of its pixels; (0, 0) is the middle of the upper left one.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float
    mean: float
    centroid: tuple[float, float]


def enlarge_map(
    anomaly_map: Float[np.ndarray, "size size"], *, full_size: tuple[int, int], fit: str = "squash"
) -> Float[np.ndarray, "height width"]:
    """Put a map onto its picture, by Pillow's bilinear filter.

    Args:
        anomaly_map: at the working size.
        full_size: (height, width) of the picture as it is shown.
        fit: how the picture was made square, one of `musc_jax.data.formats.resizing.FITS`.

    Returns:
        Values between those of the map. Cropped away parts, of which nothing is known, have its lowest value.

    Raises:
        ValueError: no such `fit`, or a size without pixels.
    """
    height, width = full_size
    if fit not in FITS:
        raise ValueError(f"fit: expected one of {', '.join(FITS)}, received {fit!r}")
    if height < 1 or width < 1:
        raise ValueError(f"full_size: expected at least 1 x 1, received {full_size}")
    picture = Image.fromarray(np.asarray(anomaly_map, np.float32))
    if fit == "squash" or height == width:
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    if fit == "pad":
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        # By `box` without a square of the longer side, which of a panorama would be many times as large.
        scale = picture.width / side
        part = (left * scale, top * scale, (left + width) * scale, (top + height) * scale)
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=part))
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    whole = np.full((height, width), np.float32(np.min(anomaly_map)))
    whole[top : top + side, left : left + side] = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    return whole


def enlarge_inside(
    anomaly_map: Float[np.ndarray, "size size"],
    roi: Bool[np.ndarray, "size size"] | None,
    *,
    full_size: tuple[int, int],
    fit: str = "squash",
) -> tuple[Float[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
    """Put a map and its region of interest onto the picture.

    Args:
        anomaly_map: at the working size.
        roi: True where it means something; None: everywhere.
        full_size: see `enlarge_map`.
        fit: likewise.

    Returns:
        (map, inside): the map is 0 outside, and its values at the edge are not lessened by that. Cropped away parts are
        outside where there is a region of interest.
    """
    if roi is None or roi.all():
        return enlarge_map(anomaly_map, full_size=full_size, fit=fit), np.ones(full_size, bool)
    inside = enlarge_map(roi.astype(np.float32), full_size=full_size, fit=fit) > 0.5
    # What is outside takes the value of the nearest pixel inside while the filter mixes them.
    rows, columns = ndimage.distance_transform_edt(~roi, return_distances=False, return_indices=True)
    whole = enlarge_map(anomaly_map[rows, columns], full_size=full_size, fit=fit)
    return np.where(inside, whole, np.float32(0)), inside


def find_regions(
    anomaly_map: Float[np.ndarray, "height width"],
    threshold: float,
    *,
    least_area: int = 1,
    inside: Bool[np.ndarray, "height width"] | None = None,
) -> list[Region]:
    """The regions of a map above a threshold, the one with the highest peak first.

    Args:
        anomaly_map: at any size.
        threshold: pixels above it are hot.
        least_area: leave out regions of fewer pixels.
        inside: pixels that can be hot; default all.
    """
    hot = anomaly_map > threshold
    if inside is not None:
        hot &= inside
    if not hot.any():
        return []
    # Only where something is hot: labels of millions of pixels take a while.
    (top, bottom), (left, right) = _extent(hot, axis=1), _extent(hot, axis=0)
    labels, count = ndimage.label(hot[top:bottom, left:right], structure=_TOUCHING)
    above, before = top, left
    anomaly_map = anomaly_map[top:bottom, left:right]
    regions = []
    for number, place in enumerate(ndimage.find_objects(labels, count), start=1):
        own: Bool[np.ndarray, "h w"] = labels[place] == number
        values, (rows, columns) = anomaly_map[place][own].astype(np.float64), np.nonzero(own)
        top, left = above + place[0].start, before + place[1].start
        if len(values) >= least_area:
            box = (left, top, before + place[1].stop, above + place[0].stop)
            centroid = (left + float(columns.mean()), top + float(rows.mean()))
            regions.append(Region(box, len(values), float(values.max()), float(values.mean()), centroid))
    return sorted(regions, key=lambda region: (-region.peak, region.box))


def _extent(hot: Bool[np.ndarray, "height width"], *, axis: int) -> tuple[int, int]:
    """The first row (or, along axis 0, column) where something is hot, and the one after the last."""
    places = np.flatnonzero(hot.any(axis=axis))
    return int(places[0]), int(places[-1]) + 1
