"""What a user says about a plain folder: which subfolders hold what, and the camera of its depth pictures."""

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

from musc_jax.data.formats import own_pictures as image_files
from musc_jax.data.formats.files import MAX_PIXELS
from musc_jax.data.formats.resizing import FITS
from musc_jax.data.sample import DataError

MASK_RULES = ("auto", "white", "black", "nonzero", "alpha")
"""How masks are read: decided over all of them; what is bright, dark, not 0 or opaque is a defect."""


UNMASKED = ("refuse", "good")
"""What a sample without a mask can be in a flat folder that has masks."""


class Camera(NamedTuple):
    """A pinhole camera: what depth is turned into points with.

    Attributes:
        fx, fy: focal lengths, in widths and heights of a pixel.
        cx, cy: where the optical axis meets the image, in pixels; (0, 0) is the middle of the upper left one.
    """

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class FolderLayout:
    """Where a plain folder has what; every folder relative to `data_dir`, or absolute.

    Attributes:
        normal_dir: folders of good samples. With neither these nor `abnormal_dir` the folder is flat and unlabelled.
        abnormal_dir: folders of defective samples.
        mask_dir: folders of masks, one for each `abnormal_dir` or one for all.
        normal_depth_dir, abnormal_depth_dir: folders of point data, likewise.
        depth_dir: one folder of point data for all. Without any of these, point data lies beside the pictures.
        unmasked: what a sample without a mask is in a flat folder that has masks: "refuse" it, or it is "good".
        unlabelled: whether a flat folder's samples are one product whatever the folders in it are called; otherwise one
            that has folders called good or bad, and nothing else, wants them named.
        extensions: of pictures; default every known one.
        camera: for depth pictures.
        depth_scale: metres of a depth or height of 1; None: of integers 0.001, of floats what is likely.
        depth_kind: "depth" from a camera, or "height" above a plane, seen straight from above.
        pixel_pitch: width and height of a height map's pixel in metres, or one number for both; () for what is likely.
        points_scale: metres of a coordinate of 1; None for what is likely.
        point_order: "rows" or "columns", of points without a grid beside a picture; None for what is likely.
        invalid: values of depth, of height, or of z, that mean "no point", as they stand in the files; None for what
            is likely.
        bits: of the values of 16-bit pictures; None: as their files say, else by the largest value of all.
        background: red, green and blue behind what is transparent.
        fit: how a picture that is not square becomes so, out of `formats.resizing.FITS`.
        masks: what is a defect in a mask, out of `MASK_RULES`.
        max_pixels: pictures of more are read at reduced size.
        roi: a mask whose bright pixels are the region of interest of every sample, or a folder of such masks, one a
            sample; with several categories one may be in a folder of the category's name.
    """

    normal_dir: tuple[str, ...] = ()
    abnormal_dir: tuple[str, ...] = ()
    mask_dir: tuple[str, ...] = ()
    normal_depth_dir: tuple[str, ...] = ()
    abnormal_depth_dir: tuple[str, ...] = ()
    depth_dir: str | None = None
    unlabelled: bool = False
    unmasked: str = "refuse"
    extensions: tuple[str, ...] | None = None
    camera: Camera | None = None
    depth_scale: float | None = None
    depth_kind: str = "depth"
    pixel_pitch: tuple[float, ...] = ()
    points_scale: float | None = None
    point_order: str | None = None
    invalid: tuple[float, ...] | None = None
    bits: int | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    fit: str = "squash"
    masks: str = "auto"
    max_pixels: int = MAX_PIXELS
    roi: str | None = None

    def __post_init__(self) -> None:
        for what, names in (("normal_dir", self.normal_dir), ("abnormal_dir", self.abnormal_dir)):
            if "" in names:
                raise DataError(
                    f"{what}: expected names of folders, received {','.join(names)!r}; . is the whole folder"
                )
        for what, own, others in (
            ("mask_dir", self.mask_dir, self.abnormal_dir),
            ("normal_depth_dir", self.normal_depth_dir, self.normal_dir),
            ("abnormal_depth_dir", self.abnormal_depth_dir, self.abnormal_dir),
        ):
            if len(own) > 1 and len(own) != len(others):
                of = what.removesuffix("_depth_dir") if what != "mask_dir" else "abnormal"
                raise DataError(f"{what}: expected one folder, or one for each {of}_dir, received {','.join(own)}")
            _expect_order(what, own, others)
        for what, number in (("depth_scale", self.depth_scale), ("points_scale", self.points_scale)):
            if number is not None and not (math.isfinite(number) and number > 0):
                of = "coordinate" if what == "points_scale" else "depth"
                raise DataError(f"{what}: expected metres of a {of} of 1, above 0, received {number}")
        if len(self.pixel_pitch) > 2 or not all(math.isfinite(pitch) and pitch > 0 for pitch in self.pixel_pitch):
            raise DataError(
                "pixel_pitch: expected metres of a pixel, above 0, or its width,height, received "
                + ",".join(map(str, self.pixel_pitch))
            )
        if self.unmasked not in UNMASKED:
            raise DataError(f"unmasked: expected one of {', '.join(UNMASKED)}, received {self.unmasked!r}")
        if self.depth_kind not in ("depth", "height"):
            raise DataError(f"depth_kind: expected depth or height, received {self.depth_kind!r}")
        if self.depth_kind == "height" and self.camera is not None:
            raise DataError("intrinsics: heights (--depth_kind=height) are seen without a camera; leave it out")
        if self.depth_kind == "depth" and self.pixel_pitch:
            raise DataError("pixel_pitch: only heights have one (--depth_kind=height); depth has --intrinsics")
        if self.point_order not in (None, "rows", "columns"):
            raise DataError(f"point_order: expected rows or columns, received {self.point_order!r}")
        if self.camera is not None and not (
            all(map(math.isfinite, self.camera)) and self.camera.fx > 0 and self.camera.fy > 0
        ):
            raise DataError(f"intrinsics: expected fx,fy,cx,cy in pixels, fx and fy above 0, received {self.camera}")

        for name, value, known in (("fit", self.fit, FITS), ("masks", self.masks, MASK_RULES)):
            if value not in known:
                raise DataError(f"{name}: expected one of {', '.join(known)}, received {value!r}")
        if self.bits is not None and not 8 <= self.bits <= 16:
            raise DataError(f"bits: expected 8 to 16, received {self.bits}")
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise DataError(f"background: expected red, green and blue from 0 to 255, received {self.background}")
        if self.max_pixels < 1:
            raise DataError(f"max_pixels: expected at least 1, received {self.max_pixels}")

    @property
    def folders(self) -> tuple[str, ...]:
        """All folders of samples that are named."""
        depth = (*self.normal_depth_dir, *self.abnormal_depth_dir, *([self.depth_dir] if self.depth_dir else []))
        return (*self.normal_dir, *self.abnormal_dir, *self.mask_dir, *depth)

    @property
    def has_depth(self) -> bool:
        """Whether folders of point data are named."""
        return bool(self.depth_dir or self.normal_depth_dir or self.abnormal_depth_dir)

    @property
    def picture_extensions(self) -> frozenset[str]:
        """Extensions of pictures, in lower case with their dot."""
        if self.extensions is None:
            return image_files.EXTENSIONS
        return frozenset("." + extension.lower().lstrip(".") for extension in self.extensions)


def _expect_order(what: str, own: tuple[str, ...], others: tuple[str, ...]) -> None:
    """Refuses folders of masks or points that are called as those of other samples: given in another order."""
    if len(own) < 2:
        return
    called = [PurePath(name).name.casefold() for name in others]
    for position, name in enumerate(own):
        of = PurePath(name).name.casefold()
        if of != called[position] and called.count(of) == 1:
            raise DataError(
                f"{what}: {name} would be that of {others[position]}, and is called as {others[called.index(of)]}; "
                "pass both in the same order"
            )
