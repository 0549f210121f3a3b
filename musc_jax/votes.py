"""Votes: which patch of every other sample comes closest to one patch, and how close (paper III-C, eq. 7)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from musc_jax._arrays import Array, as_float, expect_shape, safe_sqrt, same_dtype


class Votes(NamedTuple):
    """Scores of Q patches by T samples, and by which of their patches."""

    distances: Float[jax.Array, "Q T"]
    """min over n of ||token - reference(n)||_2; infinite where no token of a reference counts."""
    nearest: Int[jax.Array, "Q T"]
    """The n of it, the first of equals."""


def token_votes(
    tokens: Float[Array, "Q C"], references: Float[Array, "T M C"], *, valid: Bool[Array, "T M"] | None = None
) -> Votes:
    """Scores of single patches by other samples, with the patch that each score comes from.

    The same numbers as `musc_jax.pairs.pair_scores` has for whole samples, by differences, which cancel nothing: for a
    few patches products have no advantage.

    Args:
        tokens: Patches of any samples.
        references: Tokens of the samples that score them.
        valid: The references' tokens that count; default all. Others may hold anything.

    Returns:
        Distances in the dtype of `tokens`.

    Raises:
        ValueError: Wrong shapes.
    """
    expect_shape("tokens", tokens, (None, None))
    expect_shape("references", references, (None, None, tokens.shape[1]))
    if valid is not None:
        expect_shape("valid", valid, references.shape[:2])
    dtype = as_float(tokens)[1]
    wide, others = same_dtype(tokens, references)

    def one(token: jax.Array) -> tuple[jax.Array, jax.Array]:
        squared = jnp.sum((others - token[None, None]) ** 2, axis=2)
        if valid is not None:
            squared = jnp.where(jnp.asarray(valid), squared, jnp.inf)
        return jnp.min(squared, axis=1), jnp.argmin(squared, axis=1).astype(jnp.int32)

    squared, nearest = jax.lax.map(one, wide)
    return Votes(safe_sqrt(squared).astype(dtype), nearest)
