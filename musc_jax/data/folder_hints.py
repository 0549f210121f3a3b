"""What may be meant where a plain folder lacks something: files that lie near and are not what is looked for."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from musc_jax.data.folder_layout import FolderLayout
from musc_jax.data.formats import points as point_files
from musc_jax.data.pairing import core
from musc_jax.data.sample import DataError
from musc_jax.data.trees import entries, subfolders

_SIGNS = "_-. ("
# Subfolders that are called so are no folders of one and the same kind of samples.
_LABELS = frozenset({
    "good", "ok", "normal", "nominal", "bad", "ko", "ng", "nok", "not_ok", "defect", "defects", "defective", "anomaly",
    "anomalies", "anomalous", "abnormal", "faulty", "train", "test", "val", "validation", "pass", "passed", "fail",
    "failed", "reject", "rejected", "rejects", "scrap", "positive", "negative", "not_good", "no_good", "gut",
    "schlecht", "io", "nio", "i.o", "n.i.o", "bon", "mauvais", "合格", "不合格", "良品", "不良", "不良品",
})  # fmt: skip
# What people keep the outlines of defects in, instead of pictures of them.
_NO_PICTURES = frozenset({".json", ".xml", ".txt", ".npy", ".npz", ".mat", ".csv", ".yaml"})


def of_a_mask(wanted: Path, alone: Iterable[Path]) -> str:
    """What to add where a mask is missing: "; 000.json lies there, ..."; "" where nothing is near.

    Args:
        wanted: the path it could have, without a suffix.
        alone: masks that are nobody's.
    """
    stem = wanted.name.casefold()
    others = [path for path in _files(wanted.parent) if path.suffix.lower() in _NO_PICTURES]
    others = [path for path in others if stem in (path.stem.casefold(), core(path.stem, "mask"))]
    if others:
        return f"; {others[0].name} lies there, but masks are pictures: draw what it holds into one, white on black"
    parts = [path for path in alone if _is_part(stem, path.stem.casefold())]
    if len(parts) > 1:
        return f"; {some([path.name for path in parts])} may be parts of it: put them into one picture"
    return ""


def of_folders(root: Path, stems: Sequence[str]) -> str:
    """What to say of a folder of masks that has a folder for each sample; "" where it has not."""
    names = {PurePosixPath(stem).name.casefold() for stem in stems}
    folders = [path for path in _entries(root) if path.name.casefold() in names and path.is_dir()]
    if not folders:
        return ""
    return (
        f"{root}: has folders called as samples ({some([path.name for path in folders])}); several masks of one "
        "picture are not read: put them into one file that is called as it"
    )


def like_labels(stems: Sequence[str]) -> list[str]:
    """Folders of samples that are called as if they said what is good."""
    return sorted({part for stem in stems for part in stem.split("/")[:-1] if part.casefold() in _LABELS})


def of_no_samples(folder: Path, layout: FolderLayout, modality: str, *, beside: bool) -> tuple[str, bool]:
    """What to say of a folder without samples, and whether that is all there is to say.

    Args:
        folder: which one.
        layout: what the user says.
        modality: what is looked at.
        beside: whether it has point data.
    """
    if modality == "points":
        return f"has no point data ({listed(point_files.EXTENSIONS)}){point_files.foreign_points(folder)}", False
    text = f"has no pictures ({listed(layout.picture_extensions)})"
    return (f"{text}, but point data; score that by --modality=points", True) if beside else (text, False)


def folders_of(folder: Path) -> str:
    """The folders in a folder, for a message."""
    try:
        names = [path.name for path in subfolders(folder)]
    except DataError as error:
        return str(error)
    return f"there are {', '.join(names)}" if names else "there are no folders in it"


def listed(extensions: Iterable[str]) -> str:
    """Suffixes for a message."""
    return ", ".join(sorted(extensions))


def some(names: Sequence[str], separator: str = ", ") -> str:
    """The first of many names."""
    return separator.join(names[:5]) + (f"{separator}..." if len(names) > 5 else "")


def _is_part(stem: str, name: str) -> bool:
    return name.startswith(stem) and name[len(stem) : len(stem) + 1] in _SIGNS


def _files(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_file()]


def _entries(folder: Path) -> list[Path]:
    return sorted(entries(folder)) if folder.is_dir() else []
