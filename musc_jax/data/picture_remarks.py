"""What is odd about a published dataset's pictures and masks, read as its authors' programs read them all the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from musc_jax.data.account import Account
from musc_jax.data.dataset import Remark
from musc_jax.data.formats import own_pictures
from musc_jax.data.formats.bit_depths import depth_of
from musc_jax.data.formats.files import Content, FileFault
from musc_jax.data.formats.own_masks import keys_of
from musc_jax.data.formats.remarks import overheard
from musc_jax.data.mask_rules import decide_mask_rule
from musc_jax.data.mask_survey import look_at_mask

_AS_PUBLISHED = "as in the published programs"
# A share of pixels that two readings of a mask may differ in: at soft edges.
_EDGES = 1e-3


@contextmanager
def noted(path: Path, remarks: list[Remark]) -> Iterator[None]:
    """Make a remark of what libraries say meanwhile about a file."""
    with overheard() as said:
        try:
            yield
        finally:
            remarks += [Remark("remarks", path, f"the file's library remarks: {text}") for text in said[:1]]


def picture_remarks(content: Content) -> list[Remark]:
    """What is odd about a picture that was decoded before."""
    texts = []
    try:
        header = own_pictures.read_header(content)
        picture = own_pictures.decode(content) if header.wide or header.transparent else None
    except FileFault:  # it is no picture by the rules for one's own
        return []
    # Pillow itself turns a TIFF.
    is_tiff = content.data[:2] in (b"II", b"MM")
    if header.orientation != 1 and not is_tiff:
        texts.append(("orientation", f"is to be turned by what its camera noted; {_AS_PUBLISHED} it is not"))
    if header.frames > 1:
        texts.append(("pages", f"has {header.frames} pictures in it; the first is read"))
    if picture is not None and picture.alpha is not None and int(picture.alpha.min(initial=255)) < 255:
        texts.append(("alpha", f"is transparent in parts; {_AS_PUBLISHED} the colours there are looked at"))
    if picture is not None and header.wide and depth_of(picture.largest) < 16:
        texts.append(("bits", f"has 16 bits and no value over {picture.largest}; {_AS_PUBLISHED} it is nearly black"))
    return [Remark(topic, content.path, text) for topic, text in texts]


def published_mask_remarks(content: Content, mask: UInt8[np.ndarray, "h w"], *, nonzero: bool = False) -> list[Remark]:
    """What is odd about a mask that was decoded before: by the rules for one's own it would mean something else.

    Args:
        content: its file.
        mask: as it is read; what is over one half is a defect.
        nonzero: whether its dataset says that every value but 0 is one.
    """
    try:
        picture = own_pictures.decode(content, whole=True)
        keys = keys_of(content, picture)
    except FileFault:
        return []
    texts = []
    if picture.header.orientation != 1:
        texts.append(("orientation", f"is to be turned by a note in it; {_AS_PUBLISHED} it is not"))
    if picture.header.frames > 1:
        texts.append(("pages", f"has {picture.header.frames} pictures in it; the first is read"))
    defect = mask > 127
    facts = look_at_mask(content.path, keys, noisy=picture.header.noisy)
    rule = decide_mask_rule([facts], "auto", Account())
    other = rule.apply(keys, noisy=picture.header.noisy) > 127
    if nonzero and facts.grey and keys.dtype == np.uint8:
        other = keys > 0
    if rule.unknown:
        texts.append(("masks", f"{rule.unknown}; {_AS_PUBLISHED} {defect.mean():.1%} of it is a defect"))
    elif mask.any() and not defect.any():
        pass  # `mask_remark` says so
    elif defect.shape == other.shape and ((defect != other).mean() > _EDGES or defect.any() != other.any()):
        texts.append(
            (
                "masks",
                f"may mean something else: {_AS_PUBLISHED} {defect.mean():.1%} of it is a defect, by its values "
                f"{other.mean():.1%}",
            )
        )
    elif defect.mean() > 1 / 2:
        texts.append(("masks", "shows a defect on more than half of its picture"))
    return [Remark(topic, content.path, text) for topic, text in texts]
