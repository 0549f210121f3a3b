"""A plain folder of one product's samples: labelled by subfolders as anomalib has it, or flat without labels.

    DIR/<normal_dir>/**, DIR/<abnormal_dir>/**, DIR/<mask_dir>/**, DIR/<depth_dir>/**
    DIR/*.png                                                       (flat)

Files belong together if they have the same stem (and lie in the same subfolder), by nothing else. What has no partner
is listed. The folder's own name is the category; given `categories`, each is a folder in it with this layout.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from musc_jax.data.account import Account
from musc_jax.data.dataset import Candidate
from musc_jax.data.folder_layout import FolderLayout
from musc_jax.data.folder_sample import FolderSample
from musc_jax.data.formats import pictures as image_files
from musc_jax.data.formats import points as point_files
from musc_jax.data.sample import DataError
from musc_jax.data.scan_rules import decide_scan_rules
from musc_jax.data.spec import DatasetSpec
from musc_jax.data.trees import Found, Request, add_candidates, is_folder, natural, subfolders
from musc_jax.storage.paths import below


@dataclass(frozen=True)
class _Group:
    """Samples of one label and the folders of their files."""

    label: int | None
    images: Path
    masks: Path | None
    points: Path | None
    """None: beside the pictures."""
    prefix: str
    recursive: bool


@dataclass
class _Files:
    """The files of a folder by stem: the path within the folder, without the extension."""

    pictures: dict[str, Path] = field(default_factory=dict)
    points: dict[str, Path] = field(default_factory=dict)


def find_folder(request: Request) -> Found:
    """Find every sample of a plain folder, and decide how its files are read."""
    layout = request.folder or FolderLayout()
    if request.data_dir is None:
        raise DataError("folder needs a folder of samples (--data_dir)")
    root = Path(request.data_dir)
    if not is_folder(root):
        raise DataError(f"{root}: is not a folder; give the folder of your samples")
    found = Found()
    categories = {root.resolve().name or "folder": root}
    if request.categories is not None:
        categories = {name: below(root, name) for name in dict.fromkeys(request.categories)}
    for category, folder in categories.items():
        if not is_folder(folder):
            found.fault(category, f"{folder}: is not a folder; --categories names folders in {root}")
            continue
        before = len(found.faults)
        samples: list[FolderSample] = []
        for group in _groups(folder, layout, partial(found.fault, category)):
            samples += _find_samples(found, category, group, layout, request.modality)
        if samples or len(found.faults) == before:
            samples = _decided(samples, layout, request, found, category)
            add_candidates(found, category, folder, [Candidate(sample.name, sample.check) for sample in samples])
    return found


def _decided(
    samples: Sequence[FolderSample], layout: FolderLayout, request: Request, found: Found, category: str
) -> list[FolderSample]:
    """The samples with the rules by which all of the category's files are read."""
    account = found.accounts.setdefault(category, Account())
    scans = decide_scan_rules(
        samples, layout, account, partial(found.fault, category), workers=request.workers, progress=request.progress
    )
    return [replace(sample, scans=scans) for sample in samples]


def _groups(folder: Path, layout: FolderLayout, report: Callable[[str], None]) -> list[_Group]:
    if not layout.normal_dir and not layout.abnormal_dir:
        masks = folder / layout.mask_dir[0] if layout.mask_dir else None
        points = folder / layout.depth_dir if layout.depth_dir else None
        groups = [_Group(None, folder, masks, points, "", recursive=False)]
    else:
        groups = []
        for label, own, depth in (
            (0, layout.normal_dir, layout.normal_depth_dir),
            (1, layout.abnormal_dir, layout.abnormal_depth_dir),
        ):
            for position, name in enumerate(own):
                points = _partner(folder, depth or ((layout.depth_dir,) if layout.depth_dir else ()), position, name)
                masks = _partner(folder, layout.mask_dir, position, name) if label else None
                groups.append(_Group(label, folder / name, masks, points, f"{Path(name).name}_", recursive=True))
    lacking = [p for group in groups for p in (group.images, group.masks, group.points) if p and not is_folder(p)]
    for path in dict.fromkeys(lacking):
        report(f"{path}: is not a folder; {_folders_of(folder)}")
    # One line for a folder of masks that is not there, not one for each mask that would be in it.
    return [] if lacking else groups


def _partner(folder: Path, names: tuple[str, ...], position: int, own: str) -> Path | None:
    """The folder of masks or points that belongs to a folder of pictures."""
    if not names:
        return None
    if len(names) > 1:
        return folder / names[position]
    one = folder / names[0]
    return one / Path(own).name if is_folder(one / Path(own).name) else one


def _folders_of(folder: Path) -> str:
    try:
        names = [path.name for path in subfolders(folder)]
    except DataError as error:
        return str(error)
    return f"there are {', '.join(names)}" if names else "there are no folders in it"


