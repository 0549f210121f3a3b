"""Each token's distance to the other sample's nearest token, both ways by one matrix product (`pair_minima`)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from musc_jax._arrays import PRECISION


def half_norms(tokens: jax.Array) -> jax.Array:
    """Half the squared norms, in at least float32."""
    tokens = tokens.astype(jnp.float32) if tokens.dtype.itemsize == 2 else tokens
    return 0.5 * jnp.sum(tokens * tokens, axis=-1)


def product(a: jax.Array, b: jax.Array, precision: str) -> jax.Array:
    """The product of `a` with `b` transposed, in at least float32."""
    if a.dtype.itemsize == 2:
        return jnp.matmul(a, b.T, preferred_element_type=jnp.float32)
    if precision != "accurate" or a.dtype != jnp.float32:
        return jnp.matmul(a, b.T, precision=PRECISION)
    algorithms = {
        "cuda": jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3,
        "tpu": jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3,
    }
    by_platform = {name: partial(_with_algorithm, algorithm=algorithm) for name, algorithm in algorithms.items()}
    return jax.lax.platform_dependent(a, b, default=partial(_with_algorithm, algorithm=PRECISION), **by_platform)


def _with_algorithm(a: jax.Array, b: jax.Array, *, algorithm: Any) -> jax.Array:
    return jnp.matmul(a, b.T, precision=algorithm)


# Recomputed on the way back: the reverse pass would otherwise keep the products of all pairs, as large as all pairs of
# tokens.
@partial(jax.checkpoint, static_argnums=4)
def _by_one_product(
    a: jax.Array, b: jax.Array, valid_a: jax.Array | None, valid_b: jax.Array | None, precision: str
) -> tuple[jax.Array, jax.Array]:
    half_a, half_b = half_norms(a), half_norms(b)
    together = product(a, b, precision)
    # The minimum is taken of |b|^2/2 - ab, so that XLA folds it into the product and distances are never written down.
    by_b, by_a = half_b[None, :] - together, half_a[:, None] - together
    if valid_b is not None:
        by_b = jnp.where(valid_b[None, :], by_b, jnp.inf)
    if valid_a is not None:
        by_a = jnp.where(valid_a[:, None], by_a, jnp.inf)
    return 2 * (half_a + jnp.min(by_b, axis=1)), 2 * (half_b + jnp.min(by_a, axis=0))


def by_one_product(
    a: jax.Array,
    b: jax.Array,
    valid_a: jax.Array | None = None,
    valid_b: jax.Array | None = None,
    *,
    precision: str = "full",
) -> tuple[jax.Array, jax.Array]:
    """Squared distances by the expanded form |a|^2 + |b|^2 - 2ab; cancellation can leave them slightly below 0.

    Callers subtract a common mean from both first, which shrinks the cancellation.
    """
    return _by_one_product(a, b, valid_a, valid_b, precision)
