"""How the scans of a plain folder's category are read, decided once by looking at all of them: `docs/inputs.md`."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from musc_jax.data.account import Account
from musc_jax.data.dataset import Progress
from musc_jax.data.folder_layout import Camera, FolderLayout
from musc_jax.data.scan_points import ScanRules
from musc_jax.data.scan_survey import ScanFacts, look_at
from musc_jax.data.scan_units import decide_map_units, decide_point_units
from musc_jax.storage.paths import readable
from musc_jax.storage.prefetch import map_ahead

_CLEAR_ORDER = 3.0  # so many times as far is clear
_NO_CHANCE = 2e-5  # a share of a scan's pixels that are not as far off by chance
_WORTH_SAYING = 1e-3  # a share of all pixels
_FEW = 1e-4


@runtime_checkable
class HasScan(Protocol):
    """A sample's files."""

    @property
    def points(self) -> Path | None:
        """Its scan."""

    @property
    def image(self) -> Path | None:
        """Its picture."""


def decide_scan_rules(
    samples: Sequence[HasScan],
    layout: FolderLayout,
    account: Account,
    report: Callable[[str], None],
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> ScanRules:
    """Look at every scan of a category and decide how all of them are read.

    Args:
        samples: all of the category's, whatever part of them is scored.
        layout: what the user says; it is never overruled.
        account: gets what was decided, and what of it was assumed.
        report: gets a line where the scans as a whole make no sense.
        workers: threads that look.
        progress: told how many were looked at.
    """
    files = [(sample.points, sample.image) for sample in samples if sample.points is not None]
    heights = layout.depth_kind == "height"
    facts: list[ScanFacts] = []
    seen = map_ahead(lambda pair: look_at(*pair, heights=heights), files, workers=workers, ahead=4 * workers)
    for done, fact in enumerate(seen, 1):
        if fact is not None:
            facts.append(fact)
        if progress is not None:
            progress("look at scans", done, len(files))
    if not facts:
        return ScanRules(invalid=layout.invalid or (), heights=heights, camera=layout.camera)
    maps, clouds = [f for f in facts if f.form == "map"], [f for f in facts if f.form != "map"]
    invalid = _decide_invalid(facts, layout, account)
    _account_for_lone_values(facts, layout, account, invalid)
    units: dict[str, float | list[float]] = {}
    lines: list[str] = []
    map_scale, pitch = decide_map_units(maps, layout, units, lines, report) if maps else (0.001, (0.001, 0.001))
    points_scale = decide_point_units(clouds, layout, units, lines, report) if clouds else 1.0
    account.add("units", units, "; ".join(lines))
    by_columns = _decide_order(clouds, layout, account, report)
    of_picture = _decide_camera_size(maps, layout.camera, account) if maps and not heights and layout.camera else False
    _account_for_sizes(facts, account)
    return ScanRules(
        invalid, heights, map_scale, points_scale, pitch, layout.camera, of_picture, by_columns
    )  # fmt: skip


def _decide_invalid(facts: Sequence[ScanFacts], layout: FolderLayout, account: Account) -> tuple[float, ...]:
    """Values that mean "no point": the ends of the file's type, and values far outside that several scans share."""
    if layout.invalid is not None:
        account.add("missing_points", {"invalid": list(layout.invalid), "by": "--invalid"})
        return layout.invalid
    scans = Counter(extreme.value for fact in facts for extreme in fact.far)
    of_type = {extreme.value for fact in facts for extreme in fact.far if extreme.of_type}
    # Far off, few values are possible, and single pixels of several scans have one of them by chance.
    often = {
        extreme.value for fact in facts for extreme in fact.far if extreme.share >= _NO_CHANCE or extreme.value < 0
    }
    chosen = tuple(sorted(v for v, count in scans.items() if v in of_type or (count > 1 and v in often)))
    shares = {v: sum(e.share for f in facts for e in f.far if e.value == v) / len(facts) for v in chosen}
    said = [v for v in chosen if v not in of_type or shares[v] > _WORTH_SAYING]
    lines = []
    if said:
        each = (f"{v:.10g} (in {scans[v]} of {len(facts)} scans, {shares[v]:.1%} of all pixels)" for v in said)
        lines.append(f"no point where a scan is {', '.join(each)}; --invalid=VALUES says otherwise")
    cut = Counter(fact.cut for fact in facts if fact.cut and fact.cut not in chosen)
    lines += [
        f"many pixels of {count} scans are {value:.10g}, as where a range ends; they count unless "
        f"--invalid={value:.10g} says otherwise"
        for value, count in cut.items()
    ]
    zeros = float(np.mean([fact.missing for fact in facts]))
    account.add(
        "missing_points",
        {"invalid": [float(v) for v in chosen], "shares": [shares[v] for v in chosen], "zero_or_not_finite": zeros},
        "; ".join(lines),
    )
    return chosen


def _account_for_lone_values(
    facts: Sequence[ScanFacts], layout: FolderLayout, account: Account, invalid: Sequence[float]
) -> None:
    """Name values far outside that count because no other scan shares them: they shrink all else of their clouds."""
    if layout.invalid is not None:
        return
    found = [
        (fact.path, extreme)
        for fact in facts
        for extreme in fact.far
        # Depth below 0 is told by each scan's own check.
        if extreme.value not in invalid and not (extreme.value < 0 and fact.form == "map" and layout.camera is not None)
    ]
    if not found:
        return
    (path, first), *others = found
    more = f"; the same of {len(others)} other values" if others else ""
    where = f"{first.share:.2%} of its pixels" if first.share >= _FEW else "single pixels"
    account.add(
        "lone_values",
        [[str(path), extreme.value, extreme.share] for path, extreme in found],
        f"{readable(path)}: {first.value:.10g} in {where} is far outside of all others and counts; "
        f"--invalid={first.value:.10g} says that it means no point{more}",
    )


def _decide_order(
    clouds: Sequence[ScanFacts], layout: FolderLayout, account: Account, report: Callable[[str], None]
) -> bool | None:
    """Whether points without a grid come column by column: neighbours lie together; None where that is not clear."""
    lists = [fact for fact in clouds if fact.is_in_question]
    if not lists:
        return False
    if layout.point_order is not None:
        account.add("order", {"point_order": layout.point_order, "by": "--point_order"})
        return layout.point_order == "columns"
    votes = [_vote(fact) for fact in lists]
    if True in votes and False in votes:
        one, other = (readable(lists[votes.index(way)].path) for way in (True, False))
        report(
            f"{one}: has its points column by column, but {other} row by row; save all in one order, or pass "
            "--point_order=rows or --point_order=columns"
        )
    jumps = float(np.nanmedian([fact.jumps for fact in lists])) if any(np.isfinite(f.jumps) for f in lists) else 1.0
    # One scan that shows nothing clearly, as of a plane, does not make the others unclear.
    by_columns = next((vote for vote in votes if vote is not None), None)
    if _is_clear(jumps):
        why = f"the other way neighbours lie {max(jumps, 1 / max(jumps, 1e-9)):.0f} times as far from each other"
    else:
        why = "that way x changes along rows and y along columns"
    order = {None: "unclear", True: "columns", False: "rows"}[by_columns]
    line = f"points without a grid are read column by column: {why}; --point_order=rows says otherwise"
    account.add("order", {"point_order": order, "jumps": jumps}, line if by_columns else "")
    return by_columns


def _vote(fact: ScanFacts) -> bool | None:
    """Whether a list comes column by column; None where it shows nothing clearly."""
    if _is_clear(fact.jumps):
        return fact.jumps > 1
    return fact.column_like if fact.row_like != fact.column_like else None


def _is_clear(jumps: float) -> bool:
    return bool(np.isfinite(jumps)) and not 1 / _CLEAR_ORDER < jumps < _CLEAR_ORDER


def _decide_camera_size(maps: Sequence[ScanFacts], camera: Camera, account: Account) -> bool:
    """Whether the camera's numbers are for the pictures' size, by where the middle of either would be."""
    other = [(fact.picture, fact.size) for fact in maps if fact.picture and fact.size and fact.picture != fact.size]
    of_picture = bool(other) and all(
        _off_middle(camera, picture) < _off_middle(camera, size) for picture, size in other
    )
    sizes = [size for fact in maps if (size := fact.picture if of_picture and fact.picture else fact.size)]
    outside = [size for size in sizes if not (0 <= camera.cx < size[1] and 0 <= camera.cy < size[0])]
    lines = []
    if other:
        lines.append(
            f"--intrinsics are taken to be for the {'pictures' if of_picture else 'depth maps'}, "
            f"{sizes[0][1]} x {sizes[0][0]}"
        )
    if outside:
        lines.append(
            f"the principal point of --intrinsics lies outside of {outside[0][1]} x {outside[0][0]}: are they for "
            "another size?"
        )
    account.add("intrinsics", {"of": "picture" if of_picture else "scan", "outside": len(outside)}, "; ".join(lines))
    return of_picture


def _off_middle(camera: Camera, size: tuple[int, int]) -> float:
    return max(abs(camera.cx / size[1] - 0.5), abs(camera.cy / size[0] - 0.5))


def _account_for_sizes(facts: Sequence[ScanFacts], account: Account) -> None:
    pairs = Counter((f.size, f.picture) for f in facts if f.size and f.picture and f.size != f.picture)
    if not pairs:
        return
    (size, picture), _ = pairs.most_common(1)[0]
    account.add(
        "grids",
        [[list(a), list(b), count] for (a, b), count in pairs.items()],
        f"{sum(pairs.values())} scans have another size than their pictures ({size[1]} x {size[0]} beside {picture[1]} "
        f"x {picture[0]}): each pixel has the nearest point",
    )
