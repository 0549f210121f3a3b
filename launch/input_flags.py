"""The flags of `launch.eval` that say what is scored: the dataset, and how the files of a plain folder are read."""

from pathlib import Path

from absl.flags import FlagHolder

from launch import command
from launch.own_flags import OwnFlags
from musc_jax.config import ConfigError
from musc_jax.data import DATASETS, Camera, FolderLayout
from musc_jax.data.folder_layout import MASK_RULES, UNMASKED
from musc_jax.data.formats.resizing import FITS
from musc_jax.data.opening import HOW_COPIES_COUNT
from musc_jax.storage.paths import readable

flags = OwnFlags()

# Datasets in what help says
_MADE = " and ".join(name for name, spec in DATASETS.items() if not spec.needs_data_dir)

DATASET = flags.DEFINE_enum(
    "dataset", "synthetic", list(DATASETS), "Dataset; synthetic is written on first use and needs no download."
)
DATA_DIR = flags.DEFINE_string("data_dir", None, f"Folder of the dataset; not needed for {_MADE}.")
CATEGORIES = flags.DEFINE_list("categories", None, "Comma-separated categories; default all.")
LIMIT = flags.DEFINE_integer(
    "limit", None, "Use only so many samples of each category: the first ones; with folder some of each label."
)
SKIP_BAD = flags.DEFINE_bool(
    "skip_bad",
    False,
    "Leave out samples with unreadable files, too few points or features that are not finite, and list them, instead "
    "of ending.",
)
COPIES = flags.DEFINE_enum(
    "copies",
    None,
    list(HOW_COPIES_COUNT),
    "Samples that are copies of each other: count as one and never score each other (once), or as any others (each). "
    "Default: once for folder.",
)
# Of --dataset=folder, with anomalib's names
NORMAL_DIR = flags.DEFINE_list("normal_dir", [], "folder: subfolders of good samples; none of these two: no labels.")
ABNORMAL_DIR = flags.DEFINE_list("abnormal_dir", [], "folder: subfolders of defective samples.")
MASK_DIR = flags.DEFINE_list("mask_dir", [], "folder: subfolder of masks, or one for each --abnormal_dir.")
DEPTH_DIR = flags.DEFINE_string("depth_dir", None, "folder: subfolder of point data; default beside the pictures.")
NORMAL_DEPTH_DIR = flags.DEFINE_list("normal_depth_dir", [], "folder: subfolders of the good samples' point data.")
ABNORMAL_DEPTH_DIR = flags.DEFINE_list("abnormal_depth_dir", [], "folder: the same of the defective samples.")
UNMASKED_SAMPLES = flags.DEFINE_enum(
    "unmasked", "refuse", list(UNMASKED), "folder: what samples without a mask are in a flat folder with --mask_dir."
)
UNLABELLED = flags.DEFINE_bool(
    "unlabelled", False, "folder: its folders are one product, also if they are called good or bad."
)
EXTENSIONS = flags.DEFINE_list("extensions", None, "folder: extensions of pictures; default every known one.")
INTRINSICS = flags.DEFINE_list("intrinsics", None, "folder: fx,fy,cx,cy in pixels, for depth pictures.")
DEPTH_SCALE = flags.DEFINE_float(
    "depth_scale", None, "folder: metres of a depth or height of 1; default 0.001, of floats what is likely."
)
DEPTH_KIND = flags.DEFINE_enum(
    "depth_kind",
    "depth",
    ["depth", "height"],
    "folder: depth from a camera, or height above a plane, seen from above.",
)
PIXEL_PITCH = flags.DEFINE_list(
    "pixel_pitch", [], "folder: metres of a height map's pixel, or its width,height; default: heights span a tenth."
)
POINTS_SCALE = flags.DEFINE_float(
    "points_scale", None, "folder: metres of a coordinate of 1; default 1, or 0.001 where that alone makes sense."
)
POINT_ORDER = flags.DEFINE_enum(
    "point_order", None, ["rows", "columns"], "folder: order of points without a grid; default what is clear."
)
INVALID = flags.DEFINE_list(
    "invalid", None, "folder: values of depth, height or z that mean no point, as they stand in the files."
)
FIT = flags.DEFINE_enum(
    "fit",
    "squash",
    list(FITS),
    "folder: pictures that are not square are squashed, padded with a plain margin, or cropped to their middle.",
)
BITS = flags.DEFINE_integer(
    "bits",
    None,
    "folder: of the values of 16-bit pictures; default as files say, else 8, 10, 12, 14 or 16 by the largest of all.",
)
BACKGROUND = flags.DEFINE_string(
    "background", "white", "folder: white, black or red,green,blue behind what is transparent in pictures."
)
MASKS = flags.DEFINE_enum(
    "masks",
    "auto",
    list(MASK_RULES),
    "folder: what is a defect in masks: bright (white), dark (black), not 0, or opaque; auto looks at all of them.",
)
MAX_PIXELS = flags.DEFINE_integer("max_pixels", 64_000_000, "folder: pictures of more pixels are read at reduced size.")

