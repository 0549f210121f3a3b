"""The flags that `launch.score` has beside those of scoring."""

import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from absl.flags import Flag

from launch import command
from launch import flags as options
from launch import input_flags as inputs
from launch.own_flags import OwnFlags
from launch.score_files import DEFAULT_SAVE, SAVES
from musc_jax import decisions
from musc_jax.config import ConfigError
from musc_jax.data.datasets import table
from musc_jax.data.datasets.folder import DATASET as FOLDER

flags = OwnFlags()

IMAGES = flags.DEFINE_string("images", None, "Folder of the pictures, instead of DIR.")
POINTS = flags.DEFINE_string("points", None, "Folder of the point data that belongs to them; both are looked at then.")
TABLE = flags.DEFINE_string(
    "table", None, "Instead of DIR a CSV file: columns image_path, points_path, mask_path, label, roi_path."
)
PER_FOLDER = flags.DEFINE_bool("per_folder", False, "Each subfolder is a product of its own; default all are one.")
THRESHOLD = flags.DEFINE_string(
    "threshold",
    decisions.DEFAULT_RULE,
    "What is called defective: gap (set apart from the others, or nothing), mad:K (median + K MAD), rate:P (the share "
    "P), verdicts (what agrees best with --verdicts), or a score.",
)
THRESHOLD_FROM = flags.DEFINE_string(
    "threshold_from", None, "Decide as an earlier run did, by its threshold: the folder of its results."
)
PIXEL_THRESHOLD = flags.DEFINE_float(
    "pixel_threshold", None, "Map pixels above it are hot; default what 95 % of the samples called good stay below."
)
EXPLAIN = flags.DEFINE_multi_string(
    "explain", [], "Show who voted on a sample: SAMPLE for its hottest pixel or SAMPLE:x,y; comma list, or repeated"
)
EXPLAIN_K = flags.DEFINE_integer("explain_k", 5, "How many of the closest and of the farthest matches it shows.")

VERDICTS = flags.DEFINE_string(
    "verdicts",
    None,
    "CSV of your verdicts (sample, verdict), as the report page saves it: those called defective are scored and score "
    "no others; with both kinds the verdicts decide.",
)

# Those of the flags of `launch.eval` that --help shows; --helpfull shows all.
_SHOWN = (
    "modality", "weights_rgb", "weights_points", "features", "backbone", "image_size",
    "nearest_images", "recurring", "fit", "roi", "limit", "memory_gb", "output_dir", "cache_dir",
)  # fmt: skip

_HELP_WIDTH = 100


def apply(arguments: Sequence[str]) -> None:
    """Sets the flags of `launch.eval` to what DIR and this command's own flags stand for.

    Raises:
        ConfigError: They contradict each other, or name no folder.
    """
    if not options.RECURRING.present:
        # Named, and no more: only their owner knows whether it is a defect or another kind of part.
        options.flags.FLAGS["recurring"].value = "report"
    given = list(arguments)
    if not inputs.SKIP_BAD.present:
        # One photograph that is cut short is no reason to say nothing about a thousand others.
        options.flags.FLAGS["skip_bad"].value = True
    if len(given) > 1:
        raise ConfigError(
            f"expected one folder, received {' '.join(given)!r}; put several into one, "
            "and pass --per_folder if each is a product"
        )
    if inputs.DATASET.present or inputs.DATA_DIR.present:
        raise ConfigError("--dataset, --data_dir: this scores a folder of your own, DIR; launch.eval has them")
    named = ["DIR"] * len(given) + [f"--{flag.name}" for flag in (IMAGES, TABLE) if flag.value is not None]
    if len(named) > 1:
        raise ConfigError(f"{', '.join(named)}: expected one of them, received {len(named)}")
    if not named:
        raise ConfigError("expected the folder of your samples, as DIR or --images, or a --table of them; see --help")
    if TABLE.value is not None:
        _apply_table(TABLE.value)
        return
    folder = given[0] if given else IMAGES.value
    if not folder:
        # The path of nothing is the current folder: "$PARTS" that is not set would score whatever lies there.
        raise ConfigError("expected the folder of your samples, received ''; pass . for the current one")
    values = options.flags.FLAGS
    values["dataset"].value, values["data_dir"].value = FOLDER.name, folder
    if not (inputs.NORMAL_DIR.present or inputs.ABNORMAL_DIR.present):
        values["unlabelled"].value = True
    if POINTS.value is not None:
        if inputs.DEPTH_DIR.present:
            raise ConfigError("--points, --depth_dir: expected one of them, received both")
        # Of a relative path the shell's folder is meant, not one in DIR.
        points = command.path("points", POINTS.value)
        if not points.is_dir():
            # Said before weights are fetched.
            raise ConfigError(f"--points: {points}: is not a folder; give the folder of the point data")
        values["depth_dir"].value = str(points.absolute())
    if PER_FOLDER.value:
        if inputs.CATEGORIES.present:
            raise ConfigError("--per_folder, --categories: expected one of them, received both")
        values["categories"].value = _subfolders(command.path("images", folder or ""))
    _check_threshold()


