"""Tokens that come from elsewhere: in a config they stand where a backbone would."""

import dataclasses
import math
from typing import Any

from musc_jax._options import ConfigError


@dataclasses.dataclass(frozen=True, eq=False)
class GivenTokens:
    """Tokens of every sample that are there already, made by any backbone of any framework.

    Attributes:
        num_tokens: Patches of an image in row order, a square number; or groups of a cloud.
        widths: Channels of each stage, which `Config.blocks` chooses from.
        image_size: Side in pixels of the images and point maps that they belong to, which maps are made for.
        aggregated: They were aggregated over their neighbourhoods (SNAMD) before, and are scored as they are.
        embedded: Each image has an embedding, too, which version 1 re-scores by.
        name: What made them.
        source: Where they come from, for people.
        digest: SHA-256 over them; "" where nobody needs to know.
        random: They say nothing about accuracy: the parameters that made them were drawn.
    """

    num_tokens: int
    widths: tuple[int, ...]
    image_size: int = 224
    aggregated: bool = False
    embedded: bool = False
    name: str = "given tokens"
    source: str = ""
    digest: str = ""
    random: bool = False

    @property
    def depth(self) -> int:
        """Number of stages."""
        return len(self.widths)

    @property
    def blocks(self) -> tuple[int, ...]:
        """All stages."""
        return tuple(range(self.depth))

    @property
    def v1_blocks(self) -> tuple[int, ...]:
        """The same."""
        return self.blocks

    @property
    def grid(self) -> int:
        """Side of an image's patch grid."""
        return math.isqrt(self.num_tokens)


def grid_objection(num_tokens: int) -> str | None:
    """Why so many tokens are no square grid of patches, and what to do; None if they are."""
    if num_tokens > 0 and math.isqrt(num_tokens) ** 2 == num_tokens:
        return None
    for extra, what in ((1, "the class token"), (2, "class and distillation token"), (5, "class and register tokens")):
        rest = num_tokens - extra
        if rest > 0 and math.isqrt(rest) ** 2 == rest:
            side = math.isqrt(rest)
            return f"{num_tokens} tokens are {side} x {side} patches and {extra} more; leave out {what}"
    return f"{num_tokens} tokens are no square grid of patches; bring images to a square first, and give all patches"


def expect_use(config: Any, image: Any, points: Any, size: int) -> None:
    """Refuses options that given tokens make senseless, and grids that meet no pixels.

    Args:
        config: A `musc_jax.Config`.
        image: Its image backbone, or tokens in its place; None where it uses no images.
        points: Its point encoder, or tokens in its place; None where it uses no points.
        size: Side of images and point maps in pixels.

    Raises:
        ConfigError: Names what does not fit, and the way out.
    """
    used = [one for one in (image, points) if one is not None]
    if all(isinstance(one, GivenTokens) and one.aggregated for one in used) and "swpooling" in config.ablate:
        raise ConfigError("ablate: 'swpooling' changes nothing with tokens that are aggregated already; leave it out")
    if isinstance(points, GivenTokens) and "ipg" in config.ablate:
        raise ConfigError("ablate: 'ipg' changes nothing with tokens of groups that are made already; leave it out")
    if not isinstance(image, GivenTokens):
        return
    if config.variant == "v1" and not image.embedded:
        raise ConfigError("variant: v1 re-scores by an embedding of each image, received none; take another variant")
    if points is not None and size % image.grid:
        nearest = max(1, round(size / image.grid)) * image.grid
        raise ConfigError(
            f"image_size: groups of points belong to patches, of which there are {image.grid} x {image.grid}; expected "
            f"a multiple of {image.grid}, received {size}; for example {nearest}"
        )
