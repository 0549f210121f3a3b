"""Single pictures that are unlike the others: flat, of another exposure, turned, of another view."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from musc_jax.data.health.findings import Odd, counted
from musc_jax.data.health.look import flat_vectors

# Of fewer samples nobody knows what is usual; of more the typical one need not be made of all.
_LEAST, _MANY = 6, 1000
# What lies so many robust deviations from the median is no tail of the others: real sets reached 4.2, 2.9 and 2.8.
_DEVIATIONS = 6.0
# A change of exposure that is worth a word: a fifth of the usual grey and 2 levels.
_SHARE, _LEVELS = 0.2, 2.0
# Of the contrast that is usual, and levels in any case; real sets had 0.3 (a board with nearly no copper) and above.
_FLAT, _ONE_COLOR = 0.2, 0.1
# Pictures show the same view if they correlate so much with their median: of aligned sets 0.7 to 1, of textures to 0.6.
_ALIGNED, _SPREAD = 0.65, 0.06
# Less than the others' correlation by so much is another view.
_OTHER_VIEW = 0.25
_TURNED = {1: "a quarter to the right", 2: "upside down", 3: "a quarter to the left"}


def flat_pictures(grey: UInt8[np.ndarray, "N 64 64"], usual: Sequence[int]) -> Iterator[Odd]:
    """Pictures that show nothing.

    Args:
        grey: of all samples.
        usual: indices of those that are judged, by each other.
    """
    indices = np.asarray(usual, np.int64)
    if not len(indices):
        return
    contrasts = np.array([stamp.std(dtype=np.float32) for stamp in grey[indices]])
    flat = contrasts < max(_FLAT * np.median(contrasts), _ONE_COLOR)
    if flat.any():
        what = f"{counted(int(flat.sum()), len(indices))} of one colour, or nearly so, with nothing to be seen"
        yield Odd("flat", tuple(indices[flat].tolist()), what, "take them again, or leave them out")


def odd_pictures(grey: UInt8[np.ndarray, "N 64 64"], usual: Sequence[int]) -> Iterator[Odd]:
    """Pictures of another exposure or view than the others; arguments as in `flat_pictures`."""
    indices = np.asarray(usual, np.int64)
    if len(indices) < _LEAST:
        return
    stamps = grey[indices]
    yield from _exposures(indices, stamps.mean(axis=(1, 2), dtype=np.float32))
    yield from _views(indices, stamps)


def _exposures(indices: np.ndarray, means: Float[np.ndarray, "N"]) -> Iterator[Odd]:
    middle, deviation = _middle(means)
    least = max(_DEVIATIONS * deviation, _SHARE * middle + _LEVELS)
    for word, odd in (("brighter", means > middle + least), ("darker", means < middle - least)):
        if odd.any():
            levels = ", ".join(f"{mean:.0f}" for mean in sorted(means[odd])[:3]) + ", ..." * (int(odd.sum()) > 3)
            yield Odd(
                "exposure",
                tuple(indices[odd].tolist()),
                f"{counted(int(odd.sum()), len(indices))} much {word} than the others (mean {levels} of 255, usual is "
                f"{middle:.0f})",
                "take them again with the same light and exposure, or expect scores that say just this",
            )


def _views(indices: np.ndarray, stamps: UInt8[np.ndarray, "N 64 64"]) -> Iterator[Odd]:
    """Where pictures show a part from one side, those that are turned, and those that show something else."""
    some = np.unique(np.linspace(0, len(stamps) - 1, min(len(stamps), _MANY)).astype(int))
    typical = np.median(stamps[some], axis=0)
    # To turn the typical picture to the right is to turn each of the others to the left.
    typicals = flat_vectors(np.stack([np.rot90(typical, -turn) for turn in range(4)]))
    chunks = np.array_split(stamps, -(-len(stamps) // _MANY))
    fits = np.concatenate([flat_vectors(chunk) @ typicals.T for chunk in chunks]).T
    own = fits[0]
    middle, deviation = _middle(own)
    if middle < _ALIGNED or deviation > _SPREAD:
        return
    least = max(_DEVIATIONS * deviation, _OTHER_VIEW)
    best = np.argmax(fits, axis=0)
    turned = (own < middle - least) & (fits[1:].max(axis=0) >= middle - least)
    other = (own < middle - least) & ~turned
    if turned.any():
        how = " or ".join(_TURNED[turn] for turn in sorted({int(turn) for turn in best[turned]}))
        yield Odd(
            "turned",
            tuple(indices[turned].tolist()),
            f"{counted(int(turned.sum()), len(indices))} turned {how} against the others",
            "turn them back, or score each direction by itself",
        )
    if other.any():
        yield Odd(
            "view",
            tuple(indices[other].tolist()),
            f"{counted(int(other.sum()), len(indices))} of another view, or of another thing, than the others",
            "look whether they belong here; what only they show is scored as a defect",
        )


def _middle(values: np.ndarray) -> tuple[float, float]:
    """Median, and the deviation that a normal distribution with the same median of deviations has."""
    middle = float(np.median(values))
    return middle, 1.4826 * float(np.median(np.abs(values - middle)))
