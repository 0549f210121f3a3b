"""Which file belongs to which sample: a mask or points to a picture, by their paths."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_WORDS = {
    "mask": r"masks?|gts?|ground[_\- ]?truth|labels?|segm?|segmentation|annotations?|anno|defects?|anomal(?:y|ies)",
    "roi": r"rois?|masks?|regions?|foreground|fg|valid",
    "points": r"depth|xyz|points?|pcd|ply|cloud|pointcloud|disparity|height|range|z",
    "picture": r"rgb|image|img|colou?r|picture|photo|texture",
    # In a folder of pictures, where 1_defect and 1_height may be pictures like any other.
    "beside": r"masks?|gts?|ground[_\- ]?truth|labels?|segm?|segmentation|annotations?|depth|xyz",
}
# Ends that need no sign before them, as in 000Mask; of others some are ends of other words.
_ENDS = {
    "mask": r"masks?",
    "roi": r"masks?|roi",
    "points": r"depth",
    "picture": r"rgb|image",
    "beside": r"masks?|depth",
}
# A digit parts a word from a number as well as a sign does: depth0001.
_PATTERNS = {
    role: re.compile(
        rf"(?:{words})(?:[_\-. ]|(?=\d))(?P<end>.+)|(?P<begin>.+?)(?:[_\-. ]|(?<=\d))(?:{words})"
        rf"|(?P<bare>.+)(?:{_ENDS[role]})",
        re.DOTALL,
    )
    for role, words in _WORDS.items()
}


class Place(NamedTuple):
    """A file's path, as far as it tells what belongs to it.

    Attributes:
        path: the file.
        folders: those that tell, outermost first: of a sample those from the dataset's folder on, of its partner those
            from the folder of masks or points on.
    """

    path: Path
    folders: tuple[str, ...]

    @classmethod
    def below(cls, root: Path, path: Path, *, before: Sequence[str] = ()) -> "Place":
        """Of a file below a folder, which may lie in folders itself."""
        return cls(path, tuple(_alike(part) for part in (*before, *path.relative_to(root).parts[:-1])))


@dataclass
class Pairs:
    """What belongs together.

    Attributes:
        of: by the position of a sample, its partner.
        faults: a line for each partner, or sample, that could belong to several.
        undecided: positions of the samples that these lines are about.
        alone: partners of nobody.
    """

    of: dict[int, Path] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    undecided: set[int] = field(default_factory=set)
    alone: list[Path] = field(default_factory=list)


def core(stem: str, role: str) -> str | None:
    """A stem without the word that says what the file is, as in 000_mask or depth_000; None where it has none.

    Args:
        stem: a file's name without its suffix.
        role: "mask", "roi", "points", "picture", or "beside": what may lie in a folder of pictures and is none.
    """
    found = _PATTERNS[role].fullmatch(_alike(stem))
    return None if found is None else found["end"] or found["begin"] or found["bare"]


def pair(samples: Sequence[Place], partners: Sequence[Place], *, role: str, what: str) -> Pairs:
    """Find for each sample the partner whose path fits best; never one for two.

    A partner fits if its stem is the sample's, but for upper and lower case and a word such as `_mask`. Of those that
    fit, the one with the most folders that are the sample's, too, in the same order. A folder that is another sample's
    and not this one's tells that it does not fit. Without such folders the stem decides, if it is one sample's only.

    Args:
        samples: in any order.
        partners: in any order.
        role: "mask", "roi" or "points".
        what: what partners are called in messages.
    """
    by_key: dict[str, dict[int, int]] = defaultdict(dict)
    for j, partner in enumerate(partners):
        for key, level in _keys(partner.path, role, is_sample=False):
            by_key[key].setdefault(j, level)
    telling = {folder for sample in samples for folder in sample.folders}
    claims: dict[int, list[tuple[tuple[int, int, int], int]]] = defaultdict(list)
    pairs = Pairs()
    for i, sample in enumerate(samples):
        fits: dict[int, tuple[int, int, int]] = {}
        for key, level in _keys(sample.path, role, is_sample=True):
            for j, other in by_key.get(key, {}).items():
                rank = _rank(sample, partners[j], telling, level + other)
                if rank is not None:
                    fits[j] = min(rank, fits.get(j, rank))
        if not fits:
            continue
        best = min(fits.values())
        chosen = [j for j, rank in fits.items() if rank == best]
        if len(chosen) > 1:
            named = " and ".join(str(partners[j].path) for j in chosen[:2])
            pairs.faults.append(f"{sample.path}: {named} could both be its {what}; keep one of them")
            pairs.undecided.add(i)
        for j in chosen:
            claims[j].append((best, i))
    for j, partner in enumerate(partners):
        nearest = min((rank for rank, _ in claims[j]), default=None)
        owners = [i for rank, i in claims[j] if rank == nearest]
        if len(owners) == 1:
            pairs.of.setdefault(owners[0], partner.path)
        elif owners:
            first, second = (samples[i].path for i in owners[:2])
            more = f" and {len(owners) - 2} more" if len(owners) > 2 else ""
            pairs.faults.append(
                f"{partner.path}: could be the {what} of {first} and of {second}{more}, and is never used twice; put "
                "each into a folder that is called as its sample's"
            )
            pairs.undecided.update(owners)
        else:
            pairs.alone.append(partner.path)
    return pairs


def _keys(path: Path, role: str, *, is_sample: bool) -> Iterable[tuple[str, int]]:
    """Texts by which a file is found, the exact one first, each with how far it is from the file's own stem."""
    stem = unicodedata.normalize("NFC", path.stem)
    yield stem, 0
    yield _alike(stem), 1
    if is_sample:
        yield _alike(path.name), 1  # of 000.jpg the mask may be 000.jpg.png
    stripped = core(stem, "picture" if is_sample else role)
    if stripped is not None:
        yield stripped, 2


def _rank(sample: Place, partner: Place, telling: set[str], level: int) -> tuple[int, int, int] | None:
    """How well a partner fits, lower is better; None where its folders say that it is another sample's."""
    at, left = 0, []
    for folder in partner.folders:
        if folder in sample.folders[at:]:
            at = sample.folders.index(folder, at) + 1
        else:
            left.append(folder)
    if set(left) & (telling - set(sample.folders)):
        return None
    return len(left) - len(partner.folders), len(left), level


def _alike(text: str) -> str:
    """Equal for what is one name to some file system."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
