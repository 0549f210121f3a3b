"""What the masks of a category mean, decided once over all of its files."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from musc_jax.data.account import Account
from musc_jax.data.formats.own_masks import BLACK, GREY, TRANSPARENT, WHITE, MaskRule, difference
from musc_jax.data.mask_survey import NOISE, MaskFacts, Surface

# More values than that are no numbers of classes: the published sets have up to nine.
_MOST_LABELS = 20
_MOST_COLORS = 64
# So many of a mask's keys have at least this share of its area; of a picture, also one on black, they do not.
_FREQUENT, _COVERED = 8, 0.75
# Nearly all masks.
_NEARLY_ALL = 0.9
# So much of the area of small values: the rest are thin pieces and their ends.
_MOSTLY = 0.8


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
    labels = set() if few else _many_classes(exact, weak, others, background)
    many = bool(labels)
    if not few and not many and Surface.of_all(exact).is_of_a_picture:
        return MaskRule(unknown="shows pieces of a picture on its background, not a mask"), ""
    if few:
        tops = {key for mask in exact for key in mask.tops} & weak
        # Numbers of classes in the usual sense: where one is all around another, it still is one.
        labels = weak if all(_levels(weak, background) <= _MOST_LABELS) else tops
    rule = MaskRule(
        background=background,
        cut=127 if labels else _half(others, background),
        labels=tuple(sorted(labels)),
        noisy_cut=_half({key for mask in masks if mask.noisy for key in mask.area}, background),
        soft=bool(grey and not few and not many and strong and background in ((BLACK,), (WHITE,))),
    )
    found = np.array(sorted({key for mask in masks for key in mask.area}), np.int32)
    if not any(rule.is_defect(found, noisy=noisy).any() for noisy in {mask.noisy for mask in masks}):
        return rule, f"none of {len(masks)} shows a defect"
    return rule, _assumed(rule, masks, others if few or many else set(), colored)


def _many_classes(
    masks: Sequence[MaskFacts], weak: set[int], others: set[int], background: tuple[int, ...]
) -> set[int]:
    """Of more keys than soft edges have, those that are numbers or colours of defects; none where most are of edges."""
    if _is_noise(others, background):
        return set()
    area = Counter[int]()
    for mask in masks:
        area.update({key: mask.area[key] for key in weak & mask.area.keys()})
    plain = {key for mask in masks for key in mask.plains} & weak
    if sum(area[key] for key in plain) <= _MOSTLY * area.total():
        return set()
    # A soft edge around one dim colour has many keys that are none; among many colours a few are of slivers only.
    return weak if 2 * len(plain) > len(weak) else plain | ({key for mask in masks for key in mask.tops} & weak)


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
    return bool(((levels <= NOISE) & (levels > 0)).any() and ((levels >= 255 - NOISE) & (levels < 255)).any())


def _half(keys: set[int], background: tuple[int, ...]) -> int:
    """One half of 255; where nothing reaches that, half of the most there is, unless that is noise."""
    largest = int(_levels(keys, background).max(initial=0))
    return largest // 2 if 2 * NOISE < largest <= 128 else 127


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
        more = f" and {len(plain) - _MOST_LABELS} others" if len(plain) > _MOST_LABELS else ""
        listed = ", ".join(name_of(key) for key in sorted(plain)[:_MOST_LABELS]) + more
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
