"""The flags of `launch.eval`, and the config they describe."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from absl.flags import FlagHolder

import weights
from launch import input_flags as inputs
from musc_jax.config import (
    ABLATIONS,
    MODALITIES,
    POINT_NORMS,
    VARIANTS,
    AggregationConfig,
    Config,
    ConfigError,
    GroupingConfig,
    RescoringConfig,
    ScoringConfig,
    usual_windows,
)
from musc_jax.config import RECURRING as RECURRING_CHOICES
from musc_jax.data import DATASETS
from musc_jax.data.features import FeatureFolder
from musc_jax.execution.free_memory import usable_memory
from musc_jax.kernels import IMPLEMENTATIONS
from musc_jax.kernels.rounding import PRECISIONS
from musc_jax.models import Backbone, GivenTokens

# One set: the command line is read as a whole.
flags = inputs.flags

_DEFAULT_CACHE = weights.default_folder().parent
_SAVE = ("maps", "images", "report")
# JAX's keys take no more bits: seeds above would repeat those below.
_HIGHEST_SEED = 2**32 - 1
# Datasets in what help says
_RANDOM = " and ".join(name for name, spec in DATASETS.items() if spec.default_weights == "random")
_V1_WINDOWS = "".join(
    f"; on {name} {','.join(map(str, spec.v1_windows))}" for name, spec in DATASETS.items() if spec.v1_windows
)

# What is looked at
MODALITY = flags.DEFINE_enum("modality", "rgb+points", list(MODALITIES), "What is looked at.")
# With what
BACKBONE = flags.DEFINE_enum(
    "backbone", "dino_vitb8", [n for n in weights.BACKBONES if n != "point_mae"], "Image backbone."
)
WEIGHTS_RGB = flags.DEFINE_string(
    "weights_rgb",
    None,
    "Image backbone's parameters: a file or folder, 'pretrained' or 'random'. Default pretrained; "
    f"random for {_RANDOM}.",
)
WEIGHTS_POINTS = flags.DEFINE_string(
    "weights_points",
    None,
    "Point-MAE's parameters: a file, 'pretrained' or 'random'. Default pretrained, also with --weights_rgb=random; "
    f"random for {_RANDOM}.",
)
POINT_BACKBONE = flags.DEFINE_enum(
    "point_backbone",
    "point_mae",
    ["point_mae", "descriptors"],
    "Point encoder. descriptors: geometry of each group; needs no parameters.",
)
WEIGHTS_DIR = flags.DEFINE_string(
    "weights_dir",
    None,
    "Where 'pretrained' looks first; then $MUSC_WEIGHTS_DIR, the cache, Hugging Face and the original address.",
)
FEATURES = flags.DEFINE_string(
    "features",
    None,
    "Folder with tokens of each sample, CATEGORY/SAMPLE.safetensors or .npy, of any backbone: none is loaded then. See "
    "docs/features.md; launch.features writes them.",
)
ACTIVATION = flags.DEFINE_enum(
    "activation", None, ["gelu", "quick_gelu"], "CLIP's activation; default gelu at 518, quick_gelu at other sizes."
)
DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Type the backbones multiply in; for scoring see --precision."
)
# How
VARIANT = flags.DEFINE_enum(
    "variant",
    "released",
    list(VARIANTS),
    "released: as the authors' program; paper: the equations as printed; v1: MuSc of 2024, images only.",
)
POINT_NORM = flags.DEFINE_enum(
    "point_norm",
    None,
    list(POINT_NORMS),
    "Batch norm of the point encoder: statistics of the one cloud, or those of the checkpoint. "
    "Default cloud; checkpoint with --variant=paper.",
)
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side of image, point map and anomaly map in pixels; default by backbone."
)
BLOCKS = flags.DEFINE_list(
    "blocks", None, "0-based transformer blocks to use (of the image backbone, if there is one); default by backbone."
)
DEGREES = flags.DEFINE_list("degrees", ["1", "3", "5"], "Neighbourhood sizes of SNAMD.")
INTERVAL = flags.DEFINE_float("interval", 0.3, "Share of the lowest scores that is averaged.")
PRECISION = flags.DEFINE_enum(
    "precision",
    "full",
    list(PRECISIONS),
    "Of the products in mutual scoring. full: float32; accurate: three passes of a faster type on NVIDIA and TPU; "
    "fast: float16 (NVIDIA) or bfloat16, sums in float32.",
)
IMPLEMENTATION = flags.DEFINE_enum(
    "implementation",
    "auto",
    list(IMPLEMENTATIONS),
    "auto: the fastest form of each operation; plain: the equations as they are stated, a reference many times slower.",
)
REFERENCES = flags.DEFINE_integer(
    "references",
    None,
    "Score each sample by so many others, drawn at random (--seed), so that cost grows linearly; default, and from "
    "N - 1 on, all.",
)
NEAREST_IMAGES = flags.DEFINE_integer(
    "nearest_images",
    None,
    "Score each sample by so many others that look most like it, for parts that differ in pose or colour; cost grows "
    "linearly. Default, and from N - 1 on, all.",
)
RECURRING = flags.DEFINE_enum(
    "recurring",
    None,
    list(RECURRING_CHOICES),
    "Defects that several samples share vouch for each other. report: these samples are named; filter: such defects "
    "score no others. A sub-type that few samples have looks the same. Default off; report with launch.score.",
)
WINDOWS = flags.DEFINE_list("windows", None, f"Windows of RsCon; default 1,7 (v1: 1,2,3{_V1_WINDOWS}).")
K_ITER = flags.DEFINE_integer("k_iter", 80, "Points an expansion step of IPG adds.")
CURVATURE_THRESHOLD = flags.DEFINE_float("curvature_threshold", 0.01, "Curvature from which a group is expanded.")
NUM_GROUPS = flags.DEFINE_integer("num_groups", 1024, "Point groups of a cloud.")
GROUP_SIZE = flags.DEFINE_integer("group_size", 128, "Points of a group.")
ABLATE = flags.DEFINE_list(
    "ablate", [], "Parts to switch off: " + "; ".join(f"{k} ({v})" for k, v in ABLATIONS.items()) + "."
)
SUBSETS = flags.DEFINE_integer(
    "subsets", 1, "Divide each category at random into so many parts that are scored apart (the paper's g)."
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Or into parts of so many samples, and a rest; default all samples score each other."
)
NORMAL_RATIO = flags.DEFINE_string(
    "normal_ratio", "1", "Share of the good samples that is used, chosen at random: 1/2, 0.5, ...; 0 uses none of them."
)
SEEDS = flags.DEFINE_list(
    "seeds",
    None,
    "Repeat the random choices of --subsets, --batch_size and --normal_ratio with each of these seeds; metrics are "
    "means, with standard deviations. Default 0 to 9 where something is random.",
)
SEED = flags.DEFINE_integer("seed", 0, "Of random weights, of the synthetic set and of the draw of --references.")
# Where to
MEMORY_GB = flags.DEFINE_float(
    "memory_gb",
    None,
    "What features, scores and maps may take, in units of 10^9 bytes, beside the program and the backbones; beyond it "
    "features go to --cache_dir, and fewer samples are scored at once. Default most of what is "
    "free.",
)
OUTPUT_DIR = flags.DEFINE_string("output_dir", "results", "Where results are written.")
REPLACE = flags.DEFINE_bool("replace", False, "Replace results of other samples that lie where these go.")
CACHE_DIR = flags.DEFINE_string("cache_dir", str(_DEFAULT_CACHE), "Where derived files are kept.")
SAVE = flags.DEFINE_list("save", [], "What to save besides scores and metrics: maps, images, report (a page).")
PROFILE = flags.DEFINE_bool(
    "profile", False, "List the seconds of each stage: every stage is waited for then, which costs time on a GPU."
)


class Weights(NamedTuple):
    """Where each backbone's parameters come from; None where it is not used."""

    image: str | None
    points: str | None


