"""What a user says about a plain folder: which subfolders hold what, and the camera of its depth pictures."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from musc_jax.data.formats import pictures as image_files
from musc_jax.data.sample import DataError


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
        extensions: of pictures; default every known one.
        camera: for depth pictures.
        depth_scale: metres of a depth of 1.
    """

    normal_dir: tuple[str, ...] = ()
    abnormal_dir: tuple[str, ...] = ()
    mask_dir: tuple[str, ...] = ()
    normal_depth_dir: tuple[str, ...] = ()
    abnormal_depth_dir: tuple[str, ...] = ()
    depth_dir: str | None = None
    extensions: tuple[str, ...] | None = None
    camera: Camera | None = None
    depth_scale: float = 0.001

    def __post_init__(self) -> None:
        for what, own, others in (
            ("mask_dir", self.mask_dir, self.abnormal_dir),
            ("normal_depth_dir", self.normal_depth_dir, self.normal_dir),
            ("abnormal_depth_dir", self.abnormal_depth_dir, self.abnormal_dir),
        ):
            if len(own) > 1 and len(own) != len(others):
                of = what.removesuffix("_depth_dir") if what != "mask_dir" else "abnormal"
                raise DataError(f"{what}: expected one folder, or one for each {of}_dir, received {','.join(own)}")
        if not (math.isfinite(self.depth_scale) and self.depth_scale > 0):
            raise DataError(f"depth_scale: expected metres of a depth of 1, above 0, received {self.depth_scale}")
        if self.camera is not None and not (
            all(map(math.isfinite, self.camera)) and self.camera.fx > 0 and self.camera.fy > 0
        ):
            raise DataError(f"intrinsics: expected fx,fy,cx,cy in pixels, fx and fy above 0, received {self.camera}")

    @property
    def folders(self) -> tuple[str, ...]:
        """All folders that are named."""
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
