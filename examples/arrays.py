"""Pictures that are NumPy arrays - from a camera, a database, a simulation - scored: python examples/arrays.py.

Here sixteen made up, one with a scratch, and a small backbone with random weights: put yours in their places.
"""

from pathlib import Path

import numpy as np

import weights
from musc_jax import Config, pipeline
from musc_jax.data import Sample


def camera(count: int, size: int) -> np.ndarray:
    """Pictures (count, size, size, 3), 0 to 255: turned parts, lit evenly, the fourth one scratched."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size - 0.5
    part = 90 + 80 * (np.hypot(x, y) < 0.4) + 40 * (np.hypot(x, y) < 0.15)
    pictures = part[None, :, :, None] + rng.normal(0, 3, (count, size, size, 3))
    pictures[3, size // 3 : size // 3 + size // 16, size // 4 : size // 2] = 250
    return pictures.clip(0, 255).astype(np.uint8)


def main(count: int = 16, size: int = 96) -> pipeline.Results:
    """Prints scores, highest first."""
    samples = [
        # gt_mask and gt_label are for the metrics alone; image_path is what results call the file.
        Sample(name=f"{i:03}", image=image, points=None, gt_mask=None, gt_label=None, image_path=Path(f"{i:03}.png"))
        for i, image in enumerate(camera(count, size))
    ]
    config = Config.released(modality="rgb", image_backbone=weights.load("random", "dino_vits16"), image_size=size)
    results = pipeline.score(samples, config)
    for i in np.argsort(-results.max_scores)[:5]:
        print(f"{results.max_scores[i]:.3f}  {results.samples[i].name}")
    return results


if __name__ == "__main__":
    main()