def _numbers(name: str, values: list[str] | None) -> tuple[int, ...] | None:
    if values is None:
        return None
    if not values:
        raise ConfigError(f"--{name}: expected at least one number, received none")
    try:
        return tuple(int(value) for value in values)
    except ValueError:
        raise ConfigError(
            f"--{name}: expected whole numbers separated by commas, received {','.join(values)!r}"
        ) from None


def save_list() -> tuple[str, ...]:
    """--save, checked."""
    for name in SAVE.value:
        if name not in _SAVE:
            raise ConfigError(f"--save: expected a list of {', '.join(_SAVE)}; received {name!r}")
    return tuple(sorted(set(SAVE.value)))


def modality(features: FeatureFolder | None = None) -> str:
    """--modality; where only images are sure to be there, they are looked at unless told otherwise.

    That is version 1, a dataset that has nothing else, and a plain folder whose point data nobody mentions. Features
    are looked at for what they have.
    """
    if MODALITY.present:
        return MODALITY.value
    layout = inputs.folder_layout()
    only_images = DATASETS[inputs.DATASET.value].modalities == ("rgb",) or (layout is not None and not layout.has_depth)
    usual = MODALITY.value if features is None else features.modality
    return "rgb" if only_images or VARIANT.value == "v1" else usual


def memory_budget() -> int:
    """--memory_gb in bytes; default what may be planned with."""
    if MEMORY_GB.value is None:
        return usable_memory()
    if not 0 < MEMORY_GB.value < math.inf:
        raise ConfigError(f"--memory_gb: expected a number above 0, received {MEMORY_GB.value}")
    return int(MEMORY_GB.value * 1e9)


