"""What a run computes: one frozen dataclass per concern, and the three presets `released`, `paper` and `v1`."""

import dataclasses
from typing import Any

from musc_jax.models import Backbone

VARIANTS = ("released", "paper", "v1")
MODALITIES = ("rgb", "points", "rgb+points")
POINT_NORMS = ("cloud", "checkpoint")
# Ablations of the paper: what each one switches off, and the variants that have it.
ABLATIONS = {
    "ipg": "groups stay the K nearest points",
    "swpooling": "plain mean over the neighbourhood",
    "ia": "mean of all scores instead of the lowest share",
    "cae": "no cross-modal enhancement",
    "trust": "cross-modal enhancement with trust 1",
    "rescoring": "no RsCon: the sample score is the map's maximum",
    "window": "RsCon over all samples, no window mask",
}
_V1_ABLATIONS = ("ia", "rescoring", "window")
_NEEDS_POINTS = ("ipg",)
_NEEDS_BOTH = ("cae", "trust")


class ConfigError(ValueError):
    """Options that contradict each other or have no meaning; the message says which and what to pass instead."""


@dataclasses.dataclass(frozen=True)
class GroupingConfig:
    """Point groups (paper III-A)."""

    num_groups: int = 1024
    group_size: int = 128
    k_iter: int = 80
    curvature_threshold: float = 0.01


@dataclasses.dataclass(frozen=True)
class AggregationConfig:
    """Neighbourhood aggregation (III-B)."""

    degrees: tuple[int, ...] = (1, 3, 5)


@dataclasses.dataclass(frozen=True)
class ScoringConfig:
    """Mutual scoring (III-C). Only the interval is the paper's; the others trade accuracy for speed.

    Attributes:
        interval: Share of the lowest scores that is averaged.
        precision: One of `musc_jax.mutual.PRECISIONS`.
        references: Score each sample by so many others; None: by all.
        seed: Of the references' draw.
    """

    interval: float = 0.3
    precision: str = "full"
    references: int | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class RescoringConfig:
    """RsCon (III-D)."""

    windows: tuple[int, ...] = (1, 7)


