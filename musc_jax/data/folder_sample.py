"""One sample of a plain folder: a picture, points and a mask, whichever there are; its checks, its loading."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from musc_jax.data.dataset import Checked, Entry, Remark
from musc_jax.data.formats import files, own_pictures
from musc_jax.data.formats.files import Content, FileFault
from musc_jax.data.formats.own_masks import keys_of
from musc_jax.data.formats.own_pictures import Picture, turned
from musc_jax.data.formats.own_rois import lay_over, read_roi, working_roi
from musc_jax.data.formats.remarks import overheard
from musc_jax.data.formats.resizing import (
    PADDING,
    make_square,
    resize_defect,
    resize_image,
    resize_points,
    shrink_image,
)
from musc_jax.data.formats.scan_geometry import depth_picture, project
from musc_jax.data.formats.showing import show
from musc_jax.data.health import look_at
from musc_jax.data.image_sample import Seen, again
from musc_jax.data.mask_placing import place_mask
from musc_jax.data.own_remarks import label_of, mask_remarks, shown_remarks
from musc_jax.data.picture_rules import PictureRules
from musc_jax.data.sample import DataError, Sample
from musc_jax.data.scan_points import ScanRules, decode_points, settings
from musc_jax.storage.paths import readable

# Of the points that lie behind others more than this share is worth a remark.
_HIDDEN = 0.2


@dataclass(frozen=True)
class _Read:
    """A sample's files, decoded, turned as the picture is shown; None where there are none."""

    image: UInt8[np.ndarray, "h w 3"] | None = None
    points: np.ndarray | None = None
    mask: UInt8[np.ndarray, "h2 w2"] | None = None
    full_size: tuple[int, int] | None = None
    roi: Bool[np.ndarray, "h3 w3"] | None = None

    @property
    def defect(self) -> UInt8[np.ndarray, "h2 w2"] | None:
        """The mask, nothing of which is outside of the region of interest."""
        return self.mask if self.mask is None or self.roi is None else np.where(self.roi, self.mask, np.uint8(0))


