"""A mask on the pixels of its picture, which may have been turned since it was drawn."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from musc_jax.data.formats.files import FileFault
from musc_jax.data.formats.own_pictures import Header, turned
from musc_jax.data.picture_rules import PictureRules

_TURNED_BACK = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


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