class Division(NamedTuple):
    """Which samples of a category score each other, and in how many repetitions."""

    subsets: int
    batch_size: int | None
    normal_ratio: Fraction
    seeds: tuple[int, ...]
    """One where nothing is random."""

    @property
    def plain(self) -> bool:
        """Whether all samples score each other."""
        return self.subsets == 1 and self.batch_size is None and self.normal_ratio == 1


def division() -> Division:
    """--subsets, --batch_size, --normal_ratio and --seeds, checked."""
    subsets, batch_size = SUBSETS.value, BATCH_SIZE.value
    if subsets < 1:
        raise ConfigError(f"--subsets: expected at least 1, received {subsets}")
    if batch_size is not None and batch_size < 2:
        raise ConfigError(f"--batch_size: samples score each other, so expected at least 2, received {batch_size}")
    if batch_size is not None and subsets > 1:
        raise ConfigError("--subsets, --batch_size: expected one of them, received both")
    try:
        ratio = Fraction(NORMAL_RATIO.value)
    except (ValueError, ZeroDivisionError):
        ratio = Fraction(-1)
    if not 0 <= ratio <= 1:
        raise ConfigError(f"--normal_ratio: expected a share such as 1/2 or 0.5, received {NORMAL_RATIO.value!r}")
    layout = inputs.folder_layout()
    if ratio != 1 and layout is not None and not (layout.normal_dir or layout.abnormal_dir):
        raise ConfigError("--normal_ratio: samples without labels are neither good nor bad; pass --normal_dir")
    seeds = _numbers("seeds", SEEDS.value)
    if subsets == 1 and batch_size is None and ratio in (0, 1):
        if seeds is not None:
            raise ConfigError("--seeds: nothing is random without --subsets, --batch_size or --normal_ratio")
        return Division(subsets, batch_size, ratio, (0,))
    seeds = tuple(range(10)) if seeds is None else seeds
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds: expected different numbers from 0 on, received {','.join(map(str, seeds))}")
    return Division(subsets, batch_size, ratio, seeds)


def weight_sources(features: FeatureFolder | None = None) -> Weights:
    """Where the backbones' parameters come from; nowhere where there are features of the same modality, or none."""
    default, looked_at = DATASETS[inputs.DATASET.value].default_weights, modality(features)
    has_image, has_points = features is not None and features.image, features is not None and features.points
    encoded = looked_at != "rgb" and not has_points and POINT_BACKBONE.value == "point_mae"
    return Weights(
        image=(WEIGHTS_RGB.value or default) if looked_at != "points" and not has_image else None,
        points=(WEIGHTS_POINTS.value or default) if encoded else None,
    )


def _expect_use(features: FeatureFolder) -> None:
    """Refuses features that are not looked at, and flags of what they stand for."""
    looked_at = modality(features)
    image = features.image if looked_at != "points" else None
    points = features.points if looked_at != "rgb" else None
    if image is None and points is None:
        raise ConfigError(
            f"--features: {features.root} has tokens of {features.modality} only, of which --modality={looked_at} uses "
            f"none; pass --modality={features.modality}"
        )
    needs_image, needs_points = looked_at != "points" and image is None, looked_at != "rgb" and points is None
    idle: list[FlagHolder[Any]] = [] if needs_image else [WEIGHTS_RGB, BACKBONE, ACTIVATION]
    grouping: list[FlagHolder[Any]] = [WEIGHTS_POINTS, POINT_BACKBONE, POINT_NORM, NUM_GROUPS, GROUP_SIZE, K_ITER]
    idle += [] if needs_points else grouping
    idle += [] if needs_image or needs_points else [WEIGHTS_DIR, DTYPE]
    given = [one for one in (image, points) if one is not None]
    aggregated = not (needs_image or needs_points) and all(one.aggregated for one in given)
    idle += [DEGREES, CURVATURE_THRESHOLD] if aggregated else []
    for flag in idle:
        if flag.present:
            raise ConfigError(f"--{flag.name}: the tokens of --features are made already; leave one of the two out")


def uses_descriptors(features: FeatureFolder | None = None) -> bool:
    """Whether groups of points are described, not encoded."""
    encoded = modality(features) != "rgb" and (features is None or features.points is None)
    return encoded and POINT_BACKBONE.value == "descriptors"


