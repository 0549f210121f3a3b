"""The parts of a page, as its maker hands them over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, UInt8

from musc_jax.decisions import Decision


@dataclass(frozen=True)
class PageRegion:
    """A hot region.

    Attributes:
        box: (left, top, right, bottom) in pixels, of the sample's `full_size`; the last two are the first ones outside.
        peak: highest value of the map inside.
    """

    box: tuple[int | float, int | float, int | float, int | float]
    peak: float


@dataclass(frozen=True)
class PageCloud:
    """A sample's points.

    Attributes:
        points: x to the right, y down, z away from whoever looks, in any unit; rows that are not finite are left out.
        values: each point's value, on the scale of the sample's main map.
    """

    points: Float[np.ndarray, "P 3"]
    values: Float[np.ndarray, " P"]


@dataclass(frozen=True)
class PagePicture:
    """A finished picture, such as of who voted.

    Attributes:
        caption: a line below it.
        content: a PNG, JPEG or WebP file.
    """

    caption: str
    content: bytes


@dataclass(frozen=True)
class PageSample:
    """One sample.

    Attributes:
        name: as in the tables; names are unique within a page.
        pred_score: its score.
        max_score: maximum of its map, before re-scoring.
        percentile: share of the batch that scores lower, 0 to 100.
        rank: 1 for the highest score.
        pred_label: 1 defective, 0 good, by the page's first decision; None where nothing was decided.
        path: of its file, as people know it.
        gt_label: 1 defective, 0 good, None unknown.
        image: what was scored; None where there is nothing to see.
        full_size: (height, width) of the sample's file, in whose pixels places are told; None for those of the image.
        gt_mask: True on defects; None where there is no mask.
        maps: by what they show, such as "2D", "3D" and "fused"; the page's main map is "fused", or the first. Like the
            mask, each may be of any size: it is laid over the whole image.
        regions: hot regions.
        cloud: its points.
        voters: pictures of who voted for its score.
        verdict: "good" or "defective" where a person has said so already, otherwise None.
    """

    name: str
    pred_score: float
    max_score: float
    percentile: float
    rank: int
    pred_label: int | bool | None = None
    path: str = ""
    gt_label: int | bool | None = None
    image: UInt8[np.ndarray, "H W 3"] | None = None
    full_size: tuple[int, int] | None = None
    gt_mask: Bool[np.ndarray, "_ _"] | None = None
    maps: Mapping[str, Float[np.ndarray, "_ _"]] = field(default_factory=dict)
    regions: Sequence[PageRegion] = ()
    cloud: PageCloud | None = None
    voters: Sequence[PagePicture] = ()
    verdict: str | None = None


@dataclass(frozen=True)
class PageWarning:
    """A line of the health check.

    Attributes:
        what: what is odd.
        advice: what to do about it.
        sample: the sample's name; None where it concerns the batch.
        others: further samples that it is about.
    """

    what: str
    advice: str = ""
    sample: str | None = None
    others: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """All that a page shows.

    Attributes:
        title: such as the product's name.
        samples: in any order; passed through twice, one after the other, so that each may be read when it is asked for.
        decisions: what the rules make of the scores; the first is the one that decides.
        pixel_threshold: pixels of the main map above it are outlined; None for none.
        settings: of the run, by name.
        health: the health check's warnings.
        notes: what stands above everything else, such as that the weights are random.
        inputs: lines on what the files were read as.
        skipped: files that could not be read, with the reason.
    """

    title: str
    samples: Sequence[PageSample]
    decisions: Sequence[Decision] = ()
    pixel_threshold: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    health: Sequence[PageWarning] = ()
    notes: Sequence[str] = ()
    inputs: Sequence[str] = ()
    skipped: Sequence[tuple[str, str]] = ()
