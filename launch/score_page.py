"""The page of a scored product: `report.html`, made of its predictions, pictures and scans."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from jaxtyping import Float, UInt8

from launch.score_files import Picture
from launch.summary import versions
from musc_jax import upsample_grid
from musc_jax.data import Dataset
from musc_jax.data.formats.resizing import shrink_image
from musc_jax.data.health import Finding
from musc_jax.execution.inside import patches_inside
from musc_jax.execution.mapping import image_map_inside
from musc_jax.predictions import Prediction, Predictions
from musc_jax.report.page import (
    Page,
    PageCloud,
    PagePicture,
    PageRegion,
    PageSample,
    PageWarning,
    report_html,
)
from musc_jax.report.pictures import dimmed_outside
from musc_jax.report.regions import enlarge_inside, enlarge_map
from musc_jax.resolved import Resolved
from musc_jax.storage.paths import readable

_PICTURE_PIXELS = 250_000
# What pictures of that size that the page will ask for may take meanwhile.
_KEPT_BYTES = 300_000_000
_CLOUD_POINTS = 1500

Cloud = Callable[[int], Float[np.ndarray, "S S 3"] | None]
"""A sample's point map by its index; None where it has none."""


Voters = Callable[[int], Sequence[PagePicture]]
"""Pictures of who voted on a sample, by its index."""


def _no_voters(_: int) -> Sequence[PagePicture]:
    return ()


def score_page(
    title: str,
    predictions: Predictions,
    *,
    picture: Picture,
    cloud: Cloud,
    settings: Mapping[str, object],
    notes: Sequence[str] = (),
    inputs: Sequence[str] = (),
    warnings: Sequence[str] = (),
    health: Sequence[Finding] = (),
    skipped: Sequence[tuple[str, str]] = (),
    voters: Voters = _no_voters,
) -> str:
    """The page as one HTML document.

    Args:
        title: The product's name.
        predictions: Its samples.
        picture: Their pictures as they are shown.
        cloud: Their points at the working size.
        settings: Of the run, by name.
        notes: What stands above everything else.
        inputs: What the files were read as.
        warnings: What is odd about them.
        health: What is odd about the samples as a batch.
        skipped: Samples that are left out, and why.
        voters: Pictures of who voted on a sample.
    """
    page = Page(
        title=title,
        samples=_Samples(predictions, picture, cloud, voters),
        decisions=predictions.decisions,
        pixel_threshold=predictions.pixel_threshold,
        settings=settings,
        health=[*map(_warning, health), *(PageWarning(line) for line in warnings)],
        notes=notes,
        inputs=inputs,
        skipped=skipped,
    )
    return report_html(page)


def _warning(finding: Finding) -> PageWarning:
    """A finding as the page has it: about its sample, or as one line about several."""
    if len(finding.samples) == 1:
        return PageWarning(finding.what, finding.advice, finding.samples[0])
    return PageWarning(finding.text, finding.advice, others=finding.samples)


class _Samples(Sequence[PageSample]):
    """The page's samples, each made when it is asked for: all pictures at once would take gigabytes."""

    def __init__(self, predictions: Predictions, picture: Picture, cloud: Cloud, voters: Voters) -> None:
        self._predictions, self._picture, self._cloud, self._voters = predictions, picture, cloud, voters

    def __len__(self) -> int:
        return len(self._predictions)

    @overload
    def __getitem__(self, index: int) -> PageSample: ...
    @overload
    def __getitem__(self, index: slice) -> list[PageSample]: ...
    def __getitem__(self, index: int | slice) -> PageSample | list[PageSample]:
        if isinstance(index, slice):
            return [self._made(i) for i in range(*index.indices(len(self)))]
        return self._made(range(len(self))[index])

    def __iter__(self) -> Iterator[PageSample]:
        return map(self._made, range(len(self)))

    def _made(self, index: int) -> PageSample:
        sample: Prediction = self._predictions.samples[index]
        read = self._predictions.results.samples[index]
        image = self._picture(index, _PICTURE_PIXELS)
        image = read.image if image is None else image
        size: tuple[int, int] = (image.shape[0], image.shape[1])

        def placed(values: np.ndarray) -> np.ndarray:
            return enlarge_map(values, full_size=size, fit=read.fit)

        def map_of(values: np.ndarray) -> np.ndarray:
            """Outside of the region of interest there is no value."""
            whole, inside = enlarge_inside(values, read.roi, full_size=size, fit=read.fit)
            return np.where(inside, whole, np.float32(np.nan))

        if read.roi is not None:
            image = dimmed_outside(image, placed(read.roi.astype(np.float32)) > 0.5)

        regions = [PageRegion(region.box, region.peak) for region in self._predictions.regions(index)]
        mask = None if read.gt_mask is None else placed(read.gt_mask.astype(np.float32)) > 0.5
        return PageSample(
            name=sample.name,
            pred_score=sample.pred_score,
            max_score=sample.max_score,
            percentile=sample.percentile,
            rank=sample.rank,
            pred_label=int(sample.pred_label),
            path=readable(sample.path),
            gt_label=sample.gt_label,
            verdict=None if sample.verdict is None else ("good", "defective")[sample.verdict],
            image=image,
            full_size=read.full_size,
            gt_mask=mask,
            maps={name: map_of(values) for name, values in self._maps(index).items()},
            regions=regions,
            cloud=self._points(index),
            voters=self._voters(index),
        )

    def _maps(self, index: int) -> dict[str, np.ndarray]:
        """The map, and with both modalities that of each; the sum of them is what is scored."""
        results = self._predictions.results
        fused, image = results.anomaly_maps[index], results.patch_scores.image
        points = self._cloud(index)
        if points is None or image is None:
            return {"fused" if points is None else "3D": fused}
        side, roi, scores = round(image.shape[1] ** 0.5), results.samples[index].roi, np.asarray(image[index])
        if roi is None:
            flat = np.asarray(upsample_grid(scores.reshape(side, side), len(fused)))
        else:
            flat = np.asarray(image_map_inside(scores, patches_inside(roi[None], side)[0], roi, size=len(fused)))
        return {"fused": fused, "2D": flat, "3D": fused - flat}

    def _points(self, index: int) -> PageCloud | None:
        """Some of a sample's points with the values of its map; always the same ones."""
        points = self._cloud(index)
        if points is None:
            return None
        there = np.argwhere((points != 0).any(axis=-1))
        if len(there) > _CLOUD_POINTS:
            there = there[np.sort(np.random.default_rng(0).choice(len(there), _CLOUD_POINTS, replace=False))]
        rows, columns = there.T
        return PageCloud(points[rows, columns], self._predictions.results.anomaly_maps[index][rows, columns])


