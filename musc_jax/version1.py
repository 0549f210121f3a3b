"""MuSc of 2024 (ICLR), the first version: images only, plain means of square windows, windows of its own.

Each stage is aggregated and scored for each degree by itself, and samples are re-scored by their image embeddings.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from musc_jax import _options
from musc_jax._arrays import Array, as_float, expect_shape, square_side, unit
from musc_jax.aggregation import window_pooling


def lnamd_grid(tokens: Float[Array, "M C"], *, degree: int, implementation: str = "auto") -> Float[jax.Array, "M C"]:
    """LNAMD of MuSc version 1 (ICLR 2024): layer norm of the whole grid, plain r x r mean, L2 norm.

    Args:
        tokens: Tokens of one stage in row order; M must be a square.
        degree: Window side r, odd. The border is padded with zeros, which count.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.

    Returns:
        Unit vectors, in the dtype of `tokens`. The layer norm runs over channels and positions together (eps 1e-5).

    Raises:
        ValueError: No square grid, an even degree, an unknown implementation.
    """
    expect_shape("tokens", tokens, (None, None))
    (degree,) = _options.wholes("degree", (degree,), lowest=1, odd=True)
    wide, dtype = as_float(tokens)
    side = square_side(wide.shape[0])
    centered = wide - wide.mean()
    normal = centered * jax.lax.rsqrt(jnp.mean(centered**2) + 1e-5)
    grid = normal.reshape(side, side, -1)
    options = {"degrees": (degree,), "by_count": True, "similarity_weighting": False}
    return unit(window_pooling(grid, **options, implementation=implementation)).reshape(wide.shape).astype(dtype)
