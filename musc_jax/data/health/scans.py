"""Scans with few points, and scans that do not belong to their pictures."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from musc_jax.data.health.findings import Odd, counted
from musc_jax.data.health.look import edges_of, flat_vectors

# A scan with less than half of the usual points has lost some, with less than a fiftieth of its pixels nearly all.
_HALF, _HARDLY = 0.5, 0.02
_LEAST = 6
# A picture's edges fit those of one scan, if by so much better than those of any other. Real ones do by 0.1 and more.
_CLEARLY = 0.05
# Edges say who belongs to whom if they do so for this share of the samples.
_TELLING = 0.8
# So many are compared with each other.
_MANY = 500


def sparse_scans(covered: Sequence[float | None], grids: Sequence[bool]) -> Iterator[Odd]:
    """Scans that have few points.

    Args:
        covered: see `musc_jax.data.health.look.Look`.
        grids: which of them are shares of pixels.
    """
    known = np.array([i for i, value in enumerate(covered) if value is not None], np.int64)
    if not len(known):
        return
    values = np.array([covered[i] for i in known], np.float64)
    grid = np.array([grids[i] for i in known])
    usual = np.median(values)
    hardly = grid & (values < _HARDLY)
    few = ~hardly & (values < _HALF * usual) if len(known) >= 3 else np.zeros_like(hardly)
    for which, text in (
        (hardly, f"nearly empty, with a point in less than {_HARDLY:.0%} of the pixels"),
        (few, "sparse, with less than half of the points that are usual"),
    ):
        if which.any():
            what = f"{counted(int(which.sum()), len(known), 'scans')} {text}"
            yield Odd("sparse", tuple(known[which].tolist()), what, "scan again, or leave them out")


def strange_scans(grey: UInt8[np.ndarray, "N 64 64"], edges: UInt8[np.ndarray, "N 64 64"]) -> Iterator[Odd]:
    """Scans whose edges fit another sample's picture clearly better than their own.

    A batch whose parts lie alike has edges that fit all of them; then nobody can tell, and nothing is said.

    Args:
        grey: pictures of the samples.
        edges: of their scans.
    """
    found: list[int] = []
    for start in range(0, len(grey), _MANY):
        part = slice(start, start + _MANY)
        found += [start + i for i in _strange(grey[part], edges[part])]
    if found:
        yield Odd(
            "pairing",
            tuple(found),
            f"{len(found)} of {len(grey)} pictures fit the scan of another sample clearly better than their own",
            "look whether pictures and scans are named as they belong together",
        )


def _strange(grey: np.ndarray, edges: np.ndarray) -> list[int]:
    if len(grey) < _LEAST:
        return []
    fits = _apart(np.stack([edges_of(stamp) for stamp in grey])) @ _apart(edges).T
    best = fits.argmax(axis=1)
    ordered = np.sort(fits, axis=1)
    # Each has to be the other's best.
    clear = (ordered[:, -1] - ordered[:, -2] > _CLEARLY) & (fits.argmax(axis=0)[best] == np.arange(len(fits)))
    if clear.mean() < _TELLING:
        return []
    return np.flatnonzero(clear & (best != np.arange(len(fits)))).tolist()


def _apart(edges: np.ndarray) -> np.ndarray:
    """What is a sample's own: without what all have in common."""
    vectors = flat_vectors(edges)
    return flat_vectors(vectors - vectors.mean(axis=0))
