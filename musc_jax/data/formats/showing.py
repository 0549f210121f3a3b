"""Pictures of people's own folders as they are seen: 8-bit RGB, from any depth, over a background."""

import numpy as np
from jaxtyping import UInt8

from musc_jax.data.formats.own_pictures import Picture


def show(
    picture: Picture, *, bits: int, background: tuple[int, int, int], asked: bool = False
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture as it is seen: 8-bit RGB, over a background where it is transparent.

    Args:
        picture: decoded.
        bits: of its values, if it is wide and does not say so itself.
        background: red, green and blue.
        asked: whether these bits overrule what the file says.

    Raises:
        ValueError: it has values of more bits, or too few to be seen without those that could not be read.
    """
    pixels = picture.pixels
    if picture.header.wide:
        bits = bits_of(picture, bits, asked=asked)
        full = 2**bits - 1
        if picture.halved and bits < 14:
            raise ValueError(f"has {bits} bits in colours of 16, of which only the upper 8 are read; save it as PNG")
        if picture.largest > full:
            raise ValueError(f"has values up to {picture.largest}, over the {full} of {bits} bits; pass another --bits")
        if picture.halved:
            pixels = np.round(np.minimum(pixels.astype(np.uint32) * 256 * 255 / full, 255)).astype(np.uint8)
        else:
            pixels = np.round(np.arange(full + 1) * (255 / full)).astype(np.uint8)[pixels]
        pixels = 255 - pixels if picture.inverted else pixels
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if picture.alpha is None or picture.hidden:
        return pixels
    alpha = picture.alpha[..., None].astype(np.uint32)
    mixed = pixels * alpha + np.array(background, np.uint32) * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def bits_of(picture: Picture, usual: int, *, asked: bool = False) -> int:
    """Bits of a wide picture's values: as its file says, unless that is a lie; else, or if asked for, the usual ones.

    Values that were scaled up to 16 bits when they were read have these, whatever is asked for.
    """
    stated, header = picture.header.bits, picture.header
    if stated is None or header.scaled or picture.largest >= 2**stated or (asked and stated < 16):
        return usual
    return stated
