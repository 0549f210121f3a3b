"""Files below a plain folder: those of the kinds that are looked for, and every other one with the reason it is none.

Links to folders are followed, each folder once. Nothing is looked into.
"""

import os
import re
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musc_jax.data.trees import natural_order
from musc_jax.storage.paths import readable

# What file managers, cameras' software and network drives leave behind, in lower case.
_SYSTEM = frozenset({
    "@eadir", "@tmp", "#recycle", "#snapshot", "__macosx", "thumbs", "thumbs.db", "ehthumbs.db", "desktop.ini",
    "thumbnails", "lost+found", "$recycle.bin", "recycler", "system volume information", "__pycache__", "picasa.ini",
    "icon\r",
})  # fmt: skip
_PARTNERS = frozenset({
    "mask", "masks", "depth", "depths", "gt", "gts", "groundtruth", "groundtruths", "label", "labels", "annotation",
    "annotations", "segmentation", "segmentations", "seg", "segs", "segm",
})  # fmt: skip
# What stands beside such a word in the names of these folders, as in SegmentationClass, depth_png or binary_masks.
_FORMS = frozenset({
    "png", "tif", "tiff", "npy", "img", "imgs", "image", "images", "map", "maps", "file", "files", "pixel", "binary",
    "raw", "aligned", "registered", "class", "object", "instance", "semantic", "defect", "defects", "anomaly",
})  # fmt: skip
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")
_EXAMPLES = 3

HIDDEN = "hidden"
SYSTEM = "left by systems, such as thumbnails"
PARTNERS = "in folders of masks, depth or labels"
CIRCLES = "links that lead in a circle"
AGAIN = "links to folders that are looked into anyway"
NOWHERE = "links that lead nowhere"
SPECIAL = "no regular files"
OTHER = "of other kinds"


@dataclass
class PassedOver:
    """What is not used, by reason, in the order in which it was met.

    Attributes:
        root: paths are told relative to it.
        paths: by reason; a folder stands for all that is in it.
    """

    root: Path
    paths: dict[str, list[Path]] = field(default_factory=dict)

    def add(self, reason: str, path: Path) -> None:
        """Add a file or folder."""
        known = self.paths.setdefault(reason, [])
        if path not in known[-1:]:
            known.append(path)

    def facts(self) -> dict[str, Any]:
        """Counts and examples by reason; fit for JSON."""
        return {
            reason: {"count": len(set(found)), "examples": self._examples(found)}
            for reason, found in self.paths.items()
        }

    def line(self) -> str:
        """The same for people; "" where nothing was passed over."""
        parts = []
        for reason, found in self.paths.items():
            examples = self._examples(found)
            more = ", ..." if len(set(found)) > len(examples) else ""
            parts.append(f"{len(set(found))} {reason} ({', '.join(examples)}{more})")
        return "; ".join(parts)

    def _examples(self, found: list[Path]) -> list[str]:
        """Of each suffix first one: a hundred .txt files must not hide the one .ppm."""
        different = {path.suffix.lower(): path for path in reversed(found)}
        chosen = dict.fromkeys([*reversed(different.values()), *found])
        return [self._shown(path) for path in list(chosen)[:_EXAMPLES]]

    def _shown(self, path: Path) -> str:
        name = readable(path.relative_to(self.root) if path.is_relative_to(self.root) else path)
        return f"{name}/" if path.is_dir() else name


def is_partners_folder(name: str) -> bool:
    """Whether a folder within one of samples is called as if it held what belongs to them: masks, depth, labels."""
    plain = re.sub(r"[\W_]", "", name).casefold()
    # "ground truth" is one word, and so are the parts of SegmentationClass.
    words = {word.casefold() for word in _WORDS.findall(re.sub(r"(?i)ground[\W_]*truth", "groundtruth", name))}
    return plain in _PARTNERS or (bool(words & _PARTNERS) and words <= _PARTNERS | _FORMS)


def identity(path: Path) -> tuple[int, int] | None:
    """What a folder is under whatever name; None where it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def collect(
    folder: Path,
    extensions: frozenset[str],
    passed: PassedOver,
    report: Callable[[str], None],
    *,
    apart: Collection[Path] = (),
    samples: bool = True,
) -> list[Path]:
    """The files below a folder whose suffixes are among `extensions`, in natural order.

    Args:
        folder: where to look, and in all folders in it; nothing is found where it is none.
        extensions: in lower case, with their dots.
        passed: gets everything else.
        report: gets a line about each folder that cannot be read.
        apart: folders within it that flags name for something else.
        samples: whether samples are looked for, so that folders called as their masks' are passed over.
    """
    walk = _Walk(folder, extensions, passed, report, {identity(path) for path in apart} - {identity(folder)}, samples)
    # What lies there itself comes before what is linked, under whatever names.
    pending = [folder]
    while pending:
        walk.into(pending.pop(0))
        pending += walk.linked
        walk.linked = []
    return sorted(walk.found, key=lambda path: natural_order(path.relative_to(folder).as_posix()))


class _Walk:
    """The state of one `collect`."""

    def __init__(
        self,
        start: Path,
        extensions: frozenset[str],
        passed: PassedOver,
        report: Callable[[str], None],
        apart: Collection[tuple[int, int] | None],
        samples: bool,
    ) -> None:
        self.start, self.extensions, self.passed, self.report = start.resolve(), extensions, passed, report
        self.apart, self.samples = apart, samples
        self.seen: set[tuple[int, int] | None] = set()
        self.found: list[Path] = []
        self.linked: list[Path] = []

    def into(self, folder: Path) -> None:
        """Looks at everything in a folder, and in those in it that are no links."""
        if folder.is_symlink() and self.start.is_relative_to(folder.resolve()) and folder.resolve() != self.start:
            self.passed.add(CIRCLES, folder)
            return
        if identity(folder) in self.seen:
            inside = folder.is_symlink() and folder.absolute().parent.resolve().is_relative_to(folder.resolve())
            self.passed.add(CIRCLES if inside else AGAIN, folder)
            return
        self.seen.add(identity(folder))
        try:
            with os.scandir(folder) as listing:
                listed = sorted(listing, key=lambda entry: natural_order(entry.name))
        except OSError as error:
            self.report(f"{folder}: cannot be read ({error.strerror}); make it readable")
            return
        for entry in listed:
            path = folder / entry.name
            if identity(path) in self.apart:
                continue  # looked into for what it is named for
            reason = self._objection(entry.name, path)
            if reason is not None:
                self.passed.add(reason, path)
            elif stat.S_ISREG(path.stat().st_mode):
                self.found.append(path)
            elif entry.is_symlink():
                self.linked.append(path)
            else:
                self.into(path)

    def _objection(self, name: str, path: Path) -> str | None:
        """Why a file or folder is passed over; None where it is not."""
        if name.casefold() in _SYSTEM:
            return SYSTEM
        if name.startswith("."):
            return HIDDEN
        try:
            mode = path.stat().st_mode
        except OSError:
            return NOWHERE
        if stat.S_ISDIR(mode):
            return PARTNERS if self.samples and is_partners_folder(name) else None
        if not stat.S_ISREG(mode):
            return SPECIAL
        return None if path.suffix.lower() in self.extensions else OTHER


def counted(used: Mapping[str, int]) -> str:
    """Counts of what is used, as in "12 pictures, 3 masks"."""
    parts = [f"{count} {name if count != 1 else name.removesuffix('s')}" for name, count in used.items() if count]
    return ", ".join(parts) or "nothing"
