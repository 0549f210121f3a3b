"""A plain folder of one product's samples: labelled by subfolders as anomalib has it, or flat without labels.

    DIR/<normal_dir>/**, DIR/<abnormal_dir>/**, DIR/<mask_dir>/**, DIR/<depth_dir>/**
    DIR/**                                                          (flat)

What belongs to a picture is found by its path, see `musc_jax.data.pairing`; what has no partner, and what is passed
over, is listed. The folder's own name is the category; given `categories`, each is a folder in it with this layout.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath

from musc_jax.data import folder_hints
from musc_jax.data.account import Account
from musc_jax.data.dataset import Candidate
from musc_jax.data.folder_files import PassedOver, counted, identity
from musc_jax.data.folder_groups import (
    ALONE,
    BESIDE,
    Group,
    Partners,
    Samples,
    Search,
    collect_group,
    find_masks,
    find_points,
    find_rois,
    point_extensions,
)
from musc_jax.data.folder_hints import listed, some
from musc_jax.data.folder_layout import FolderLayout
from musc_jax.data.folder_sample import FolderSample
from musc_jax.data.formats import points as point_files
from musc_jax.data.formats.files import FileFault
from musc_jax.data.formats.own_rois import check_roi
from musc_jax.data.picture_rules import decide_picture_rules
from musc_jax.data.sample import DataError
from musc_jax.data.sample_names import group_prefixes, safe_name, safe_names
from musc_jax.data.scan_rules import decide_scan_rules
from musc_jax.data.spec import DatasetSpec
from musc_jax.data.trees import Found, Request, add_candidates, entries, is_folder, natural_order, subfolders
from musc_jax.storage.paths import below, readable

_HINTED = 10
UNNAMED = "in no folder that a flag names"


def find_folder(request: Request) -> Found:
    """Find every sample of a plain folder, and decide how its files are read."""
    layout = request.folder or FolderLayout()
    if request.data_dir is None:
        raise DataError("folder needs a folder of samples (--data_dir)")
    root = Path(request.data_dir)
    if not is_folder(root):
        raise DataError(f"{root}: is not a folder; give the folder of your samples")
    found, layout = Found(), with_checked_roi(layout, root)
    categories = {safe_category(root): root}
    if request.categories is not None:
        categories = {name: below(root, name) for name in dict.fromkeys(request.categories)}
    for category, folder in categories.items():
        if not is_folder(folder):
            found.fault(category, f"{folder}: is not a folder; --categories names folders in {root}")
            continue
        before = len(found.faults)
        finder = _Finder(found, category, folder, layout, request.modality, apart=categories.values())
        samples = finder.find()
        if samples or len(found.faults) == before:
            samples = _decided(samples, layout, request, found, category)
            own = [Candidate(one.name, one.check, label=one.label) for one in samples]
            add_candidates(found, category, folder, own)
    return found


def _decided(
    samples: Sequence[FolderSample], layout: FolderLayout, request: Request, found: Found, category: str
) -> list[FolderSample]:
    """The samples with the rules by which all of the category's files are read."""
    account = found.accounts.setdefault(category, Account())
    scans = decide_scan_rules(
        samples, layout, account, partial(found.fault, category), workers=request.workers, progress=request.progress
    )
    pictures = decide_picture_rules(samples, layout, account, workers=request.workers, progress=request.progress)
    return [replace(sample, scans=scans, pictures=pictures, working=request.working) for sample in samples]


def with_checked_roi(layout: FolderLayout, root: Path) -> FolderLayout:
    """The layout with its region of interest as a path of its own, looked into if it is one for all samples.

    Raises:
        DataError: it is no mask with something bright in it, or the folder of the samples.
    """
    if layout.roi is None:
        return layout
    path = (root / layout.roi).absolute()
    if identity(path) == identity(root):
        raise DataError(f"roi: {path}: is the folder of the samples; give a mask, or a folder of masks (--roi)")
    if not is_folder(path):
        try:
            check_roi(path, max_pixels=layout.max_pixels)
        except FileFault as fault:
            raise DataError(f"roi: {fault.of_own_file}") from None
    return replace(layout, roi=str(path))


