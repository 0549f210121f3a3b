"""What is odd about a published dataset's scan, which is read as its authors' programs read it all the same."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from musc_jax.data.scan_survey import find_far_points, thinned
from musc_jax.storage.paths import readable

# Metres: what a scan of a part may reach.
SMALLEST, LARGEST = 1e-3, 20.0
_WORTH_SAYING = 1e-3  # a share of all pixels


def range_remarks(path: Path, low: float, high: float) -> list[str]:
    """A line about depths whose range is in another unit."""
    if SMALLEST <= high - low <= LARGEST:
        return []
    return [
        f"{readable(path)}: depth from {low:.3g} to {high:.3g} m makes no sense: is it in another unit? Write metres"
    ]


def scan_remarks(path: Path, points: Float[np.ndarray, "h w 3"]) -> list[str]:
    """Lines about another unit, points with a coordinate of 0, and numbers that stand for "no point"."""
    measured = (points != 0).all(axis=-1)
    partly = (points != 0).any(axis=-1) & ~measured
    remarks = []
    if partly.mean() > _WORTH_SAYING:
        remarks.append(
            f"{readable(path)}: {partly.mean():.1%} of its pixels have a coordinate of exactly 0 but not three; "
            "as in the published programs they are no points"
        )
    z = points[measured][:, 2]
    far, core = find_far_points(points[measured], measured.size)
    if far and sum(extreme.share for extreme in far) > _WORTH_SAYING:
        values = ", ".join(f"{extreme.value:.10g}" for extreme in far)
        share = sum(extreme.share for extreme in far)
        remarks.append(
            f"{readable(path)}: z is {values} in {share:.1%} of its pixels, far from all others; as in the published "
            "programs they are points; if they are none, write (0, 0, 0)"
        )
    inner = points[measured][(z >= core.min()) & (z <= core.max())]
    reach = float(np.max(np.subtract(*np.percentile(thinned(inner), (99, 1), axis=0))))
    if not SMALLEST <= reach <= LARGEST:
        remarks.append(
            f"{readable(path)}: reaches over {reach:.3g} m, which makes no sense: is it in another unit than metres, "
            "in which planes and clusters are looked for? Convert it"
        )
    return remarks
