"""Masks of people's own folders: what a file says of each pixel, and what that means by a rule for all of a category.

A pixel's key is its colour as a number (0xRRGGBB), or `TRANSPARENT`. Keys of one mask alone do not tell which of them
is the background, whether 1 and 2 are numbers of classes or noise, or whether grey is a soft edge or a class:
`musc_jax.data.mask_rules` looks at all masks and decides.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8

from musc_jax.data.formats.files import Content, FileFault
from musc_jax.data.formats.own_pictures import Picture

TRANSPARENT = -1
"""The key of a pixel that is not there."""
BLACK, WHITE = 0, 0xFFFFFF
GREY = 0x010101
"""A grey value times this is its key."""


@dataclass(frozen=True)
class MaskRule:
    """What the keys of a category's masks mean.

    Attributes:
        background: keys that are no defect.
        cut: a pixel whose colour differs from all of these by more than this in some channel is a defect.
        labels: keys that are one although they differ by less.
        noisy_cut: like `cut`, of files packed as JPEG is; there are no labels in them.
        soft: grey whose values between are soft edges: values are kept, and cut after the mask is resized.
        alpha: transparency alone decides, whatever the colours are.
        unknown: no rule was found; the masks are refused.
    """

    background: tuple[int, ...] = (BLACK,)
    cut: int = 127
    labels: tuple[int, ...] = ()
    noisy_cut: int = 127
    soft: bool = True
    alpha: bool = False
    unknown: str = ""

    def apply(self, keys: Shaped[np.ndarray, "h w"], *, noisy: bool) -> UInt8[np.ndarray, "h w"]:
        """The mask: 255 is a defect, 0 none; between them only soft edges, of which over one half is a defect.

        Args:
            keys: as `keys_of` gives them.
            noisy: whether the file is packed as JPEG is.
        """
        if keys.dtype == np.uint8:
            if self.soft and not noisy:
                return keys if self.background[0] == BLACK else 255 - keys
            table = self.is_defect(np.arange(256, dtype=np.int32) * GREY, noisy=noisy)
            return np.where(table, np.uint8(255), np.uint8(0))[keys]
        return np.where(self.is_defect(keys, noisy=noisy), np.uint8(255), np.uint8(0))

    def is_defect(self, keys: Int[np.ndarray, "*shape"], *, noisy: bool) -> Bool[np.ndarray, "*shape"]:
        """Which keys are a defect's, soft edges cut where they are."""
        distance = difference(keys, self.background)
        if noisy:
            return distance > self.noisy_cut
        return (distance > self.cut) | np.isin(keys, self.labels)


def difference(keys: Int[np.ndarray, "*shape"], background: tuple[int, ...]) -> UInt8[np.ndarray, "*shape"]:
    """By how much colours differ from a background, in the channel where they do most; 255 if one of them is none."""
    nearest = np.full(keys.shape, 255, np.uint8)
    for key in background:
        if key == TRANSPARENT:
            nearest[keys == TRANSPARENT] = 0
            continue
        channels = [np.abs((keys >> shift & 255) - (key >> shift & 255)) for shift in (0, 8, 16)]
        distance = np.where(keys == TRANSPARENT, 255, np.maximum.reduce(channels))
        nearest = np.minimum(nearest, distance.astype(np.uint8))
    return nearest


def keys_of(content: Content, picture: Picture, *, alpha: bool = False) -> Shaped[np.ndarray, "h w"]:
    """What a mask's file says of each pixel.

    Args:
        content: the file, for its name.
        picture: decoded whole.
        alpha: look at nothing but transparency.

    Returns:
        uint8 grey values, or int32 keys where there are colours or transparency.

    Raises:
        FileFault: it has colours of 16 bits that cannot be read whole.
    """
    if picture.halved:
        raise FileFault(content.path, "is a mask of 16 bits in several channels", "convert it to 8 bits")
    if alpha:
        opaque = np.full(picture.pixels.shape[:2], 255, np.uint8) if picture.alpha is None else picture.alpha
        return np.where(_hidden(opaque), np.int32(TRANSPARENT), np.int32(WHITE))
    colors = _eight_bits(picture)
    hidden = None if picture.alpha is None else _hidden(picture.alpha)
    if hidden is not None and hidden.all() == hidden.any():
        # Transparent everywhere, or nowhere: it tells nothing, unless nothing else does.
        constant = (colors == colors[:1, :1]).all()
        hidden = hidden if hidden.any() and constant else None
    if picture.indices is not None and _share_colors(picture.indices, colors):
        colors, hidden = picture.indices, None
    if colors.ndim == 3 and (colors == colors[..., :1]).all():
        colors = np.ascontiguousarray(colors[..., 0])
    if colors.ndim == 2 and hidden is None:
        return colors
    wide = colors.astype(np.int32)
    keys = wide * GREY if colors.ndim == 2 else wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return keys if hidden is None else np.where(hidden, np.int32(TRANSPARENT), keys)


def _hidden(alpha: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Less than half as opaque as anything in the file: what is drawn may be so as a whole, to see through."""
    return alpha <= alpha.max(initial=0) // 2


def _eight_bits(picture: Picture) -> UInt8[np.ndarray, "h w *colors"]:
    """Values of 8 bits; what is not 0 stays at least 1, since 256 / 257 is nothing in whole numbers."""
    pixels = picture.pixels
    if pixels.dtype == np.uint8:
        return pixels
    if picture.inverted:
        pixels = 65535 - pixels
    return np.where(pixels != 0, np.maximum(np.where(pixels > 255, pixels // 257, pixels), 1), 0).astype(np.uint8)


def _share_colors(indices: UInt8[np.ndarray, "h w"], colors: UInt8[np.ndarray, "h w *colors"]) -> bool:
    """Whether two numbers of a palette that are used have one colour, so that the numbers are what is meant."""
    used, at = np.unique(indices, return_index=True)
    flat = colors.reshape(indices.size, -1)
    return len(np.unique(flat[at], axis=0)) < len(used)
