"""Published results of the authors, to compare a run with."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

# The papers' names of our backbones.
_BACKBONES = {"dino_vitb8": "ViT-B-8", "clip_vitl14_336": "ViT-L-14-336"}
_METHODS = {"released": "MuSc-V2", "paper": "MuSc-V2", "v1": "MuSc"}
# (modality, image backbone, variant) whose results are published by category: the table and its working size.
_BY_CATEGORY = {
    ("rgb+points", "dino_vitb8", "released"): ("released_v2_per_category", 224),
    ("rgb", "clip_vitl14_336", "v1"): ("released_v1_per_category", 518),
}
# No table names this set's categories.
_MPDD = ("bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes")
_KEYS = (
    "image_AUROC",
    "image_F1Max",
    "image_AP",
    "pixel_AUROC",
    "pixel_F1Max",
    "pixel_AP",
    "pixel_PRO",
)
_SHORT = ("image AUROC", "F1-max", "AP", "pixel AUROC", "F1-max", "AP", "PRO")


class Published(NamedTuple):
    """Published means of one dataset and setting, in percent; PRO is the one of 200 thresholds."""

    setting: str
    mean: dict[str, float]
    categories: dict[str, dict[str, float]]
    """Per category, where published; empty otherwise."""


def _tables() -> dict[str, Any]:
    return json.loads(resources.files("musc_jax.report").joinpath("published.json").read_text(encoding="utf-8"))


def _by_category(tables: Mapping[str, Any], name: str, dataset: str) -> tuple[dict[str, Any], dict[str, float]]:
    """(results by category, their published mean), both empty where there are none."""
    rows = dict(tables[name]["results"].get(dataset, {}))
    means = [rows.pop(key) for key in list(rows) if key.lower() in ("mean", "average")]
    return rows, means[0] if means else {}


def _all_categories(tables: Mapping[str, Any], dataset: str) -> set[str]:
    found = set(_MPDD if dataset == "mpdd" else ())
    for name, _ in _BY_CATEGORY.values():
        found |= set(_by_category(tables, name, dataset)[0])
    return found


def published(
    dataset: str,
    *,
    modality: str,
    backbone: str,
    variant: str,
    image_size: int,
    categories: Sequence[str],
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

    Returns:
        The means over `categories` in percent and, where published, each category's results. Figures that the authors
        do not give (PRO on the image datasets) are left out.
    """
    tables = _tables()
    whole = set(categories) == _all_categories(tables, dataset)
    image = _BACKBONES.get(backbone)
    wanted = {"rgb": image, "points": "PT", "rgb+points": image and f"{image}+PT"}.get(modality)
    method = _METHODS.get(variant)
    if wanted is None or method is None or not categories:
        return None
    setting = f"{method}, {modality}, {wanted} at {image_size}"
    name, size = _BY_CATEGORY.get((modality, backbone, variant), ("", 0))
    rows, mean = _by_category(tables, name, dataset) if name else ({}, {})
    if rows:
        chosen = {category: rows[category] for category in categories if category in rows}
        if image_size != size or len(chosen) < len(categories):
            return None
        some = {key: sum(row[key] for row in chosen.values()) / len(chosen) for key in _KEYS}
        return Published(setting, {key: mean[key] for key in _KEYS} if whole else some, chosen)
    if not whole or image_size not in ((224, 336, 518) if "ViT-L-14-336" in wanted else (224,)):
        return None
    # The second table is of CLIP's images alone and does not repeat that. Ablation tables are not looked at: their
    # figures for MVTec AD and VisA do not agree with these.
    for row in tables["table_1"] + [row | {"backbone": "ViT-L-14-336"} for row in tables["table_2"]]:
        same = (row["dataset"], row["modality"], row["method"], row["backbone"]) == (dataset, modality, method, wanted)
        if same and row.get("subsets", 1) == 1:
            return Published(setting, {key: row[key] for key in _KEYS if row.get(key) is not None}, {})
    return None


def difference_line(mean: Mapping[str, float | None], reference: Published) -> str:
    """Our means minus the published ones, in percent points; broken at 110 columns.

    Published PRO is the one of 200 thresholds, so it is our `pixel_PRO_200` that is compared.

    Args:
        mean: Our means as fractions, by `metrics_table`'s keys. What is None or not published is left out.
        reference: From `published`.
    """
    parts = []
    for key, short in zip(_KEYS, _SHORT, strict=True):
        ours = mean.get("pixel_PRO_200" if key == "pixel_PRO" else key)
        theirs = reference.mean.get(key)
        if ours is not None and theirs is not None:
            parts.append(f"{short} {100 * ours - theirs:+.2f}")
    text = f"minus published ({reference.setting}; PRO by 200 thresholds): " + (", ".join(parts) or "nothing in common")
    return textwrap.fill(text, 110, subsequent_indent="  ", break_on_hyphens=False)
