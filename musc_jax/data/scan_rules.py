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
from musc_jax.data.scan_remarks import LARGEST, SMALLEST
from musc_jax.data.scan_survey import ScanFacts, look_at
from musc_jax.storage.paths import readable
from musc_jax.storage.prefetch import map_ahead

# Floats below are metres, not millimetres.
_METRES = 20.0
_OTHER_UNIT = 50.0  # a scan so many times as large as the others has another unit
_CLEAR_ORDER = 3.0  # so many times as far is clear
_WORTH_SAYING = 1e-3  # a share of all pixels
_NAMED = 3


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
    units: dict[str, float | list[float]] = {}
    lines: list[str] = []
    map_scale, pitch = _decide_map_units(maps, layout, units, lines, report) if maps else (0.001, (0.001, 0.001))
    points_scale = _decide_point_units(clouds, layout, units, lines, report) if clouds else 1.0
    account.add("units", units, "; ".join(lines))
    by_columns = _decide_order(clouds, layout, account)
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
    chosen = tuple(sorted(value for value, count in scans.items() if count > 1 or value in of_type))
    shares = {v: sum(e.share for f in facts for e in f.far if e.value == v) / len(facts) for v in chosen}
    said = [v for v in chosen if v not in of_type or shares[v] > _WORTH_SAYING]
    line = ""
    if said:
        each = (f"{_number(v)} (in {scans[v]} of {len(facts)} scans, {shares[v]:.1%} of all pixels)" for v in said)
        line = f"no point where a scan is {', '.join(each)}; --invalid=VALUES says otherwise"
    zeros = float(np.mean([fact.missing for fact in facts]))
    account.add(
        "missing_points",
        {"invalid": [float(v) for v in chosen], "shares": [shares[v] for v in chosen], "zero_or_not_finite": zeros},
        line,
    )
    return chosen


def _decide_map_units(
    maps: Sequence[ScanFacts],
    layout: FolderLayout,
    units: dict,
    lines: list[str],
    report: Callable[[str], None],
) -> tuple[float, tuple[float, float]]:
    """Metres of a depth or height of 1, and of a pixel's width and height."""
    scale = layout.depth_scale
    if scale is None:
        floats = [fact for fact in maps if fact.dtype.kind == "f"]
        is_metres = len(floats) > len(maps) / 2 and _median(f.middle for f in floats) < _METRES
        scale = 1.0 if is_metres and layout.depth_kind == "depth" else 0.001
    units["depth_scale"] = scale
    assumed = "" if layout.depth_scale else f"1 is {_number(scale)} m (assumed; --depth_scale says otherwise)"
    if layout.depth_kind == "height":
        return scale, _decide_pitch(maps, layout, scale, assumed, units, lines)
    low, high = (_median(getattr(fact, end) for fact in maps) * scale for end in ("low", "high"))
    reaches = [(f.high - f.low) * scale for f in maps]
    if layout.camera is not None:
        wide = (max(f.size[1] / layout.camera.fx, f.size[0] / layout.camera.fy) for f in maps if f.size)
        reaches = [max(r, w * f.middle * scale) for r, w, f in zip(reaches, wide, maps, strict=True)]
    units |= {"nearest_m": low, "farthest_m": high, "reach_m": _median(reaches)}
    where = f"depth: {low:.3g} to {high:.3g} m away"
    if not _is_sensible(_median(reaches)):
        text = (
            f"{readable(maps[0].path)}: depth makes no sense: scans are {low:.3g} to {high:.3g} m away and reach over "
            f"{_median(reaches):.3g} m if a depth of 1 is {_number(scale)} m"
        )
        if layout.depth_scale is None:
            report(
                f"{text}; pass --depth_scale=METRES of a depth of 1 (0.0002 for TUM's, 0.000125 for SUN RGB-D's, "
                "0.0001 for tenths of millimetres)"
            )
        else:
            lines.append(f"{text}, as --depth_scale has it")
    elif assumed:
        lines.append(f"{where}, {assumed}")
    _name_others(maps, [fact.middle for fact in maps], lines)
    return scale, (scale, scale)


