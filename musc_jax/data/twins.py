"""Two pictures of one folder with the same name but for the suffix: one picture twice, or two of different things."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from musc_jax.data.formats import files, own_pictures
from musc_jax.data.formats.bit_depths import depth_of
from musc_jax.data.formats.files import FileFault
from musc_jax.data.formats.showing import show

# Sides that are compared, so small that noise and the packing of JPEG do not count; proportions that are the same.
_SIDE, _SAME_SHAPE = 32, 1.05
# Mean difference of 255, or correlation where one is darker or of other bits: beyond it is the same picture.
_NEAR, _ALIKE = 4.0, 0.99


def are_different(one: Path, other: Path) -> bool:
    """Whether two pictures surely show different things, however they are packed, scaled or coloured."""
    try:
        (first, aspect), (second, other_aspect) = _small(one), _small(other)
    except FileFault:
        return False
    if max(aspect / other_aspect, other_aspect / aspect) > _SAME_SHAPE:
        return True
    near = np.abs(first - second).mean() < _NEAR
    varied = min(first.std(), second.std()) > 0
    alike = varied and np.corrcoef(first.ravel(), second.ravel())[0, 1] > _ALIKE
    return not (near or alike)


def may_be_depth(path: Path) -> bool:
    """Whether a file is no picture, or grey of more than 8 bits, which may be either."""
    try:
        picture = own_pictures.decode(files.read(path))
    except FileFault:
        return True
    return picture.header.wide and picture.pixels.ndim == 2


def _small(path: Path) -> tuple[Float[np.ndarray, "32 32"], float]:
    """A picture in grey and small, and its width by its height."""
    picture = own_pictures.decode(files.read(path))
    try:
        shown = show(picture, bits=depth_of(picture.largest), background=(255, 255, 255))
    except ValueError as error:
        raise FileFault(path, str(error)) from None
    grey = Image.fromarray(shown).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(grey, float), shown.shape[1] / shown.shape[0]