ROI = flags.DEFINE_string(
    "roi",
    None,
    "folder: region of interest, a mask of any size for all samples, or a folder of masks, one a sample: what is not "
    "bright in it never counts, neither as a defect nor as a match.",
)

_OF_FOLDER = (
    NORMAL_DIR, ABNORMAL_DIR, MASK_DIR, DEPTH_DIR, NORMAL_DEPTH_DIR, ABNORMAL_DEPTH_DIR, UNLABELLED, EXTENSIONS,
    UNMASKED_SAMPLES,
    INTRINSICS, DEPTH_SCALE, DEPTH_KIND, PIXEL_PITCH, POINTS_SCALE, POINT_ORDER, INVALID, FIT, BITS, BACKGROUND, MASKS,
    MAX_PIXELS, ROI,
)  # fmt: skip
NAMES = tuple(flag.name for flag in flags.all)
"""Of the flags here."""

_COLORS = {"white": (255, 255, 255), "black": (0, 0, 0)}


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
    camera = None
    if INTRINSICS.value is not None:
        numbers = _numbers(INTRINSICS, "four numbers fx,fy,cx,cy")
        if len(numbers) != 4:
            received = ",".join(INTRINSICS.value)
            raise ConfigError(f"--intrinsics: expected four numbers fx,fy,cx,cy, received {received!r}")
        camera = Camera(*numbers)
    return FolderLayout(
        normal_dir=tuple(NORMAL_DIR.value),
        abnormal_dir=tuple(ABNORMAL_DIR.value),
        mask_dir=tuple(MASK_DIR.value),
        normal_depth_dir=tuple(NORMAL_DEPTH_DIR.value),
        abnormal_depth_dir=tuple(ABNORMAL_DEPTH_DIR.value),
        depth_dir=DEPTH_DIR.value,
        unlabelled=UNLABELLED.value,
        unmasked=UNMASKED_SAMPLES.value,
        extensions=None if EXTENSIONS.value is None else tuple(EXTENSIONS.value),
        camera=camera,
        depth_scale=DEPTH_SCALE.value,
        depth_kind=DEPTH_KIND.value,
        pixel_pitch=_numbers(PIXEL_PITCH, "metres"),
        points_scale=POINTS_SCALE.value,
        point_order=POINT_ORDER.value,
        invalid=None if INVALID.value is None else _numbers(INVALID, "numbers"),
        fit=FIT.value,
        bits=BITS.value,
        background=_color(BACKGROUND.value),
        masks=MASKS.value,
        max_pixels=MAX_PIXELS.value,
        # Of a relative path the shell's folder is meant.
        roi=None if ROI.value is None else str(command.path("roi", ROI.value).absolute()),
    )


def _color(text: str) -> tuple[int, int, int]:
    if text in _COLORS:
        return _COLORS[text]
    try:
        red, green, blue = map(int, text.split(","))
    except ValueError:
        raise ConfigError(f"--background: expected white, black or red,green,blue, received {text!r}") from None
    return red, green, blue


def _numbers(flag: FlagHolder, expected: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, flag.value))
    except ValueError:
        raise ConfigError(f"--{flag.name}: expected {expected}, received {','.join(flag.value)!r}") from None


def sources(category: str) -> tuple[str, ...]:
    """The folders that a category's samples lie in, links resolved, --data_dir first; none where that is not given."""
    if DATA_DIR.value is None:
        return ()
    root, layout = Path(command.expanded(DATA_DIR.value) or ""), folder_layout()
    own = root / category if layout and CATEGORIES.value else root
    folders = [path.resolve() for path in (root, own, *(own / name for name in (layout.folders if layout else ())))]
    outside = [path for path in folders[2:] if not path.is_relative_to(folders[1])]
    return tuple(dict.fromkeys(readable(path) for path in (*folders[:2], *sorted(outside))))


def data_folders() -> tuple[Path, ...]:
    """Every folder that the dataset is read from: --data_dir, and those elsewhere that flags of a plain folder name.

    Raises:
        PathError: --data_dir is empty, which would be the current folder.
    """
    if DATA_DIR.value is None:
        return ()
    root, layout = command.path("data_dir", DATA_DIR.value), folder_layout()
    categories = [root, *(root / name for name in CATEGORIES.value or ())]
    roi = [Path(layout.roi)] if layout and layout.roi and Path(layout.roi).is_dir() else []
    return (root, *(category / name for category in categories for name in (layout.folders if layout else ())), *roi)
