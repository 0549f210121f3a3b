"""What a run computes: one frozen dataclass per concern, and the three presets `released`, `paper` and `v1`."""

import dataclasses
from typing import Any

import jax

from musc_jax import _options
from musc_jax._options import ConfigError as ConfigError
from musc_jax.kernels import IMPLEMENTATIONS
from musc_jax.kernels.rounding import PRECISIONS
from musc_jax.models import Backbone, Descriptors, GivenTokens, PointTransformer, VisionTransformer
from musc_jax.models.given import expect_use
from musc_jax.resolved import Device, ImagePath, PointPath, Rescoring, Resolved, Scoring

VARIANTS = ("released", "paper", "v1")
MODALITIES = ("rgb", "points", "rgb+points")
POINT_NORMS = ("cloud", "checkpoint")
# off: they vouch for each other, as in the paper; report: the samples are named; filter: they score no others, either.
RECURRING = ("off", "report", "filter")
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


def _settle(config: Any, **values: Any) -> None:
    """Sets what was checked and brought to its plain type; frozen dataclasses have no other way."""
    for name, value in values.items():
        object.__setattr__(config, name, value)


@dataclasses.dataclass(frozen=True)
class GroupingConfig:
    """Point groups (paper III-A)."""

    num_groups: int = 1024
    group_size: int = 128
    k_iter: int = 80
    curvature_threshold: float = 0.01

    def __post_init__(self) -> None:
        _settle(
            self,
            num_groups=_options.whole("num_groups", self.num_groups, lowest=1),
            group_size=_options.whole("group_size", self.group_size, lowest=3),
            k_iter=_options.whole("k_iter", self.k_iter, lowest=1),
            curvature_threshold=_options.number(
                "curvature_threshold", self.curvature_threshold, expected="a number from 0 on", lowest=0.0
            ),
        )


@dataclasses.dataclass(frozen=True)
class AggregationConfig:
    """Neighbourhood aggregation (III-B)."""

    degrees: tuple[int, ...] = (1, 3, 5)

    def __post_init__(self) -> None:
        _settle(self, degrees=_options.wholes("degrees", self.degrees, lowest=1))


@dataclasses.dataclass(frozen=True)
class ScoringConfig:
    """Mutual scoring (III-C). Only the interval is the paper's; the others trade accuracy for speed.

    Attributes:
        interval: Share of the lowest scores that is averaged.
        precision: One of `musc_jax.kernels.rounding.PRECISIONS`.
        references: Score each sample by so many others; None: by all.
        seed: Of the references' draw.
        nearest_images: Score each sample by so many others that are most similar to it, in place of references drawn at
            random; None: not.
        recurring: What becomes of defects that several samples share: one of `RECURRING`.
    """

    interval: float = 0.3
    precision: str = "full"
    references: int | None = None
    seed: int = 0
    nearest_images: int | None = None
    recurring: str = "off"

    def __post_init__(self) -> None:
        references, nearest = self.references, self.nearest_images
        _settle(
            self,
            interval=_options.number(
                "interval", self.interval, expected="a share above 0 and up to 1", above=0.0, highest=1.0
            ),
            precision=_options.one_of("precision", self.precision, PRECISIONS),
            references=None if references is None else _options.whole("references", references, lowest=1),
            seed=_options.whole("seed", self.seed, lowest=0),
            nearest_images=None if nearest is None else _options.whole("nearest_images", nearest, lowest=1),
            recurring=_options.one_of("recurring", self.recurring, RECURRING),
        )
        if references is not None and nearest is not None:
            raise ConfigError("references, nearest_images: expected one of them, received both")


@dataclasses.dataclass(frozen=True)
class RescoringConfig:
    """RsCon (III-D)."""

    windows: tuple[int, ...] = (1, 7)

    def __post_init__(self) -> None:
        _settle(self, windows=_options.wholes("windows", self.windows, lowest=1))


