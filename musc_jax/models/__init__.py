"""Backbones as Flax modules, for inference."""

import dataclasses
from typing import Any

from musc_jax.models.given import GivenTokens
from musc_jax.models.point_transformer import PointTransformer, PointTransformerConfig
from musc_jax.models.vit import VisionTransformer, VitConfig

__all__ = ["Backbone", "GivenTokens", "PointTransformer", "PointTransformerConfig", "VisionTransformer", "VitConfig"]


@dataclasses.dataclass(frozen=True, eq=False)
class Backbone:
    """A module, its parameters, and what a pipeline must know about them.

    Attributes:
        module: A `VisionTransformer` or a `PointTransformer`.
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
