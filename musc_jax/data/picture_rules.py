"""How the pictures and masks of a plain folder are read, decided once a category over all of its files.

Bits, the meaning of masks and the pixels that masks were drawn on do not show in one file alone; deciding them file by
file would make pictures of one product differ. `docs/inputs.md` states the rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from musc_jax.data.account import Account
from musc_jax.data.dataset import Progress
from musc_jax.data.folder_layout import FolderLayout
from musc_jax.data.formats import files, own_pictures
from musc_jax.data.formats.bit_depths import DEPTHS, depth_of
from musc_jax.data.formats.files import MAX_PIXELS, FileFault
from musc_jax.data.formats.own_masks import MaskRule, keys_of
from musc_jax.data.formats.own_pictures import Header, turned
from musc_jax.data.formats.remarks import overheard
from musc_jax.data.mask_rules import MaskFacts, decide_mask_rule, look_at_mask
from musc_jax.storage.prefetch import map_ahead

WHITE = (255, 255, 255)

# A side this much longer than the other is worth a word.
_OBLONG = 1.2
# So few of all pixels, above what fewer bits could hold, look like errors of the camera.
_STRAY = 1e-5
_TURNED_BACK = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


@dataclass(frozen=True)
class PictureRules:
    """How a category's pictures and masks are read.

    Attributes:
        bits: of the values of 16-bit files that do not say so themselves.
        background: red, green and blue behind what is transparent.
        fit: how a picture becomes square, see `formats.resizing.FITS`.
        max_pixels: a picture of more is read at reduced size.
        masks: what masks mean.
        stored_masks: whether masks of turned pictures were drawn on the pixels as they are stored; None: no mask tells.
    """

    bits: int = 16
    background: tuple[int, int, int] = WHITE
    fit: str = "squash"
    max_pixels: int = MAX_PIXELS
    masks: MaskRule = field(default_factory=MaskRule)
    stored_masks: bool | None = None


@runtime_checkable
class HasFiles(Protocol):
    """A sample, as far as it is looked at here."""

    @property
    def image(self) -> Path | None:
        """Its picture."""

    @property
    def mask(self) -> Path | None:
        """Its mask."""


class _Seen(NamedTuple):
    """What a look at a sample's files found; None where there are none, or they cannot be read."""

    header: Header | None = None
    mask_header: Header | None = None
    mask: MaskFacts | None = None
    largest: int | None = None
    """Largest value of a wide picture."""
    counts: tuple[int, ...] = ()
    """Pixels of a wide picture, and of these those above what each of `DEPTHS` holds."""
    see_through: bool = False