def _find_samples(
    found: Found, category: str, group: _Group, layout: FolderLayout, modality: str
) -> list[FolderSample]:
    def report(line: str) -> None:
        found.fault(category, line)

    # Beside pictures a PNG is a picture; depth as PNG wants a folder of its own.
    beside = group.points is None
    point_extensions = point_files.EXTENSIONS - {".png"} if beside else point_files.EXTENSIONS
    own = _collect(
        group.images, layout.picture_extensions, point_files.EXTENSIONS - {".png"}, report, recursive=group.recursive
    )
    points = own.points
    if not beside:
        points = _collect(group.points, frozenset(), point_files.EXTENSIONS, report, recursive=True).points
    masks = {}
    if group.masks is not None:
        masks = _collect(group.masks, image_files.EXTENSIONS, frozenset(), report, recursive=True).pictures
    wanted = modality != "rgb"
    if modality == "points" and beside:
        # Nobody asks for pictures, so what could be either is points.
        for stem, path in list(own.pictures.items()):
            if stem not in points and path.suffix.lower() in point_files.EXTENSIONS:
                points[stem] = own.pictures.pop(stem)
    # Scans without any picture are fine where pictures are not looked at.
    stems = own.pictures
    if modality == "points" and not own.pictures:
        stems = points
    if not stems:
        report(f"{group.images}: {_nothing(group, layout, modality, points)}")
        return []
    if wanted and not points:
        lacking = f"{group.images}: has no point data beside its pictures" if beside else f"{group.points}: has none"
        report(
            f"{lacking} ({_listed(point_extensions)}); name their folder by --depth_dir, or score pictures alone by "
            "--modality=rgb"
        )
        return []
    samples = []
    for stem in sorted(stems, key=natural):
        mask, scan, image = masks.pop(stem, None), points.get(stem), own.pictures.get(stem)
        name = group.prefix + stem.replace("/", "_")
        missing = []
        if group.masks is not None and mask is None:
            missing.append(f"{group.masks / stem}.png: is missing, the mask of {image or scan}; add it")
        if wanted and scan is None:
            place = group.images if beside else group.points
            known = _listed(point_extensions)
            missing.append(f"{place}/{stem}: the points of {image} are missing ({known}); add them")
        samples.append(FolderSample(name, image, scan if wanted else None, mask, group.label, tuple(missing)))
    found.warnings.extend(f"{path}: is a mask without a sample; not used" for path in masks.values())
    if wanted:
        alone = (path for stem, path in points.items() if stem not in stems)
        found.warnings.extend(f"{path}: are points without a picture; not used" for path in alone)
    return samples


def _nothing(group: _Group, layout: FolderLayout, modality: str, points: Mapping[str, Path]) -> str:
    """What to say of a folder without samples."""
    if modality == "points":
        text = f"has no point data ({_listed(point_files.EXTENSIONS)})"
    else:
        text = f"has no pictures ({_listed(layout.picture_extensions)})"
        if points and group.points is None:
            return f"{text}, but point data; score that by --modality=points"
    if group.label is not None:
        return f"{text}; add them, or name another folder"
    choose = ": say which are which by --normal_dir and --abnormal_dir" if subfolders(group.images) else ""
    return f"{text}; {_folders_of(group.images)}{choose}"


def _listed(extensions: Iterable[str]) -> str:
    return ", ".join(sorted(extensions))


def _collect(
    folder: Path | None,
    picture_extensions: frozenset[str],
    point_extensions: frozenset[str],
    report: Callable[[str], None],
    *,
    recursive: bool,
) -> _Files:
    """The files in a folder; a second one of the same stem and use is reported."""
    files_of = _Files()
    if folder is None or not is_folder(folder):
        return files_of

    def unreadable(error: OSError) -> None:
        report(f"{error.filename}: cannot be read ({error.strerror}); make it readable")

    # Links to folders are not followed: they may lead in a circle.
    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        listed = [Path(parent, name) for name in sorted(names, key=natural) if not name.startswith(".")]
        # The plain formats first, so that of 1.png and 1.tiff the former is the picture, the latter its points.
        for path in sorted(listed, key=lambda path: path.suffix.lower() in (".tif", ".tiff")):
            stem = path.relative_to(folder).with_suffix("").as_posix()
            kind = path.suffix.lower()
            is_points = kind in point_extensions
            if kind in picture_extensions and not (stem in files_of.pictures and is_points):
                _add(files_of.pictures, stem, path, report)
            elif is_points:
                _add(files_of.points, stem, path, report)
    return files_of


def _add(known: dict[str, Path], stem: str, path: Path, report: Callable[[str], None]) -> None:
    if stem in known:
        report(f"{path}: has the same stem as {known[stem].name}; keep one of them")
    else:
        known[stem] = path


DATASET = DatasetSpec(name="folder", find=find_folder, user_layout=True, rank=100)
