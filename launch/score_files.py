"""What `launch.score` writes of a product: tables, masks and overlays on the pictures as they are shown, maps."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from launch.output import map_tiff, saved_file
from launch.own_files import PREDICTIONS, REGIONS, SCORES
from musc_jax import report
from musc_jax.predictions import Prediction, Predictions
from musc_jax.report.regions import Region
from musc_jax.storage.paths import readable
from musc_jax.storage.prefetch import map_ahead

SCORES_COLUMNS = (
    "sample", "pred_score", "max_score", "percentile", "rank", "pred_label", "threshold", "rule", "gt_label", "name",
    "image_path", "verdict",
)  # fmt: skip
REGIONS_COLUMNS = (
    "sample", "left", "top", "right", "bottom", "area", "peak", "mean", "centroid_x", "centroid_y",
)  # fmt: skip

SAVES = {
    "maps": "raw maps at the working size (float32 TIFF)",
    "masks": "binary masks on the picture as it is shown (PNG)",
    "overlays": "heat over the picture, at most 2 megapixels (JPEG)",
    "report": "a page to look at (report.html)",
    "full_maps": "maps on the picture as it is shown (float32 TIFF, packed without loss)",
    "full_overlays": "overlays at the size of the picture (PNG)",
}
"""What --save can name, beside the tables, which are always written."""

DEFAULT_SAVE = ("maps", "masks", "overlays", "report")

_OVERLAY_PIXELS = 2_000_000
# Pillow's own limit for what it decodes; a picture for an overlay has been decoded before.
_ALL_PIXELS = 2**62

Picture = Callable[[int, int], UInt8[np.ndarray, "h w 3"] | None]
"""A sample's picture by its index and the most pixels that it may have; None where there is none."""


