"""What is odd about a picture or mask of one's own, once it is known how it is read."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from musc_jax.data.formats.own_pictures import Picture
from musc_jax.data.formats.resizing import make_square, resize_defect, resize_mask

# What is not over one half may be a soft edge, or noise; numbers of classes are defects before they come here.
_NOISE = 20


def shown_remarks(picture: Picture, shown: UInt8[np.ndarray, "h w 3"]) -> Iterator[tuple[str, str]]:
    """What is odd about a picture, each with its topic in the category's account.

    Args:
        picture: as its file has it.
        shown: as it is seen.
    """
    if picture.header.frames > 1:
        yield "pages", f"has {picture.header.frames} pictures in it; the first is read"
    if picture.hidden:
        yield "hidden", "is transparent everywhere, which is not believed: its colours are looked at"
    # Other pictures of one colour are a matter of the health check.
    if picture.alpha is not None and not picture.hidden and (shown == shown[:1, :1]).all():
        color = ",".join(map(str, shown[0, 0]))
        yield "blank", f"shows one colour only ({color}); pass another --background"


def label_of(mask: UInt8[np.ndarray, "h w"]) -> int:
    """Label a sample by its full-size mask: 1 if anything in it is more than noise."""
    return int(mask.max(initial=0) > _NOISE)


def mask_remarks(
    mask: UInt8[np.ndarray, "h w"], *, label: int | None, fit: str, working: tuple[int, int] | None
) -> Iterator[tuple[str, str]]:
    """What is odd about a mask, each with its topic in the category's account.

    Args:
        mask: full size, 0 to 255; what is over one half is a defect.
        label: of its sample; None: the mask tells.
        fit: how it becomes square.
        working: side of the resized mask and of a token in it; None where that is not known.
    """
    defect = mask > 127
    if not defect.any():
        largest = int(mask.max(initial=0))
        if largest > _NOISE:
            yield (
                "empty_masks",
                f"its largest value is {largest} of 255, but only what is over one half is a defect, so it shows none; "
                "draw defects in white",
            )
        elif label == 1:
            yield "empty_masks", "has no defect, though its sample is defective; the sample stays so"
        return
    edge = np.concatenate([defect[0], defect[-1], defect[:, 0], defect[:, -1]])
    if defect.mean() > 1 / 2 or edge.mean() > 1 / 2:
        yield "large_masks", "shows a defect on more than half of its picture, or of its border; is that meant?"
    if working is None:
        return
    size, token = working
    square = make_square(mask, fit)
    if not (square > 127).any():
        yield "lost_masks", f"its defect is outside of what --fit={fit} leaves"
        return
    if not resize_mask(square, size=size).any():
        yield "lost_masks", f"its defect vanishes at {size} x {size} pixels; its strongest pixel is kept"
    elif resize_defect(square, size=size).sum() < token * token:
        yield "small_defects", f"its defect is smaller than a token ({token} x {token} of {size} x {size} pixels)"