@dataclass(frozen=True)
class FolderSample:
    """The files of one sample.

    Attributes:
        name: unique in its category.
        image, points, mask, roi: its files; None where there are none, or none are wanted.
        label: 1 defective, 0 good; None where only its mask tells, or nothing.
        missing: what should be there and is not.
        scans: how points are read.
        pictures: how pictures and masks are read.
        counts_picture: whether its picture is scored, not only shown.
        working: side of the resized sample and of a token in it, for remarks on smaller defects; None: not known.
    """

    name: str
    image: Path | None
    points: Path | None
    mask: Path | None
    label: int | None
    missing: tuple[str, ...] = ()
    scans: ScanRules = field(default_factory=ScanRules)
    pictures: PictureRules = field(default_factory=PictureRules)
    working: tuple[int, int] | None = None
    counts_picture: bool = True
    roi: Path | None = None

    def check(self) -> Checked:
        """Read every file once and compare them."""
        faults, warnings = list(self.missing), []
        remarks: list[Remark] = []
        seen: dict[str, Seen] = {}

        def read(kind: str, path: Path) -> Content:
            content = files.read(path)
            seen[kind] = Seen(path, content.digest)
            return content

        def remark(topic: str, path: Path, text: str) -> None:
            remarks.append(Remark(topic, path, text))

        found = self._read(read, remark, lambda fault: faults.append(fault.of_own_file))
        if found.points is not None and found.points.ndim == 2:
            hidden = project(found.points, size=224).hidden
            if hidden > _HIDDEN:
                warnings.append(
                    f"{self.points}: {hidden:.0%} of the points lie behind others, as seen along z from the "
                    "smallest; they are not looked at"
                )
        if found.mask is not None and self.mask is not None:
            texts = mask_remarks(found.mask, label=self.label, fit=self.pictures.fit, working=self.working)
            remarks += [Remark(topic, self.mask, text) for topic, text in texts]
            if found.defect is not None and label_of(found.mask) and not label_of(found.defect):
                remark("defects_outside", self.mask, "its defect is outside of the region of interest: counts as good")
        if found.roi is not None and self.roi is not None and not make_square(found.roi, self.pictures.fit).any():
            faults.append(
                f"{readable(self.roi)}: nothing of it is in what --fit={self.pictures.fit} leaves; draw another"
            )
        if faults:
            return Checked(None, tuple(faults), tuple(warnings), tuple(remarks))
        rule = settings(self.scans) if self.points is not None else []
        decisive = [self.label, sorted((k, v.digest) for k, v in seen.items()), *rule, asdict(self.pictures)]
        digest = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
        picture = partial(self._picture, seen["image"]) if "image" in seen else None
        shown = found.image if self.counts_picture else None
        content = _content(shown, found.points, found.roi)
        look = look_at(shown, found.points)
        entry = Entry(self.name, digest, partial(self._load, seen), picture, content, _size_of(found.image), look)
        return Checked(entry, (), tuple(warnings), tuple(remarks))

    def _picture(self, seen: Seen, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
        """The picture as it is shown, scaled down to at most so many pixels; a JPEG may have down to half of them."""
        try:
            content = again(seen)
            with overheard():
                shown = self._shown(content, self._decoded(content, enough=max_pixels // 2))
        except FileFault as fault:
            raise DataError(fault.of_own_file) from None
        return shrink_image(shown, max_pixels=max_pixels)

    def _decoded(self, content: Content, *, enough: int | None = None) -> Picture:
        return own_pictures.decode(content, max_pixels=self.pictures.max_pixels, enough=enough)

    def _read(
        self,
        read: Callable[[str, Path], Content],
        remark: Callable[[str, Path, str], None],
        report: Callable[[FileFault], None],
    ) -> _Read:
        """Decode every file; a fault of one does not keep the others from being looked at."""
        picture: Picture | None = None
        image = points = mask = roi = None
        size: tuple[int, int] | None = None
        own = (("image", self.image), ("points", self.points), ("mask", self.mask), ("roi", self.roi))
        for kind, path in own:
            if path is None:
                continue
            with overheard() as said:
                try:
                    content = read(kind, path)
                    if kind == "image":
                        picture = self._decoded(content)
                        size, image = picture.header.size, self._shown(content, picture)
                        for topic, text in shown_remarks(picture, image):
                            remark(topic, path, text)
                    elif kind == "points":
                        points = self._oriented_points(content, picture, size, remark)
                        size = points.shape[:2] if points.ndim == 3 else size
                    elif kind == "roi":
                        roi = self._region(content, picture, size or (None if mask is None else mask.shape), remark)
                    else:
                        mask = self._mask(content, picture, size, remark)
                except FileFault as fault:
                    report(fault)
            for text in said[:1]:
                remark("remarks", path, f"the file's library remarks: {text}")
        return _Read(image, points, mask, size, roi)

    def _shown(self, content: Content, picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
        try:
            rules = self.pictures
            return show(picture, bits=rules.bits, background=rules.background, asked=rules.bits_asked)
        except ValueError as error:
            fault, _, way_out = str(error).partition("; ")
            raise FileFault(content.path, fault, way_out) from None

    def _oriented_points(
        self,
        content: Content,
        picture: Picture | None,
        size: tuple[int, int] | None,
        remark: Callable[[str, Path, str], None],
    ) -> np.ndarray:
        """Points of the picture's pixels as it is shown; a scanner knows nothing of how its camera is held."""
        orientation = 1 if picture is None else picture.header.orientation
        if size is None or orientation == 1:
            return self._decode_points(content, size)
        stored = size[::-1] if orientation >= 5 else size
        try:
            points = self._decode_points(content, stored)
        except FileFault:
            return self._decode_points(content, size)
        if stored == size:
            remark("turned_points", content.path, "belong to a picture that is turned; turned like that")
        return turned(points, orientation)

    def _decode_points(self, content: Content, size: tuple[int, int] | None) -> np.ndarray:
        return decode_points(content, size=size, rules=self.scans)

    def _mask(
        self,
        content: Content,
        picture: Picture | None,
        size: tuple[int, int] | None,
        remark: Callable[[str, Path, str], None],
    ) -> UInt8[np.ndarray, "h w"]:
        rule = self.pictures.masks
        if rule.unknown:
            raise FileFault(content.path, rule.unknown, "draw defects in white on black, or say what is one by --masks")
        drawn = own_pictures.decode(content, max_pixels=self.pictures.max_pixels, whole=True)
        if drawn.header.frames > 1:
            remark("pages", content.path, f"has {drawn.header.frames} pictures in it; the first is read")
        mask = rule.apply(keys_of(content, drawn, alpha=rule.alpha), noisy=drawn.header.noisy)
        orientation = 1 if picture is None else picture.header.orientation
        placed = place_mask(content.path, mask, drawn.header, size=size, orientation=orientation, rules=self.pictures)
        if placed.remark:
            remark("turned_masks", content.path, placed.remark)
        return placed.mask

    def _region(
        self,
        content: Content,
        picture: Picture | None,
        size: tuple[int, int] | None,
        remark: Callable[[str, Path, str], None],
    ) -> Bool[np.ndarray, "h w"]:
        """On the picture's pixels as it is shown; as it is drawn where there is no grid of pixels."""
        inside, own = read_roi(content, max_pixels=self.pictures.max_pixels)
        if size is None:
            return inside
        orientation = 1 if picture is None else picture.header.orientation
        inside, distorted = lay_over(inside, own, size=size, orientation=orientation)
        if distorted:
            whose = self.image or self.points or content.path
            remark(
                "roi_shapes", whose, "its region of interest has other proportions than it, and is stretched over it"
            )
        return inside

    def _load(self, seen: dict[str, Seen], size: int) -> Sample:
        def stop(fault: FileFault) -> None:
            raise DataError(fault.of_own_file)

        found = self._read(lambda kind, _: again(seen[kind]), lambda *_: None, stop)
        fit = self.pictures.fit
        points = found.points
        if points is not None:
            is_map = points.ndim == 3
            points = resize_points(make_square(points, fit), size=size) if is_map else project(points, size=size).points
        roi = None if found.roi is None else working_roi(found.roi, fit=fit, size=size)
        mask, label = None, self.label
        if found.defect is not None:
            mask = resize_defect(make_square(found.defect, fit), size=size)
            # A defect outside is none, whatever its sample is called.
            if label is None or (found.mask is not None and label_of(found.mask) and not label_of(found.defect)):
                label = label_of(found.defect)
        elif label == 0:
            mask = np.zeros((size, size), bool)
        if found.image is not None:
            image = resize_image(make_square(found.image, fit, padding=PADDING), size=size)
        elif points is not None:
            image = depth_picture(points)
        else:
            raise DataError(f"{self.name}: has neither a picture nor points")
        return Sample(
            name=self.name,
            image=image,
            points=points,
            gt_mask=mask,
            gt_label=label,
            image_path=self.image or self.points,  # type: ignore[arg-type]
            full_size=found.full_size,
            fit=fit,
            roi=roi,
        )


def _content(*scored: np.ndarray | None) -> str:
    """Digest over pixels and points: equal for copies, in whatever format."""
    digest = hashlib.sha256()
    for array in scored:
        if array is not None:
            digest.update(f"{array.dtype} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _size_of(image: np.ndarray | None) -> tuple[int, int] | None:
    return None if image is None else (image.shape[0], image.shape[1])