class ProductFiles:
    """The files of one product.

    Args:
        predictions: Its samples.
        save: Names out of `SAVES`.
        picture: Its pictures.
    """

    def __init__(self, predictions: Predictions, save: Sequence[str], picture: Picture) -> None:
        self._predictions, self._save, self._picture = predictions, save, picture

    @cached_property
    def regions(self) -> list[list[Region]]:
        """Of every sample, in pixels of its picture."""
        return [self._predictions.regions(i) for i in range(len(self._predictions))]

    def tables(self) -> dict[str, bytes]:
        """scores.csv, predictions.jsonl and regions.csv."""
        decision = self._predictions.decision
        threshold = "" if decision.threshold is None else repr(decision.threshold)
        scores = [
            {
                "sample": sample.name,
                "pred_score": repr(sample.pred_score),
                "max_score": repr(sample.max_score),
                "percentile": f"{sample.percentile:.2f}",
                "rank": sample.rank,
                "pred_label": int(sample.pred_label),
                "threshold": threshold,
                "rule": decision.rule,
                "gt_label": "" if sample.gt_label is None else sample.gt_label,
                "name": readable(sample.path.name),
                "image_path": readable(sample.path),
                "verdict": _word(sample.verdict) or "",
            }
            for sample in self._predictions
        ]
        lines = [json.dumps(self._line(i, sample), allow_nan=False) for i, sample in enumerate(self._predictions)]
        return {
            SCORES: _csv(SCORES_COLUMNS, scores),
            PREDICTIONS: "".join(f"{line}\n" for line in lines).encode(),
            REGIONS: _csv(REGIONS_COLUMNS, self._region_rows()),
        }

    def _region_rows(self) -> Iterator[dict[str, Any]]:
        for sample, regions in zip(self._predictions, self.regions, strict=True):
            for region in regions:
                left, top, right, bottom = region.box
                x, y = region.centroid
                yield {
                    "sample": sample.name, "left": left, "top": top, "right": right, "bottom": bottom,
                    "area": region.area, "peak": repr(region.peak), "mean": repr(region.mean),
                    "centroid_x": f"{x:.2f}", "centroid_y": f"{y:.2f}",
                }  # fmt: skip

    def _line(self, index: int, sample: Prediction) -> dict[str, Any]:
        """A sample in anomalib's words; files are named as they lie beside the table."""

        def file(kind: str) -> str | None:
            return str(PurePosixPath(saved_file(kind, sample.name))) if kind in self._save else None

        decision = self._predictions.decision
        return {
            "sample": sample.name,
            "image_path": readable(sample.path),
            "pred_score": sample.pred_score,
            "max_score": sample.max_score,
            "percentile": sample.percentile,
            "rank": sample.rank,
            "pred_label": int(sample.pred_label),
            "threshold": decision.threshold,
            "rule": decision.rule,
            "pixel_threshold": self._predictions.pixel_threshold,
            "gt_label": sample.gt_label,
            "pred_boxes": [list(region.box) for region in self.regions[index]],
            "box_scores": [region.peak for region in self.regions[index]],
            "image_size": self._size(index),
            "anomaly_map": file("maps"),
            "pred_mask": file("masks"),
            "overlay": file("overlays"),
            "verdict": _word(sample.verdict),
        }

    def _size(self, index: int) -> list[int] | None:
        """Height and width of what masks and boxes lie on."""
        size = self._predictions.results.samples[index].full_size
        return None if size is None else list(size)

    def saved(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents of what is saved of each sample, one after the other."""
        results = self._predictions.results
        scale = report.color_scale(results.anomaly_maps, results.inside)
        # Pillow decodes, scales and packs beside other threads; few ahead, as a picture may take a hundred megabytes.
        made = map_ahead(lambda i: list(self._of(i, scale)), range(len(self._predictions)), workers=2, ahead=3)
        for files in made:
            yield from files

    def _of(self, index: int, scale: tuple[float, float]) -> Iterator[tuple[str, bytes]]:
        predictions = self._predictions
        name = predictions.samples[index].name
        if "maps" in self._save:
            yield saved_file("maps", name), map_tiff(predictions.results.anomaly_maps[index])
        if "masks" in self._save:
            yield saved_file("masks", name), _mask_png(predictions.mask(index))
        if "full_maps" in self._save:
            yield saved_file("full_maps", name), map_tiff(predictions.full_map(index), packed=True)
        for kind, most in (("overlays", _OVERLAY_PIXELS), ("full_overlays", _ALL_PIXELS)):
            if kind in self._save:
                yield saved_file(kind, name), self._overlay(index, most, scale, lossless=kind != "overlays")

    def _overlay(self, index: int, most: int, scale: tuple[float, float], *, lossless: bool) -> bytes:
        predictions, picture = self._predictions, self._picture(index, most)
        sample, anomaly_map = predictions.results.samples[index], predictions.results.anomaly_maps[index]
        if picture is None:
            picture, drawn, inside = sample.image, anomaly_map, sample.roi
        else:
            place: dict[str, Any] = {"full_size": picture.shape[:2], "fit": sample.fit}
            drawn, inside = report.enlarge_inside(anomaly_map, sample.roi, **place)
        if sample.roi is not None and inside is not None:
            picture = report.dimmed_outside(picture, inside)
        boxes = [(region.box, region.peak) for region in self.regions[index]]
        size = sample.full_size or anomaly_map.shape
        image = report.overlay_picture(picture, drawn, scale=scale, boxes=boxes, boxes_size=(size[0], size[1]))
        buffer = io.BytesIO()
        if lossless:
            image.save(buffer, "PNG", compress_level=3)
        else:
            image.save(buffer, "JPEG", quality=88)
        return buffer.getvalue()


def _word(verdict: int | None) -> str | None:
    """A verdict as the page has it."""
    return None if verdict is None else ("good", "defective")[verdict]


def _mask_png(mask: Bool[np.ndarray, "h w"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _csv(columns: Sequence[str], rows: Any) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def least_bytes(count: int, size: int, save: Sequence[str]) -> int:
    """What the files of so many samples take at least, maps being `size` pixels wide."""
    return count * (200 + ("maps" in save) * (4 * size * size + 400) + ("overlays" in save) * 5_000)
