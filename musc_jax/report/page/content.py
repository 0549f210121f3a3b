"""The content of a page as one object for its script: numbers, texts, and pictures as text."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from musc_jax.decisions import Decision
from musc_jax.metrics import image_metrics
from musc_jax.report.page.encoding import finished_picture, map_picture, mask_picture, packed_cloud, photograph
from musc_jax.report.page.parts import Page, PageSample
from musc_jax.report.pictures import HEAT, NORMAL_PERCENTILE, normal_level
from musc_jax.storage.prefetch import map_ahead

_MAIN = "fused"
# At most so many samples with pictures, and the longer sides in pixels of their images and maps.
_SIDES = ((40, 640, 160), (100, 512, 128), (math.inf, 384, 112))
# Of all pictures, maps and clouds in the page. With the charts' script 200 samples stay below 15 MB.
_BYTES = 11_000_000
_LARGEST_IMAGE, _SMALLEST_IMAGE = 80_000, 4_000


def number(value: float | None) -> float | None:
    """The number, or None where JSON has no word for it."""
    return None if value is None or not math.isfinite(value) else float(value)


@dataclass(frozen=True)
class _Survey:
    """What has to be known of all samples before the first is written.

    Attributes:
        names: of the samples, worst first.
        extents: lowest and highest value of each kind of map.
        normal: what normal surface reaches, by kind of map.
        pictured: samples that have pictures.
        metrics: AUROC, F1Max and AP where labels are of both classes.
    """

    names: list[str]
    extents: dict[str, tuple[float, float]]
    normal: dict[str, float]
    pictured: set[str]
    metrics: dict[str, float | None] | None

    @property
    def kinds(self) -> list[str]:
        return list(self.extents)

    @property
    def main(self) -> str | None:
        return _MAIN if _MAIN in self.extents else next(iter(self.extents), None)


def _survey(samples: Sequence[PageSample], limit: int) -> _Survey:
    ranges: dict[str, list[tuple[float, float, float]]] = {}
    rows = []
    for sample in samples:
        wrong = None not in (sample.gt_label, sample.pred_label) and sample.gt_label != sample.pred_label
        rows.append((sample.rank, sample.name, wrong, _label(sample.gt_label), sample.pred_score))
        for kind, map_ in sample.maps.items():
            finite = map_[np.isfinite(map_)]
            if finite.size:
                found = (float(finite.min()), float(finite.max()), float(np.percentile(finite, NORMAL_PERCENTILE)))
                ranges.setdefault(kind, []).append(found)
    rows.sort()
    names = [name for _, name, *_ in rows]
    if len({*names}) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"page: expected samples of different names, received {twice!r} twice")
    known = [(label, score) for *_, label, score in rows if label is not None and math.isfinite(score)]
    metrics = None
    if len({label for label, _ in known}) == 2:
        metrics = dict(image_metrics(*map(np.array, zip(*known, strict=True))))
    return _Survey(
        names,
        {kind: (min(low for low, *_ in all_), max(high for _, high, _ in all_)) for kind, all_ in ranges.items()},
        {kind: normal_level([peak for *_, peak in all_]) for kind, all_ in ranges.items()},
        # Those that were got wrong are what people look for, wherever they rank.
        {name for _, name, *_ in sorted(rows, key=lambda row: (not row[2], row[0]))[:limit]},
        metrics,
    )


def _pictures(sample: PageSample, survey: _Survey) -> dict[str, Any]:
    """Image, mask, maps and cloud of a sample; the image gets what the others leave of its share of the page."""
    count = len(survey.pictured)
    side, map_side = next((side, map_side) for most, side, map_side in _SIDES if count <= most)
    row: dict[str, Any] = {
        "maps": {
            kind: map_picture(sample.maps[kind], extent, side=map_side)
            for kind, extent in survey.extents.items()
            if kind in sample.maps
        },
        "voters": [[picture.caption, finished_picture(picture.content)] for picture in sample.voters],
    }
    if sample.gt_mask is not None:
        row["mask"] = mask_picture(sample.gt_mask, side=side)
    if sample.cloud is not None and survey.main is not None:
        row["cloud"] = packed_cloud(sample.cloud.points, sample.cloud.values, survey.extents[survey.main])
    seen = sample.image if sample.image is not None else next(iter(sample.maps.values()), None)
    if seen is not None:
        height, width = sample.full_size or seen.shape[:2]
        # In what shape it is drawn, and in which pixels places are told.
        row["size"] = [seen.shape[1], seen.shape[0]]
        row["full"] = [width, height]
        row["regions"] = [
            [*np.divide(region.box, [width, height] * 2).tolist(), number(region.peak)] for region in sample.regions
        ]
    if sample.image is not None:
        taken = sum(map(len, row["maps"].values())) + len(json.dumps(row.get("cloud")))
        size = int(min(_LARGEST_IMAGE, max(_SMALLEST_IMAGE, _BYTES / count - taken)) * 3 / 4)
        row["image"] = photograph(sample.image, side=side, size=size)
    return row


def _row(sample: PageSample, survey: _Survey, page: Page) -> dict[str, Any]:
    row = {
        "name": sample.name,
        "path": sample.path,
        "score": number(sample.pred_score),
        "max": number(sample.max_score),
        "percentile": number(sample.percentile),
        "rank": sample.rank,
        "label": _label(sample.pred_label),
        "truth": _label(sample.gt_label),
        "verdict": sample.verdict,
        "health": [i for i, warning in enumerate(page.health) if sample.name in (warning.sample, *warning.others)],
    }
    return row | (_pictures(sample, survey) if sample.name in survey.pictured else {})


def content(page: Page, *, limit: int) -> dict[str, Any]:
    """Everything a page shows, fit for JSON.

    Args:
        page: its parts.
        limit: so many samples have pictures at most.

    Raises:
        ValueError: two samples of one name.
    """
    survey = _survey(page.samples, limit)
    # Pictures are packed beside other threads.
    made = map_ahead(lambda sample: _row(sample, survey, page), page.samples, workers=2, ahead=4)
    rows = {row["name"]: row for row in made}
    batch = [(name, rows[name]["score"], rows[name]["verdict"]) for name in survey.names]
    main = survey.main
    return {
        "title": page.title,
        # Under this name the browser keeps a person's verdicts: those on another batch, or from before others were
        # handed over, are not for this page.
        "batch": hashlib.sha256(json.dumps([page.title, batch]).encode()).hexdigest()[:16],
        "notes": list(page.notes),
        "kinds": {
            kind: {"low": low, "high": high, "normal": survey.normal[kind]}
            for kind, (low, high) in survey.extents.items()
        },
        "main": main,
        # By how much the hottest pixel of all exceeds what normal surface reaches: the colours' span in every picture.
        "span": max(survey.extents[main][1] - survey.normal[main], 1e-9) if main else 1.0,
        "heat": HEAT.astype(int).tolist(),
        "pixelThreshold": number(page.pixel_threshold),
        "decisions": [_decision(decision) for decision in page.decisions],
        "metrics": survey.metrics,
        "samples": [rows[name] for name in survey.names],
        "settings": [[key, _shown(value)] for key, value in page.settings.items()],
        "health": [[warning.sample, warning.what, warning.advice] for warning in page.health],
        "inputs": list(page.inputs),
        "skipped": [list(pair) for pair in page.skipped],
    }


def _label(label: int | bool | None) -> int | None:
    return None if label is None else int(label)


def _decision(found: Decision) -> dict[str, Any]:
    moved = f"{found.lowest} to {found.highest} as single samples are left out"
    steady = "the same whichever sample is left out"
    return {
        "rule": found.rule,
        "value": number(found.threshold),
        "count": found.num_defective,
        "stability": steady if found.lowest == found.highest else moved,
        "assumes": found.assumes,
    }


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
