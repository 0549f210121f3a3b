"""What the masks of a category mean, decided once over all of its files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped
from scipy import ndimage

from musc_jax.data.account import Account
from musc_jax.data.formats.own_masks import BLACK, GREY, TRANSPARENT, WHITE, MaskRule, difference

# More values than that are no numbers of classes: the published sets have up to nine.
_MOST_LABELS = 20
_MOST_COLORS = 64
# So many of a mask's keys have at least this share of its area; of a picture, also one on black, they do not.
_FREQUENT, _COVERED = 8, 0.75
# Keys that are kept of a mask, by how often they come.
_KEPT = 1000
_AT_ONCE = 1_000_000
# Nearly all masks.
_NEARLY_ALL = 0.9
# Noise of JPEG, in a file that is no JPEG any more, stays so near to black and to white.
_NOISE = 16


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
    """

    path: Path
    noisy: bool
    grey: bool
    area: dict[int, int]
    border: dict[int, int]
    tops: frozenset[int]


def look_at_mask(path: Path, keys: Shaped[np.ndarray, "h w"], *, noisy: bool) -> MaskFacts:
    """What a mask shows; `keys` as `own_masks.keys_of` gives them."""
    grey = keys.dtype == np.uint8
    if noisy:
        keys = _rounded(keys)
    edge = np.concatenate([keys[0], keys[-1], keys[:, 0], keys[:, -1]])
    area, border = _counts(keys), _counts(edge)
    outside = max(border, key=lambda key: border[key])
    if len(area) <= 2:
        return MaskFacts(path, noisy, bool(grey), area, border, frozenset(area) - {outside})
    # Of grey a table does, which saves arrays of colours.
    numbers = np.arange(256, dtype=np.int32) * GREY if keys.dtype == np.uint8 else keys
    distance = difference(numbers, (outside,))
    distance = distance[keys] if keys.dtype == np.uint8 else distance
    is_top = (distance > 0) & (distance == ndimage.maximum_filter(distance, size=3))
    return MaskFacts(path, noisy, bool(grey), area, border, frozenset(_counts(keys[is_top])))


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


def decide_mask_rule(masks: Sequence[MaskFacts], asked: str, account: Account) -> MaskRule:
    """What a category's masks mean; what was assumed goes into the account.

    Args:
        masks: all of them that can be read.
        asked: one of `folder_layout.MASK_RULES`.
        account: gets the topic `masks`.
    """
    if not masks:
        return MaskRule()
    rule, line = (_ASKED[asked], "") if asked != "auto" else _guessed(masks)
    area = Counter[int]()
    for mask in masks:
        area.update(dict.fromkeys(mask.area, 1))
    facts: dict[str, Any] = {
        "files": len(masks),
        "rule": asked if asked != "auto" else "unknown" if rule.unknown else line or "white on black",
        "background": [name_of(key) for key in rule.background],
        "values": {name_of(key): count for key, count in area.most_common(_MOST_LABELS)},
    }
    account.add("masks", facts, f"masks: {line} (--masks says otherwise)" if line else "")
    return rule


_ASKED = {
    "white": MaskRule(background=(BLACK, TRANSPARENT)),
    "black": MaskRule(background=(WHITE, TRANSPARENT)),
    "nonzero": MaskRule(background=(BLACK, TRANSPARENT), cut=0, soft=False),
    "alpha": MaskRule(background=(TRANSPARENT,), soft=False, alpha=True),
}


def _guessed(masks: Sequence[MaskFacts]) -> tuple[MaskRule, str]:
    """The rule, and what was assumed; "" where it is what everybody expects."""
    keys = {key for mask in masks for key in mask.area}
    shares = _pooled(masks)
    colored = any(key != TRANSPARENT and key % GREY for key in keys)
    if len(keys) > _MOST_COLORS and (max(shares.values()) < 1 / 4 or _covered(masks) < _COVERED):
        return MaskRule(unknown="looks like a picture, not like a mask: it has no background of one colour"), ""
    background = _background(masks, shares)
    if background is None:
        return MaskRule(unknown="is a mask without black, and no other colour is most of its border and its area"), ""
    exact = [mask for mask in masks if not mask.noisy]
    others = {key for mask in exact for key in mask.area} - set(background)
    weak, strong = _divided(others, background)
    grey = all(mask.grey for mask in masks)
    few = len(others) <= (_MOST_LABELS if grey else _MOST_COLORS) and not _is_noise(others, background)
    labels: set[int] = set()
    if few:
        tops = {key for mask in exact for key in mask.tops} & weak
        # Numbers of classes in the usual sense: where one is all around another, it still is one.
        labels = weak if all(_levels(weak, background) <= _MOST_LABELS) else tops
    rule = MaskRule(
        background=background,
        cut=127 if labels else _half(others, background),
        labels=tuple(sorted(labels)),
        noisy_cut=_half({key for mask in masks if mask.noisy for key in mask.area}, background),
        soft=bool(grey and not few and strong and background in ((BLACK,), (WHITE,))),
    )
    found = np.array(sorted({key for mask in masks for key in mask.area}), np.int32)
    if not any(rule.is_defect(found, noisy=noisy).any() for noisy in {mask.noisy for mask in masks}):
        return rule, f"none of {len(masks)} shows a defect"
    return rule, _assumed(rule, masks, others if few else set(), colored)


