"""Published results of the authors, to compare a run with."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

_TABLE_1_BACKBONES = {"dino_vitb8": "ViT-B-8", "clip_vitl14_336": "ViT-L-14-336"}
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
        image_size: Working size. The papers' DINO runs used 224. The size of their CLIP runs is not settled (224, 336
            or 518), so any of these is compared and the setting names the size.
        categories: Those of the run. Fewer than all are compared only where results by category are published.
    """
    tables = _tables()
    released = dict(tables["released_v2_per_category"]["results"].get(dataset, {}))
    average = released.pop("Average", None)
    sizes = (224, 336, 518) if backbone.startswith("clip") else (224,)
    if image_size not in sizes:
        return None
    method = "MuSc" if variant == "v1" else "MuSc-V2"
    wanted = {"rgb": _TABLE_1_BACKBONES.get(backbone), "points": "PT"}.get(modality)
    if modality == "rgb+points" and backbone in _TABLE_1_BACKBONES:
        wanted = _TABLE_1_BACKBONES[backbone] + "+PT"
    for row in tables["table_1"]:
        same = (row["dataset"], row["modality"], row["method"], row["backbone"]) == (dataset, modality, method, wanted)
        if same and row.get("subsets", 1) == 1:
            setting = f"{method}, {modality}, {wanted} at {image_size}"
            whole = not released or set(categories) == set(released)
            if (modality, backbone, variant) == ("rgb+points", "dino_vitb8", "released") and average:
                # The one setting with published categories: some of them can be compared, too.
                chosen = {name: released[name] for name in categories if name in released}
                if len(chosen) < len(categories):
                    return None
                some = {key: sum(row[key] for row in chosen.values()) / len(chosen) for key in _KEYS}
                return Published(setting, average if whole else some, chosen)
            means = {key: row[key] for key in _KEYS if row.get(key) is not None}
            return Published(setting, means, {}) if whole else None
    return None


def difference_line(mean: Mapping[str, float | None], reference: Published) -> str:
    """Our means minus the published ones, in percent points.

    Published PRO is the one of 200 thresholds, so it is our `pixel_PRO_200` that is compared.
    """
    parts = []
    for key, short in zip(_KEYS, _SHORT, strict=True):
        ours = mean.get("pixel_PRO_200" if key == "pixel_PRO" else key)
        theirs = reference.mean.get(key)
        if ours is not None and theirs is not None:
            parts.append(f"{short} {100 * ours - theirs:+.2f}")
    return f"minus published ({reference.setting}; PRO by 200 thresholds): " + ", ".join(parts)
