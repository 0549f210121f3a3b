"""Backbones as Flax modules, for inference."""

import dataclasses
import hashlib
from typing import Any

from musc_jax.models.descriptors import DescriptorConfig, Descriptors
from musc_jax.models.given import GivenTokens
from musc_jax.models.point_transformer import PointTransformer, PointTransformerConfig
from musc_jax.models.vit import VisionTransformer, VitConfig

__all__ = [
    "Backbone", "DescriptorConfig", "Descriptors", "GivenTokens", "PointTransformer", "PointTransformerConfig",
    "VisionTransformer", "VitConfig", "descriptors_backbone",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Backbone:
    """A module, its parameters, and what a pipeline must know about them.

    Attributes:
        module: A `VisionTransformer`, a `PointTransformer` or `Descriptors`.
        variables: Its parameters; `module.apply(variables, ...)`.
        name: The backbone's name, such as "dino_vitb8".
        source: Where the parameters come from, for people.
        digest: SHA-256 of the files they were read from, or of the seed and the architecture.
        random: Whether they were drawn, not read.
        blocks, v1_blocks: Blocks used by default, and by version 1.
        image_size: Side of the input by default, in pixels.
        mean, std: Normalisation of images in [0, 1].
    """

    module: Any
    variables: Any
    name: str
    source: str
    digest: str
    random: bool
    blocks: tuple[int, ...]
    v1_blocks: tuple[int, ...] = ()
    image_size: int = 224
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return self.module.config.depth

    @property
    def patch_size(self) -> int:
        """Side of an image patch in pixels; 1 for points."""
        return getattr(self.module.config, "patch_size", 1)


def descriptors_backbone(config: DescriptorConfig | None = None) -> Backbone:
    """The point path without parameters: geometric descriptors of groups in the place of Point-MAE.

    Args:
        config: The radii; default those for three image stages.
    """
    config = config or DescriptorConfig()
    return Backbone(
        module=Descriptors(config),
        variables={},
        name="descriptors",
        source="computed, no parameters",
        # What they are changes with the rules in `descriptors.py`, which count their versions here.
        digest=hashlib.sha256(repr(("descriptors", 1, config)).encode()).hexdigest(),
        random=False,
        blocks=tuple(range(config.depth)),
    )
