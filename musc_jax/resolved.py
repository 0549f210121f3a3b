"""What a run computes, with nothing left open: ablations and variants as fields, and what the device decides.

`Config.resolved()` is the one place where these are made; all that runs reads them.
"""

import dataclasses
import math
from typing import Any

from musc_jax.crossmodal import EnhanceAndAverage
from musc_jax.kernels.rounding import HALF_TYPES
from musc_jax.models import Backbone, GivenTokens
from musc_jax.mutual import AverageInterval, Finish

# So many go through a stage at a time. One keeps a CPU's caches warm; a GPU wants more: farthest points, thousands of
# small steps one after the other, take as long for 32 clouds as for one.
_IMAGES_AT_ONCE = {"cpu": 1}
_IMAGES_AT_ONCE_ELSEWHERE = 16
_CLOUDS_AT_ONCE = {"cpu": 1}
_CLOUDS_AT_ONCE_ELSEWHERE = 32
# A CPU multiplies pair by pair and keeps the product in its cache. Elsewhere one product is of as many samples as have
# 6272 tokens together, 8 of 784: of float16 at N = 150 an H200 makes 198 TFLOP/s so, 47 pair by pair. As many samples
# as that are finished at a time takes a seventh of the time that one by one does.
_TOKENS_AT_ONCE = {"cpu": 0}
_TOKENS_AT_ONCE_ELSEWHERE = 6272
_SAMPLES_AT_ONCE = {"cpu": 1}
_SAMPLES_AT_ONCE_ELSEWHERE = 32


@dataclasses.dataclass(frozen=True)
class Device:
    """What kind of device a run has.

    Attributes:
        platform: "cpu", "cuda", "rocm" or "tpu".
        half_type: The half precision that it multiplies fastest at the least loss.
        capability: NVIDIA's compute capability, as "9.0"; "" elsewhere.
        images_at_once: Images that go through a backbone at a time.
        clouds_at_once: Clouds that go through a stage at a time, and maps that are made at a time.
        tokens_at_once: Rows of a product of pairs of samples; 0: of one pair.
        samples_at_once: Samples whose pair scores are finished at a time.
    """

    platform: str
    half_type: str
    capability: str
    images_at_once: int
    clouds_at_once: int
    tokens_at_once: int
    samples_at_once: int

    @classmethod
    def of(cls, device: Any) -> "Device":
        """Of a `jax.Device`."""
        platform = device.platform
        if platform == "gpu":
            platform = "cuda" if "cuda" in device.client.platform_version.lower() else "rocm"
        return cls(
            platform,
            HALF_TYPES.get(platform, HALF_TYPES["default"]),
            str(getattr(device, "compute_capability", "")) if platform == "cuda" else "",
            _IMAGES_AT_ONCE.get(platform, _IMAGES_AT_ONCE_ELSEWHERE),
            _CLOUDS_AT_ONCE.get(platform, _CLOUDS_AT_ONCE_ELSEWHERE),
            _TOKENS_AT_ONCE.get(platform, _TOKENS_AT_ONCE_ELSEWHERE),
            _SAMPLES_AT_ONCE.get(platform, _SAMPLES_AT_ONCE_ELSEWHERE),
        )


