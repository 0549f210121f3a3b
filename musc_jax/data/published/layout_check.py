"""Comparing a dataset on disk with what was published: categories, counts, and every sample's files.

Samples are found by the dataset's own reader, so this sees what a run would see. Files are looked for, not decoded:
`musc_jax.data.published.preparation` does that, and takes longer.
"""

import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MethodType

from PIL import Image

from musc_jax.data.datasets.eyecandies_scan import Scan
from musc_jax.data.datasets.mvtec3d import Scan3d
from musc_jax.data.formats.files import DECODE_ERRORS
from musc_jax.data.formats.pictures import EXTENSIONS
from musc_jax.data.image_sample import Picture
from musc_jax.data.published.catalogue import CATALOGUE, Expected, Source
from musc_jax.data.registry import DATASETS, find_samples
from musc_jax.data.sample import DataError
from musc_jax.data.trees import Found, Request, entries, is_folder

_SCANS = frozenset({".tiff", ".tif"})
_CANDY = re.compile(
    r"[0-9]+_(image_[0-5]\.png|(bumps_|dents_|colors_|normals_)?mask\.png|(depth|normals)\.png|info_depth\.yaml|pose\.txt"
    r"|(obj_params|metadata)\.yaml|xyz\.tiff)"
)
_ABOUT = frozenset({".txt", ".md", ".csv", ".json", ".pdf", ""})


@dataclass(frozen=True)
class Layout:
    """What a dataset's folders hold.

    Attributes:
        folder: within a category, where its test samples are; a folder without it is no category.
        known: what else a category has.
        roots: what else the dataset has.
    """

    folder: str
    known: frozenset[str]
    roots: frozenset[str] = frozenset()


_MVTEC = Layout("test", frozenset({"train", "test", "ground_truth"}))
_LAYOUTS = {
    "mvtec3d": Layout("test", frozenset({"train", "validation", "test", "calibration"})),
    "eyecandies": Layout("test_public/data", frozenset({"train", "val", "test_public", "test_private"})),
    "mvtec_ad": _MVTEC,
    "visa": Layout("Data", frozenset({"Data"}), frozenset({"split_csv"})),
    "mpdd": _MVTEC,
    "btad": _MVTEC,
}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as published.

    Attributes:
        category: where; "" for the dataset as a whole.
        path: the file or folder.
        line: what is wrong with it, and the way out.
        problem: whether results would differ; otherwise it is only odd.
    """

    category: str
    path: Path
    line: str
    problem: bool = True

    def __str__(self) -> str:
        return f"{self.path}: {self.line}"


def check_layout(name: str, data_dir: Path | str, *, categories: Sequence[str] | None = None) -> list[Finding]:
    """Compare a tree on disk with the published dataset.

    Args:
        name: one of `CATALOGUE`.
        data_dir: its folder.
        categories: default all that were published.

    Returns:
        What is missing or odd: first of the whole dataset, then category by category in the order of the catalogue and
        sample by sample. Empty if all is as published.

    Raises:
        DataError: no such dataset, no such category in it, or a folder that cannot be read.
    """
    if name not in CATALOGUE:
        raise DataError(f"no published dataset {name!r}; take one of: {', '.join(CATALOGUE)}")
    source, root = CATALOGUE[name], Path(data_dir)
    for category in categories or ():
        if category not in source.categories:
            known = ", ".join(source.categories)
            raise DataError(f"{source.title} has no category {category!r}; take some of: {known}")
    # Readers make a folder for what they derive; nothing is derived here.
    with tempfile.TemporaryDirectory() as store:
        try:
            found = find_samples(name, Request(root, store, modality=DATASETS[name].modalities[-1]))
        except DataError as error:
            line = str(error).removeprefix(f"{root}: ")
            return [Finding("", root, line)]
    findings = list(_around(name, source, root, found)) if categories is None else []
    for category, expected in source.categories.items():
        if categories is None or category in categories:
            findings += _check_category(name, category, expected, _home(name, source, root, category), found)
    return findings


def _home(name: str, source: Source, root: Path, category: str) -> Path:
    """A category's folder, where its reader finds it."""
    places = [parent / category for parent in (root, *(root / wrapper for wrapper in source.wrappers))]
    return next((place for place in places if is_folder(place / _LAYOUTS[name].folder)), places[0])


def _around(name: str, source: Source, root: Path, found: Found) -> Iterator[Finding]:
    """What lies beside the categories."""
    layout = _LAYOUTS[name]
    for parent in (root, *(root / wrapper for wrapper in source.wrappers)):
        for path in entries(parent):
            if path.name in source.categories or path.name in layout.roots:
                continue
            if path.name in found.candidates and is_folder(path):
                yield Finding("", path, "is no published category, but would be scored with the others; move it away")
            elif is_folder(path) and not (parent == root and path.name in source.wrappers):
                yield Finding("", path, "is an unexpected folder; not used", problem=False)
            elif not is_folder(path) and path.suffix.lower() not in _ABOUT:
                yield Finding("", path, "is an unexpected file; not used", problem=False)


