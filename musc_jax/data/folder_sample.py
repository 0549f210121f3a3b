"""One sample of a plain folder: a picture, points and a mask, whichever there are; its checks, its loading."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from musc_jax.data.dataset import Checked, Entry
from musc_jax.data.formats import files
from musc_jax.data.formats.files import FileFault
from musc_jax.data.formats.pictures import decode_any_mask, decode_picture, mask_remark
from musc_jax.data.formats.resizing import mask_label, resize_image, resize_mask, resize_points
from musc_jax.data.formats.scan_geometry import depth_picture, project
from musc_jax.data.image_sample import Seen, again
from musc_jax.data.sample import DataError, Sample
from musc_jax.data.scan_points import ScanRules, decode_points, settings

# Of the points that lie behind others more than this share is worth a remark.
_HIDDEN = 0.2


@dataclass(frozen=True)
class FolderSample:
    """The files of one sample.

    Attributes:
        name: unique in its category.
        image, points, mask: its files; None where there are none, or none are wanted.
        label: 1 defective, 0 good; None where only its mask tells, or nothing.
        missing: what should be there and is not.
        scans: how points are read.
    """

    name: str
    image: Path | None
    points: Path | None
    mask: Path | None
    label: int | None
    missing: tuple[str, ...] = ()
    scans: ScanRules = field(default_factory=ScanRules)

    def check(self) -> Checked:
        """Read every file once and compare them."""
        faults, warnings = list(self.missing), []
        seen: dict[str, Seen] = {}
        size: tuple[int, int] | None = None
        for kind, path in (("image", self.image), ("points", self.points), ("mask", self.mask)):
            if path is None:
                continue
            try:
                content = files.read(path)
                seen[kind] = Seen(path, content.digest)
                if kind == "image":
                    size = decode_picture(content).shape[:2]
                elif kind == "points":
                    points = decode_points(content, size=size, rules=self.scans)
                    if points.ndim == 3:
                        size = points.shape[:2]
                    else:
                        hidden = project(points, size=224).hidden
                        if hidden > _HIDDEN:
                            warnings.append(
                                f"{path}: {hidden:.0%} of the points lie behind others, as seen along z from the "
                                "smallest; they are not looked at"
                            )
                else:
                    mask = decode_any_mask(content, size=size, nonzero=None)
                    # Of a sample without a label an empty mask says that it is good.
                    if (self.label == 1 or mask.any()) and (remark := mask_remark(path, mask)):
                        warnings.append(remark)
            except FileFault as fault:
                faults.append(str(fault))
        if faults:
            return Checked(None, tuple(faults), tuple(warnings))
        rule = settings(self.scans) if self.points is not None else []
        decisive = [self.label, sorted((k, v.digest) for k, v in seen.items()), *rule]
        digest = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
        return Checked(Entry(self.name, digest, partial(self._load, seen)), (), tuple(warnings))

    def _load(self, seen: dict[str, Seen], size: int) -> Sample:
        try:
            image = decode_picture(again(seen["image"])) if "image" in seen else None
            full_size = None if image is None else image.shape[:2]
            points = None
            if "points" in seen:
                points = decode_points(again(seen["points"]), size=full_size, rules=self.scans)
                full_size = points.shape[:2] if points.ndim == 3 else None
                points = project(points, size=size).points if points.ndim == 2 else resize_points(points, size=size)
            mask, label = None, self.label
            if "mask" in seen:
                full = decode_any_mask(again(seen["mask"]), size=full_size, nonzero=None)
                mask = resize_mask(full, size=size)
                label = mask_label(full) if label is None else label
            elif label == 0:
                mask = np.zeros((size, size), bool)
        except FileFault as fault:
            raise DataError(str(fault)) from None
        return Sample(
            name=self.name,
            image=_shown(image, points, size),
            points=points,
            gt_mask=mask,
            gt_label=label,
            image_path=self.image or self.points,  # type: ignore[arg-type]
        )


def _shown(
    image: UInt8[np.ndarray, "h w 3"] | None, points: np.ndarray | None, size: int
) -> UInt8[np.ndarray, "size size 3"]:
    if image is not None:
        return resize_image(image, size=size)
    assert points is not None
    return depth_picture(points)
