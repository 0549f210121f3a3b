"""The flags of `launch.eval` that say what is scored: the dataset, and how the files of a plain folder are read."""

from pathlib import Path

from launch import command
from launch.own_flags import OwnFlags
from musc_jax.config import ConfigError
from musc_jax.data import DATASETS, Camera, FolderLayout

flags = OwnFlags()

# Datasets in what help says
_MADE = " and ".join(name for name, spec in DATASETS.items() if not spec.needs_data_dir)

DATASET = flags.DEFINE_enum(
    "dataset", "synthetic", list(DATASETS), "Dataset; synthetic is written on first use and needs no download."
)
DATA_DIR = flags.DEFINE_string("data_dir", None, f"Folder of the dataset; not needed for {_MADE}.")
CATEGORIES = flags.DEFINE_list("categories", None, "Comma-separated categories; default all.")
LIMIT = flags.DEFINE_integer("limit", None, "Use only the first so many samples of each category.")
SKIP_BAD = flags.DEFINE_bool(
    "skip_bad",
    False,
    "Leave out samples with unreadable files, too few points or features that are not finite, and list them, instead "
    "of ending.",
)
# Of --dataset=folder, with anomalib's names
NORMAL_DIR = flags.DEFINE_list("normal_dir", [], "folder: subfolders of good samples; none of these two: no labels.")
ABNORMAL_DIR = flags.DEFINE_list("abnormal_dir", [], "folder: subfolders of defective samples.")
MASK_DIR = flags.DEFINE_list("mask_dir", [], "folder: subfolder of masks, or one for each --abnormal_dir.")
DEPTH_DIR = flags.DEFINE_string("depth_dir", None, "folder: subfolder of point data; default beside the pictures.")
NORMAL_DEPTH_DIR = flags.DEFINE_list("normal_depth_dir", [], "folder: subfolders of the good samples' point data.")
ABNORMAL_DEPTH_DIR = flags.DEFINE_list("abnormal_depth_dir", [], "folder: the same of the defective samples.")
EXTENSIONS = flags.DEFINE_list("extensions", None, "folder: extensions of pictures; default every known one.")
INTRINSICS = flags.DEFINE_list("intrinsics", None, "folder: fx,fy,cx,cy in pixels, for depth pictures.")
DEPTH_SCALE = flags.DEFINE_float("depth_scale", 0.001, "folder: metres of a depth of 1.")

_OF_FOLDER = (
    NORMAL_DIR, ABNORMAL_DIR, MASK_DIR, DEPTH_DIR, NORMAL_DEPTH_DIR, ABNORMAL_DEPTH_DIR, EXTENSIONS, INTRINSICS,
    DEPTH_SCALE,
)  # fmt: skip


def folder_layout() -> FolderLayout | None:
    """Where a plain folder has what; None for other datasets.

    Raises:
        DataError: The flags contradict each other.
        ConfigError: They are given for another dataset, or are no numbers.
    """
    if not DATASETS[DATASET.value].user_layout:
        for flag in _OF_FOLDER:
            if flag.present:
                owners = " or ".join(f"--dataset={name}" for name, spec in DATASETS.items() if spec.user_layout)
                raise ConfigError(f"--{flag.name}: only {owners} has it, received --dataset={DATASET.value}")
        return None
    camera, numbers = None, INTRINSICS.value
    if numbers is not None:
        try:
            camera = Camera(*map(float, numbers))
        except (ValueError, TypeError):
            received = ",".join(numbers)
            raise ConfigError(f"--intrinsics: expected four numbers fx,fy,cx,cy, received {received!r}") from None
    return FolderLayout(
        normal_dir=tuple(NORMAL_DIR.value),
        abnormal_dir=tuple(ABNORMAL_DIR.value),
        mask_dir=tuple(MASK_DIR.value),
        normal_depth_dir=tuple(NORMAL_DEPTH_DIR.value),
        abnormal_depth_dir=tuple(ABNORMAL_DEPTH_DIR.value),
        depth_dir=DEPTH_DIR.value,
        extensions=None if EXTENSIONS.value is None else tuple(EXTENSIONS.value),
        camera=camera,
        depth_scale=DEPTH_SCALE.value,
    )


def data_folders() -> tuple[Path, ...]:
    """Every folder that the dataset is read from: --data_dir, and those elsewhere that flags of a plain folder name."""
    if DATA_DIR.value is None:
        return ()
    root, layout = Path(command.expanded(DATA_DIR.value) or ""), folder_layout()
    categories = [root, *(root / name for name in CATEGORIES.value or ())]
    return (root, *(category / name for category in categories for name in (layout.folders if layout else ())))