def usual_windows(variant: str, dataset: str | None = None) -> tuple[int, ...]:
    """The windows of RsCon that published results were made with; version 1 had others for VisA."""
    if variant != "v1":
        return RescoringConfig().windows
    return (1, 8, 9) if dataset == "visa" else (1, 2, 3)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that changes the numbers of a run, and the backbones it runs on.

    Attributes:
        variant: "released" (what produced the published tables), "paper" (the equations as printed) or "v1" (MuSc,
            2024).
        modality: "rgb", "points" or "rgb+points".
        image_size: Side of image, point map, mask and anomaly map; None takes the image backbone's default.
        blocks: 0-based transformer blocks whose tokens are used. Of the image backbone; of the point encoder where
            that is the only one. None takes the backbone's default.
        point_norm: "cloud" (batch statistics of the one cloud at hand, as the released program) or "checkpoint"
            (stored statistics). None: "checkpoint" for the paper variant, "cloud" otherwise.
        ablate: Names out of `ABLATIONS`.
        image_backbone, point_backbone: Loaded by `weights.load`; only those the modality needs.
    """

    variant: str = "released"
    modality: str = "rgb+points"
    image_size: int | None = None
    blocks: tuple[int, ...] | None = None
    point_norm: str | None = None
    ablate: tuple[str, ...] = ()
    grouping: GroupingConfig = GroupingConfig()
    aggregation: AggregationConfig = AggregationConfig()
    scoring: ScoringConfig = ScoringConfig()
    rescoring: RescoringConfig = RescoringConfig()
    image_backbone: Backbone | None = dataclasses.field(default=None, repr=False, compare=False)
    point_backbone: Backbone | None = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        _expect("variant", self.variant, VARIANTS)
        _expect("modality", self.modality, MODALITIES)
        if self.point_norm is not None:
            _expect("point_norm", self.point_norm, POINT_NORMS)
        for name in self.ablate:
            _expect("ablate", name, ABLATIONS)
        if self.variant == "v1" and self.uses_points:
            raise ConfigError(f"modality: version 1 scores images only, received {self.modality!r}; pass modality rgb")
        for name in self.ablate:
            useless = (
                (self.variant == "v1" and name not in _V1_ABLATIONS)
                or (name in _NEEDS_POINTS and not self.uses_points)
                or (name in _NEEDS_BOTH and self.modality != "rgb+points")
            )
            if useless:
                raise ConfigError(
                    f"ablate: {name!r} ({ABLATIONS[name]}) changes nothing with variant {self.variant} "
                    f"and modality {self.modality}; leave it out"
                )
        _expect_numbers(self)

    @classmethod
    def released(cls, **options: Any) -> "Config":
        """What the authors' released program computes."""
        return cls(variant="released", **options)

    @classmethod
    def paper(cls, **options: Any) -> "Config":
        """The equations as printed."""
        return cls(variant="paper", **options)

    @classmethod
    def v1(cls, **options: Any) -> "Config":
        """MuSc, the 2024 conference version: images only. For VisA it took the windows 1, 8, 9."""
        defaults: dict[str, Any] = {"modality": "rgb", "rescoring": RescoringConfig(windows=usual_windows("v1"))}
        return cls(variant="v1", **(defaults | options))

    @property
    def uses_images(self) -> bool:
        """Whether image tokens are scored."""
        return self.modality != "points"

    @property
    def uses_points(self) -> bool:
        """Whether group tokens are scored."""
        return self.modality != "rgb"

    def resolved(self) -> "Config":
        """Fills in what the backbones decide and checks that the two fit together.

        Raises:
            ConfigError: A backbone is missing, the size is no multiple of the patch, blocks that do not exist, or
                different numbers of image and point blocks.
        """
        for name, needed in (("image_backbone", self.uses_images), ("point_backbone", self.uses_points)):
            if needed and getattr(self, name) is None:
                raise ConfigError(f"{name}: modality {self.modality} needs it; see weights.load")
        image, points = self.image_backbone, self.point_backbone
        size, blocks = self.image_size, self.blocks
        if self.uses_images:
            assert image is not None
            size = size or image.image_size
            if size % image.patch_size:
                nearest = max(1, round(size / image.patch_size)) * image.patch_size
                raise ConfigError(
                    f"image_size: {image.name} has patches of {image.patch_size} pixels, received {size}; "
                    f"pass a multiple, for example {nearest}"
                )
            default = image.v1_blocks if self.variant == "v1" else image.blocks
            blocks = _expect_blocks(blocks or default, image)
        else:
            assert points is not None
            size = size or 224
            blocks = _expect_blocks(blocks or points.blocks, points)
        if self.modality == "rgb+points":
            assert points is not None
            if len(blocks) != len(points.blocks):
                raise ConfigError(
                    f"blocks: stage by stage the image meets the points, whose blocks are "
                    f"{','.join(map(str, points.blocks))}; expected {len(points.blocks)} image blocks, "
                    f"received {len(blocks)}"
                )
        norm = self.point_norm or ("checkpoint" if self.variant == "paper" else "cloud")
        return dataclasses.replace(self, image_size=size, blocks=blocks, point_norm=norm)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; each backbone by its name, source, digest and whether its weights are random."""
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not field.name.endswith("_backbone")
        }
        for concern in ("grouping", "aggregation", "scoring", "rescoring"):
            plain[concern] = dataclasses.asdict(plain[concern])
        used = {"image_backbone": self.uses_images, "point_backbone": self.uses_points}
        for name, needed in used.items():
            backbone = getattr(self, name) if needed else None
            plain[name] = backbone and {
                "name": backbone.name,
                "source": backbone.source,
                "digest": backbone.digest,
                "random": backbone.random,
            }
        return plain

    @property
    def random_weights(self) -> bool:
        """Whether a backbone in use has random parameters; figures then say nothing about accuracy."""
        used = (self.uses_images and self.image_backbone, self.uses_points and self.point_backbone)
        return any(backbone.random for backbone in used if backbone)


def _expect(name: str, value: str, known: Any) -> None:
    if value not in known:
        raise ConfigError(f"{name}: expected one of {', '.join(known)}; received {value!r}")


def _expect_blocks(blocks: tuple[int, ...], backbone: Backbone) -> tuple[int, ...]:
    depth = backbone.depth
    if list(blocks) != sorted(set(blocks)) or not blocks or blocks[0] < 0 or blocks[-1] >= depth:
        raise ConfigError(
            f"blocks: {backbone.name} has blocks 0 to {depth - 1}; expected some of them in rising order, "
            f"received {','.join(map(str, blocks))}"
        )
    return blocks


def _expect_numbers(config: Config) -> None:
    grouping, degrees = config.grouping, config.aggregation.degrees
    wrong = [
        ("image_size", config.image_size, config.image_size is None or config.image_size >= 1, "at least 1"),
        ("num_groups", grouping.num_groups, grouping.num_groups >= max(degrees, default=1),
         "at least 1, and at least the largest degree"),
        ("group_size", grouping.group_size, grouping.group_size >= 3, "at least 3"),
        ("k_iter", grouping.k_iter, grouping.k_iter >= 1, "at least 1"),
        ("degrees", degrees, bool(degrees) and all(r >= 1 and (r % 2 or not config.uses_images) for r in degrees),
         "odd numbers, the sides of windows" if config.uses_images else "numbers of at least 1"),
        ("interval", config.scoring.interval, 0 < config.scoring.interval <= 1, "a share above 0 and up to 1"),
        ("windows", config.rescoring.windows,
         bool(config.rescoring.windows) and min(config.rescoring.windows) >= 1, "numbers of at least 1"),
    ]  # fmt: skip
    for name, value, fine, expected in wrong:
        if not fine:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            raise ConfigError(f"{name}: expected {expected}; received {shown}")
