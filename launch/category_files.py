"""What is written of a category: the table of its scores, and what is saved of each sample."""

from collections.abc import Iterator

from launch.output import map_tiff as tiff
from launch.output import saved_file, scores_csv
from musc_jax import report
from musc_jax.pipeline import Results
from musc_jax.storage.paths import readable

# Of a file of each kind, in bytes: a map takes its pixels and a head, a picture at least so much.
_HEAD, _PICTURE, _ROW = 400, 60_000, 100


def scores_table(results: Results) -> bytes:
    """The rows of scores.csv."""
    rows = [
        {
            "sample": sample.name,
            "gt_label": "" if sample.gt_label is None else sample.gt_label,
            "pred_score": repr(float(pred)),
            "max_score": repr(float(highest)),
            # Their own names may be more than a file's here could be called.
            "name": readable(sample.image_path.name),
            "image_path": readable(sample.image_path),
        }
        for sample, pred, highest in zip(results.samples, results.pred_scores, results.max_scores, strict=True)
    ]
    return scores_csv(rows)


def saved_files(results: Results, save: tuple[str, ...], note: str | None) -> Iterator[tuple[str, bytes]]:
    """Names, in the category's folder, and contents of what is saved of each sample; pictures come last."""
    if "maps" in save:
        for sample, anomaly_map in zip(results.samples, results.anomaly_maps, strict=True):
            yield saved_file("maps", sample.name), tiff(anomaly_map)
    if "images" in save:
        scale = report.color_scale(results.anomaly_maps, results.inside)
        for i, sample in enumerate(results.samples):
            picture = report.sample_picture(
                sample.image if sample.roi is None else report.dimmed_outside(sample.image, sample.roi),
                sample.gt_mask,
                results.anomaly_maps[i],
                scale=scale,
                name=sample.name,
                pred_score=float(results.pred_scores[i]),
                gt_label=sample.gt_label,
                note=note,
            )
            yield saved_file("images", sample.name), report.png_bytes(picture)


def least_bytes(count: int, size: int, save: tuple[str, ...]) -> int:
    """What the files of so many samples take at least, maps being `size` pixels wide."""
    each = _ROW + ("maps" in save) * (4 * size * size + _HEAD) + ("images" in save) * _PICTURE
    return count * each