def _covered(masks: Sequence[MaskFacts]) -> float:
    """Mean share of the area that a mask's most frequent keys have: nearly all of it, soft edges or not."""
    shares = [sum(sorted(mask.area.values())[-_FREQUENT:]) / sum(mask.area.values()) for mask in masks]
    return float(np.mean(shares))


def _pooled(masks: Sequence[MaskFacts]) -> dict[int, float]:
    """Mean share of each key in the area."""
    shares = Counter[int]()
    for mask in masks:
        total = sum(mask.area.values())
        for key, count in mask.area.items():
            shares[key] += count / total / len(masks)  # type: ignore[assignment]
    return dict(shares)


def _background(masks: Sequence[MaskFacts], shares: dict[int, float]) -> tuple[int, ...] | None:
    """The key that is most of border and area in nearly all masks, or in most and no other is; else black, if any."""
    holds = Counter[int]()
    for mask in masks:
        for key, count in mask.area.items():
            if 2 * count > sum(mask.area.values()) and 2 * mask.border.get(key, 0) > sum(mask.border.values()):
                holds[key] += 1
    usual = tuple(key for key in (BLACK, TRANSPARENT) if key in shares)
    held, count = holds.most_common(1)[0] if holds else (BLACK, 0)
    # Defects may be large; what speaks against it is only a mask that has another background.
    is_clear = count >= _NEARLY_ALL * len(masks) or (len(holds) == 1 and 2 * count > len(masks))
    if is_clear and (len(shares) > 1 or held in usual):
        if held == TRANSPARENT and BLACK in shares and len(shares) > 2 and 2 * shares[BLACK] > 1 - shares[TRANSPARENT]:
            return (BLACK, TRANSPARENT)  # white on black, and nothing outside of the part
        return (held,)
    if len(usual) == 2 and len(shares) == 2:
        return (max(usual, key=lambda key: holds[key]),)
    if usual:
        return usual
    # Masks that are one colour everywhere: all of them a defect, which is said of each.
    return (BLACK,) if len(shares) == 1 else None


def _levels(keys: set[int], background: tuple[int, ...]) -> Int[np.ndarray, " k"]:
    return difference(np.array(sorted(keys), np.int32), background).astype(np.int64)


def _divided(keys: set[int], background: tuple[int, ...]) -> tuple[set[int], set[int]]:
    """Keys up to one half away from the background, and those beyond."""
    levels = dict(zip(sorted(keys), _levels(keys, background), strict=True))
    return {key for key in keys if levels[key] <= 127}, {key for key in keys if levels[key] > 127}


def _is_noise(keys: set[int], background: tuple[int, ...]) -> bool:
    """Whether there are values just off the background and just off its opposite: a JPEG was saved as another file."""
    levels = _levels(keys, background)
    return bool(((levels <= _NOISE) & (levels > 0)).any() and ((levels >= 255 - _NOISE) & (levels < 255)).any())


def _half(keys: set[int], background: tuple[int, ...]) -> int:
    """One half of 255; where nothing reaches that, half of the most there is, unless that is noise."""
    largest = int(_levels(keys, background).max(initial=0))
    return largest // 2 if 2 * _NOISE < largest <= 128 else 127


def _assumed(rule: MaskRule, masks: Sequence[MaskFacts], labels: set[int], colored: bool) -> str:
    parts = []
    if TRANSPARENT in rule.background:
        parts.append("what is transparent is no defect")
    names = [name_of(key) for key in rule.background if key not in (BLACK, TRANSPARENT)]
    if names:
        parts.append(f"{names[0]} is the background, everything else a defect")
    if TRANSPARENT in labels:
        parts.append("what is transparent is a defect")
    plain = labels - {TRANSPARENT}
    if (len(plain) > 1 or colored) and plain and len(parts) == 0:
        listed = ", ".join(name_of(key) for key in sorted(plain)[:_MOST_LABELS])
        parts.append(f"each of {listed} is a defect" if len(plain) > 1 else f"{listed} is a defect")
        if WHITE in plain and rule.labels and all(key <= _MOST_LABELS * GREY for key in rule.labels) and not colored:
            parts.append("255, too, although it is sometimes meant to be ignored")
    elif colored and not labels:
        parts.append(f"colours are defects if they differ by more than {rule.cut} of 255 from the background")
    if parts and any(mask.noisy for mask in masks):
        parts.append(f"in JPEG files from a difference of {rule.noisy_cut} on")
    return "; ".join(parts)


def name_of(key: int) -> str:
    """A key as people call it."""
    if key == TRANSPARENT:
        return "transparent"
    if key in (BLACK, WHITE):
        return "black" if key == BLACK else "white"
    return str(key // GREY) if key % GREY == 0 else f"#{key:06x}"
