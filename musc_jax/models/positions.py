"""Where patches are: learnt embeddings, for other input sizes by each family's own rule, and rotary angles."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from musc_jax.models.layers import PRECISION

_ANTIALIASED = {"antialias": "cubic", "bilinear": "linear"}


def bicubic_weights(source: int, target: int, *, offset: float = 0.0) -> np.ndarray:
    """(target, source) weights of PyTorch's plain bicubic resize along one axis.

    Cubic convolution with a = -0.75, corners not aligned, no antialiasing, taps clamped at the edge. `jax.image.resize`
    has a = -0.5, and differs by up to 0.3 on unit-variance data.

    Args:
        source: Length of the pretrained axis.
        target: Length wanted.
        offset: DINO passes the scale (target + 0.1) / source instead of the target's length, against rounding; the
            sampled positions follow that inexact scale.
    """
    a = -0.75
    scale = (target + offset) / source
    position = (np.arange(target) + 0.5) / scale - 0.5
    first = np.floor(position).astype(int)
    weights = np.zeros((target, source))
    for tap in range(-1, 3):
        x = np.abs(position - (first + tap))
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        column = np.clip(first + tap, 0, source - 1)
        np.add.at(weights, (np.arange(target), column), np.where(x <= 1, near, far))
    return weights


def interpolate_positions(
    embedding: Float[jax.Array, "positions channels"], grid: tuple[int, int], *, rule: str
) -> Float[jax.Array, "target channels"]:
    """Patch position embeddings of a square grid, for another grid.

    Args:
        embedding: One row for each patch of the pretrained square grid, in row order, without the class token.
        grid: Rows and columns wanted. The pretrained grid itself changes nothing.
        rule: "size" (plain bicubic to that size: CLIP), "offset" (plain bicubic with the scale off by 0.1: DINO and
            DINOv2), "antialias" (antialiased bicubic: DINOv2 with registers), "bilinear" (antialiased too: TIPSv2).
    """
    side = round(embedding.shape[0] ** 0.5)
    if grid == (side, side):
        return embedding
    square = embedding.reshape(side, side, -1)
    if rule in _ANTIALIASED:
        return jax.image.resize(square, (*grid, square.shape[-1]), _ANTIALIASED[rule], antialias=True).reshape(
            grid[0] * grid[1], -1
        )
    offset = 0.1 if rule == "offset" else 0.0
    rows, columns = (jnp.asarray(bicubic_weights(side, n, offset=offset), embedding.dtype) for n in grid)
    out = jnp.einsum("ri,ijc,sj->rsc", rows, square, columns, precision=PRECISION)
    return out.reshape(grid[0] * grid[1], -1)


def rotary_angles(grid: tuple[int, int], head_width: int, *, base: float = 100.0) -> np.ndarray:
    """Angles that DINOv3 turns the queries and keys of patches by: (patches, head_width / 2), float64.

    The centre of a patch is at 2 (i + 0.5) / rows - 1 and 2 (j + 0.5) / columns - 1: any grid covers the same square.
    A head has head_width / 4 periods, in equal ratios from 1 up to, not including, `base`; an angle is 2 pi times the
    coordinate over the period. Those of the row come first, then those of the column.

    Args:
        grid: Rows and columns.
        head_width: Channels of an attention head, a multiple of 4.
        base: What the periods stay below.
    """
    periods = base ** (np.arange(head_width // 4) * 4 / head_width)
    rows, columns = (2 * (np.arange(n) + 0.5) / n - 1 for n in grid)
    centers = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    return (2 * np.pi * centers / periods).reshape(len(centers), -1)
