"""One sample of the Eyecandies layout: its checks, its cleaned points, its loading."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from musc_jax.data.cleaning import eyecandies as candy_cleaning
from musc_jax.data.cleaning.eyecandies import Cleaned
from musc_jax.data.dataset import Checked, Entry, Remark, SampleFiles
from musc_jax.data.formats import files
from musc_jax.data.formats.files import Content, FileFault
from musc_jax.data.formats.pictures import mask_remark
from musc_jax.data.formats.resizing import mask_label, resize_image, resize_mask, resize_points
from musc_jax.data.picture_remarks import noted, picture_remarks, published_mask_remarks
from musc_jax.data.sample import DataError, Sample
from musc_jax.data.scan_remarks import range_remarks, scan_remarks
from musc_jax.storage import atomic

ITEMS = ("image_0.png", "mask.png", "xyz.tiff", "depth.png", "info_depth.yaml", "pose.txt")
"""What is read of a sample, beside the optional metadata.yaml."""

_RAW = ("depth.png", "info_depth.yaml", "pose.txt")

Decoded = TypeVar("Decoded")


class _Seen(NamedTuple):
    """What a file was when it was checked: `Content` without the bytes."""

    digest: str
    stamp: tuple[int, int]


@dataclass(frozen=True)
class Scan:
    """The files of one sample.

    Attributes:
        category: decides whether the plane rule applies.
        folder: where its files are.
        index: its name, the digits that its files begin with.
        items: which of `ITEMS` it has.
        points: whether points are wanted.
        store: the folder of cleaned scans.
    """

    category: str
    folder: Path
    index: str
    items: frozenset[str]
    points: bool
    store: Path

    @property
    def name(self) -> str:
        """Its index."""
        return self.index

    def check(self) -> Checked:
        """Read every file once: decode it, compare it with the others, clean the scan."""
        faults: list[str] = []
        warnings: list[str] = []
        remarks: list[Remark] = []
        contents: dict[str, Content] = {}

        def take(item: str, decode: Callable[[Content], Decoded]) -> Decoded | None:
            try:
                with noted(self._path(item), remarks):
                    contents[item] = files.read(self._path(item))
                    return decode(contents[item])
            except FileFault as fault:
                faults.append(str(fault))
                return None

        image = take("image_0.png", files.decode_image)
        size = None if image is None else (image.shape[0], image.shape[1])
        mask = take("mask.png", partial(files.decode_mask, size=size))
        if self.points and "xyz.tiff" in self.items:
            points = take("xyz.tiff", partial(files.decode_xyz, size=size))
            warnings.extend([] if points is None else scan_remarks(self._path("xyz.tiff"), points))
        elif self.points:
            decoders = _raw_decoders(size)
            if "depth.png" not in self.items:
                faults.append(str(self._no_depth()))
                # Without any of the raw files it is xyz.tiff that was lost: one line is enough.
                decoders = {item: decoders[item] for item in _RAW[1:] if self.items.intersection(_RAW)}
            decoded = {item: take(item, decode) for item, decode in decoders.items()}
            if isinstance(limits := decoded.get("info_depth.yaml"), tuple):
                warnings.extend(range_remarks(self._path("info_depth.yaml"), *limits))
        if faults or image is None or mask is None:
            return Checked(None, tuple(faults))
        remarks += picture_remarks(contents["image_0.png"])
        remarks += published_mask_remarks(contents["mask.png"], mask)

        if "depth.png" in contents:
            try:
                if not self._cleaned(contents).clustered:
                    warnings.append(f"{self._path('depth.png')}: no cluster found, every point off the plane is kept")
            except FileFault as fault:
                return Checked(None, (str(fault),))
        warnings.extend(self._metadata_warnings(mask_label(mask)))
        if mask.any() and (remark := mask_remark(self._path("mask.png"), mask)):
            warnings.append(remark)
        seen = {item: _Seen(content.digest, content.stamp) for item, content in contents.items()}
        scored = sorted(item for item in seen if item.endswith((".png", ".tiff")) and item != "mask.png")
        copied = "".join(seen[item].digest for item in scored)
        entry = Entry(self.index, self._digest(seen), partial(self._load, seen), content=copied)
        return Checked(entry, (), tuple(warnings), tuple(remarks))

    def list_files(self) -> SampleFiles:
        """All of `items`; only a look into the mask would tell whether it is defective."""
        needed = ["image_0.png", "mask.png"]
        # Without any of the raw files it is the points themselves that were lost.
        raw = "xyz.tiff" not in self.items and self.items.intersection(_RAW)
        needed += _RAW if raw else ["xyz.tiff"]
        also = {"xyz.tiff": " (or depth.png, info_depth.yaml and pose.txt)"}
        missing = tuple(
            (self._path(item), f"is missing{also.get(item, '')}") for item in needed if item not in self.items
        )
        return SampleFiles(self._path("image_0.png"), tuple(map(self._path, sorted(self.items))), missing)

    def _load(self, seen: Mapping[str, _Seen], size: int) -> Sample:
        """Load what `check` saw; raise DataError if a file is no longer the same."""
        try:
            image = files.decode_image(self._again("image_0.png", seen))
            mask = files.decode_mask(self._again("mask.png", seen))
            points = self._points(seen)
        except FileFault as fault:
            raise DataError(str(fault)) from None
        return Sample(
            name=self.index,
            image=resize_image(image, size=size),
            points=None if points is None else resize_points(points, size=size),
            gt_mask=resize_mask(mask, size=size),
            gt_label=mask_label(mask),
            image_path=self._path("image_0.png"),
            full_size=(image.shape[0], image.shape[1]),
        )

    def _points(self, seen: Mapping[str, _Seen]) -> Float[np.ndarray, "h w 3"] | None:
        if not self.points:
            return None
        if "xyz.tiff" in seen:
            return files.decode_xyz(self._again("xyz.tiff", seen))
        key = self._key(seen)
        stored = _from_store(self._stored(key), key)
        if stored is None:
            return self._cleaned({item: self._again(item, seen) for item in seen}).points
        for item in _RAW:
            # Their content is not needed any more: reading them again is for the case that they
            # were touched.
            if _stamp(self._path(item)) != seen[item].stamp:
                self._again(item, seen)
        return stored.points

    def _cleaned(self, contents: Mapping[str, Content]) -> Cleaned:
        """Give the cleaned scan, from the store if it is there, else made and stored."""
        key = self._key(contents)
        path = self._stored(key)
        cleaned = _from_store(path, key)
        if cleaned is None:
            cleaned = candy_cleaning.clean_scan(
                files.decode_depth(contents["depth.png"]),
                files.decode_depth_range(contents["info_depth.yaml"]),
                files.decode_pose(contents["pose.txt"]),
                files.decode_image(contents["image_0.png"]),
                keep_plane=self.category in candy_cleaning.KEEP_PLANE_CATEGORIES,
            )
            if not (cleaned.points != 0).all(axis=-1).any():
                raise FileFault(self._path("depth.png"), "has no points left after cleaning")
            try:
                atomic.write_arrays(
                    path,
                    key,
                    {"points": cleaned.points, "clustered": np.array([cleaned.clustered])},
                )
            except OSError as error:
                reason = error.strerror or type(error).__name__
                way_out = "make room there or choose another cache_dir"
                raise FileFault(path, f"cannot be written ({reason})", way_out) from None
        return cleaned

    def _metadata_warnings(self, label: int) -> list[str]:
        """Compare the mask with what metadata.yaml says, which decides nothing."""
        path = self._path("metadata.yaml")
        if not path.exists():
            return []
        try:
            stated = files.decode_yaml(files.read(path)).get("anomalous")
        except FileFault as fault:
            return [f"{fault} (only cross-checked, the mask decides)"]
        if stated is None or str(stated).lower() in (("1", "true") if label else ("0", "false")):
            return []
        found = "defects" if label else "no defect"
        return [f"{path}: says anomalous: {stated}, but the mask has {found}; the mask decides"]

    def _path(self, item: str) -> Path:
        return self.folder / f"{self.index}_{item}"

    def _no_depth(self) -> FileFault:
        return FileFault(
            self._path("depth.png"),
            f"is missing, and so is {self.index}_xyz.tiff",
            "points need one of them: copy it from the dataset's archive or use modality rgb",
        )

    def _again(self, item: str, seen: Mapping[str, _Seen]) -> Content:
        content = files.read(self._path(item))
        if content.digest != seen[item].digest:
            raise FileFault(content.path, "has changed since it was checked", "start again")
        return content

    def _key(self, seen: Mapping[str, _Seen] | Mapping[str, Content]) -> str:
        """Digest over all that decides the cleaned scan."""
        keep_plane = self.category in candy_cleaning.KEEP_PLANE_CATEGORIES
        inputs = [seen[item].digest for item in ("image_0.png", *_RAW)]
        return _sha256(["eyecandies_xyz", candy_cleaning.VERSION, keep_plane, inputs])

    def _digest(self, seen: Mapping[str, _Seen]) -> str:
        """Digest over all that decides the sample."""
        keep_plane = self.category in candy_cleaning.KEEP_PLANE_CATEGORIES
        return _sha256([candy_cleaning.VERSION, keep_plane, sorted((item, seen[item].digest) for item in seen)])

    def _stored(self, key: str) -> Path:
        return self.store / f"{key}.xyz"


def _raw_decoders(size: tuple[int, int] | None) -> dict[str, Callable[[Content], object]]:
    return {
        "depth.png": partial(files.decode_depth, size=size),
        "info_depth.yaml": files.decode_depth_range,
        "pose.txt": files.decode_pose,
    }


def _from_store(path: Path, key: str) -> Cleaned | None:
    arrays = atomic.read_arrays(path, key)
    if arrays is None:
        return None
    return Cleaned(arrays["points"], bool(arrays["clustered"].all()))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
