"""Similar samples: a summary of each sample, and for each the samples whose summaries are nearest (not in the paper).

Where parts differ in pose or colour, only those that look alike can say what is normal for each other. Scored by its
most similar samples alone, a part is compared with its like, and the cost falls with their share.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from musc_jax import _options
from musc_jax._arrays import PRECISION, Array, as_float, expect_shape, smallest

# Rows of distances at a time: no more than these are there, however many samples there are.
_ROWS_AT_ONCE = 64


def mean_tokens(features: Float[Array, "N M C"], *, valid: Bool[Array, "N M"] | None = None) -> Float[jax.Array, "N C"]:
    """The mean token of each sample.

    Args:
        features: Tokens of N samples.
        valid: The tokens that count, whatever the others hold; default all.

    Returns:
        Means in at least float32; zeros for a sample without a token that counts.

    Raises:
        ValueError: Wrong shapes.
    """
    expect_shape("features", features, (None, None, None))
    wide, _ = as_float(features)
    if valid is None:
        return wide.mean(axis=1)
    expect_shape("valid", valid, features.shape[:2])
    counts = jnp.asarray(valid)[..., None]
    total = jnp.maximum(counts.sum(axis=1), 1).astype(wide.dtype)
    return jnp.where(counts, wide, 0).sum(axis=1) / total


def sample_summaries(means: Sequence[Float[Array, "N _"]]) -> Float[jax.Array, "N D"]:
    """What each sample looks like as a whole, by its mean tokens of all stages and modalities.

    Args:
        means: `mean_tokens` of each stage, of both modalities where there are two. Each is brought to the same spread
            over the samples, so that none of them outvotes the others by the size of its values.

    Returns:
        Summaries about their mean; D is the sum of the channels.

    Raises:
        ValueError: Nothing given, or different numbers of samples.
    """
    if not means:
        raise ValueError("means: expected those of at least one stage, received none")
    parts = []
    for i, own in enumerate(means):
        expect_shape(f"means[{i}]", own, (len(means[0]), None))
        apart = as_float(own)[0]
        apart = apart - apart.mean(axis=0, keepdims=True)
        spread = jnp.sqrt(jnp.mean(jnp.sum(apart**2, axis=1)))
        parts.append(apart / jnp.where(spread > 0, spread, 1))
    return jnp.concatenate(parts, axis=1)


def nearest_samples(
    summaries: Float[Array, "N D"], count: int, *, vouch: Bool[Array, "N"] | None = None
) -> Int[jax.Array, "N R"]:
    """For each sample the others whose summaries are nearest to its own, for the `references` of `mutual_scores`.

    Args:
        summaries: See `sample_summaries`; distances are Euclidean.
        count: How many, at least 1; from N - 1 on all others, R = min(count, N - 1).
        vouch: The samples that may be among them, more than `count`; default all.

    Returns:
        Their indices, ascending. Of equally near ones those with the lower indices.

    Raises:
        ValueError: Wrong shapes, fewer than 2 samples, a count that is no whole number of at least 1.
    """
    expect_shape("summaries", summaries, (None, None))
    count = min(_options.whole("count", count, lowest=1), summaries.shape[0] - 1)
    if count < 1:
        raise ValueError(f"summaries: N = {summaries.shape[0]}: samples score each other, so at least 2 are needed")
    may = None
    if vouch is not None:
        expect_shape("vouch", vouch, (summaries.shape[0],))
        may = jnp.asarray(vouch).astype(bool)
    wide, _ = as_float(summaries)
    wide = wide - wide.mean(axis=0, keepdims=True)
    half_norms = 0.5 * jnp.sum(wide**2, axis=1)

    def one(at: jax.Array) -> jax.Array:
        apart = half_norms - jnp.matmul(wide, wide[at], precision=PRECISION)
        itself = jnp.arange(len(wide)) == at
        others = jnp.where(itself if may is None else itself | ~may, jnp.inf, apart)
        return jnp.sort(smallest(others, count)[1]).astype(jnp.int32)

    return jax.lax.map(one, jnp.arange(len(wide)), batch_size=min(_ROWS_AT_ONCE, len(wide)))
