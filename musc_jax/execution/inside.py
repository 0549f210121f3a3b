"""Region of interest: which pixels, patches and groups of each sample count; what is outside never does.

Outside, a picture is blank before the backbone sees it, and there are no points. A patch counts if any of its pixels is
inside, a group if its centre's pixel is; the others neither score nor are scored. Not in the paper.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from musc_jax.data.formats.resizing import PADDING
from musc_jax.data.sample import Sample, SampleError


class Inside(NamedTuple):
    """What counts of N samples, of which at least one has something outside."""

    pixels: Bool[np.ndarray, "N S S"]
    patches: Bool[np.ndarray, "N M2"] | None
    """None where images are not scored."""
    groups: Bool[np.ndarray, "N M3"] | None
    """None where points are not scored."""

    @property
    def masks(self) -> list[Bool[np.ndarray, "N M"]]:
        """Of the tokens of each modality that is scored, images first."""
        return [mask for mask in (self.patches, self.groups) if mask is not None]


def inside_of(
    samples: Sequence[Sample], *, size: int, num_patches: int | None, center_pixels: Int[np.ndarray, "N M3"] | None
) -> Inside | None:
    """What counts of N samples; None where all of all of them does.

    Args:
        samples: One without a region of interest counts as a whole.
        size: S, their side in pixels.
        num_patches: M2, a square number; None where images are not scored.
        center_pixels: Flat pixel of each group's centre; None where points are not scored.
    """
    if all(sample.roi is None or sample.roi.all() for sample in samples):
        return None
    whole = np.ones((size, size), bool)
    pixels = np.stack([whole if sample.roi is None else sample.roi for sample in samples])
    patches = None if num_patches is None else patches_inside(pixels, round(num_patches**0.5))
    flat = pixels.reshape(len(pixels), -1)
    groups = None if center_pixels is None else np.take_along_axis(flat, center_pixels.astype(np.int64), axis=1)
    return Inside(pixels, patches, groups)


def patches_inside(pixels: Bool[np.ndarray, "N S S"], grid: int) -> Bool[np.ndarray, "N M2"]:
    """Which patches of a grid have a pixel inside, or a part of one where the grid does not divide the pixels."""
    size = pixels.shape[1]
    spans = [slice(k * size // grid, max(k * size // grid + 1, -(-(k + 1) * size // grid))) for k in range(grid)]
    rows = np.stack([pixels[:, span].any(1) for span in spans], axis=1)
    return np.stack([rows[:, :, span].any(2) for span in spans], axis=2).reshape(len(pixels), grid * grid)


def without_outside(sample: Sample, *, grouped: bool = False) -> Sample:
    """A sample with a blank picture and no points outside of its region of interest.

    Args:
        sample: Maybe without one.
        grouped: Its groups are given with it. If some of them lie outside, all points stay: they are where groups lie.

    Raises:
        SampleError: The region is no mask of its pixels, empty, or without any of the groups.
    """
    roi, points = sample.roi, sample.points
    if roi is None:
        return sample
    if roi.shape != sample.image.shape[:2] or roi.dtype != bool:
        wanted = f"({sample.image.shape[0]}, {sample.image.shape[1]}) of bool"
        raise SampleError(sample.name, f"region of interest: expected {wanted}, received {roi.shape} of {roi.dtype}")
    if not roi.any():
        raise SampleError(sample.name, "its region of interest is empty, so nothing of it could be scored")
    within = np.ones(1, bool)
    if grouped and sample.tokens is not None:
        within = np.take(roi, sample.tokens.pixels, mode="clip")
    if not within.any():
        raise SampleError(sample.name, "no group of its tokens lies inside of its region of interest")
    if points is not None and within.all():
        points = np.where(roi[..., None], points, np.float32(0))
        if not points.any():
            raise SampleError(sample.name, "has no points inside of its region of interest")
    image = np.where(roi[..., None], sample.image, np.array(PADDING, np.uint8))
    return dataclasses.replace(sample, image=image, points=points)
