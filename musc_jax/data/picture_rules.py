"""How the pictures and masks of a plain folder are read, decided once a category over all of its files.

Bits, the meaning of masks and the pixels that masks were drawn on do not show in one file alone; deciding them file by
file would make pictures of one product differ. `docs/inputs.md` states the rules.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from musc_jax.data.account import Account
from musc_jax.data.dataset import Progress
from musc_jax.data.folder_layout import FolderLayout
from musc_jax.data.formats.bit_depths import DEPTHS, depth_of
from musc_jax.data.formats.files import MAX_PIXELS
from musc_jax.data.formats.own_masks import MaskRule
from musc_jax.data.formats.own_pictures import Header
from musc_jax.data.mask_rules import decide_mask_rule
from musc_jax.data.picture_survey import HasFiles, Seen, look
from musc_jax.storage.prefetch import map_ahead

WHITE = (255, 255, 255)

# A side this much longer than the other is worth a word.
_OBLONG = 1.2
# Proportions that differ by less are the same; a size that so many pictures have is the usual one.
_SAME_SHAPE, _USUAL, _NAMED = 1.05, 0.75, 5
# So few of all pixels, above what fewer bits could hold, look like errors of the camera.
_STRAY = 1e-5


@dataclass(frozen=True)
class PictureRules:
    """How a category's pictures and masks are read.

    Attributes:
        bits: of the values of 16-bit files that do not say so themselves.
        bits_asked: whether these overrule what files say.
        background: red, green and blue behind what is transparent.
        fit: how a picture becomes square, see `formats.resizing.FITS`.
        max_pixels: a picture of more is read at reduced size.
        masks: what masks mean.
        stored_masks: whether masks of turned pictures were drawn on the pixels as they are stored; None: no mask tells.
    """

    bits: int = 16
    bits_asked: bool = False
    background: tuple[int, int, int] = WHITE
    fit: str = "squash"
    max_pixels: int = MAX_PIXELS
    masks: MaskRule = field(default_factory=MaskRule)
    stored_masks: bool | None = None


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
        account: gets the topics `bits`, `alpha`, `orientation`, `fit`, `large`, `profiles` and `masks`.
        workers: threads that look into files.
        progress: told how many samples were looked at.
    """
    seen = []
    for found in map_ahead(lambda sample: look(sample, layout), samples, workers=workers, ahead=4 * workers):
        seen.append(found)
        if progress is not None:
            progress("look at files", len(seen), len(samples))
    stored_masks = _masks_as_stored(seen)
    headers = [found.header for found in seen if found.header is not None]
    _account_for_odd_shapes(seen, account)
    _account_for_transparency(seen, layout, account)
    _account_for_orientation(seen, stored_masks, account)
    _account_for_shapes(headers, layout, account)
    _account_for_profiles(headers, account)
    return PictureRules(
        bits=_decide_bits(seen, layout, account),
        bits_asked=layout.bits is not None,
        background=layout.background,
        fit=layout.fit,
        max_pixels=layout.max_pixels,
        masks=decide_mask_rule([found.mask for found in seen if found.mask], layout.masks, account),
        stored_masks=stored_masks,
    )


def _decide_bits(seen: Sequence[Seen], layout: FolderLayout, account: Account) -> int:
    """Bits of the wide pictures that do not say so."""
    wide = [found for found in seen if found.header is not None and found.largest is not None]
    if not wide:
        return layout.bits or 16
    own: list[Seen] = []
    others: list[Seen] = []
    for found in wide:
        (own if _says_itself(found, asked=layout.bits is not None) else others).append(found)
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
    # A PGM's values have been scaled to all 16 bits by the largest one that it names: nothing is assumed.
    stated = [found.header.bits for found in own if found.header and found.header.bits not in (None, 16)]
    if stated:
        said = ", ".join(map(str, sorted(set(stated))))
        line = "; ".join(filter(None, [line, f"{len(stated)} pictures of 16 bits hold {said}, as their files say"]))
    if others and layout.bits is None and (stray := _stray(others, bits)):
        line = "; ".join(filter(None, [line, stray]))
    account.add("bits", facts, f"bits: {line}" if line else "")
    return bits


