"""A look at the masks of a plain folder: what each shows, before it is decided what all of them mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from scipy import ndimage

from musc_jax.data.formats.own_masks import GREY, TRANSPARENT, difference

NOISE = 16
"""Noise of JPEG, in a file that is no JPEG any more, stays so near to black and to white."""

# Keys that are kept of a mask, by how often they come.
_KEPT = 1000
_AT_ONCE = 1_000_000
# A piece of a picture begins at once, at this share of the level that it has inside, and is paler there than this; a
# soft mask rises to its full value.
_ABRUPT, _PALE = 0.7, 191


class Surface(NamedTuple):
    """How what differs from a mask's border looks, in pixels; levels are differences from it, 0 to 255.

    Attributes:
        inside: surrounded by others that differ.
        pale: of these not at the full level.
        level: sum of the levels inside.
        rim: beside the background.
        rim_level: sum of the levels there.
    """

    inside: int = 0
    pale: int = 0
    level: int = 0
    rim: int = 0
    rim_level: int = 0

    @classmethod
    def of_all(cls, masks: Sequence["MaskFacts"]) -> "Surface":
        """That of several masks together."""
        return cls(*(sum(numbers) for numbers in zip(*(mask.surface for mask in masks), strict=True)))

    @property
    def is_of_a_picture(self) -> bool:
        """Whether it is cut out of a picture."""
        is_pale = self.pale > self.inside / 2
        return is_pale and self.rim_level * self.inside > _ABRUPT * self.level * self.rim


@dataclass(frozen=True)
class MaskFacts:
    """What a mask's file shows, without a rule.

    Attributes:
        path: the file.
        noisy: whether it is packed as JPEG is; its keys are rounded then.
        grey: whether it is grey without transparency.
        area: pixels by key.
        border: the same of its outermost ones.
        tops: keys that differ from the border's by as much as all pixels around somewhere: those of edges never do.
        plains: keys other than the border's that nearly all pixels around one have somewhere: those of edges never do.
        surface: what differs from the border.
    """

    path: Path
    noisy: bool
    grey: bool
    area: dict[int, int]
    border: dict[int, int]
    tops: frozenset[int]
    plains: frozenset[int]
    surface: Surface


def look_at_mask(path: Path, keys: Shaped[np.ndarray, "h w"], *, noisy: bool) -> MaskFacts:
    """What a mask shows; `keys` as `own_masks.keys_of` gives them."""
    grey = bool(keys.dtype == np.uint8)
    if noisy:
        keys = _rounded(keys)
    edge = np.concatenate([keys[0], keys[-1], keys[:, 0], keys[:, -1]])
    area, border = _counts(keys), _counts(edge)
    outside = max(border, key=lambda key: border[key])
    inner = frozenset(area) - {outside}
    if len(area) <= 2:
        return MaskFacts(path, noisy, grey, area, border, inner, inner, Surface())
    # Of grey a table does, which saves arrays of colours.
    numbers = np.arange(256, dtype=np.int32) * GREY if grey else keys
    distance = difference(numbers, (outside,))
    distance = distance[keys] if grey else distance
    is_top = (distance > 0) & (distance == ndimage.maximum_filter(distance, size=3))
    tops, plains = (frozenset(_counts(keys[chosen])) for chosen in (is_top, (distance > 0) & _is_plain(keys)))
    return MaskFacts(path, noisy, grey, area, border, tops, plains, _surface(distance))


def _surface(level: UInt8[np.ndarray, "h w"]) -> Surface:
    inside = ndimage.minimum_filter(level, size=5) > NOISE
    rim = (level > NOISE) & (ndimage.minimum_filter(level, size=3) <= NOISE)
    return Surface(
        inside=int(inside.sum()),
        pale=int((inside & (level <= _PALE)).sum()),
        level=int(level[inside].sum()),
        rim=int(rim.sum()),
        rim_level=int(level[rim].sum()),
    )


def _is_plain(keys: Shaped[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels that most of the eight around equal; along a soft edge two of them do."""
    across, down = keys[:, 1:] == keys[:, :-1], keys[1:] == keys[:-1]
    slanted = (keys[1:, 1:] == keys[:-1, :-1], keys[1:, :-1] == keys[:-1, 1:])
    count = np.zeros(keys.shape, np.uint8)
    count[:, 1:] += across
    count[:, :-1] += across
    count[1:] += down
    count[:-1] += down
    count[1:, 1:] += slanted[0]
    count[:-1, :-1] += slanted[0]
    count[1:, :-1] += slanted[1]
    count[:-1, 1:] += slanted[1]
    return count > 4


def _rounded(keys: np.ndarray) -> np.ndarray:
    """Colours in steps of 64, among which noise is none."""
    steps = np.minimum((np.arange(256) + 32) // 64 * 64, 255)
    if keys.dtype == np.uint8:
        return steps.astype(np.uint8)[keys]
    rounded = steps[keys >> 16 & 255] << 16 | steps[keys >> 8 & 255] << 8 | steps[keys & 255]
    return np.where(keys == TRANSPARENT, TRANSPARENT, rounded).astype(np.int32)


def _counts(keys: np.ndarray) -> dict[int, int]:
    if keys.dtype == np.uint8:
        # In parts: bincount makes 8 bytes of each.
        parts = np.array_split(keys.ravel(), keys.size // _AT_ONCE + 1)
        counts = np.sum([np.bincount(part, minlength=256) for part in parts], axis=0)
        return {int(v) * GREY: int(counts[v]) for v in np.flatnonzero(counts)}
    values, counts = np.unique(keys, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_KEPT]
    return {int(values[at]): int(counts[at]) for at in most}
