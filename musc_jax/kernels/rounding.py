"""Precision of mutual scoring: what tokens are rounded to before they are multiplied."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

PRECISIONS = ("full", "accurate", "fast")
"""Of the products of tokens.

full: float32 throughout. accurate: three passes of a faster type that come near float32 (NVIDIA: TF32, TPU: bfloat16;
a CPU computes "full"). fast: tokens are rounded to half precision after their mean was subtracted (NVIDIA: float16, TPU
and CPU: bfloat16), sums stay float32; what comes out are the distances of the rounded tokens.

JAX lowers three-pass products only for the platform that has them: "accurate" exports for one platform at a time.
"""

HALF_TYPES = {"cuda": "float16", "default": "bfloat16"}
"""Platform to the half precision that it multiplies fastest at the least loss."""


def expect_precision(precision: str) -> None:
    """Refuses what is no precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, received {precision!r}")


def is_rounded(tokens: jax.Array, precision: str) -> bool:
    """Whether tokens of this type are rounded to half precision."""
    return precision == "fast" and tokens.dtype == jnp.float32


def common_scale(largest: jax.Array) -> jax.Array:
    """The power of two that brings the largest value near 1, where float16 neither overflows nor loses small values."""
    exponent = jnp.ceil(jnp.log2(jnp.maximum(jax.lax.stop_gradient(largest), jnp.finfo(jnp.float32).tiny)))
    return jnp.exp2(exponent)


def in_half(function: Callable[..., jax.Array], *arrays: jax.Array, half_type: str | None = None) -> jax.Array:
    """`function` of arrays rounded to half precision, for squared distances alone: they are scaled back.

    Args:
        function: From rounded arrays to squared distances.
        arrays: float32.
        half_type: "float16" or "bfloat16"; default what `HALF_TYPES` says of the platform a program is lowered for.
    """
    largest = functools.reduce(jnp.maximum, (jnp.max(jnp.abs(x)) for x in arrays))
    scale = common_scale(largest).astype(arrays[0].dtype)

    def rounded(*arrays: jax.Array, dtype: Any) -> jax.Array:
        # One factor after the other: the square of a scale may leave the range of float32.
        return function(*((x / scale).astype(dtype) for x in arrays)) * scale * scale

    if half_type is not None:
        return rounded(*arrays, dtype=jnp.dtype(half_type))
    by_platform = {name: partial(rounded, dtype=jnp.dtype(dtype)) for name, dtype in HALF_TYPES.items()}
    return jax.lax.platform_dependent(*arrays, **by_platform)
