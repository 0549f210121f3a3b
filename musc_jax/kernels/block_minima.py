"""Distances of many samples' tokens to the nearest of many others, by one product (operation `block_minima`)."""

from functools import partial

import jax
import jax.numpy as jnp

from musc_jax.kernels.pair_minima import half_norms, product


# Recomputed on the way back, as of a pair.
@partial(jax.checkpoint, static_argnums=4)
def _by_one_product(
    a: jax.Array, b: jax.Array, valid_a: jax.Array | None, valid_b: jax.Array | None, precision: str
) -> tuple[jax.Array, jax.Array]:
    half_a, half_b = half_norms(a), half_norms(b)
    (height, rows), (width, columns) = a.shape[:2], b.shape[:2]
    together = product(a.reshape(height * rows, -1), b.reshape(width * columns, -1), precision)
    by_b, by_a = half_b.reshape(1, -1) - together, half_a.reshape(-1, 1) - together
    if valid_b is not None:
        by_b = jnp.where(valid_b.reshape(1, -1), by_b, jnp.inf)
    if valid_a is not None:
        by_a = jnp.where(valid_a.reshape(-1, 1), by_a, jnp.inf)
    to_b = by_b.reshape(height * rows, width, columns).min(axis=2)
    to_a = by_a.reshape(height, rows, width * columns).min(axis=1)
    # XLA:GPU would turn the product around before it takes the minima, to have these in the order asked for below: that
    # writes and reads it twice more. So they are taken as it lies, and turned around themselves.
    to_b, to_a = jax.lax.optimization_barrier((to_b, to_a))
    to_b = to_b.reshape(height, rows, width).swapaxes(1, 2)
    to_a = to_a.reshape(height, width, columns).swapaxes(0, 1)
    return 2 * (half_a[:, None] + to_b), 2 * (half_b[:, None] + to_a)


def by_one_product(
    a: jax.Array,
    b: jax.Array,
    valid_a: jax.Array | None = None,
    valid_b: jax.Array | None = None,
    *,
    precision: str = "full",
) -> tuple[jax.Array, jax.Array]:
    """The expanded form, as of a pair: large enough to keep an accelerator busy, where a pair is over too soon.

    XLA writes the product down and reads it once for each direction, so a block has to be small enough for that.
    """
    return _by_one_product(a, b, valid_a, valid_b, precision)