def pictures_of(dataset: Dataset, category: str, predictions: Predictions) -> Picture:
    """Pictures of the samples as they are shown, by their indices in `predictions`."""
    place = {name: i for i, name in enumerate(dataset.names(category))}
    names = [sample.name for sample in predictions]
    return _Pictures(lambda index, most: dataset.picture(category, place[names[index]], max_pixels=most))


class _Pictures:
    """Pictures that are read once for overlays and page, as far as small ones of them take little memory."""

    def __init__(self, read: Picture) -> None:
        self._read, self._kept, self._taken = read, dict[int, np.ndarray](), 0

    def __call__(self, index: int, most: int) -> UInt8[np.ndarray, "h w 3"] | None:
        if index in self._kept and most <= _PICTURE_PIXELS:
            return shrink_image(self._kept[index], max_pixels=most)
        picture = self._read(index, most)
        if picture is not None and most >= _PICTURE_PIXELS and self._taken < _KEPT_BYTES:
            self._kept[index] = shrink_image(picture, max_pixels=_PICTURE_PIXELS)
            self._taken += self._kept[index].nbytes
        return picture


def product_page(
    dataset: Dataset,
    category: str,
    predictions: Predictions,
    resolved: Resolved,
    *,
    picture: Picture | None = None,
    skipped: Sequence[str] = (),
    warnings: Sequence[str] = (),
    note: str | None = None,
    voters: Voters = _no_voters,
) -> str:
    """The page of a category that was scored.

    Args:
        dataset: Where its pictures and scans are.
        category: Its name.
        predictions: Its samples.
        resolved: How it was scored.
        picture: Its pictures, where somebody has read them; see `pictures_of`.
        skipped: Names of samples that were left out.
        warnings: Beside those of the dataset.
        note: Such as that the weights are random.
        voters: Pictures of who voted on a sample.
    """
    place = {name: i for i, name in enumerate(dataset.names(category))}
    names = [sample.name for sample in predictions]

    def cloud(index: int) -> Float[np.ndarray, "S S 3"] | None:
        if resolved.points is None:
            return None
        return dataset.load(category, place[names[index]], size=resolved.size).points

    return score_page(
        category,
        predictions,
        picture=picture or pictures_of(dataset, category, predictions),
        cloud=cloud,
        settings=settings_of(resolved.config.as_dict(), **{"musc-jax": versions()["musc-jax"]}),
        notes=[note] if note else [],
        inputs=dataset.accounts[category].lines,
        warnings=[*warnings, *dataset.warnings],
        health=dataset.health[category],
        skipped=[(name, "left out") for name in skipped],
        voters=voters,
    )


def settings_of(config: Mapping[str, Any], **more: object) -> dict[str, object]:
    """What a page says about how samples were scored."""
    shown = ("variant", "modality", "image_size", "blocks", "ablate", "precision")
    found: dict[str, object] = {name: config[name] for name in shown if config.get(name) not in (None, (), [])}
    for name in ("image_backbone", "point_backbone"):
        backbone = config.get(name)
        if isinstance(backbone, Mapping):
            found[name] = ", ".join(str(backbone[key]) for key in ("name", "source") if backbone.get(key))
    return found | more