def safe_category(root: Path) -> str:
    """What the samples of a folder are called as a whole: its name, as far as results can be called so."""
    name = root.resolve().name
    # What only Windows objects to has always been the name of results elsewhere; what is refused stays so.
    return name if name.startswith(".") else safe_name(name) if name else "folder"


class _Finder:
    """One category's samples: `find` is what happens, step by step."""

    def __init__(
        self,
        found: Found,
        category: str,
        folder: Path,
        layout: FolderLayout,
        modality: str,
        *,
        apart: Iterable[Path],
    ) -> None:
        self.folder, self.layout, self.modality, self.category = folder, layout, modality, category
        self.report: Callable[[str], None] = partial(found.fault, category)
        self.account = found.accounts.setdefault(category, Account())
        self.passed, self.missing_masks = PassedOver(folder), 0
        self.apart = [*apart, *(folder / name for name in (*layout.folders, *([layout.roi] if layout.roi else ())))]
        self.search = Search(folder, layout, modality, self.apart, self.report, found.warnings, self.passed)

    def find(self) -> list[FolderSample]:
        """The samples in the order of their indices; none where faults were reported that concern them all."""
        groups = self._groups()
        for group in groups:
            collect_group(self.search, group)
        filled = [self._is_filled(group) for group in groups]
        own = [(group, stem) for group in groups for stem in self._stems(group)]
        if not all(filled) or not own or self._named_twice(groups) or not self._expect_one_product(groups):
            return []
        masks, points = find_masks(self.search, own), find_points(self.search, own)
        if masks.faults and self._has_folders_of_masks(own):
            return []
        rois = self._regions(own)
        names = safe_names([f"{group.prefix}{'_' if group.prefix else ''}{stem}" for group, stem in own])
        samples, unmasked = [], 0
        for i, (group, stem) in enumerate(own):
            label = group.label
            image, mask, scan = group.pictures.get(stem), masks.of.get(i), points.of.get(i)
            missing = []
            if group.masks is not None and mask is None and i not in masks.undecided:
                if group.label is None and self.layout.unmasked == "good":
                    label, unmasked = 0, unmasked + 1
                else:
                    missing.append(self._missing_mask(group, stem, image or scan))
            if self.search.wants_points and scan is None and i not in points.undecided:
                known = listed(point_extensions(group))
                place = _expected(group.points, group, stem) if group.points else group.images / stem
                foreign = "".join(
                    f"; {place.name}{suffix} is not read: {way_out}"
                    for suffix, way_out in (point_files.FOREIGN.items() if group.points else ())
                    if place.with_name(place.name + suffix).exists()
                )
                missing.append(f"{place}: the points of {image} are missing ({known}); add them{foreign}")
            roi = rois.of.get(i)
            if self.layout.roi is not None and roi is None and i not in rois.undecided:
                missing.append(
                    f"{Path(self.layout.roi) / stem}.png: is missing, the region of interest of {image or scan}"
                )
                missing[-1] += "; add it, white where all of it counts"
            counts = self.modality != "points"
            samples.append(
                FolderSample(names[i], image, scan, mask, label, tuple(missing), counts_picture=counts, roi=roi)
            )
        if unmasked:
            line = f"{unmasked} of {len(samples)} samples have no mask and count as good (--unmasked=good)"
            self.account.add("unmasked", {"samples": unmasked}, line)
        self._tell(groups, samples)
        return samples

    def _missing_mask(self, group: Group, stem: str, sample: Path | None) -> str:
        """The line on a sample without a mask."""
        masks = group.masks or group.images
        wanted = _expected(masks, group, stem)
        # Each looks through the folder, and the first ones tell what is the matter with all.
        self.missing_masks += 1
        near = self.missing_masks <= _HINTED
        hint = folder_hints.of_a_mask(wanted, self.passed.paths.get(ALONE, ())) if near else ""
        beside = "_mask" if identity(masks) == identity(group.images) else ""
        good = ", or pass --unmasked=good if that says that it is good" if group.label is None else ""
        return f"{wanted}{beside}.png: is missing, the mask of {sample}; add it{good}{hint}"

    def _has_folders_of_masks(self, samples: Sequence[tuple[Group, str]]) -> bool:
        """Whether folders of masks have one for each sample; says so, instead of what follows from it."""
        roots = dict.fromkeys(group.masks for group, _ in samples if group.masks is not None)
        lines = [
            folder_hints.of_folders(root, [stem for group, stem in samples if group.masks == root]) for root in roots
        ]
        for line in filter(None, lines):
            self.report(line)
        return any(lines)

    def _regions(self, own: Samples) -> Partners:
        """The regions of interest, by the indices of their samples."""
        if self.layout.roi is None:
            return Partners()
        root = Path(self.layout.roi)
        if not is_folder(root):
            line = f"roi: only what is bright in {readable(root)} counts, of every sample"
            self.account.add("roi", {"file": readable(root)}, line)
            return Partners(dict.fromkeys(range(len(own)), root))
        inner = root / self.category
        root = inner if is_folder(inner) else root
        line = f"roi: of each sample only what is bright in its mask in {readable(root)} counts"
        self.account.add("roi", {"folder": readable(root)}, line)
        return find_rois(self.search, own, root)

    # ---- What the flags say

    def _groups(self) -> list[Group]:
        folder, layout = self.folder, self.layout
        if not layout.normal_dir and not layout.abnormal_dir:
            masks = folder / layout.mask_dir[0] if layout.mask_dir else None
            points = folder / layout.depth_dir if layout.depth_dir else None
            groups = [Group(None, folder, masks, points, "", ())]
        else:
            prefixes = iter(group_prefixes((*layout.normal_dir, *layout.abnormal_dir), root=folder.resolve().name))
            groups = []
            for label, own, depth in (
                (0, layout.normal_dir, layout.normal_depth_dir),
                (1, layout.abnormal_dir, layout.abnormal_depth_dir),
            ):
                for position, name in enumerate(own):
                    points = _partner(folder, depth or ((layout.depth_dir,) if layout.depth_dir else ()), position)
                    masks = _partner(folder, layout.mask_dir, position) if label else None
                    telling = tuple(part for part in PurePath(name).parts if part not in ("/", ".."))
                    groups.append(Group(label, folder / name, masks, points, next(prefixes), telling))
        lacking = [p for group in groups for p in (group.images, group.masks, group.points) if p and not is_folder(p)]
        for path in dict.fromkeys(lacking):
            self.report(f"{path}: is not a folder; {folder_hints.folders_of(folder)}")
        # One line for a folder of masks that is not there, not one for each mask that would be in it.
        return [] if lacking or self._named_twice(groups) else groups

    def _named_twice(self, groups: Sequence[Group]) -> bool:
        known: dict[tuple[int, int] | None, Path] = {}
        twice = False
        for group in groups:
            other = known.setdefault(identity(group.images), group.images)
            if other is not group.images:
                twice = True
                self.report(f"{group.images}: is the same folder as {other}, but flags name both; leave one out")
        return twice

    def _stems(self, group: Group) -> Collection[str]:
        """The group's samples. Scans without any picture are fine where pictures are not looked at."""
        alone = self.modality == "points" and not group.pictures
        return _ordered(group.clouds if alone else group.pictures)

    def _is_filled(self, group: Group) -> bool:
        if not self._stems(group):
            self.report(f"{group.images}: {self._nothing(group)}")
            return False
        if self.search.wants_points and group.points is None and not group.clouds:
            names = some([path.name for path in group.beside])
            here = f" (--depth_dir=. where pictures are here, too, as {names})" if names else ""
            self.report(
                f"{group.images}: has no point data beside its pictures ({listed(point_extensions(group))}); "
                f"name their folder by --depth_dir{here}, or score pictures alone by --modality=rgb"
            )
            return False
        return True

    def _expect_one_product(self, groups: Sequence[Group]) -> bool:
        """Whether what lies in the folders of a flat one can be samples of one product; says so."""
        if groups[0].label is not None:
            return True
        (group,) = groups
        stems = self._stems(group)
        nested = [stem for stem in stems if "/" in stem]
        if not nested:
            return True
        inner = list(dict.fromkeys(stem.split("/")[0] for stem in nested))
        like = folder_hints.like_labels(nested)
        if self.layout.unlabelled:
            like = []
        if like and len(nested) == len(stems):
            self.report(
                f"{group.images}: has pictures only in folders, of which some are called like labels ({some(like)}); "
                "say which are which by --normal_dir and --abnormal_dir, or pass --unlabelled if all are one product"
            )
            return False
        line = f"{len(nested)} of {len(stems)} samples lie in folders ({some(inner)}) and are scored with the others"
        if like:
            line += f"; {some(like)} may say what is good: then name them by --normal_dir and --abnormal_dir"
        elif len(nested) == len(stems):
            line += ", as one product; --per_folder of launch.score, "
            line += f"or --categories={some(inner, ',')}, scores each by itself"
        self.account.add("nested", {"samples": len(nested), "folders": inner}, line)
        return True

    # ---- What is said

    def _tell(self, groups: Sequence[Group], samples: Sequence[FolderSample]) -> None:
        """Accounts for every file that was met."""
        used = {
            "pictures": sum(sample.image is not None for sample in samples),
            "masks": sum(sample.mask is not None for sample in samples),
            "scans": sum(sample.points is not None for sample in samples),
        }
        partners = {path for sample in samples for path in (sample.mask, sample.points)}
        for group in groups:
            for path in group.beside:
                if path not in partners:
                    self.passed.add(BESIDE, path)
        twins = [path for group in groups for path in group.twins]
        if twins:
            line = (
                f"names: {len(twins)} pictures are called as another one but for the suffix and show something else, "
                f"so that each is a sample: {some([path.name for path in twins])}"
            )
            self.account.add("twins", [readable(path) for path in twins], line)
        self._pass_over_unnamed(groups)
        over = self.passed.line()
        line = f"files: {counted(used)}" + (f"; passed over: {over}" if over else "")
        self.account.add("files", {"used": used, "passed_over": self.passed.facts()}, line)

    def _pass_over_unnamed(self, groups: Sequence[Group]) -> None:
        """What lies beside the folders that flags name, and on the way to them."""
        named = [path.resolve() for path in self.apart]
        if any(group.label is None for group in groups):
            return
        on_the_way = [self.folder]
        for group in groups:
            if group.images.is_relative_to(self.folder):
                on_the_way += [path for path in group.images.parents if path.is_relative_to(self.folder)]
        inside = {identity(group.images) for group in groups}
        for folder in sorted(set(on_the_way)):
            if identity(folder) in inside:
                continue  # a folder of samples itself
            for path in entries(folder):
                place = path.resolve()
                if not any(other == place or other.is_relative_to(place) for other in named):
                    self.passed.add(UNNAMED, path)

    def _nothing(self, group: Group) -> str:
        """What to say of a folder without samples."""
        beside = bool(group.clouds) and group.points is None
        text, is_clear = folder_hints.of_no_samples(group.images, self.layout, self.modality, beside=beside)
        if is_clear:
            return text
        over = self.passed.line()
        text += f"; passed over: {over}" if over else ""
        if group.label is not None:
            return f"{text}; add them, or name another folder"
        choose = ": say which are which by --normal_dir and --abnormal_dir" if subfolders(group.images) else ""
        return f"{text}; {folder_hints.folders_of(group.images)}{choose}"


def _partner(folder: Path, names: tuple[str, ...], position: int) -> Path | None:
    """The folder of masks or points that belong to a folder of pictures."""
    if not names:
        return None
    return folder / names[position if len(names) > 1 else 0]


def _expected(root: Path, group: Group, stem: str) -> Path:
    """Where a partner could be that is not there, without its suffix."""
    own = root / (group.telling[-1] if group.telling else "")
    return (own if is_folder(own) else root) / stem


def _ordered(stems: Iterable[str]) -> list[str]:
    return sorted(stems, key=natural_order)


DATASET = DatasetSpec(name="folder", find=find_folder, user_layout=True, rank=100)
