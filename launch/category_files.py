"""The files of a category: scores, maps and pictures."""

from launch.output import SCORES, map_tiff, saved_file, scores_csv
from musc_jax import pipeline, report
from musc_jax.storage.paths import readable


def category_files(results: pipeline.Results, save: tuple[str, ...], note: str | None) -> dict[str, bytes]:
    """The files of a category, by their names in its folder."""
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
    files = {SCORES: scores_csv(rows)}
    if "maps" in save:
        for sample, anomaly_map in zip(results.samples, results.anomaly_maps, strict=True):
            files[saved_file("maps", sample.name)] = map_tiff(anomaly_map)
    if "images" in save:
        scale = report.color_scale(results.anomaly_maps)
        for i, sample in enumerate(results.samples):
            picture = report.sample_picture(
                sample.image,
                sample.gt_mask,
                results.anomaly_maps[i],
                scale=scale,
                name=sample.name,
                pred_score=float(results.pred_scores[i]),
                gt_label=sample.gt_label,
                note=note,
            )
            files[saved_file("images", sample.name)] = report.png_bytes(picture)
    return files