def _decide_pitch(
    maps: Sequence[ScanFacts], layout: FolderLayout, scale: float, assumed: str, units: dict, lines: list[str]
) -> tuple[float, float]:
    """Width and height of a height map's pixel; where nobody says so, heights span a tenth of the longer side."""
    rise = _median(fact.high - fact.low for fact in maps) * scale
    if layout.pixel_pitch:
        pitch = (layout.pixel_pitch[0], layout.pixel_pitch[-1])
        said = [assumed] if assumed else []
    else:
        longer = _median(max(fact.size) for fact in maps if fact.size)
        across = 10 * rise / longer or scale
        pitch = (across, across)
        said = [*([assumed] if assumed else []), f"a pixel {across:.3g} m wide (assumed; --pixel_pitch says otherwise)"]
    units |= {"pixel_pitch": list(pitch), "rise_m": rise}
    if said:
        lines.append(f"heights: over {rise:.3g} m, {', '.join(said)}")
    _name_others(maps, [fact.high - fact.low for fact in maps], lines)
    return pitch


def _decide_point_units(
    clouds: Sequence[ScanFacts],
    layout: FolderLayout,
    units: dict,
    lines: list[str],
    report: Callable[[str], None],
) -> float:
    """Metres of a coordinate of 1: as it stands, or millimetres where that alone makes sense."""
    reach = _median(fact.reach for fact in clouds)
    scale = layout.points_scale
    if scale is None:
        scale = 0.001 if reach > LARGEST and _is_sensible(reach * 0.001) else 1.0
    units |= {"points_scale": scale, "points_reach_m": reach * scale}
    if layout.points_scale is None and scale != 1:
        lines.append(
            f"points: coordinates reach over {reach:.4g}, taken as millimetres (--points_scale says otherwise)"
        )
    if not _is_sensible(reach * scale):
        text = f"{readable(clouds[0].path)}: points make no sense: they reach over {reach * scale:.3g} m"
        if layout.points_scale is None:
            report(f"{text}; pass --points_scale=METRES of a coordinate of 1, such as 0.001 for millimetres")
        else:
            lines.append(f"{text}, as --points_scale has it")
    flat = [fact.flat for fact in clouds if fact.flat > _WORTH_SAYING]
    if flat and layout.invalid is None:
        lines.append(
            f"points: z is exactly 0 in {_median(flat):.1%} of the points of {len(flat)} scans, far from all others; "
            "they count unless --invalid=0 says otherwise"
        )
    _name_others(clouds, [fact.reach for fact in clouds], lines)
    return scale


def _decide_order(clouds: Sequence[ScanFacts], layout: FolderLayout, account: Account) -> bool | None:
    """Whether points without a grid come column by column: neighbours lie together; None where that is not clear."""
    lists = [fact for fact in clouds if fact.is_in_question]
    if not lists:
        return False
    if layout.point_order is not None:
        account.add("order", {"point_order": layout.point_order, "by": "--point_order"})
        return layout.point_order == "columns"
    jumps = float(np.nanmedian([fact.jumps for fact in lists])) if any(np.isfinite(f.jumps) for f in lists) else 1.0
    seen = {(fact.row_like, fact.column_like) for fact in lists}
    by_columns, why = None, ""
    if not 1 / _CLEAR_ORDER < jumps < _CLEAR_ORDER:
        by_columns = jumps > 1
        why = f"the other way neighbours lie {max(jumps, 1 / max(jumps, 1e-9)):.0f} times as far from each other"
    elif seen in ({(True, False)}, {(False, True)}):
        by_columns = seen == {(False, True)}
        why = "that way x changes along rows and y along columns"
    order = {None: "unclear", True: "columns", False: "rows"}[by_columns]
    line = f"points without a grid are read column by column: {why}; --point_order=rows says otherwise"
    account.add("order", {"point_order": order, "jumps": jumps}, line if by_columns else "")
    return by_columns


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


def _name_others(facts: Sequence[ScanFacts], measures: Sequence[float], lines: list[str]) -> None:
    """Name scans that are many times as large or far as the others: another unit, most likely."""
    usual = _median(measures)
    limits = usual / _OTHER_UNIT, usual * _OTHER_UNIT
    odd = [f for f, m in zip(facts, measures, strict=True) if usual > 0 and not limits[0] <= m <= limits[1]]
    if odd:
        names = ", ".join(readable(fact.path) for fact in odd[:_NAMED]) + (", ..." if len(odd) > _NAMED else "")
        lines.append(f"more than {_OTHER_UNIT:.0f} times as large or as small as the others, in another unit? {names}")


def _is_sensible(metres: float) -> bool:
    return SMALLEST <= metres <= LARGEST


def _median(values: object) -> float:
    return float(np.median(list(values)))  # type: ignore[call-overload]


def _number(value: float) -> str:
    return f"{value:.10g}"
