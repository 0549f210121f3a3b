"""All that is known about a dataset: its reader, and what was published about it.

Figures and addresses are as their sources print them. None of the archives was opened when they were written down, so
whoever uses them compares and reports, and takes nothing for granted.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from musc_jax.data.formats.pictures import EXTENSIONS
from musc_jax.data.trees import Found, Request

MODALITIES = ("rgb", "points", "rgb+points")

CC_BY_NC_SA = "CC BY-NC-SA 4.0 (no commercial use), https://creativecommons.org/licenses/by-nc-sa/4.0"
"""The licence that several have."""


@dataclass(frozen=True)
class Archive:
    """A file that can be fetched without a form.

    Attributes:
        name: its file name.
        url: its address.
        sha256: None where no source tells it.
        top: the folder that it unpacks to; None where it has none or no source tells it.
    """

    name: str
    url: str
    sha256: str | None = None
    top: str | None = None


@dataclass(frozen=True)
class Expected:
    """A category's test samples.

    Attributes:
        good: how many are good.
        defective: how many are not.
        size: width and height of its pictures; None where they vary or the sources are not sure.
    """

    good: int
    defective: int
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Layout:
    """What a dataset's folders hold; paths within a category have slashes.

    Attributes:
        folder: within a category, where its test samples are; a folder without it is no category.
        known: names of the folders that a category has.
        roots: names of the folders that the dataset has beside its categories.
        scored: within a category, folders of which every file should belong to a sample.
        unread: within a category, folders in these that nobody reads.
        masks: names of folders that hold masks.
        extensions: of the files in folders of some names; elsewhere those of pictures.
        others: names of files in `scored` that are published with the samples, whether they are read or not. None where
            what a file is does not show in its name.
        padded: whether programs pad the pictures to a square in place when they clean the scans.
    """

    folder: str
    known: frozenset[str]
    roots: frozenset[str] = frozenset()
    scored: tuple[str, ...] = ("test", "ground_truth")
    unread: frozenset[str] = frozenset()
    masks: frozenset[str] = frozenset({"ground_truth"})
    extensions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    others: re.Pattern[str] | None = None
    padded: bool = False

    def extensions_in(self, folder: str) -> frozenset[str]:
        """Extensions of what a folder of that name holds, in lower case with their dot."""
        return self.extensions.get(folder, EXTENSIONS)


MVTEC = Layout("test", frozenset({"train", "test", "ground_truth"}))
"""The layout that MVTec AD began and others have taken over."""


@dataclass(frozen=True)
class Source:
    """What was published about a dataset.

    Attributes:
        title: its name in print.
        home: its authors' page.
        licence: what its authors say.
        categories: by name, in the order of the paper.
        layout: what its folders hold.
        example: what DATA_DIR has, in Markdown.
        recipe: how to get it by hand, a step a line; for those with archives, what to do when their address fails.
        remark: where others say something else about the licence, or nothing is certain; "" otherwise.
        archives: what can be fetched directly.
        wrappers: folders that archives and copies put around the categories.
        signs: patterns of paths that together show a tree to be this dataset's, within its folder or one around its
            categories.
        bare_top: what lies at the root of an archive that begins within a category, whose name it does not hold; ""
            where there is no such archive.
    """

    title: str
    home: str
    licence: str
    categories: Mapping[str, Expected]
    layout: Layout
    example: str
    recipe: tuple[str, ...]
    remark: str = ""
    archives: tuple[Archive, ...] = ()
    wrappers: tuple[str, ...] = ()
    bare_top: str = ""
    signs: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset; each module of `musc_jax.data.datasets` has one, called `DATASET`.

    Attributes:
        name: as `open_dataset` and `--dataset` have it; also its module's.
        find: finds its samples, without looking into them.
        modalities: what it can give, out of `MODALITIES`, in their order.
        source: what was published about it; None where nothing was.
        v1_windows: the windows of RsCon that version 1 took for it; None: its usual ones.
        needs_data_dir: whether it lies in a folder of the user's.
        user_layout: whether the user says where it has what (`FolderLayout`).
        seeded: whether a seed decides about its samples.
        default_weights: what the backbones have unless told otherwise, "pretrained" or "random".
        rank: place in tables and messages; equal ones come in the order of their names.
    """

    name: str
    find: Callable[[Request], Found]
    modalities: tuple[str, ...] = MODALITIES
    source: Source | None = None
    v1_windows: tuple[int, ...] | None = None
    needs_data_dir: bool = True
    user_layout: bool = False
    seeded: bool = False
    default_weights: str = "pretrained"
    rank: int = 70

    def __post_init__(self) -> None:
        if not self.modalities or self.modalities != tuple(m for m in MODALITIES if m in self.modalities):
            raise ValueError(
                f"modalities: expected some of {', '.join(MODALITIES)} in this order, received {self.modalities!r}"
            )
