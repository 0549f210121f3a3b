"""The Eyecandies dataset, split test_public, in the layout it is published in.

    DIR/<Category>/test_public/data/<index>_<item>.<extension>

or one level deeper, DIR/Eyecandies/<Category>/... A sample is an index (of any number of digits)
with an `image_0.png`. It needs `mask.png`, and for points either `xyz.tiff` (metres, organised,
(0, 0, 0) = no point; taken as it is) or `depth.png`, `info_depth.yaml` and `pose.txt`, from which
the points are made and cleaned (`musc_jax.data.cleaning.eyecandies`). Everything else is optional.
Nothing is ever written into the dataset's folder: cleaned scans go to the cache directory.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from musc_jax.data.dataset import Candidate
from musc_jax.data.datasets._eyecandies_scan import ITEMS, Scan
from musc_jax.data.sample import DataError
from musc_jax.data.spec import DatasetSpec, Expected, Layout, Source
from musc_jax.data.trees import Found, Request, is_folder, report_closed, require_writable

_SPLIT = Path("test_public", "data")
_FILE = re.compile("([0-9]+)_(" + "|".join(re.escape(item) for item in ITEMS) + ")")
_LAYOUT = "<Category>/test_public/data/<index>_image_0.png"
# All files that a sample is published with, or that programs write beside it; those that are no `ITEMS` are read by
# nobody. The archives and their documentation disagree about what is called `obj_params` in the latter.
_PUBLISHED = re.compile(
    r"[0-9]+_(image_[0-5]\.png|(bumps_|dents_|colors_|normals_)?mask\.png|(depth|normals)\.png|info_depth\.yaml|pose\.txt"
    r"|(obj(ect)?_params|metadata)\.yaml|xyz\.tiff|foreground\.png)"
)
# Of each category's archive on Google Drive.
_DRIVE_KEYS = {
    "CandyCane": "1OI0Jh5tUj98j3ihFXCXf7EW2qSpeaTSY",
    "ChocolateCookie": "1PEvIXZOcxuDMBo4iuCsUVDN63jisg0QN",
    "ChocolatePraline": "1dRlDAS31QJSwROgA6yFcXo85mL0EBh25",
    "Confetto": "10GNPUIQTUheT-qd6EzO76fsUgAwsHfaq",
    "GummyBear": "1OCAKXPmpNrD9s3oUcQ--mhRZTt4HGJ-W",
    "HazelnutTruffle": "1PsKc4hXxsuIjqwyHh7ciPAeS-IxsPikm",
    "LicoriceSandwich": "1dtU_l9gD1zoCN7fIYRksd_9KeyZklaHC",
    "Lollipop": "1DbL91Zjm2I9-AfJewU3M354pW4vnuaNz",
    "Marshmallow": "1pebIU3AegEFilqqoROaVzOZqkSgX-JTo",
    "PeppermintCandy": "1tF_1fPJYaUVaf1AwjlEi-fsGWzgCx6UF",
}

SOURCE = Source(
    title="Eyecandies",
    home="https://eyecan-ai.github.io/eyecandies",
    licence="its authors state none for the data, as far as we could find; ask them",
    categories={name: Expected(25, 25, (512, 512)) for name in _DRIVE_KEYS},
    layout=Layout(
        folder="test_public/data",
        known=frozenset({"train", "val", "test_public", "test_private"}),
        scored=("test_public/data",),
        others=_PUBLISHED,
    ),
    example="`CandyCane/test_public/data/00_image_0.png`, ...",
    recipe=(
        "download each category's archive from its page in a browser (they are tar archives, whatever their names end "
        "in) and call each by its category, as in CandyCane.tar:",
        *(f"  {name}: https://drive.google.com/file/d/{key}/view" for name, key in _DRIVE_KEYS.items()),
    ),
    wrappers=("Eyecandies",),
    remark="the program that made it is under GPL-3.0",
    bare_top="test_public",
    signs=("*/test_public/data",),
)


def find_eyecandies(request: Request) -> Found:
    """Find every sample of a tree in the Eyecandies layout, without looking into any file.

    Raises:
        DataError: there is no dataset, or the cache cannot be used.
    """
    data_dir, categories, modality = request.data_dir, request.categories, request.modality
    found = Found()
    folders, closed = _find_categories(data_dir, found, requested=categories)
    if categories is None:
        categories = sorted(folders)
    store = Path(request.cache_dir, "eyecandies_xyz")
    if modality != "rgb":
        for folder in folders.values():
            require_writable(store, folder.parents[1])  # folder is CATEGORY/test_public/data
    for category in dict.fromkeys(categories):
        if category in closed:
            continue
        if category not in folders:
            existing = ", ".join(sorted(folders)) or "none"
            found.fault(category, f"{data_dir}: no category {category!r}; take one of those that exist: {existing}")
            continue
        folder = folders[category]
        try:
            samples = _find_samples(folder)
        except OSError as error:
            found.fault(category, f"{folder}: cannot be read ({error.strerror}); make it readable")
            continue
        if not samples:
            found.fault(category, f"{folder}: has no samples; put the files {_LAYOUT} there, see {SOURCE.home}")
            continue
        points = modality != "rgb"
        found.candidates[category] = [
            Candidate.of(Scan(category, folder, index, frozenset(items), points, store))
            for index, items in samples.items()
        ]
    return found


def _find_categories(
    data_dir: Path | str | None, found: Found, *, requested: Sequence[str] | None
) -> tuple[dict[str, Path], dict[str, str]]:
    """Map every category on disk to its folder of files; empty ones only if requested.

    Also returned: what is wrong with those that cannot be looked into, which is reported already.
    """
    expected = f"expected DATA_DIR/{_LAYOUT}; the dataset is at {SOURCE.home}"
    if data_dir is None:
        raise DataError(f"eyecandies needs the folder it lies in (--data_dir); {expected}")
    root = Path(data_dir)
    if not is_folder(root):
        raise DataError(f"{root}: is not a folder; {expected}")
    folders: dict[str, Path] = {}
    closed: dict[str, str] = {}
    for parent in (root, *(root / wrapper for wrapper in SOURCE.wrappers)):
        for category in _subfolders(parent):
            folder = parent / category / _SPLIT
            try:
                if category in folders or not is_folder(folder):
                    continue
            except DataError as error:
                closed[category] = str(error)
                continue
            if requested is None and not _has_samples(folder):
                found.warnings.append(f"{folder}: has no samples; the category is left out")
                continue
            folders[category] = folder
    if not report_closed(found, closed, requested) and not folders:
        hint = f"; give its parent folder {root.absolute().parent}" if _is_category(root) else ""
        raise DataError(f"{root}: has no categories{hint}; {expected}")
    return folders, closed


def _is_category(root: Path) -> bool:
    return is_folder(root / _SPLIT)


def _subfolders(parent: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in parent.iterdir() if is_folder(entry))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{parent}: cannot be read ({error.strerror}); make it readable") from None


def _has_samples(folder: Path) -> bool:
    try:
        return bool(_find_samples(folder))
    except OSError:
        return True  # to be reported as what it is


def _find_samples(folder: Path) -> dict[str, set[str]]:
    """Map every index in a folder, in numerical order, to the items that it has.

    An index without an image counts: files that lack their image are a fault, not nothing.
    """
    found: dict[str, set[str]] = {}
    for entry in folder.iterdir():
        match = _FILE.fullmatch(entry.name)
        if match:
            found.setdefault(match[1], set()).add(match[2])
    return {index: found[index] for index in sorted(found, key=lambda text: (int(text), text))}


DATASET = DatasetSpec(name="eyecandies", find=find_eyecandies, source=SOURCE, rank=20)
