"""Who may vouch for whom: image AUROC of the maximum / pixel AP of each option, from files of features.

    python -m benchmarks.vouching FILE.npz ... [--rows=released,filter]

A file has `stage_0`, `stage_1`, ... (N, M, C), aggregated tokens of N labelled samples, `labels` (N,) and `masks`
(N, S, S); the table has a column for each.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import musc_jax as m

ROWS: Mapping[str, dict[str, Any]] = {
    "released": {},
    "interval 0.1": {"interval": 0.1},
    "interval 1": {"interval": 1.0},
    "25 similar": {"nearest_images": 25},
    "10 similar": {"nearest_images": 10},
    "filter": {"recurring": "filter"},
    "interval 0.1, filter": {"interval": 0.1, "recurring": "filter"},
    "25 similar, filter": {"nearest_images": 25, "recurring": "filter"},
}
"""By name: what differs from the released program."""


def judge(file: Path, options: Mapping[str, Any]) -> tuple[float, float]:
    """(image AUROC of the maximum, pixel AP) in percent."""
    with np.load(file) as arrays:
        stages = [arrays[name] for name in sorted(arrays) if name.startswith("stage_")]
        labels, masks = arrays["labels"], arrays["masks"]
    size = masks.shape[-1]
    found = m.score_features(stages, aggregated=True, size=size, ablate=["rescoring"], **options)
    image = m.metrics.image_metrics(labels.astype(np.int64), found.max_scores)["AUROC"]
    pixel = m.metrics.pixel_metrics(masks.astype(bool), found.anomaly_maps)["AP"]
    return 100 * float(image or 0), 100 * float(pixel or 0)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rows", default=",".join(name.replace(",", "") for name in ROWS))
    arguments = parser.parse_args()
    known = {name.replace(",", ""): name for name in ROWS}
    wanted = arguments.rows.split(",")
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"--rows: expected a list of {', '.join(known)}; received {unknown[0]!r}")
    print("| image AUROC of the maximum / pixel AP | " + " | ".join(file.stem for file in arguments.files) + " |")
    print("|---" * (1 + len(arguments.files)) + "|")
    for name in wanted:
        cells = (judge(file, ROWS[known[name]]) for file in arguments.files)
        print(f"| {known[name]} | " + " | ".join(f"{a:.1f} / {b:.1f}" for a, b in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
