"""MVTec 3D-AD: pictures with organised point maps.

    DIR/<category>/test/<good or a defect>/{rgb,xyz,gt}/<stem>.{png,tiff,png}

or below mvtec_3d_anomaly_detection. Raw scans are cleaned first (`musc_jax.data.cleaning.mvtec3d`), pictures with them,
as in every published result; scans that another program has cleaned in place are recognised and used as they are. `gt`
of good samples is not read. Nothing is written into the dataset's folder; what cleaning found goes to the cache
directory.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from musc_jax.data.cleaning import mvtec3d as plane_cleaning
from musc_jax.data.cleaning.mvtec3d import CleanedScan, pad_to_square, square_side
from musc_jax.data.dataset import Candidate, Checked, Entry, Remark, SampleFiles
from musc_jax.data.formats import files
from musc_jax.data.formats.files import FileFault
from musc_jax.data.formats.pictures import decode_any_mask, decode_picture, mask_remark
from musc_jax.data.formats.resizing import resize_image, resize_mask, resize_points
from musc_jax.data.image_sample import Seen, again
from musc_jax.data.picture_remarks import noted, picture_remarks, published_mask_remarks
from musc_jax.data.sample import DataError, Sample
from musc_jax.data.scan_remarks import scan_remarks
from musc_jax.data.spec import CC_BY_NC_SA, Archive, DatasetSpec, Expected, Layout, Source
from musc_jax.data.trees import (
    Found,
    Request,
    add_candidates,
    find_categories,
    is_folder,
    pictures,
    require_writable,
    root_of,
    subfolders,
)
from musc_jax.storage import atomic

_LAYOUT = "<category>/test/<good or a defect>/{rgb,xyz,gt}/000.{png,tiff,png}"
_SCANS = frozenset({".tiff", ".tif"})

SOURCE = Source(
    title="MVTec 3D-AD",
    home="https://www.mvtec.com/company/research/datasets/mvtec-3d-ad",
    licence=CC_BY_NC_SA,
    categories={
        "bagel": Expected(22, 88, (800, 800)),
        "cable_gland": Expected(21, 87, (400, 400)),
        "carrot": Expected(27, 132, (800, 800)),
        "cookie": Expected(28, 103, (500, 500)),
        "dowel": Expected(26, 104, (400, 400)),
        "foam": Expected(20, 80, (900, 900)),
        "peach": Expected(26, 106, (600, 600)),
        "potato": Expected(22, 92, (800, 800)),
        "rope": Expected(32, 69, (900, 400)),
        "tire": Expected(25, 87, (600, 800)),
    },
    layout=Layout(
        folder="test",
        known=frozenset({"train", "validation", "test", "calibration"}),
        scored=("test",),
        unread=frozenset({"test/good/gt"}),  # black masks
        masks=frozenset({"gt"}),
        extensions={"xyz": _SCANS},
        padded=True,
    ),
    example="`bagel/test/good/rgb/000.png`, `bagel/test/good/xyz/000.tiff`, ...",
    archives=(
        Archive(
            "mvtec_3d_anomaly_detection.tar.xz",
            "https://www.mydrive.ch/shares/150646/25de33f1276dd418cd856f2f48a84cdb/download/428824485-1643299897/"
            "mvtec_3d_anomaly_detection.tar.xz",
        ),
    ),
    recipe=("the address changes now and then: open the home page, fill in its form, and download the archive",),
    wrappers=("mvtec_3d_anomaly_detection", "mvtec_3d", "mvtec3d"),
    signs=("*/test/good/rgb",),
)


def find_mvtec3d(request: Request) -> Found:
    """Find every sample of MVTec 3D-AD, without looking into any file."""
    root, found = root_of("mvtec3d", request.data_dir, layout=_LAYOUT, home=SOURCE.home), Found()
    folders = find_categories(
        root,
        request.categories,
        found,
        wrappers=SOURCE.wrappers,
        is_category=lambda folder: is_folder(folder / "test"),
        layout=_LAYOUT,
        home=SOURCE.home,
    )
    store = Path(request.cache_dir, "mvtec3d_masks")
    if folders:
        require_writable(store, root)
    for category, folder in folders.items():

        def report(line: str, category: str = category) -> None:
            found.fault(category, line)

        samples = []
        try:
            kinds = subfolders(folder / "test")
        except DataError as error:
            report(str(error))
            continue
        for kind in kinds:
            images = pictures(kind / "rgb", report)
            scans = pictures(kind / "xyz", report, extensions=_SCANS)
            masks = pictures(kind / "gt", report) if kind.name != "good" else {}
            for stem in images:
                sample = Scan3d(
                    name=f"{kind.name}_{stem}",
                    image=images[stem],
                    scan=scans.pop(stem, None),
                    expected_scan=str(kind / "xyz" / f"{stem}.tiff"),
                    mask=masks.pop(stem, None),
                    expected_mask=str(kind / "gt" / f"{stem}.png"),
                    label=int(kind.name != "good"),
                    points=request.modality != "rgb",
                    store=store,
                )
                samples.append(Candidate.of(sample))
            found.warnings.extend(f"{path}: is a mask without an image; not used" for path in masks.values())
            for stem, path in scans.items():
                found.fault(category, f"{path}: has no picture {kind / 'rgb' / f'{stem}.png'}; copy it, or remove both")
        add_candidates(found, category, folder, samples)
    return found


@dataclass(frozen=True)
class Scan3d:
    """The files of one sample.

    Attributes:
        name: unique in its category.
        image, scan, mask: its files; None where there are none.
        expected_scan, expected_mask: where they should be.
        label: 1 defective, 0 good, by its folder.
        points: whether points are wanted, not only to clean the picture.
        store: the folder of what cleaning found.
    """

    name: str
    image: Path
    scan: Path | None
    expected_scan: str
    mask: Path | None
    expected_mask: str
    label: int
    points: bool
    store: Path

    def check(self) -> Checked:
        """Read every file once, compare them, clean the scan."""
        faults: list[str] = []
        warnings: list[str] = []
        remarks: list[Remark] = []
        seen: dict[str, Seen] = {}
        try:
            with noted(self.image, remarks):
                content = files.read(self.image)
                seen["image"] = Seen(self.image, content.digest)
                size: tuple[int, ...] | None = decode_picture(content).shape[:2]
                remarks += picture_remarks(content)
        except FileFault as fault:
            faults.append(str(fault))
            size = None
        if self.label and self.mask is None:
            faults.append(str(FileFault(Path(self.expected_mask), f"is missing, the mask of {self.image}")))
        elif self.label and self.mask is not None:
            try:
                with noted(self.mask, remarks):
                    content = files.read(self.mask)
                    mask = decode_any_mask(content, size=size, nonzero=None)  # type: ignore[arg-type]
                    seen["mask"] = Seen(self.mask, content.digest)
                    remarks += published_mask_remarks(content, mask)
                if remark := mask_remark(self.mask, mask):
                    warnings.append(remark)
            except FileFault as fault:
                faults.append(str(fault))
        if self.scan is not None:
            try:
                with noted(self.scan, remarks):
                    content = files.read(self.scan)
                    scan = files.decode_xyz(content)
                seen["scan"] = Seen(self.scan, content.digest)
                warnings.extend(scan_remarks(self.scan, scan))
                if size is not None:
                    _check_form(self.scan, scan.shape[:2], size)
                    if not faults and not self._cleaned(scan, seen["scan"]).clustered:
                        warnings.append(f"{self.scan}: no cluster found, every point off the plane is kept")
            except FileFault as fault:
                faults.append(str(fault))
            except DataError as error:  # what cleaning needs is not installed
                faults.append(f"{self.scan}: {error}")
        elif self.points:
            faults.append(str(FileFault(Path(self.expected_scan), f"is missing, the points of {self.image}")))
        else:
            warnings.append(f"{self.image}: its scan is missing, so its background stays")
        if faults:
            return Checked(None, tuple(faults), tuple(warnings), tuple(remarks))
        settings = [self.label, self.points, plane_cleaning.VERSION, sorted((k, v.digest) for k, v in seen.items())]
        digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        copied = "".join(seen[kind].digest for kind in ("image", *(("scan",) if self.points else ())))
        entry = Entry(self.name, digest, partial(self._load, seen), content=copied)
        return Checked(entry, (), tuple(warnings), tuple(remarks))

    def list_files(self) -> SampleFiles:
        """Picture, scan and, of a defective sample, the mask."""
        present, missing = [self.image], []
        expected = [("scan", self.scan, self.expected_scan)]
        if self.label:
            expected.append(("mask", self.mask, self.expected_mask))
        for what, given, place in expected:
            if given is not None:
                present.append(given)
            else:
                missing.append((Path(place), f"is missing, the {what} of {self.image}"))
        return SampleFiles(self.image, tuple(present), tuple(missing), self.label)

    def _load(self, seen: dict[str, Seen], size: int) -> Sample:
        try:
            image = decode_picture(again(seen["image"]))
            mask = None
            if "mask" in seen:
                mask = decode_any_mask(again(seen["mask"]), size=image.shape[:2], nonzero=None)
            image_map: UInt8[np.ndarray, "h w 3"] = image
            points: Float[np.ndarray, "h w 3"] | None = None
            side = square_side(*image.shape[:2])
            if "scan" in seen:
                scan = files.decode_xyz(again(seen["scan"]))
                cleaned = self._cleaned(scan, seen["scan"])
                points = pad_to_square(np.where(cleaned.points[..., None], scan, 0), side) if self.points else None
                colors = pad_to_square(cleaned.colors, side)
                image_map = np.where(colors[..., None], pad_to_square(image, side), np.uint8(0))
        except FileFault as fault:
            raise DataError(str(fault)) from None
        return Sample(
            name=self.name,
            image=resize_image(pad_to_square(image_map, side), size=size),
            points=None if points is None else resize_points(points, size=size),
            gt_mask=np.zeros((size, size), bool) if mask is None else resize_mask(pad_to_square(mask, side), size=size),
            gt_label=self.label,
            image_path=self.image,
            full_size=(image.shape[0], image.shape[1]),
            fit="pad",
        )

    def _cleaned(self, scan: Float[np.ndarray, "h w 3"], file: Seen) -> CleanedScan:
        """What cleaning found, from the store if it is there, else made and stored: a bit for each pixel, no points."""
        key = hashlib.sha256(json.dumps(["mvtec3d_masks", plane_cleaning.VERSION, file.digest]).encode()).hexdigest()
        path = self.store / f"{key}.masks"
        shape = scan.shape[:2]
        stored = atomic.read_arrays(path, key)
        if stored is not None:
            points, colors = (
                np.unpackbits(stored[name], count=shape[0] * shape[1]).astype(bool).reshape(shape)
                for name in ("points", "colors")
            )
            return CleanedScan(points, colors, bool(stored["clustered"].all()))
        cleaned = plane_cleaning.clean_scan(scan)
        if not cleaned.points.any():
            raise FileFault(file.path, "has no points left after cleaning")
        arrays = {"points": np.packbits(cleaned.points), "colors": np.packbits(cleaned.colors)}
        try:
            atomic.write_arrays(path, key, arrays | {"clustered": np.array([cleaned.clustered])})
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise FileFault(path, f"cannot be written ({reason})", "make room or choose another cache_dir") from None
        return cleaned


DATASET = DatasetSpec(name="mvtec3d", find=find_mvtec3d, source=SOURCE, rank=10)


def _check_form(path: Path, scan: tuple[int, ...], image: tuple[int, ...]) -> None:
    """A scan is as large as its picture, or was padded to the square while the picture was not."""
    if scan not in (image, (square_side(*image),) * 2):
        raise FileFault(path, f"is {scan[1]} x {scan[0]} points, but its picture is {image[1]} x {image[0]}")