@dataclasses.dataclass(frozen=True)
class ImagePath:
    """From images to aggregated tokens.

    Attributes:
        backbone: The image backbone; or tokens in its place.
        size: Side of an image in pixels.
        blocks: Whose tokens are taken.
        degrees: Sides of the windows that tokens are aggregated over.
        variant: "released" or "paper", of the aggregation.
        similarity_weighting: Whether similar neighbours count for more.
        version1: MuSc of 2024: each degree by itself, plain means, and the image embedding.
        at_once: Images that go through the backbone at a time, on each device.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.
    """

    backbone: Backbone | GivenTokens = dataclasses.field(repr=False, compare=False)
    size: int
    blocks: tuple[int, ...]
    degrees: tuple[int, ...]
    variant: str
    similarity_weighting: bool
    version1: bool
    at_once: int
    implementation: str

    @property
    def num_tokens(self) -> int:
        """Tokens of an image, M2."""
        if isinstance(self.backbone, GivenTokens):
            return self.backbone.num_tokens
        return (self.size // self.backbone.patch_size) ** 2

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels, rounded down."""
        return max(1, self.size // math.isqrt(self.num_tokens))

    @property
    def num_channels(self) -> int:
        """Channels of a token, at the most."""
        return _channels(self.backbone)

    @property
    def aggregated(self) -> bool:
        """Whether tokens are there that were aggregated before."""
        return isinstance(self.backbone, GivenTokens) and self.backbone.aggregated

    @property
    def num_stages(self) -> int:
        """Stages that are scored one after the other."""
        return len(self.blocks) * (len(self.degrees) if self.version1 and not self.aggregated else 1)


@dataclasses.dataclass(frozen=True)
class PointPath:
    """From clouds to aggregated tokens.

    Attributes:
        backbone: The point encoder; or tokens in its place.
        blocks: Whose tokens are taken.
        point_norm: "cloud" or "checkpoint": the batch norm's statistics.
        num_groups: Groups of a cloud, M3.
        group_size: Points of a group.
        k_iter: Points that a rough group starts with and takes in at a step.
        curvature_threshold: From here on a group is rough: expanded, and aggregated with nobody.
        expansion: Whether rough groups are expanded.
        degrees: Numbers of nearest groups that tokens are aggregated over.
        variant: "released" or "paper", of sampling, expansion and aggregation.
        similarity_weighting: Whether similar neighbours count for more.
        at_once: Clouds that go through a stage at a time, on each device.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.
    """

    backbone: Backbone | GivenTokens = dataclasses.field(repr=False, compare=False)
    blocks: tuple[int, ...]
    point_norm: str
    num_groups: int
    group_size: int
    k_iter: int
    curvature_threshold: float
    expansion: bool
    degrees: tuple[int, ...]
    variant: str
    similarity_weighting: bool
    at_once: int
    implementation: str

    @property
    def num_channels(self) -> int:
        """Channels of a token, at the most."""
        return _channels(self.backbone)

    @property
    def aggregated(self) -> bool:
        """Whether tokens are there that were aggregated before."""
        return isinstance(self.backbone, GivenTokens) and self.backbone.aggregated

    @property
    def num_stages(self) -> int:
        """Stages that are scored one after the other."""
        return len(self.blocks)


def _channels(backbone: Backbone | GivenTokens) -> int:
    return max(backbone.widths) if isinstance(backbone, GivenTokens) else backbone.module.config.width


@dataclasses.dataclass(frozen=True)
class Scoring:
    """Mutual scoring and cross-modal enhancement.

    Attributes:
        interval: Share of the lowest scores that is averaged.
        precision: One of `musc_jax.kernels.rounding.PRECISIONS`.
        half_type: The type that "fast" rounds to.
        references: How many others score each sample; None: all.
        seed: Of their draw.
        nearest_images: How many of the most similar others score each sample instead; None: not.
        recurring: "off", "report" or "filter": whether defects that recur are looked for, and score no others.
        variant: "released" or "paper", of the enhancement.
        enhancement: Whether modalities enhance each other.
        trust: Whether they do by as much as references agree.
        tokens_at_once: Rows of a product of pairs of samples; 0: of one pair.
        samples_at_once: Samples whose pair scores are finished at a time.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.
    """

    interval: float
    precision: str
    half_type: str
    references: int | None
    seed: int
    nearest_images: int | None
    recurring: str
    variant: str
    enhancement: bool
    trust: bool
    tokens_at_once: int
    samples_at_once: int
    implementation: str

    def finish(self, *, both: bool) -> Finish:
        """The method's part of every schedule, of one modality or of both; see `musc_jax.mutual.Finish`."""
        average = AverageInterval(self.interval, self.implementation)
        return EnhanceAndAverage(average, self.variant, self.enhancement, self.trust) if both else average


@dataclasses.dataclass(frozen=True)
class Rescoring:
    """RsCon.

    Attributes:
        enabled: Whether samples are re-scored.
        windows: Numbers of similar samples.
        windowed: False takes all samples instead.
        variant: "released" or "paper".
    """

    enabled: bool
    windows: tuple[int, ...]
    windowed: bool
    variant: str


@dataclasses.dataclass(frozen=True)
class Resolved:
    """All that a run computes.

    Attributes:
        config: The `musc_jax.Config` that was asked for, with the backbones' defaults filled in.
        size: Side of images, point maps and anomaly maps in pixels.
        image: The image path; None where no images are scored.
        points: The point path; None where no points are scored.
        scoring: Mutual scoring.
        rescoring: RsCon.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`, of the maps.
        device: What it runs on.
    """

    config: Any  # that module imports this one
    size: int
    image: ImagePath | None
    points: PointPath | None
    scoring: Scoring
    rescoring: Rescoring
    implementation: str
    device: Device
