"""A look at the files of a plain folder's samples, before it is decided how all of them are read."""

from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from musc_jax.data.folder_layout import FolderLayout
from musc_jax.data.formats import files, own_pictures
from musc_jax.data.formats.bit_depths import DEPTHS
from musc_jax.data.formats.files import FileFault
from musc_jax.data.formats.own_masks import keys_of
from musc_jax.data.formats.own_pictures import Header
from musc_jax.data.formats.remarks import overheard
from musc_jax.data.mask_survey import MaskFacts, look_at_mask


@runtime_checkable
class HasFiles(Protocol):
    """A sample, as far as it is looked at here."""

    @property
    def image(self) -> Path | None:
        """Its picture."""

    @property
    def mask(self) -> Path | None:
        """Its mask."""


class Seen(NamedTuple):
    """What a look at a sample's files found; None where there are none, or they cannot be read.

    Attributes:
        path: of the picture.
        header: of the picture.
        mask_header: of the mask.
        mask: what that shows.
        largest: value of a wide picture.
        counts: pixels of a wide picture, and of these those above what each of `DEPTHS` but the last holds.
        see_through: whether the picture is transparent in parts.
    """

    path: Path | None = None
    header: Header | None = None
    mask_header: Header | None = None
    mask: MaskFacts | None = None
    largest: int | None = None
    counts: tuple[int, ...] = ()
    see_through: bool = False


def look(sample: HasFiles, layout: FolderLayout) -> Seen:
    """Look at a sample's files as far as rules for all of them need it; in any thread."""
    with overheard():
        return _look_at_mask(sample, layout, _look_at_picture(sample, layout))


def _look_at_picture(sample: HasFiles, layout: FolderLayout) -> Seen:
    if sample.image is None:
        return Seen()
    try:
        content = files.read(sample.image)
        header = own_pictures.read_header(content)
        if not (header.wide or header.transparent):
            return Seen(sample.image, header)
        picture = own_pictures.decode(content, max_pixels=layout.max_pixels)
    except FileFault:
        return Seen()
    see_through = picture.alpha is not None and not picture.hidden and int(picture.alpha.min(initial=255)) < 255
    if not header.wide:
        return Seen(sample.image, header, see_through=see_through)
    pixels = picture.pixels
    above = tuple(int(np.count_nonzero(pixels >= 2**bits)) for bits in DEPTHS[:-1])
    return Seen(sample.image, header, largest=picture.largest, counts=(pixels.size, *above), see_through=see_through)


def _look_at_mask(sample: HasFiles, layout: FolderLayout, seen: Seen) -> Seen:
    if sample.mask is None:
        return seen
    try:
        content = files.read(sample.mask)
        picture = own_pictures.decode(content, max_pixels=layout.max_pixels, whole=True)
        keys = keys_of(content, picture, alpha=layout.masks == "alpha")
    except FileFault:
        return seen
    facts = look_at_mask(sample.mask, keys, noisy=picture.header.noisy)
    return seen._replace(mask_header=picture.header, mask=facts)
