"""How far each decision is from going the other way.

Picks, neighbours, ranks and maxima jump where two values are close, and float32 could see them the other way round. The
statement notes the gap of every such decision; whoever chooses a scene asks for gaps that rounding does not bridge.
"""

import contextlib

import numpy as np

# The least gap by kind of decision, some ten times what float32 loses there. Points lie in the unit sphere, rounded to
# 6e-8 a coordinate; scores come out of a chain of products.
NEEDED = {
    "distances of points": 1e-6,
    "norms of points": 1e-6,
    "curvature": 1e-5,
    "ranks of scores": 2e-6,
    "highest token": 1e-5,
    "similarities": 1e-5,
    "nearest samples": 1e-5,
}
_open: list[dict] = []


@contextlib.contextmanager
def measured():
    """The least gap of each kind inside, in a dictionary."""
    _open.append({})
    try:
        yield _open[-1]
    finally:
        _open.pop()


def note(kind, gap):
    """Gaps of decisions of one kind; 0 is an exact tie, which is decided by position in any precision."""
    gap = np.asarray(gap, np.float64).reshape(-1)
    gap = gap[np.isfinite(gap) & (gap != 0)]
    for found in _open if gap.size else ():
        found[kind] = min(found.get(kind, np.inf), float(np.abs(gap).min()))


def note_split(kind, values, count):
    """The `count` lowest of some values against the rest, along the last axis."""
    values = np.sort(values, axis=-1)
    if count < values.shape[-1]:
        with np.errstate(invalid="ignore"):
            note(kind, values[..., count] - values[..., count - 1])


def too_small(found):
    """The gaps that are not wide enough."""
    return {kind: gap for kind, gap in found.items() if gap < NEEDED[kind]}
