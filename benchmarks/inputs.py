"""What is fed to both sides: made in memory, seeded, the same in every run."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from musc_jax.data import Sample


def scan(size: int = 224, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A curved, noisy scan on the full pixel grid (size * size, 3), and the mask of a round part (size * size,)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size * 2 - 1
    z = 0.3 * np.sin(5 * x) + 0.2 * np.cos(4 * y) + 0.005 * rng.normal(size=x.shape)
    points = np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32)
    return points, (np.hypot(x, y) < 0.97).ravel()


def unit_features(*shape: int) -> jax.Array:
    """Random unit vectors."""
    z = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return jnp.asarray(z / np.linalg.norm(z, axis=-1, keepdims=True))


def samples(count: int, size: int) -> list[Sample]:
    """Image and point map of `count` noisy pieces of one kind; every fourth has a dark bump."""
    made = []
    y, x = np.mgrid[:size, :size] / size * 2 - 1
    for i in range(count):
        rng = np.random.default_rng(i)
        spot = (np.hypot(x - rng.uniform(-0.5, 0.5), y - rng.uniform(-0.5, 0.5)) < 0.1) & (i % 4 == 3)
        points, valid = scan(size, seed=i)
        points[:, 2] += 2 - 0.05 * spot.ravel()
        base = 140 + 60 * np.stack([np.sin(4 * x), np.cos(3 * y), np.sin(5 * x * y)], -1) - 80 * spot[..., None]
        image = np.clip(base + rng.normal(0, 8, base.shape), 0, 255).astype(np.uint8)
        points = np.where(valid[:, None] & (points != 0).all(1, keepdims=True), points, 0).astype(np.float32)
        made.append(Sample(f"{i:03d}", image, points.reshape(size, size, 3), spot, int(i % 4 == 3), Path(f"{i}.png")))
    return made
