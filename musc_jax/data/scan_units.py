"""Metres of a plain folder's depth, heights and coordinates, and whether they make sense: `docs/inputs.md`."""

from collections.abc import Callable, Sequence

import numpy as np

from musc_jax.data.folder_layout import FolderLayout
from musc_jax.data.scan_remarks import LARGEST, SMALLEST
from musc_jax.data.scan_survey import ScanFacts
from musc_jax.storage.paths import readable

# Floats below are metres, not millimetres.
_METRES = 20.0
_OTHER_UNIT = 50.0  # a scan so many times as large as the others has another unit
_WORTH_SAYING = 1e-3  # a share of all points
_NAMED = 3


def decide_map_units(
    maps: Sequence[ScanFacts],
    layout: FolderLayout,
    units: dict,
    lines: list[str],
    report: Callable[[str], None],
) -> tuple[float, tuple[float, float]]:
    """Metres of a depth or height of 1, and of a pixel's width and height.

    Args:
        maps: what was seen in the scans, at least one.
        layout: what the user says.
        units: gets what was decided.
        lines: gets what was assumed.
        report: gets a line where that makes no sense.
    """
    scale = layout.depth_scale
    if scale is None:
        floats = [fact for fact in maps if fact.dtype.kind == "f"]
        is_metres = len(floats) > len(maps) / 2 and _median(f.middle for f in floats) < _METRES
        scale = 1.0 if is_metres and layout.depth_kind == "depth" else 0.001
    units["depth_scale"] = scale
    assumed = "" if layout.depth_scale else f"1 is {scale:.10g} m (assumed; --depth_scale says otherwise)"
    if layout.depth_kind == "height":
        return scale, _decide_pitch(maps, layout, scale, assumed, units, lines)
    low, high = (_median(getattr(fact, end) for fact in maps) * scale for end in ("low", "high"))
    reaches = [(f.high - f.low) * scale for f in maps]
    if layout.camera is not None:
        wide = (max(f.size[1] / layout.camera.fx, f.size[0] / layout.camera.fy) for f in maps if f.size)
        reaches = [max(r, w * f.middle * scale) for r, w, f in zip(reaches, wide, maps, strict=True)]
    units |= {"nearest_m": low, "farthest_m": high, "reach_m": _median(reaches)}
    where = f"depth: {low:.3g} to {high:.3g} m away"
    if low < 0:
        pass  # each is refused by its own name: they are heights
    elif not _is_sensible(_median(reaches)):
        text = (
            f"{readable(maps[0].path)}: depth makes no sense: scans are {low:.3g} to {high:.3g} m away and reach over "
            f"{_median(reaches):.3g} m if a depth of 1 is {scale:.10g} m"
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


def decide_point_units(
    clouds: Sequence[ScanFacts],
    layout: FolderLayout,
    units: dict,
    lines: list[str],
    report: Callable[[str], None],
) -> float:
    """Metres of a coordinate of 1: as it stands, or millimetres if that alone makes sense; see `decide_map_units`."""
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