def _expect_descriptors_without_parameters() -> None:
    """Refuses what only an encoder with parameters has."""
    for flag in (WEIGHTS_POINTS, POINT_NORM):
        if flag.present:
            raise ConfigError(
                f"--{flag.name}: --point_backbone=descriptors has no parameters; leave one of the two out"
            )


def _usual_windows(variant: str) -> tuple[int, ...]:
    return usual_windows(variant, DATASETS[inputs.DATASET.value].v1_windows)


def plain_config(features: FeatureFolder | None = None) -> Config:
    """The config without backbones: every option checked before anything is loaded."""
    if features is not None:
        _expect_use(features)
    if uses_descriptors(features):
        _expect_descriptors_without_parameters()
    for flag, lowest in ((inputs.LIMIT, 1), (SEED, 0), (REFERENCES, 1), (NEAREST_IMAGES, 1)):
        if flag.value is not None and flag.value < lowest:
            raise ConfigError(f"--{flag.name}: expected at least {lowest}, received {flag.value}")
    if REFERENCES.value is not None and NEAREST_IMAGES.value is not None:
        raise ConfigError("--references, --nearest_images: expected one of them, received both")
    if SEED.value > _HIGHEST_SEED:
        raise ConfigError(f"--{SEED.name}: expected at most {_HIGHEST_SEED}, received {SEED.value}")
    if modality(features) not in DATASETS[inputs.DATASET.value].modalities:
        # Said before any weights are looked for.
        raise ConfigError(f"--modality: {inputs.DATASET.value} has pictures only, no points; pass --modality=rgb")
    windows = _numbers("windows", WINDOWS.value)
    return Config(
        variant=VARIANT.value,
        modality=modality(features),
        image_size=IMAGE_SIZE.value,
        blocks=_numbers("blocks", BLOCKS.value),
        point_norm=POINT_NORM.value,
        ablate=tuple(sorted(set(ABLATE.value))),
        implementation=IMPLEMENTATION.value,
        grouping=GroupingConfig(
            num_groups=NUM_GROUPS.value,
            group_size=GROUP_SIZE.value,
            k_iter=K_ITER.value,
            curvature_threshold=CURVATURE_THRESHOLD.value,
        ),
        aggregation=AggregationConfig(degrees=_numbers("degrees", DEGREES.value) or ()),
        scoring=ScoringConfig(
            interval=INTERVAL.value,
            precision=PRECISION.value,
            references=REFERENCES.value,
            seed=SEED.value if REFERENCES.value is not None else 0,
            nearest_images=NEAREST_IMAGES.value,
            recurring=RECURRING.value or "off",
        ),
        rescoring=RescoringConfig(windows=_usual_windows(VARIANT.value) if windows is None else windows),
    )


def is_standard(config: Config) -> bool:
    """Whether a resolved config has the settings that published results were made with."""
    usual = Config(
        variant=config.variant,
        modality=config.modality,
        image_size=config.image_size,
        rescoring=RescoringConfig(windows=_usual_windows(config.variant)),
        image_backbone=config.image_backbone,
        point_backbone=config.point_backbone,
    )
    both = (config.image_backbone, config.point_backbone)
    return all(map(_is_published, both)) and config == usual.resolved().config


def _is_published(backbone: Backbone | GivenTokens | None) -> bool:
    """Whether a backbone has the sizes that its name stands for, and not those of a model of one's own."""
    if backbone is None:
        return True
    if isinstance(backbone, GivenTokens) or backbone.name not in weights.BACKBONES:
        return False
    named, has = weights.BACKBONES[backbone.name].config, backbone.module.config
    return all(getattr(named, field) == getattr(has, field) for field in ("width", "depth", "heads", "mlp_width"))


def load_backbone(
    source: str, name: str, cache_dir: Path, *, report: Callable[[str], None], progress: Callable[..., None]
) -> Backbone:
    """One backbone's parameters from where the flags say."""
    activation = None
    if name.startswith("clip"):
        spec = weights.BACKBONES[name]
        own = getattr(spec.config, "activation", None)
        activation = ACTIVATION.value or ("gelu" if (IMAGE_SIZE.value or spec.image_size) == 518 else own)
    elif ACTIVATION.value and name != "point_mae":
        raise ConfigError(f"--activation: only CLIP has a choice, received it with --backbone={name}; leave it out")
    return weights.load(
        source,
        name,
        weights_dir=WEIGHTS_DIR.value,
        cache_dir=cache_dir / "weights",
        seed=SEED.value,
        dtype=DTYPE.value,
        activation=activation,
        report=report,
        progress=progress,
    )
