"""Little scenes made in memory, and narrow backbones to score them with."""

import functools
from pathlib import Path

import numpy as np

import weights
from musc_jax.config import GroupingConfig
from musc_jax.data import Sample

GROUPS = GroupingConfig(num_groups=40, group_size=16, k_iter=10)


def make_backbones():
    """Options of a `Config`."""
    return dict(_backbones())


@functools.cache
def _backbones():
    image = weights.load("random", "dino_vits8", width=32, depth=3, heads=2, mlp_width=48)
    points = weights.load(Path(__file__).parent / "golden" / "point_mae_tiny.pth", "point_mae", heads=3)
    return {"image_backbone": image, "point_backbone": points}


def make_samples(count):
    """Scenes of one kind, the fifth of them with a spot and a bump."""
    rng, made = np.random.default_rng(0), []
    y, x = np.mgrid[:32, :32] / 32 - 0.5
    for i in range(count):
        spot = ((x - 0.1) ** 2 + y**2 < 0.01) & (i == 4)
        image = np.where(spot[..., None], [40, 40, 220], [200, 120, 60]) + rng.integers(0, 12, (32, 32, 3))
        depth = 1.5 + 0.2 * (x**2 + y**2) - 0.1 * spot + 0.001 * rng.normal(size=x.shape)
        points = np.stack([x + 0.001, y + 0.001, depth], -1).astype(np.float32)
        points[:2] = 0
        made.append(Sample(f"{i:03d}", image.astype(np.uint8), points, spot, int(i == 4), Path(f"{i}.png")))
    return made
