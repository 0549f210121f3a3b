"""RsCon: re-scoring samples by their most similar samples (paper III-D, eq. 14-17).

The features that it compares (eq. 12-13) are picked by `musc_jax.execution.scoring.salient_features`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float

from musc_jax import _options
from musc_jax._arrays import PRECISION, Array, as_float, expect_shape, expect_variant, same_dtype


def rescore(
    scores: Float[Array, "N"],
    features: Float[Array, "N D"],
    *,
    windows: Sequence[int] = (1, 7),
    variant: str = "released",
) -> Float[jax.Array, "N"]:
    """Corrects each sample's score by the scores of the samples most similar to it (paper eq. 14-17).

    Args:
        scores: Sample scores: the maxima of the anomaly maps.
        features: The anomaly-salient feature of each sample: its highest-scoring token at the second-to-last stage,
            image and point parts concatenated (eq. 12-13).
        windows: For each window k the k largest similarities of a row are kept; the results are averaged. A k above N
            counts as N.
        variant: In "released" window 1 keeps the largest similarity of a row, whichever it is: with features that are
            not normalised, a sample's own competes and may lose. In "paper" window 1 is the sample itself (the `+ C` of
            eq. 15).

    Returns:
        Scores in the dtype of `scores`; they were min-max scaled to [0, 1] first. Scores that are all equal stay all
        equal (0). A row whose similarities sum to 0 or less leaves that score as it is.

    Raises:
        ValueError: Wrong shapes, fewer than 2 samples, a window below 1, an unknown variant.
    """
    expect_shape("scores", scores, (None,))
    count = scores.shape[0]
    expect_shape("features", features, (count, None))
    expect_variant(variant)
    windows = _options.wholes("windows", windows, lowest=1)
    if count < 2:
        raise ValueError(f"scores: N = {count}: re-scoring compares samples, so at least 2 are needed")
    dtype = as_float(scores)[1]
    scores, features = same_dtype(scores, features)

    low, span = scores.min(), scores.max() - scores.min()
    scaled = (scores - low) / jnp.where(span > 0, span, 1)
    similarity = jnp.matmul(features, features.T, precision=PRECISION)
    kept = min(max(windows), count)
    weights, nearest = jax.lax.optimization_barrier(tuple(jax.lax.top_k(similarity, kept)))
    neighbors = scaled[nearest]

    total = jnp.zeros_like(scaled)
    for window in windows:
        if window == 1 and variant == "paper":
            total = total + scaled
            continue
        weight, value = weights[:, :window], neighbors[:, :window]
        norm = weight.sum(axis=1)
        usable = norm > 0
        mean = (weight * value).sum(axis=1) / jnp.where(usable, norm, 1)
        total = total + jnp.where(usable, mean, scaled)
    return (total / len(windows)).astype(dtype)
