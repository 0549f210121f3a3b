"""Published results of the authors, to compare a run with."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from importlib import resources
from types import MappingProxyType
from typing import Any, NamedTuple

from musc_jax.data.datasets import published_datasets

# The papers' names of our backbones.
_BACKBONES = {"dino_vitb8": "ViT-B-8", "clip_vitl14_336": "ViT-L-14-336"}
_METHODS = {"released": "MuSc-V2", "paper": "MuSc-V2", "v1": "MuSc"}
# (modality, image backbone, variant) whose results are published by category: the table and its working size.
_BY_CATEGORY = {
    ("rgb+points", "dino_vitb8", "released"): ("released_v2_per_category", 224),
    ("rgb", "clip_vitl14_336", "v1"): ("released_v1_per_category", 518),
}
METRICS = (
    "image_AUROC",
    "image_F1Max",
    "image_AP",
    "pixel_AUROC",
    "pixel_F1Max",
    "pixel_AP",
    "pixel_PRO",
)
"""What is published, where all is; the PRO is the one of 200 thresholds."""
_SHORT = ("image AUROC", "F1-max", "AP", "pixel AUROC", "F1-max", "AP", "PRO")


class Published(NamedTuple):
    """Published means of one dataset and setting, in percent; PRO is the one of 200 thresholds."""

    setting: str
    mean: dict[str, float]
    categories: dict[str, dict[str, float]]
    """Per category, where published; empty otherwise."""
    table: str = ""
    """Where the figures stand, for people."""
    sizes: tuple[int, ...] = ()
    """Working sizes they may be compared at; several where the authors do not settle it."""
    subsets: int = 1
    """Parts that each category was divided into at random; its means then run over ten seeds."""
    batch_size: int | None = None
    """Samples that were scored together; None: all of a category or subset."""
    deviation: Mapping[str, float] = MappingProxyType({})
    """Standard deviations of the means over the seeds, where published."""


def published_tables() -> dict[str, Any]:
    """The papers' tables as they are printed, by number, percent."""
    return json.loads(resources.files("musc_jax.report").joinpath("published.json").read_text(encoding="utf-8"))


def _by_category(tables: Mapping[str, Any], name: str, dataset: str) -> tuple[dict[str, Any], dict[str, float]]:
    """(results by category, their published mean), both empty where there are none."""
    rows = dict(tables[name]["results"].get(dataset, {}))
    means = [rows.pop(key) for key in list(rows) if key.lower() in ("mean", "average")]
    return rows, means[0] if means else {}


def published_categories(dataset: str) -> frozenset[str]:
    """The categories that a dataset's published means run over; none where nothing is known about it."""
    source = published_datasets().get(dataset)
    return frozenset(source.categories if source else ())


def published_results(dataset: str, *, modality: str, backbone: str, variant: str) -> tuple[Published, ...]:
    """All that the authors give for a dataset and method, at whatever size and in whatever division into batches.

    Of the ablation tables nothing is looked at: Table VI's figures for MVTec AD and VisA do not agree with Table II's
    and seem to be another backbone's.

    Args:
        dataset: Name as in `--dataset`.
        modality: "rgb", "points" or "rgb+points".
        backbone: Image backbone ("point_mae" where there is none).
        variant: "released", "paper" or "v1".

    Returns:
        Results by category first, then means of whole categories (Tables I and II), of subsets (Table I) and of small
        batches (Table VII). The setting leaves the size open.
    """
    tables = published_tables()
    image = _BACKBONES.get(backbone)
    wanted = {"rgb": image, "points": "PT", "rgb+points": image and f"{image}+PT"}.get(modality)
    method = _METHODS.get(variant)
    if wanted is None or method is None:
        return ()
    setting = f", {modality}, {wanted}"
    found = []
    name, size = _BY_CATEGORY.get((modality, backbone, variant), ("", 0))
    rows, mean = _by_category(tables, name, dataset) if name else ({}, {})
    sizes = (224, 336, 518) if "ViT-L-14-336" in wanted else (224,)
    if rows:
        # Means of what is also given by category are of the same runs, at the same size.
        sizes = (size,)
        mean = {key: mean[key] for key in METRICS}
        found.append(Published(method + setting, mean, rows, "the released program's results by category", sizes))
    # The second table is of CLIP's images alone and does not repeat that; the seventh is of both modalities, with the
    # backbone whose row of the first table it repeats.
    second = [row | {"backbone": "ViT-L-14-336"} for row in tables["table_2"]]
    names = {source.title: name for name, source in published_datasets().items()}
    seventh = [
        row | {"dataset": names[row["dataset"]], "batch_size": int(row["batch_size"])}
        for row in tables["table_7_batch_size"]
        if row["batch_size"] != "All"
    ]
    both = {"modality": "rgb+points", "method": "MuSc-V2", "backbone": "ViT-B-8+PT"}
    named = (("Table I", tables["table_1"]), ("Table II", second), ("Table VII", [row | both for row in seventh]))
    for table, lines in named:
        for row in lines:
            if (row["dataset"], row["modality"], row["method"], row["backbone"]) != (dataset, modality, method, wanted):
                continue
            subsets, batch_size = row.get("subsets", 1), row.get("batch_size")
            part = f" in {subsets} subsets" if subsets > 1 else f" in batches of {batch_size}" if batch_size else ""
            figures = {key: row[key] for key in METRICS if row.get(key) is not None}
            deviation = {key: row[f"{key}_std"] for key in METRICS if row.get(f"{key}_std") is not None}
            found.append(Published(method + part + setting, figures, {}, table, sizes, subsets, batch_size, deviation))
    return tuple(found)


