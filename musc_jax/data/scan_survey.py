"""What one scan looks like: extremes that may stand for "no point", reach, and in which order its points come.

Nothing is decided here: `musc_jax.data.scan_rules` does that for all scans of a category.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Num, Shaped

from musc_jax.data.formats import files
from musc_jax.data.formats.files import FileFault
from musc_jax.data.formats.own_pictures import read_header
from musc_jax.data.formats.points import decode_scan
from musc_jax.data.formats.remarks import overheard
from musc_jax.data.scan_points import is_point

_PEELED = 3  # extremes that are looked at, at each end
_ENOUGH = 100_000  # numbers whose percentiles are those of all
# A value is far outside if the gap to the others is so many times their spread, and it is so many times as large.
_FAR, _LARGER = 5.0, 4.0
# For numbers that programs like to use for "nothing", and for what cannot be: depth behind the camera, and one and the
# same point in many pixels.
_FAR_MARK, _LARGER_MARK, _FAR_NEVER = 0.5, 1.5, 0.1
_MANY = 16
_WORTH_SAYING = 0.01  # a share of all pixels
_MARKS = frozenset({*(2.0**k - 1 for k in range(10, 33)), *(10.0**k - 1 for k in range(4, 10)), 65504.0, 65500.0})
_FLOAT_MARKS = tuple(float(np.finfo(kind).max) for kind in (np.float16, np.float32, np.float64))


class Extreme(NamedTuple):
    """A value at the end of a scan's range.

    Attributes:
        value: as it stands in the file.
        share: of all pixels, how many have it.
        of_type: whether it is the largest or smallest number that the file's type has.
    """

    value: float
    share: float
    of_type: bool


class ScanFacts(NamedTuple):
    """What was seen in a scan.

    Attributes:
        path: its file.
        form: see `Scan`.
        dtype: of the file.
        size: (height, width), None for a list.
        picture: (height, width) of its picture; None without one.
        far: extremes far outside of all other values, which may stand for "no point".
        low, middle, high: of depth, height or z without any extremes: percentiles 1, 50 and 99.
        reach: of points, the largest distance along an axis between percentiles 1 and 99; 0 for maps.
        missing: share of pixels that are no point by 0 or by not being finite.
        flat: share of points whose z is exactly 0, if all other points are far from there; else 0.
        cut: of a map of whole numbers, its largest value if that is the last of 8, 9, ... bits and many pixels have it;
            else 0.
        is_in_question: whether it is a list beside a picture of as many pixels.
        jumps: of such a list how many times as far a neighbour in the next row is if
            points came row by row, compared with column by column; NaN where nobody knows.
        row_like, column_like: of such a list, whether x rises along rows and y along columns, read in either order.
    """

    path: Path
    form: str
    dtype: np.dtype
    size: tuple[int, int] | None
    picture: tuple[int, int] | None
    far: tuple[Extreme, ...]
    low: float
    middle: float
    high: float
    reach: float
    missing: float
    flat: float
    cut: float
    is_in_question: bool
    jumps: float
    row_like: bool
    column_like: bool


def look_at(path: Path, image: Path | None, *, heights: bool) -> ScanFacts | None:
    """Look at a scan; None where it cannot be read, which its sample's own check reports.

    Args:
        path: its file.
        image: its picture, of which only the size is looked at.
        heights: whether maps hold heights, not depth.
    """
    try:
        with overheard():  # said when the sample itself is checked
            scan = decode_scan(files.read(path))
            picture = None if image is None else _stored_size(image)
    except FileFault:
        return None
    values, form = scan.values, scan.form
    if form == "map":
        there = np.isfinite(values)
        if not heights:
            there &= values != 0
        numbers = values[there]
    else:
        there = is_point(values, ())
        numbers = values[there][:, 2]
    if not numbers.size:
        return None
    if form == "map":
        far, core = find_extremes(numbers, there.size, is_depth=not heights)
    else:
        far, core = find_far_points(values[there], there.size)
    low, middle, high = (float(value) for value in np.percentile(thinned(core), (1, 50, 99)))
    reach = flat = 0.0
    if form != "map":
        inner = values[there & (values[..., 2] >= core.min()) & (values[..., 2] <= core.max())]
        edges = np.percentile(thinned(inner), (1, 99), axis=0)
        reach, flat = float(np.max(edges[1] - edges[0])), _flat(numbers)
    jumps, row_like, column_like = np.nan, False, False
    in_question = form == "list" and picture is not None and picture[0] * picture[1] == len(values)
    if in_question and picture is not None:
        jumps, row_like, column_like = _order(values, there, picture)
    size = None if form == "list" else (values.shape[0], values.shape[1])
    return ScanFacts(
        path=path,
        form=form,
        dtype=values.dtype,
        size=size,
        picture=picture,
        far=far,
        low=low,
        middle=middle,
        high=high,
        reach=reach,
        missing=1 - numbers.size / there.size,
        flat=flat,
        cut=_cut_off(numbers) if form == "map" else 0.0,
        is_in_question=in_question,
        jumps=jumps,
        row_like=row_like,
        column_like=column_like,
    )


def _flat(z: Num[np.ndarray, "n"]) -> float:
    raised = z[z != 0]
    if raised.size in (0, z.size):
        return 0.0
    low, high = np.percentile(thinned(raised), (1, 99))
    return 0.0 if max(low, -high) < _FAR_MARK * (high - low) else 1 - raised.size / z.size


def _stored_size(image: Path) -> tuple[int, int]:
    """(height, width) of a picture before it is turned: a scanner knows nothing of how its camera is held."""
    header = read_header(files.read(image))
    height, width = header.size
    return (width, height) if header.orientation >= 5 else (height, width)


def thinned(values: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "m ..."]:
    """Some of many numbers, in double precision: as many as their percentiles need."""
    return values[:: max(1, len(values) // _ENOUGH)].astype(np.float64)


def _cut_off(numbers: Num[np.ndarray, "n"]) -> float:
    top = float(numbers.max())
    is_full = numbers.dtype.kind in "iu" and top >= 255 and float(np.log2(top + 1)).is_integer()
    return top if is_full and np.mean(numbers == top) > _WORTH_SAYING else 0.0


def find_far_points(points: Num[np.ndarray, "n 3"], total: int) -> tuple[tuple[Extreme, ...], Num[np.ndarray, "m"]]:
    """`find_extremes` of z, where also one and the same point in many pixels counts as none."""

    def is_repeated(z: float) -> bool:
        same = points[points[:, 2] == z]
        return len(same) >= _MANY and bool((same == same[0]).all())

    return find_extremes(points[:, 2], total, is_depth=False, is_repeated=is_repeated)


def find_extremes(
    numbers: Num[np.ndarray, "n"], total: int, *, is_depth: bool, is_repeated: Callable[[float], bool] | None = None
) -> tuple[tuple[Extreme, ...], Num[np.ndarray, "m"]]:
    """Extremes far outside of all other values.

    Args:
        numbers: depth, heights or z.
        total: of how many pixels.
        is_depth: whether a negative one cannot be.
        is_repeated: of z, whether all points that have it are one; None for maps.

    Returns:
        The extremes, outer ones first, and the other values (never none).
    """
    core = numbers
    ends: tuple[list[tuple[float, int]], ...] = ([], [])
    for _ in range(_PEELED):
        for end, extreme in ((0, np.min), (1, np.max)):
            if not core.size:
                break
            value = extreme(core).item()
            same = core == value
            ends[end].append((float(value), int(same.sum())))
            core = core[~same]
    if not core.size:
        # Few values in all: the most frequent one is no stranger.
        usual = max((level for end in ends for level in end), key=lambda level: level[1])[0]
        core = numbers[numbers == usual]
    low, high = (float(value) for value in np.percentile(thinned(core), (1, 99)))
    found = []
    for end, levels in enumerate(ends):
        for value, count in levels:
            of_type = is_repeated is None and _is_end_of_type(value, numbers.dtype, largest=bool(end))
            gap = value - high if end else low - value
            never = value < 0 if is_depth else is_repeated is not None and is_repeated(value)
            nothing = not is_depth and value == 0 and numbers.dtype.kind == "u"
            if not (of_type or gap >= _needed_gap(value, low, high, never=never, nothing=nothing)):
                break
            found.append(Extreme(float(value), count / total, of_type))
    rest = numbers[~np.isin(numbers, np.array([extreme.value for extreme in found], numbers.dtype))]
    return (tuple(found), rest) if rest.size else ((), numbers)


def _is_end_of_type(value: float, dtype: np.dtype, *, largest: bool) -> bool:
    if dtype.kind == "f":
        return abs(value) in _FLOAT_MARKS
    limits = np.iinfo(dtype)
    return value == limits.max if largest else limits.min < 0 and value == limits.min


def _needed_gap(value: float, low: float, high: float, *, never: bool, nothing: bool) -> float:
    """How far outside of the others a value must lie to stand for something else.

    Args:
        value: which one.
        low: of the others, percentile 1.
        high: of the others, percentile 99.
        never: whether it cannot be measured.
        nothing: whether programs use it for "nothing" among such values.
    """
    largest = max(abs(low), abs(high))
    spread = max(high - low, 1e-3 * largest)
    if never:
        return _FAR_NEVER * spread
    if nothing or (abs(value) in _MARKS and abs(value) >= _LARGER_MARK * largest):
        return _FAR_MARK * spread
    return _FAR * spread if abs(value) >= _LARGER * largest else np.inf


def _order(
    points: Num[np.ndarray, "p 3"], there: Bool[np.ndarray, "p"], size: tuple[int, int]
) -> tuple[float, bool, bool]:
    """`ScanFacts.jumps`, `row_like` and `column_like`."""
    height, width = size
    cloud = np.where(there[:, None], points, np.nan).astype(np.float64)
    rows, columns = cloud.reshape(height, width, 3), cloud.reshape(width, height, 3)
    by_rows, by_columns = (_jump(grid) for grid in (rows, columns))
    jumps = by_rows / by_columns if by_columns > 0 else np.nan
    return jumps, _is_camera_like(rows), _is_camera_like(np.moveaxis(columns, 0, 1))


def _jump(grid: np.ndarray) -> float:
    """Median distance of neighbours that are not next to each other in the file."""
    distances = np.linalg.norm(grid[1:] - grid[:-1], axis=-1)
    distances = distances[np.isfinite(distances)]
    return float(np.median(distances)) if distances.size else np.nan


def _is_camera_like(grid: np.ndarray) -> bool:
    """Whether x changes from column to column and y from row to row, as in what a camera sees."""
    row, column = np.mgrid[: grid.shape[0], : grid.shape[1]]
    there = np.isfinite(grid[..., 2])
    if there.sum() < 3:
        return False
    return _follows(grid[..., 0][there], column[there], row[there]) and _follows(
        grid[..., 1][there], row[there], column[there]
    )


def _follows(values: np.ndarray, along: np.ndarray, across: np.ndarray) -> bool:
    """Whether values go along with one coordinate and not with the other."""
    if min(np.ptp(values), np.ptp(along), np.ptp(across)) == 0:
        return False
    much, little = (abs(np.corrcoef(values, coordinate)[0, 1]) for coordinate in (along, across))
    return bool(much > 0.7 and little < much / 2)