def usual_windows(variant: str, v1_windows: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """The windows of RsCon that published results were made with; version 1 had others for some datasets."""
    if variant != "v1":
        return RescoringConfig().windows
    return v1_windows or (1, 2, 3)


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
        grouping, aggregation, scoring, rescoring: Options of the method's parts, a class for each.
        image_backbone, point_backbone: Loaded by `weights.load`, or tokens that are there already; only those the
            modality needs.
        implementation: "auto" takes the fastest form of each operation for the platform, "plain" the equations as they
            are stated: the reference that all forms are held against, many times slower.
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
    image_backbone: Backbone | GivenTokens | None = dataclasses.field(default=None, repr=False, compare=False)
    point_backbone: Backbone | GivenTokens | None = dataclasses.field(default=None, repr=False, compare=False)
    implementation: str = "auto"

    def __post_init__(self) -> None:
        for name, kind in (
            ("grouping", GroupingConfig),
            ("aggregation", AggregationConfig),
            ("scoring", ScoringConfig),
            ("rescoring", RescoringConfig),
        ):
            _options.instance(name, getattr(self, name), kind)
        size, blocks, norm = self.image_size, self.blocks, self.point_norm
        _settle(
            self,
            variant=_options.one_of("variant", self.variant, VARIANTS),
            modality=_options.one_of("modality", self.modality, MODALITIES),
            image_size=None if size is None else _options.whole("image_size", size, lowest=1),
            blocks=None if blocks is None else _options.wholes("blocks", blocks, lowest=0),
            point_norm=None if norm is None else _options.one_of("point_norm", norm, POINT_NORMS),
            ablate=_options.names("ablate", self.ablate, ABLATIONS),
            implementation=_options.one_of("implementation", self.implementation, IMPLEMENTATIONS),
        )
        if self.blocks is not None and list(self.blocks) != sorted(set(self.blocks)):
            raise _options.refuse("blocks", "numbers in rising order", self.blocks)
        if self.variant == "v1" and self.uses_points:
            raise ConfigError(f"modality: version 1 scores images only, received {self.modality!r}; pass modality rgb")
        self._expect_use_of_ablations()
        self._expect_degrees()
        of_points: Any = (PointTransformer, Descriptors)
        for name, other in (("image_backbone", of_points), ("point_backbone", VisionTransformer)):
            backbone = getattr(self, name)
            if isinstance(backbone, GivenTokens):
                continue
            if backbone is not None and isinstance(_options.instance(name, backbone, Backbone).module, other):
                raise ConfigError(f"{name}: {backbone.name} is the other modality's; see weights.load")

    def _expect_use_of_ablations(self) -> None:
        """Refuses what changes nothing: a run that is called an ablation must be one."""
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

    def _expect_degrees(self) -> None:
        """Degrees are sides of windows around an image's patches, and numbers of groups around a point group."""
        degrees = self.aggregation.degrees
        if self.uses_images:
            _options.wholes("degrees", degrees, lowest=1, odd=True)
        aggregated = isinstance(self.point_backbone, GivenTokens) and self.point_backbone.aggregated
        if self.uses_points and not aggregated and max(degrees) > self._num_groups:
            raise _options.refuse("degrees", f"numbers up to num_groups = {self._num_groups}", degrees)

    @classmethod
    def released(cls, **options: Any) -> "Config":
        """What the authors' released program computes.

        Args:
            options: Fields of the config other than the variant.
        """
        return cls(variant="released", **options)

    @classmethod
    def paper(cls, **options: Any) -> "Config":
        """The equations as printed.

        Args:
            options: Fields of the config other than the variant.
        """
        return cls(variant="paper", **options)

    @classmethod
    def v1(cls, **options: Any) -> "Config":
        """MuSc, the 2024 conference version: images only. For VisA it took the windows 1, 8, 9.

        Args:
            options: Fields of the config other than the variant.
        """
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

    def resolved(self, device: jax.Device | None = None) -> Resolved:
        """Settles everything: the backbones' defaults, ablations and variants as fields, what the device decides.

        Args:
            device: What the run is for; default this process's first device.

        Returns:
            All that the run computes.

        Raises:
            ConfigError: A backbone is missing, the size is no multiple of the patch or has fewer pixels than a group
                has points, blocks that do not exist, or different numbers of image and point blocks.
        """
        kind = Device.of(jax.local_devices()[0] if device is None else device)
        image, points = (
            self._backbone(name) if needed else None
            for name, needed in (("image_backbone", self.uses_images), ("point_backbone", self.uses_points))
        )
        size, blocks = self._size(image, points), self._blocks(image, points)
        expect_use(self, image, points, size)
        if isinstance(points, Backbone) and self.grouping.group_size > size * size:
            most = f"at most {size * size} points, the pixels of an image of {size} x {size}"
            raise _options.refuse("group_size", most, self.grouping.group_size)
        norm = self.point_norm or ("checkpoint" if self.variant == "paper" else "cloud")
        variant = "paper" if self.variant == "paper" else "released"
        common: dict[str, Any] = {
            "variant": variant,
            "degrees": self.aggregation.degrees,
            "similarity_weighting": "swpooling" not in self.ablate,
            "implementation": self.implementation,
        }
        grouping = dataclasses.replace(self.grouping, num_groups=self._num_groups)
        return Resolved(
            config=dataclasses.replace(self, image_size=size, blocks=blocks, point_norm=norm, grouping=grouping),
            size=size,
            image=None if image is None else self._image_path(image, size, blocks, kind.images_at_once, common),
            points=None if points is None else self._point_path(points, blocks, norm, kind.clouds_at_once, common),
            scoring=Scoring(
                interval=1.0 if "ia" in self.ablate else self.scoring.interval,
                precision=self.scoring.precision,
                half_type=kind.half_type,
                references=self.scoring.references,
                seed=self.scoring.seed,
                nearest_images=self.scoring.nearest_images,
                recurring=self.scoring.recurring,
                variant=variant,
                enhancement="cae" not in self.ablate,
                trust="trust" not in self.ablate,
                tokens_at_once=kind.tokens_at_once,
                samples_at_once=kind.samples_at_once,
                implementation=self.implementation,
            ),
            rescoring=Rescoring(
                enabled="rescoring" not in self.ablate,
                windows=self.rescoring.windows,
                windowed="window" not in self.ablate,
                variant=variant,
            ),
            implementation=self.implementation,
            device=kind,
        )

    @property
    def _num_groups(self) -> int:
        """Groups of a cloud: as they are given, or as they will be made."""
        points = self.point_backbone if self.uses_points else None
        return points.num_tokens if isinstance(points, GivenTokens) else self.grouping.num_groups

    def _image_path(
        self, backbone: Backbone | GivenTokens, size: int, blocks: tuple[int, ...], at_once: int, common: dict[str, Any]
    ) -> ImagePath:
        return ImagePath(backbone, size, blocks, version1=self.variant == "v1", at_once=at_once, **common)

    def _point_path(
        self, backbone: Backbone | GivenTokens, blocks: tuple[int, ...], norm: str, at_once: int, common: dict[str, Any]
    ) -> PointPath:
        return PointPath(
            backbone,
            tuple(backbone.blocks) if self.uses_images else blocks,
            point_norm=norm,
            num_groups=self._num_groups,
            group_size=self.grouping.group_size,
            k_iter=self.grouping.k_iter,
            curvature_threshold=self.grouping.curvature_threshold,
            expansion="ipg" not in self.ablate,
            at_once=at_once,
            **common,
        )

    def _backbone(self, name: str) -> Backbone | GivenTokens:
        backbone: Backbone | GivenTokens | None = getattr(self, name)
        if backbone is None:
            raise ConfigError(f"{name}: modality {self.modality} needs it; see weights.load")
        if self.implementation != "auto" and isinstance(backbone, Backbone):
            module = backbone.module.clone(implementation=self.implementation)
            return dataclasses.replace(backbone, module=module)
        return backbone

    def _size(self, image: Backbone | GivenTokens | None, points: Backbone | GivenTokens | None) -> int:
        given = [one.image_size for one in (points, image) if isinstance(one, GivenTokens)]
        size = self.image_size or next(iter(given), 224 if image is None else image.image_size)
        if isinstance(image, Backbone) and size % image.patch_size:
            nearest = max(1, round(size / image.patch_size)) * image.patch_size
            raise ConfigError(
                f"image_size: {image.name} has patches of {image.patch_size} pixels, received {size}; "
                f"pass a multiple, for example {nearest}"
            )
        return size

    def _blocks(self, image: Backbone | GivenTokens | None, points: Backbone | GivenTokens | None) -> tuple[int, ...]:
        """Of the image backbone; of the point encoder where that is the only one."""
        first = next(backbone for backbone in (image, points) if backbone is not None)
        blocks = _expect_blocks(self.blocks or (first.v1_blocks if self.variant == "v1" else first.blocks), first)
        if image is not None and points is not None and len(blocks) != len(points.blocks):
            raise ConfigError(
                f"blocks: stage by stage the image meets the points, whose blocks are "
                f"{','.join(map(str, points.blocks))}; expected {len(points.blocks)} image blocks, "
                f"received {len(blocks)}"
            )
        return blocks

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


def _expect_blocks(blocks: tuple[int, ...], backbone: Backbone | GivenTokens) -> tuple[int, ...]:
    depth = backbone.depth
    if list(blocks) != sorted(set(blocks)) or not blocks or blocks[0] < 0 or blocks[-1] >= depth:
        raise ConfigError(
            f"blocks: {backbone.name} has blocks 0 to {depth - 1}; expected some of them in rising order, "
            f"received {','.join(map(str, blocks))}"
        )
    return blocks