def published_settings_of(dataset: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """For which runs on a dataset the authors give results: variants by (modality, image backbone)."""
    found = {}
    for modality in ("rgb", "points", "rgb+points"):
        for backbone in ("point_mae",) if modality == "points" else _BACKBONES:
            setting = {"modality": modality, "backbone": backbone}
            variants = tuple(v for v in _METHODS if published_results(dataset, variant=v, **setting))
            if variants:
                found[modality, backbone] = variants
    return found


def published(
    dataset: str,
    *,
    modality: str,
    backbone: str,
    variant: str,
    image_size: int,
    categories: Sequence[str],
    subsets: int = 1,
    batch_size: int | None = None,
) -> Published | None:
    """The authors' results for a dataset and setting, or None where the settings differ.

    Args:
        dataset: Name as in `--dataset`.
        modality: "rgb", "points" or "rgb+points".
        backbone: Image backbone ("point_mae" where there is none).
        variant: "released", "paper" or "v1".
        image_size: Working size. The papers' DINO and point runs used 224. The size of MuSc-V2's CLIP runs is not
            settled (224, 336 or 518), so any of these is compared and the setting names the size of the run.
        categories: Those of the run. Fewer than all are compared only where results by category are published.
        subsets: Parts that the samples of a category were divided into.
        batch_size: Samples that were scored together; None for all of a category or subset.

    Returns:
        The means over `categories` in percent and, where published, each category's results. Figures that the authors
        do not give (PRO on the image datasets) are left out.
    """
    if not categories:
        return None
    whole = set(categories) == published_categories(dataset)
    for found in published_results(dataset, modality=modality, backbone=backbone, variant=variant):
        chosen = {category: found.categories[category] for category in categories if category in found.categories}
        covered = whole or len(chosen) == len(categories)
        if not covered or image_size not in found.sizes or (found.subsets, found.batch_size) != (subsets, batch_size):
            continue
        mean = found.mean
        if not whole:
            mean = {key: sum(row[key] for row in chosen.values()) / len(chosen) for key in METRICS}
        return found._replace(setting=f"{found.setting} at {image_size}", mean=mean, categories=chosen)
    return None


def difference_line(mean: Mapping[str, float | None], reference: Published) -> str:
    """Our means minus the published ones, in percent points; broken at 110 columns.

    Published PRO is the one of 200 thresholds, so it is our `pixel_PRO_200` that is compared.

    Args:
        mean: Our means as fractions, by `metrics_table`'s keys. What is None or not published is left out.
        reference: From `published`.
    """
    parts = []
    for key, short in zip(METRICS, _SHORT, strict=True):
        ours = mean.get("pixel_PRO_200" if key == "pixel_PRO" else key)
        theirs = reference.mean.get(key)
        if ours is not None and theirs is not None:
            parts.append(f"{short} {100 * ours - theirs:+.2f}")
    text = f"minus published ({reference.setting}; PRO by 200 thresholds): " + (", ".join(parts) or "nothing in common")
    return textwrap.fill(text, 110, subsequent_indent="  ", break_on_hyphens=False)