def _check_category(name: str, category: str, expected: Expected, home: Path, found: Found) -> Iterator[Finding]:
    layout = _LAYOUTS[name]
    if not is_folder(home / layout.folder):
        has = f"has no {layout.folder}" if is_folder(home) else "is missing"
        count = f"{expected.good} good and {expected.defective} defective samples"
        yield Finding(category, home, f"{has}, published with {count}; fetch it again")
        return
    used: set[Path] = set()
    for fault in found.faults:
        if fault.category == category:
            place, colon, line = fault.line.partition(": ")
            used.add(Path(place))
            yield Finding(category, Path(place) if colon else home, line if colon else place)
    samples = [_files_of(candidate.check) for candidate in found.candidates.get(category, ())]
    for sample in samples:
        yield from _check_sample(category, sample, used)
    yield from _check_counts(category, expected, home, samples)
    yield from _check_size(category, expected, samples)
    for path in entries(home):
        if is_folder(path) and path.name not in layout.known:
            yield Finding(category, path, "is an unexpected folder; not used", problem=False)
        elif not is_folder(path) and path.suffix.lower() not in _ABOUT:
            yield Finding(category, path, "is an unexpected file; not used", problem=False)
    for folder in _scored_folders(name, home):
        yield from _check_rest(name, category, folder, used)


def _files_of(check: object) -> Picture | Scan3d | Scan:
    """The files of a sample, which its check is a method of."""
    sample = check.__self__ if isinstance(check, MethodType) else check
    assert isinstance(sample, Picture | Scan3d | Scan), sample
    return sample


def _check_sample(category: str, sample: Picture | Scan3d | Scan, used: set[Path]) -> Iterator[Finding]:
    if isinstance(sample, Scan):
        paths = {item: sample.folder / f"{sample.index}_{item}" for item in sample.items}
        raw = ("depth.png", "info_depth.yaml", "pose.txt")
        needed = ["image_0.png", "mask.png"]
        # Without any of the raw files it is the points themselves that were lost.
        needed += ["xyz.tiff"] if "xyz.tiff" in paths or not paths.keys() & set(raw) else raw
        for item in needed:
            if item not in paths:
                path = sample.folder / f"{sample.index}_{item}"
                also = " (or depth.png, info_depth.yaml and pose.txt)" if item == "xyz.tiff" else ""
                yield Finding(category, path, f"is missing{also}; copy it again from the dataset's archive")
        present = list(paths.values())
    else:
        present = [sample.image]
        expected = [("mask", sample.mask, _mask_place(sample))] if sample.label else []
        if isinstance(sample, Scan3d):
            expected.insert(0, ("scan", sample.scan, sample.expected_scan))
        for what, given, place in expected:
            if given is not None:
                present.append(given)
            elif place:
                line = f"is missing, the {what} of {sample.image}; copy it again from the dataset's archive"
                yield Finding(category, Path(place), line)
    for path in sorted(present):
        used.add(path)
        line = _fault_of(path)
        if line:
            yield Finding(category, path, f"{line}; copy it again from the dataset's archive")


def _mask_place(sample: Picture | Scan3d) -> str:
    return sample.expected_mask if isinstance(sample, Scan3d) else sample.mask_expected


def _fault_of(path: Path) -> str:
    try:
        if not path.exists():
            return "is missing"
        if not path.is_file():
            return "is no file"
        return "" if path.stat().st_size else "is empty"
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"


def _check_counts(
    category: str, expected: Expected, home: Path, samples: Sequence[Picture | Scan3d | Scan]
) -> Iterator[Finding]:
    again = "unpack it again, or move away what was added"
    if any(isinstance(sample, Scan) for sample in samples):  # only a look into the mask would tell which it is
        total = expected.good + expected.defective
        if len(samples) != total:
            yield Finding(category, home, f"has {len(samples)} samples, published with {total}; {again}")
        return
    good = sum(not isinstance(sample, Scan) and sample.label == 0 for sample in samples)
    for what, count, published in (
        ("good", good, expected.good),
        ("defective", len(samples) - good, expected.defective),
    ):
        if count != published:
            yield Finding(category, home, f"has {count} {what} samples, published with {published}; {again}")


def _check_size(category: str, expected: Expected, samples: Sequence[Picture | Scan3d | Scan]) -> Iterator[Finding]:
    """A copy that somebody scaled down has all its files; its first picture's header tells."""
    if expected.size is None or not samples:
        return
    first = samples[0]
    path = first.folder / f"{first.index}_image_0.png" if isinstance(first, Scan) else first.image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                size = picture.size
    except DECODE_ERRORS:
        return
    squared = (max(expected.size),) * 2 if isinstance(first, Scan3d) else expected.size  # cleaned in place
    if size not in (expected.size, squared):
        published = f"{expected.size[0]} x {expected.size[1]}"
        line = f"is {size[0]} x {size[1]}, published as {published}; results would not be comparable"
        yield Finding(category, path, line, problem=False)


def _scored_folders(name: str, home: Path) -> list[Path]:
    if name == "visa":
        # Good pictures that are not tested are for training.
        return [home / "Data" / "Images" / "Anomaly", home / "Data" / "Masks"]
    if name == "eyecandies":
        return [home / "test_public" / "data"]
    return [home / "test", home / "ground_truth"]


def _check_rest(name: str, category: str, folder: Path, used: set[Path]) -> Iterator[Finding]:
    """Files that belong to no sample."""
    for path in entries(folder):
        if is_folder(path):
            if name == "mvtec3d" and (path.name, path.parent.parent.name) == ("gt", "test") and folder.name == "good":
                continue  # black masks, which nobody reads
            yield from _check_rest(name, category, path, used)
        elif path not in used and not (name == "eyecandies" and _CANDY.fullmatch(path.name)):
            yield Finding(category, path, _why_unused(name, folder, path), problem=False)


def _why_unused(name: str, folder: Path, path: Path) -> str:
    if name == "eyecandies":
        return "has a name that no file of a sample has; not used"
    masks = folder.name == "gt" or "ground_truth" in folder.parts or "Masks" in folder.parts
    known = _SCANS if folder.name == "xyz" else EXTENSIONS
    if path.suffix.lower() not in known:
        return "has an unknown extension; not used"
    return "is a mask without an image; not used" if masks else "belongs to no sample; not used"