def decide_picture_rules(
    samples: Sequence[HasFiles],
    layout: FolderLayout,
    account: Account,
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> PictureRules:
    """How the pictures and masks of a category are read.

    Args:
        samples: all of its samples. Files that cannot be read are passed over: the samples' own checks report them.
        layout: what the user says.
        account: gets the topics `bits`, `alpha`, `orientation`, `fit`, `large` and `masks`.
        workers: threads that look into files.
        progress: told how many samples were looked at.
    """
    seen = []
    for found in map_ahead(lambda sample: _look(sample, layout), samples, workers=workers, ahead=4 * workers):
        seen.append(found)
        if progress is not None:
            progress("look at files", len(seen), len(samples))
    stored_masks = _masks_as_stored(seen)
    headers = [found.header for found in seen if found.header is not None]
    _account_for_transparency(seen, layout, account)
    _account_for_orientation(seen, stored_masks, account)
    _account_for_shapes(headers, layout, account)
    return PictureRules(
        bits=_decide_bits(seen, layout, account),
        background=layout.background,
        fit=layout.fit,
        max_pixels=layout.max_pixels,
        masks=decide_mask_rule([found.mask for found in seen if found.mask], layout.masks, account),
        stored_masks=stored_masks,
    )


def _look(sample: HasFiles, layout: FolderLayout) -> _Seen:
    with overheard():
        return _look_at_mask(sample, layout, _look_at_picture(sample, layout))


def _look_at_picture(sample: HasFiles, layout: FolderLayout) -> _Seen:
    if sample.image is None:
        return _Seen()
    try:
        content = files.read(sample.image)
        header = own_pictures.read_header(content)
        if not (header.wide or header.transparent):
            return _Seen(header)
        picture = own_pictures.decode(content, max_pixels=layout.max_pixels)
    except FileFault:
        return _Seen()
    see_through = picture.alpha is not None and int(picture.alpha.min(initial=255)) < 255
    if not header.wide:
        return _Seen(header, see_through=see_through)
    pixels = picture.pixels
    above = tuple(int(np.count_nonzero(pixels >= 2**bits)) for bits in DEPTHS[:-1])
    return _Seen(header, largest=picture.largest, counts=(pixels.size, *above), see_through=see_through)


def _look_at_mask(sample: HasFiles, layout: FolderLayout, seen: _Seen) -> _Seen:
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


def _decide_bits(seen: Sequence[_Seen], layout: FolderLayout, account: Account) -> int:
    """Bits of the wide pictures that do not say so."""
    wide = [found for found in seen if found.header is not None and found.largest is not None]
    if not wide:
        return layout.bits or 16
    own = [found for found in wide if _says_itself(found)]
    others = [found for found in wide if not _says_itself(found)]
    largest = max((found.largest or 0 for found in others), default=0)
    bits, source = depth_of(largest), "the largest value"
    noted = [found.header.bits for found in others if found.header and found.header.scaled and found.header.bits]
    if noted and largest >= 2 ** max(noted):
        bits = 16  # scaled up, as PNG's standard wants it
    elif noted:
        bits = max(bits, next(depth for depth in (*DEPTHS, 16) if depth >= max(noted)))
    if layout.bits is not None:
        bits, source = layout.bits, "--bits"
    facts = {"files": len(wide), "say_themselves": len(own), "bits": bits, "by": source, "largest_value": largest}
    line = ""
    if others and bits != 16:
        line = (
            f"{len(others)} pictures of 16 bits are read as holding {bits}, by {source} "
            f"({largest} over all of them)" + ("" if layout.bits else " (--bits says otherwise)")
        )
    if own:
        said = ", ".join(map(str, sorted({found.header.bits or 0 for found in own if found.header})))
        line = "; ".join(filter(None, [line, f"{len(own)} pictures of 16 bits hold {said}, as their files say"]))
    if others and layout.bits is None and (stray := _stray(others, bits)):
        line = "; ".join(filter(None, [line, stray]))
    account.add("bits", facts, f"bits: {line}" if line else "")
    return bits


def _says_itself(found: _Seen) -> bool:
    header, largest = found.header, found.largest
    return bool(header and header.bits and not header.scaled and largest is not None and largest < 2**header.bits)


def _stray(wide: Sequence[_Seen], bits: int) -> str:
    """What to say where hardly any pixel needs as many bits: most are then read as nearly black."""
    total = sum(found.counts[0] for found in wide)
    for depth, above in zip(DEPTHS[:-1], zip(*(found.counts[1:] for found in wide), strict=True), strict=True):
        if depth < bits and sum(above) < _STRAY * total:
            return (
                f"only {sum(above)} of all values are over the {2**depth - 1} of {depth} bits; if these are errors of "
                f"the camera, set them to 0, or what is left of the others is a {2 ** (bits - depth)}th of the range"
            )
    return ""


def _account_for_transparency(seen: Sequence[_Seen], layout: FolderLayout, account: Account) -> None:
    count = sum(found.see_through for found in seen)
    if count:
        color = "white" if layout.background == WHITE else ",".join(map(str, layout.background))
        line = f"alpha: {count} of {len(seen)} pictures are transparent in parts; they are put onto {color}"
        account.add("alpha", {"files": count, "background": list(layout.background)}, f"{line} (--background)")


def _masks_as_stored(seen: Sequence[_Seen]) -> bool | None:
    """Which pixels masks of turned pictures were drawn on, by those whose size fits one of both only."""
    votes = set()
    for found in seen:
        picture, mask = found.header, found.mask_header
        if picture and mask and mask.orientation == 1 and picture.orientation >= 5:
            fits = (mask.size == picture.size, mask.size == picture.size[::-1])
            if fits[0] != fits[1]:
                votes.add(fits[1])
    return votes.pop() if len(votes) == 1 else None


def _account_for_orientation(seen: Sequence[_Seen], stored_masks: bool | None, account: Account) -> None:
    count = sum(found.header is not None and found.header.orientation != 1 for found in seen)
    if not count:
        return
    line = f"orientation: {count} of {len(seen)} pictures are turned as their camera noted"
    if stored_masks:
        line += "; their masks, too, which fit the picture only so"
    account.add("orientation", {"turned": count, "masks_turned_alike": stored_masks}, line)


def _account_for_shapes(headers: Sequence[Header], layout: FolderLayout, account: Account) -> None:
    """What becomes of pictures that are not square, and of large ones."""
    aspects = [max(h.size) / max(min(h.size), 1) for h in headers]
    oblong = [aspect for aspect in aspects if aspect > _OBLONG]
    if oblong:
        facts = {"fit": layout.fit, "oblong": len(oblong), "of": len(headers), "largest_aspect": round(max(oblong), 3)}
        done = {
            "squash": "squashed to squares (--fit=pad and --fit=crop keep their proportions)",
            "pad": "padded to squares",
            "crop": "cropped to the square in their middle",
        }[layout.fit]
        line = f"fit: {len(oblong)} of {len(headers)} pictures, sides up to {max(oblong):.2f} : 1, are {done}"
        account.add("fit", facts, line)
    large = [h for h in headers if h.size[0] * h.size[1] > layout.max_pixels]
    if large:
        line = f"large: {len(large)} of {len(headers)} pictures have over {layout.max_pixels} pixels (--max_pixels)"
        account.add("large", {"files": len(large)}, f"{line} and are read at reduced size")


class Placed(NamedTuple):
    """A mask on the pixels of its picture as it is shown, and what is to be said of that; "" if nothing."""

    mask: np.ndarray
    remark: str = ""


def place_mask(
    path: Path,
    mask: Shaped[np.ndarray, "h w"],
    own: Header,
    *,
    size: tuple[int, int] | None,
    orientation: int,
    rules: PictureRules,
) -> Placed:
    """Turn a mask so that it fits its picture as that is shown.

    Args:
        path: the mask's file.
        mask: turned as its own file says.
        own: what that says.
        size: (height, width) of the picture as it is shown; None where nothing is known.
        orientation: the picture's.
        rules: of the category.

    Raises:
        FileFault: it fits no way.
    """
    stored = size[::-1] if size is not None and orientation >= 5 else size
    if size is None or (own.size == size and (orientation == 1 or own.orientation != 1)):
        return Placed(mask)
    if own.orientation == 1 and orientation != 1:
        if own.size == size and own.size == stored:
            if rules.stored_masks is None:
                return Placed(mask, "fits its picture both as that is shown and as it is stored; taken as it is shown")
            return Placed(turned(mask, orientation) if rules.stored_masks else mask)
        if own.size == size:
            return Placed(mask)
        if own.size == stored:
            remark = "" if rules.stored_masks else "fits its picture only if it is turned like that; turned"
            return Placed(turned(mask, orientation), remark)
    if own.orientation >= 5 and own.size[::-1] == size:
        remark = "fits its picture only if it is not turned as its file says; not turned"
        return Placed(turned(mask, _TURNED_BACK[own.orientation]), remark)
    raise FileFault(
        path,
        f"is {own.size[1]} x {own.size[0]} pixels, but its picture is {size[1]} x {size[0]}",
        "draw it on that picture, or scale it to its size by nearest neighbour",
    )