def _says_itself(found: Seen, *, asked: bool) -> bool:
    """Whether a wide picture's bits are as its file says, and neither as the folder's are nor as asked for."""
    header, largest = found.header, found.largest
    if header is None or header.bits is None or header.scaled or largest is None:
        return False
    return largest < 2**header.bits and not (asked and header.bits < 16)


def _stray(wide: Sequence[Seen], bits: int) -> str:
    """What to say where hardly any pixel needs as many bits: most are then read as nearly black."""
    total = sum(found.counts[0] for found in wide)
    for depth, above in zip(DEPTHS[:-1], zip(*(found.counts[1:] for found in wide), strict=True), strict=True):
        if depth < bits and sum(above) < _STRAY * total:
            return (
                f"only {sum(above)} of all values are over the {2**depth - 1} of {depth} bits; if these are errors of "
                f"the camera, set them to 0, or what is left of the others is a {2 ** (bits - depth)}th of the range"
            )
    return ""


def _account_for_transparency(seen: Sequence[Seen], layout: FolderLayout, account: Account) -> None:
    count = sum(found.see_through for found in seen)
    if count:
        color = "white" if layout.background == WHITE else ",".join(map(str, layout.background))
        line = f"alpha: {count} of {len(seen)} pictures are transparent in parts; they are put onto {color}"
        account.add("alpha", {"files": count, "background": list(layout.background)}, f"{line} (--background)")


def _masks_as_stored(seen: Sequence[Seen]) -> bool | None:
    """Which pixels masks of turned pictures were drawn on, by those whose size fits one of both only."""
    votes = set()
    for found in seen:
        picture, mask = found.header, found.mask_header
        if picture and mask and mask.orientation == 1 and picture.orientation >= 5:
            fits = (mask.size == picture.size, mask.size == picture.size[::-1])
            if fits[0] != fits[1]:
                votes.add(fits[1])
    return votes.pop() if len(votes) == 1 else None


def _account_for_orientation(seen: Sequence[Seen], stored_masks: bool | None, account: Account) -> None:
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


def _account_for_profiles(headers: Sequence[Header], account: Account) -> None:
    """Colour profiles that not all pictures share: equal colours have other numbers there, which shows in scores."""
    counts = Counter(header.profile for header in headers)
    if len(counts) > 1:
        usual, _ = counts.most_common(1)[0]
        others = len(headers) - counts[usual]
        line = f"profiles: {others} of {len(headers)} pictures have another colour profile than the others"
        account.add(
            "profiles",
            {profile or "sRGB or none": count for profile, count in counts.items()},
            f"{line}, and none is applied",
        )


def _account_for_odd_shapes(seen: Sequence[Seen], account: Account) -> None:
    """Name the few pictures of other proportions than nearly all have: another product, or a part of a picture."""
    shapes = [(found.path, found.header.size) for found in seen if found.header is not None]
    if not shapes:
        return
    size, count = Counter(shape for _, shape in shapes).most_common(1)[0]
    aspect = size[1] / size[0]
    odd = [(p, s) for p, s in shapes if max(aspect * s[0] / s[1], s[1] / s[0] / aspect) > _SAME_SHAPE]
    if odd and count >= _USUAL * len(shapes):
        named = ", ".join(f"{path} ({shape[1]} x {shape[0]})" for path, shape in odd[:_NAMED])
        line = (
            f"shapes: {len(odd)} of {len(shapes)} pictures have other proportions than {size[1]} x {size[0]}: {named}"
        )
        account.add("shapes", {str(path): list(shape) for path, shape in odd}, line + ", ..." * (len(odd) > _NAMED))
