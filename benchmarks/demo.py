"""What the demo finds, by modality and by kind of defect, beside a map that needs no method at all.

    python -m benchmarks.demo --work_dir=DIR [--seed=0] [--output=FILE.json]

Runs `launch.eval` on the synthetic set three times (image+points, image, points; random weights) and measures the maps.
The simple map is |sample - pixelwise median of the category|, over colours.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile
from absl import app, flags
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from musc_jax.storage import atomic

WORK_DIR = flags.DEFINE_string("work_dir", None, "Where runs and cache are kept.", required=True)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the set and of the weights.")
OUTPUT = flags.DEFINE_string("output", None, "Write the figures here as JSON, too.")

SIZE = 224
KINDS = ("bumps", "dents", "colors", "normals")


def mask_of(file: Path) -> np.ndarray:
    """A mask at the working size."""
    with Image.open(file) as image:
        return np.asarray(image.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)) > 127.5


def run(modality: str, work: Path) -> Path:
    """One run of the command; its results folder."""
    output = work / modality.replace("+", "_")
    command = [sys.executable, "-m", "launch.eval", f"--modality={modality}", f"--output_dir={output}"]
    subprocess.run([*command, f"--cache_dir={work / 'cache'}", f"--seed={SEED.value}", "--save=maps"], check=True)
    return output / "synthetic"


def by_kind(data: Path, maps: dict[str, np.ndarray]) -> dict[str, float]:
    """Pixel AUROC over the samples that have a kind of defect, and the good ones."""
    found = {}
    for kind in KINDS:
        truth, scores = [], []
        for name, anomaly_map in maps.items():
            mask = mask_of(data / f"{name}_{kind}_mask.png")
            if mask.any() or not mask_of(data / f"{name}_mask.png").any():
                truth.append(mask)
                scores.append(anomaly_map)
        found[kind] = float(roc_auc_score(np.ravel(truth), np.ravel(scores)))
    return found


def median_map_ap(data: Path, names: list[str]) -> float:
    """Pixel AP of |sample - pixelwise median|."""
    images = []
    for name in names:
        with Image.open(data / f"{name}_image_0.png") as image:
            images.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float64))
    difference = np.abs(images - np.median(images, axis=0)).mean(-1)
    truth = [mask_of(data / f"{name}_mask.png") for name in names]
    return float(average_precision_score(np.ravel(truth), difference.ravel()))


def main(_: list[str]) -> None:
    """Runs, measures, prints."""
    work = Path(WORK_DIR.value)
    figures: dict = {"seed": SEED.value}
    for modality in ("rgb+points", "rgb", "points"):
        folder = run(modality, work)
        data_root = next((work / "cache" / "synthetic").glob(f"*seed{SEED.value}"))
        figures[modality] = {
            "mean": json.loads((folder / "metrics.json").read_text())["mean"],
            "pixel_AUROC_by_kind": {},
        }
        for category in sorted(p.name for p in folder.iterdir() if p.is_dir()):
            data = data_root / category / "test_public" / "data"
            maps = {p.stem: tifffile.imread(p) for p in sorted((folder / category / "maps").iterdir())}
            figures[modality]["pixel_AUROC_by_kind"][category] = by_kind(data, maps)
            figures.setdefault("median_map_pixel_AP", {})[category] = median_map_ap(data, list(maps))
    print(json.dumps(figures, indent=2))
    if OUTPUT.value:
        atomic.write_text(Path(OUTPUT.value), json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
