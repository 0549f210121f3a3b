"""One sample that is a picture and perhaps a mask: its checks, its loading."""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from musc_jax.data.dataset import Checked, Entry, Remark, SampleFiles
from musc_jax.data.formats import files
from musc_jax.data.formats.files import Content, FileFault
from musc_jax.data.formats.pictures import decode_any_mask, decode_picture, mask_remark
from musc_jax.data.formats.resizing import mask_label, resize_image, resize_mask, shrink_image
from musc_jax.data.picture_remarks import noted, picture_remarks, published_mask_remarks
from musc_jax.data.sample import DataError, Sample


class Seen(NamedTuple):
    """What a file was when it was checked."""

    path: Path
    digest: str


def again(seen: Seen) -> Content:
    """Read a file that was checked before; a `FileFault` if it has changed since."""
    content = files.read(seen.path)
    if content.digest != seen.digest:
        raise FileFault(content.path, "has changed since it was checked", "start again")
    return content


@dataclass(frozen=True)
class Picture:
    """The files of one sample.

    Attributes:
        name: unique in its category.
        image: the picture.
        label: 1 defective, 0 good, by the dataset; None where it does not say.
        mask: None where there is none.
        mask_expected: where the mask of a defective sample should be; "" where the dataset has none.
        nonzero: see `decode_any_mask`.
    """

    name: str
    image: Path
    label: int | None
    mask: Path | None = None
    mask_expected: str = ""
    nonzero: bool | None = None

    def check(self) -> Checked:
        """Read every file once and compare them."""
        faults: list[str] = []
        warnings: list[str] = []
        remarks: list[Remark] = []
        seen: list[Seen] = []
        size: tuple[int, int] | None = None
        try:
            with noted(self.image, remarks):
                content = files.read(self.image)
                seen.append(Seen(self.image, content.digest))
                size = decode_picture(content).shape[:2]
                remarks += picture_remarks(content)
        except FileFault as fault:
            faults.append(str(fault))
        if self.mask is not None:
            try:
                with noted(self.mask, remarks):
                    content = files.read(self.mask)
                    mask = decode_any_mask(content, size=size, nonzero=self.nonzero)
                    seen.append(Seen(self.mask, content.digest))
                    if self.label != 0:
                        remarks += published_mask_remarks(content, mask, nonzero=bool(self.nonzero))
                if self.label == 1 and (remark := mask_remark(self.mask, mask)):
                    warnings.append(remark)
                if self.label == 0 and mask.any():
                    warnings.append(f"{self.mask}: has a defect, though its sample is good; the mask is not used")
            except FileFault as fault:
                faults.append(str(fault))
        elif self.label == 1 and self.mask_expected:
            faults.append(str(FileFault(Path(self.mask_expected), f"is missing, the mask of {self.image}")))
        if faults:
            return Checked(None, tuple(faults), tuple(warnings), tuple(remarks))
        settings = [self.label, self.nonzero, [entry.digest for entry in seen]]
        digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        load, show = partial(self._load, tuple(seen)), partial(self._picture, seen[0])
        entry = Entry(self.name, digest, load, show, seen[0].digest)
        return Checked(entry, (), tuple(warnings), tuple(remarks))

    def _picture(self, seen: Seen, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
        try:
            return shrink_image(decode_picture(again(seen)), max_pixels=max_pixels)
        except FileFault as fault:
            raise DataError(str(fault)) from None

    def list_files(self) -> SampleFiles:
        """The picture and, of a defective sample, its mask."""
        present, missing = [self.image], []
        if self.label and self.mask is not None:
            present.append(self.mask)
        elif self.label and self.mask_expected:
            missing.append((Path(self.mask_expected), f"is missing, the mask of {self.image}"))
        return SampleFiles(self.image, tuple(present), tuple(missing), self.label)

    def _load(self, seen: tuple[Seen, ...], size: int) -> Sample:
        try:
            image = decode_picture(again(seen[0]))
            mask, label = None, self.label
            if label == 0:
                mask = np.zeros((size, size), bool)
            elif len(seen) > 1:
                full = decode_any_mask(again(seen[1]), size=image.shape[:2], nonzero=self.nonzero)
                mask = resize_mask(full, size=size)
                label = mask_label(full) if label is None else label
        except FileFault as fault:
            raise DataError(str(fault)) from None
        return Sample(
            name=self.name,
            image=resize_image(image, size=size),
            points=None,
            gt_mask=mask,
            gt_label=label,
            image_path=self.image,
            full_size=(image.shape[0], image.shape[1]),
        )