def _apply_table(file: str) -> None:
    for flag in (POINTS, PER_FOLDER):
        if flag.present:
            raise ConfigError(f"--table, --{flag.name}: expected one of them, received both")
    values = options.flags.FLAGS
    values["dataset"].value, values["data_dir"].value = table.DATASET.name, file
    if not options.MODALITY.present:
        values["modality"].value = table.table_modality(command.path(TABLE.name, file))
        values["modality"].present = 1
    _check_threshold()


def _check_threshold() -> None:
    if THRESHOLD.present and THRESHOLD_FROM.value is not None:
        raise ConfigError("--threshold, --threshold_from: expected one of them, received both")
    if PIXEL_THRESHOLD.value is not None and not math.isfinite(PIXEL_THRESHOLD.value):
        raise ConfigError(f"--pixel_threshold: expected a number, received {PIXEL_THRESHOLD.value}")
    if EXPLAIN_K.value < 1:
        raise ConfigError(f"--explain_k: expected at least 1, received {EXPLAIN_K.value}")
    if THRESHOLD.value == decisions.BY_VERDICTS:
        if VERDICTS.value is None:
            raise ConfigError("--threshold=verdicts: needs them; pass --verdicts=FILE, as the report page saves it")
        return
    try:
        decisions.check_rule(THRESHOLD.value)
    except ValueError as error:
        raise ConfigError(f"--{error}") from None


def _subfolders(root: Path) -> list[str]:
    try:
        names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "@")))
    except OSError as error:
        raise ConfigError(f"{root}: {error.strerror}; give the folder that has a folder for each product") from None
    if not names:
        raise ConfigError(f"{root}: has no folders, each of them a product; leave --per_folder out")
    return names


def save_list() -> tuple[str, ...]:
    """--save of this command, checked; the usual ones where it is not given."""
    if not options.SAVE.present:
        return DEFAULT_SAVE
    for name in options.SAVE.value:
        if name not in SAVES:
            raise ConfigError(f"--save: expected a list of {', '.join(SAVES)}; received {name!r}")
    return tuple(name for name in SAVES if name in options.SAVE.value)


def short_help(about: str) -> str:
    """What fits on a screen."""
    lines = [about.strip(), ""]
    for flag in flags.all:
        if flag.name not in ("images",):
            lines += _row(flag.name, textwrap.wrap(_text(flag), _HELP_WIDTH))
    for flag in (options.flags.FLAGS[name] for name in _SHOWN):
        lines += _row(flag.name, [_first(_text(flag))])
    lines += _row(
        "noskip_bad", ["End where a sample cannot be read or scored, instead of leaving it out and listing it."]
    )
    lines += _row("save", [f"{', '.join(SAVES)} (default {', '.join(DEFAULT_SAVE)})"])
    return "\n".join([*lines, "", "--helpfull shows all flags, and all that is to be said about these.", ""])


def _row(name: str, lines: Sequence[str]) -> list[str]:
    first, *others = lines
    return [f"  --{name:<16} {first}", *(f"{'':<21}{line}" for line in others)]


def _text(flag: Flag) -> str:
    """A flag's help without what takes a screen, or is the same for all of these."""
    return re.sub(r"^(<[^>]{40,}>: )?(<[^>]*>: )?(folder: )?", r"\2", " ".join((flag.help or "").split()))


def _first(text: str) -> str:
    """As much of a text as a line has room for: sentences, else clauses, else words."""
    if len(text) <= _HELP_WIDTH:
        return text
    for end in (". ", "; ", ": ", ", "):
        ends = [found.start() for found in re.finditer(re.escape(end), text[:_HELP_WIDTH])]
        if ends and ends[-1] >= _HELP_WIDTH // 3:
            return text[: ends[-1]]
    return f"{text[: _HELP_WIDTH - 4].rsplit(' ', 1)[0]} ..."
