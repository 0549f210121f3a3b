"""Samples of a plain folder by group: the files of each folder of pictures, and the masks and points of each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from musc_jax.data.folder_files import PassedOver, collect, identity
from musc_jax.data.folder_hints import listed
from musc_jax.data.folder_layout import FolderLayout
from musc_jax.data.formats import own_pictures as image_files
from musc_jax.data.formats import points as point_files
from musc_jax.data.pairing import Place, core, pair
from musc_jax.data.trees import is_folder
from musc_jax.data.twins import are_different, may_be_depth

BESIDE = "masks or depth beside their pictures"
LEFT_OUT = "point data, which --modality=rgb leaves out"
OF_GOOD = "masks of good samples"
ALONE = "without a sample"
ELSEWHERE = "point data outside of the folder that flags name"


@dataclass
class Group:
    """Samples of one label and the folders of their files."""

    label: int | None
    images: Path
    masks: Path | None
    points: Path | None
    """None: beside the pictures."""
    prefix: str
    telling: tuple[str, ...]
    """Names of the folders that pictures lie in, from the category's on."""
    pictures: dict[str, Path] = field(default_factory=dict)
    """By stem: the path within the folder, without the suffix."""
    clouds: dict[str, Path] = field(default_factory=dict)
    beside: list[Path] = field(default_factory=list)
    """Pictures that are called as if they were another one's mask or depth."""
    twins: list[Path] = field(default_factory=list)
    """Pictures that are called as another one but for the suffix, and show something else."""


Samples = Sequence[tuple[Group, str]]
"""Every sample's group and stem, in the order of their indices."""


@dataclass
class Search:
    """What looking for a category's files is about, and where its findings go.

    Attributes:
        folder: the category's.
        layout: what the user says.
        modality: "rgb", "points" or "rgb+points".
        apart: every folder that flags name, and those of other categories.
        report: gets a line about each fault.
        warnings: get lines about oddities.
        passed: gets what is not used.
    """

    folder: Path
    layout: FolderLayout
    modality: str
    apart: Sequence[Path]
    report: Callable[[str], None]
    warnings: list[str]
    passed: PassedOver

    @property
    def wants_points(self) -> bool:
        """Whether point data is looked at."""
        return self.modality != "rgb"

    def without(self, root: Path) -> list[Path]:
        """Folders that flags name, but for one."""
        return [path for path in self.apart if identity(path) != identity(root)]

    def partners(self, root: Path, extensions: frozenset[str], samples: "Samples") -> list[Path]:
        """The files of a folder of masks or points, which may be one of pictures."""
        pictures = {path for group, _ in samples for path in group.pictures.values()}
        found = collect(root, extensions, self.passed, self.report, apart=self.without(root), samples=False)
        return [path for path in found if path not in pictures]


@dataclass
class Partners:
    """Masks or points of all samples, out of one folder or several."""

    of: dict[int, Path] = field(default_factory=dict)
    undecided: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    alone: list[Path] = field(default_factory=list)
    users: dict[Path, Path] = field(default_factory=dict)
    """By partner, its sample: folders that flags name may lie in each other."""

    def match(
        self,
        samples: "Samples",
        roots: Sequence[Path | None],
        root: Path,
        files: Iterable[Path],
        *,
        role: str,
        what: str,
    ) -> None:
        """Pair the files of one folder with the samples whose partners lie there."""
        chosen = [i for i, other in enumerate(roots) if other == root]
        places = []
        for group, stem in (samples[i] for i in chosen):
            path = group.pictures.get(stem) or group.clouds[stem]
            places.append(Place.below(group.images, path, before=group.telling))
        before = samples[chosen[0]][0].telling if root == samples[chosen[0]][0].images else ()
        found = pair(places, [Place.below(root, path, before=before) for path in files], role=role, what=what)
        for at, path in found.of.items():
            other = self.users.setdefault(path, places[at].path)
            if other != places[at].path:
                self.faults.append(f"{path}: could be the {what} of {other} and of {places[at].path}; keep one of them")
            self.of[chosen[at]] = path
        self.undecided |= {chosen[at] for at in found.undecided}
        self.faults += found.faults
        self.alone += found.alone


def collect_group(search: Search, group: Group) -> None:
    """The files of a group's own folder; a second one of the same stem and use is reported."""
    clouds = point_files.EXTENSIONS - {".png"}  # beside pictures a PNG is a picture
    wanted = search.layout.picture_extensions | clouds
    files = collect(group.images, wanted, search.passed, search.report, apart=search.apart)
    pictures: list[Path] = []
    # The plain formats first, so that of 1.png and 1.tiff the former is the picture, the latter its points.
    for path in sorted(files, key=lambda path: path.suffix.lower() in (".tif", ".tiff")):
        stem, kind = stem_of(group, path), path.suffix.lower()
        if kind in clouds and (kind not in search.layout.picture_extensions or _is_depth_of(search, group, stem, path)):
            _add(search.report, group.clouds, stem, path)
        elif kind in search.layout.picture_extensions and _add_picture(search, group, stem, path):
            pictures.append(path)
    keys = {path: key for key, path in group.pictures.items()}
    cores = {(path.parent, core(path.stem, "picture") or path.stem.casefold()): path for path in pictures}
    for path in pictures:
        of = cores.get((path.parent, core(path.stem, "beside") or ""))
        if of is not None and of is not path:
            group.beside.append(group.pictures.pop(keys[path]))
    if search.modality == "points" and group.points is not None and not group.pictures:
        _take_scans_alone(search, group, group.points)
    elif search.modality == "points" and group.points is None:
        # Nobody asks for pictures, so what could be either is points.
        for stem, path in list(group.pictures.items()):
            if stem not in group.clouds and path.suffix.lower() in point_files.EXTENSIONS:
                group.clouds[stem] = group.pictures.pop(stem)


def _take_scans_alone(search: Search, group: Group, points: Path) -> None:
    """Where there are no pictures the folder of point data is that of the samples."""
    own = points / (group.telling[-1] if group.telling else "")
    group.images, group.points = (own if is_folder(own) else points), None
    group.clouds.clear()
    apart = search.without(group.images)
    for path in collect(group.images, point_files.EXTENSIONS, search.passed, search.report, apart=apart):
        _add(search.report, group.clouds, stem_of(group, path), path)


def _is_depth_of(search: Search, group: Group, stem: str, path: Path) -> bool:
    """Whether a TIFF that is called as a picture is its points, not another picture."""
    return stem in group.pictures and (search.wants_points or may_be_depth(path))


def _add_picture(search: Search, group: Group, stem: str, path: Path) -> bool:
    """Adds a picture, also one that is called as another but for the suffix, if it shows something else."""
    known = group.pictures.get(stem)
    if known is not None and are_different(known, path):
        group.twins.append(path)
        stem += path.suffix
    return _add(search.report, group.pictures, stem, path)


def _add(report: Callable[[str], None], known: dict[str, Path], stem: str, path: Path) -> bool:
    if stem in known:
        report(
            f"{path}: has the same stem as {known[stem].name} and may be the same once more; keep one of them, or give "
            "one another name"
        )
        return False
    known[stem] = path
    return True


def find_masks(search: Search, samples: Samples) -> Partners:
    """The masks of defective samples, and of those without labels."""
    good = {part.casefold() for group, _ in samples if group.label == 0 for part in group.telling[-1:]}
    roots = [group.masks for group, _ in samples]
    partners = Partners()
    for root in dict.fromkeys(root for root in roots if root is not None):
        files = search.partners(root, image_files.EXTENSIONS, samples)
        partners.match(samples, roots, root, files, role="mask", what="mask")
        for path in partners.alone:
            if good & {part.casefold() for part in path.relative_to(root).parts[:-1]}:
                search.passed.add(OF_GOOD, path)
                continue
            search.passed.add(ALONE, path)
            if search.layout.unmasked == "good" and any(group.label is None for group, _ in samples):
                search.report(
                    f"{path}: is a mask without a sample, and its own may count as good (--unmasked=good); call it as "
                    "its sample, or move it away"
                )
                continue
            search.warnings.append(f"{path}: is a mask without a sample; not used")
        partners.alone.clear()
    for line in partners.faults:
        search.report(line)
    return partners


def find_rois(search: Search, samples: Samples, root: Path) -> Partners:
    """The regions of interest of all samples, in one folder."""
    partners = Partners()
    files = search.partners(root, image_files.EXTENSIONS, samples)
    partners.match(samples, [root] * len(samples), root, files, role="roi", what="region of interest")
    for path in partners.alone:
        search.passed.add(ALONE, path)
        search.warnings.append(f"{path}: is a region of interest without a sample; not used")
    for line in partners.faults:
        search.report(line)
    return partners


def find_points(search: Search, samples: Samples) -> Partners:
    """The point data of all samples, where the modality wants any."""
    partners = Partners()
    groups = list({id(group): group for group, _ in samples}.values())
    if not search.wants_points:
        for path in (path for group in groups for path in group.clouds.values()):
            search.passed.add(LEFT_OUT, path)
        return partners
    for path in (path for group in groups if group.points is not None for path in group.clouds.values()):
        search.passed.add(ELSEWHERE, path)
    roots = [group.points or group.images for group, _ in samples]
    for root in dict.fromkeys(roots):
        beside = [group for group in groups if group.points is None and group.images == root]
        if beside:
            files = [path for group in beside for path in group.clouds.values()]
        else:
            files = search.partners(root, point_files.EXTENSIONS, samples)
            if not files:
                search.report(
                    f"{root}: has none ({listed(point_files.EXTENSIONS)}); name their folder by --depth_dir, or "
                    f"score pictures alone by --modality=rgb{point_files.foreign_points(root)}"
                )
                partners.undecided |= {i for i, other in enumerate(roots) if other == root}
                continue
        partners.match(samples, roots, root, files, role="points", what="points")
    for path in partners.alone:
        search.passed.add(ALONE, path)
        search.warnings.append(f"{path}: are points without a picture; not used")
    for line in partners.faults:
        search.report(line)
    return partners


def point_extensions(group: Group) -> frozenset[str]:
    """Suffixes of a group's point data."""
    # Beside pictures a PNG is a picture; depth as PNG wants a folder of its own.
    return point_files.EXTENSIONS - {".png"} if group.points is None else point_files.EXTENSIONS


def stem_of(group: Group, path: Path) -> str:
    """A file's path in its group's folder, without the suffix."""
    return path.relative_to(group.images).with_suffix("").as_posix()
