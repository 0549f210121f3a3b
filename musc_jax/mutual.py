"""Mutual scoring: unlabeled samples score each other's patches (paper III-C, eq. 7-9).

A patch's score by another sample is the distance to the nearest patch there. A normal patch finds a close match in most
samples, a defect in hardly any, so the mean of a patch's lowest scores tells them apart.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from musc_jax._arrays import PRECISION, Array, as_float, expect_shape, safe_sqrt, same_dtype
from musc_jax.interval import interval_count, mean_of_lowest
from musc_jax.subsets import draw_references

PRECISIONS = ("full", "accurate", "fast")
"""Of the products of tokens.

full: float32 throughout. accurate: three passes of a faster type that come near float32 (NVIDIA: TF32, TPU: bfloat16;
a CPU computes "full"). fast: tokens are rounded to half precision after their mean was subtracted (NVIDIA: float16, TPU
and CPU: bfloat16), sums stay float32; what comes out are the distances of the rounded tokens.

JAX lowers three-pass products only for the platform that has them: "accurate" exports for one platform at a time.
"""


def _expect_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, received {precision!r}")


def _expect_tokens(features: Array) -> None:
    if 0 in features.shape[1:]:
        raise ValueError(f"features: expected at least one token and channel, received shape {features.shape}")


def _half_norms(tokens: jax.Array) -> jax.Array:
    tokens = tokens.astype(jnp.float32) if tokens.dtype.itemsize == 2 else tokens
    return 0.5 * jnp.sum(tokens * tokens, axis=-1)


def _product(a: jax.Array, b: jax.Array, precision: str) -> jax.Array:
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


def _in_half(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """`function` of arrays rounded to the half precision a platform multiplies fastest; for distances alone.

    A common power of two brings the largest value near 1 first, where float16 neither overflows nor loses its small
    values; the distances are scaled back.
    """
    largest = functools.reduce(jnp.maximum, (jnp.max(jnp.abs(x)) for x in arrays))
    exponent = jnp.ceil(jnp.log2(jnp.maximum(jax.lax.stop_gradient(largest), jnp.finfo(jnp.float32).tiny)))
    scale = jnp.exp2(exponent).astype(arrays[0].dtype)

    def rounded(*arrays: jax.Array, dtype: Any) -> jax.Array:
        return function(*((x / scale).astype(dtype) for x in arrays)) * scale

    half = {"cuda": jnp.float16, "default": jnp.bfloat16}
    return jax.lax.platform_dependent(*arrays, **{name: partial(rounded, dtype=dtype) for name, dtype in half.items()})


# Recomputed on the way back: the reverse pass would otherwise keep the products of all pairs, as large as all pairs of
# tokens.
@partial(jax.checkpoint, static_argnums=2)
def _two_way_minima(a: jax.Array, b: jax.Array, precision: str = "full") -> tuple[jax.Array, jax.Array]:
    """Squared distance of each row of `a` to the nearest row of `b`, and of each row of `b` to the nearest of `a`.

    One product serves both. The minimum is taken of |b|^2/2 - ab, so that XLA folds it into the product and the
    distances themselves are never written down.
    """
    half_a, half_b = _half_norms(a), _half_norms(b)
    product = _product(a, b, precision)
    to_b = half_a + jnp.min(half_b[None, :] - product, axis=1)
    to_a = half_b + jnp.min(half_a[:, None] - product, axis=0)
    return 2 * to_b, 2 * to_a


def _centered(reference: jax.Array, *others: jax.Array) -> tuple[jax.Array, ...]:
    """Shifts all by the mean token of `reference`. Distances stay; the cancellation in |a|^2 + |b|^2 - 2ab shrinks."""
    mean = jax.lax.stop_gradient(reference.reshape(-1, reference.shape[-1]).mean(axis=0))
    return tuple(x - mean.reshape((1,) * (x.ndim - 1) + (-1,)) for x in (reference, *others))


def pair_scores(query: Float[Array, "M C"], references: Float[Array, "R N C"]) -> Float[jax.Array, "M R"]:
    """Scores of one sample's patches by each of R other samples (paper eq. 7).

    Args:
        query: Tokens of the sample to be scored.
        references: Tokens of the samples that score it; their number of tokens may differ from the query's.

    Returns:
        a[m, j] = min over n of ||query(m) - references_j(n)||_2, not squared, >= 0, in the dtype of `query`.
        Differentiable: where two tokens are equal the gradient is 0.

    Raises:
        ValueError: Wrong shapes, no reference.
    """
    expect_shape("query", query, (None, None))
    expect_shape("references", references, (None, None, query.shape[1]))
    if references.shape[0] < 1:
        raise ValueError("references: expected at least one sample, received none")
    dtype = as_float(query)[1]
    query, references = _centered(*same_dtype(query, references))

    def by_one(_: None, reference: jax.Array) -> tuple[None, jax.Array]:
        return None, _two_way_minima(query, reference, "full")[0]

    _, squared = jax.lax.scan(by_one, None, references)
    return safe_sqrt(squared).T.astype(dtype)


def all_pair_scores(features: Float[Array, "N M C"], *, precision: str = "full") -> Float[jax.Array, "N R M"]:
    """Scores of every sample's patches by every other sample, R = N - 1 (paper eq. 7).

    Each unordered pair of samples is multiplied once and gives both directions. Memory: the result, and one
    (M, M) product at a time.

    Args:
        features: Tokens of N >= 2 samples.
        precision: One of `PRECISIONS`.

    Returns:
        a[i, r, m]: patch m of sample i by the r-th of the other samples, in their order. In at least float32.

    Raises:
        ValueError: Wrong shapes, fewer than 2 samples, an unknown precision.
    """
    expect_shape("features", features, (None, None, None))
    _expect_precision(precision)
    _expect_tokens(features)
    count = features.shape[0]
    if count < 2:
        raise ValueError(f"features: N = {count}: samples score each other, so at least 2 are needed")
    (features,) = _centered(as_float(features)[0])
    if precision == "fast" and features.dtype == jnp.float32:
        return _in_half(_all_pairs, features)
    return _all_pairs(features, precision=precision)


def _all_pairs(features: jax.Array, *, precision: str = "full") -> jax.Array:
    count = features.shape[0]
    first, second = np.triu_indices(count, k=1)

    def one_pair(_: None, pair: tuple) -> tuple[None, jax.Array]:
        i, j = pair
        return None, jnp.stack(_two_way_minima(features[i], features[j], precision))

    pairs = (jnp.asarray(first, jnp.int32), jnp.asarray(second, jnp.int32))
    _, squared = jax.lax.scan(one_pair, None, pairs)
    # Row 2p holds pair p seen from its first sample, row 2p + 1 from its second.
    row = np.zeros((count, count), np.int32)
    row[first, second] = 2 * np.arange(len(first))
    row[second, first] = 2 * np.arange(len(first)) + 1
    others = row[~np.eye(count, dtype=bool)].reshape(count, count - 1)
    return safe_sqrt(squared.reshape(-1, features.shape[1])[others])


def panel_scores(
    queries: Float[Array, "B M C"], references: Float[Array, "T M C"], *, precision: str = "full"
) -> Float[jax.Array, "B T M"]:
    """Scores of the patches of a few samples by T samples, in one direction (paper eq. 7).

    What `all_pair_scores` gives where all pairs at once are too many; callers subtract a common mean first.

    Raises:
        ValueError: Wrong shapes, an unknown precision.
    """
    expect_shape("queries", queries, (None, None, None))
    expect_shape("references", references, (None, *queries.shape[1:]))
    _expect_precision(precision)
    queries, references = same_dtype(queries, references)
    if precision == "fast" and queries.dtype == jnp.float32:
        return _in_half(_panel, queries, references)
    return _panel(queries, references, precision=precision)


def _panel(queries: jax.Array, references: jax.Array, *, precision: str = "full") -> jax.Array:
    def one(query: jax.Array) -> jax.Array:
        by_one = lambda reference: _two_way_minima(query, reference, precision)[0]  # noqa: E731
        return jax.lax.map(by_one, references)

    return safe_sqrt(jax.lax.map(one, queries))


def block_scores(
    first: Float[Array, "B M C"], second: Float[Array, "T M C"], *, precision: str = "full"
) -> tuple[Float[jax.Array, "B T M"], Float[jax.Array, "T B M"]]:
    """Scores of a few samples by T others, and of these by those; each pair is multiplied once (paper eq. 7).

    Callers subtract a common mean first.

    Raises:
        ValueError: Wrong shapes, an unknown precision.
    """
    expect_shape("first", first, (None, None, None))
    expect_shape("second", second, (None, *first.shape[1:]))
    _expect_precision(precision)
    first, second = same_dtype(first, second)
    if precision == "fast" and first.dtype == jnp.float32:
        both = _in_half(_block, first, second)
    else:
        both = _block(first, second, precision=precision)
    return both[0], both[1].swapaxes(0, 1)


def _block(first: jax.Array, second: jax.Array, *, precision: str = "full") -> jax.Array:
    """(2, B, T, M): seen from the first, seen from the second."""

    def one(own: jax.Array) -> jax.Array:
        return jax.lax.map(lambda other: jnp.stack(_two_way_minima(own, other, precision)), second)

    return safe_sqrt(jnp.moveaxis(jax.lax.map(one, first), 2, 0))


def mutual_scores(
    features: Float[Array, "N M C"],
    *,
    interval: float = 0.3,
    precision: str = "full",
    references: int | None = None,
    seed: int = 0,
) -> Float[jax.Array, "N M"]:
    """Scores of every patch of N samples by the other samples, one stage (paper eq. 7-8).

    Args:
        features: Aggregated tokens of N >= 2 samples.
        interval: Share of the lowest scores that is averaged.
        precision: One of `PRECISIONS`.
        references: Score each sample by so many others, at least 1, see `draw_references`; N - 1 and above, and the
            default, mean all. (Not in the paper.)
        seed: Of their draw.

    Returns:
        Patch scores >= 0 in the dtype of `features`; the mean over the stages (eq. 9) is the caller's. Differentiable.

    Raises:
        ValueError: Wrong shapes, fewer than 2 samples, an interval outside (0, 1], an unknown precision, fewer than
            one reference.
    """
    expect_shape("features", features, (None, None, None))
    _expect_tokens(features)
    dtype = as_float(features)[1]
    count = features.shape[0]
    if references is not None and references < count - 1:
        drawn = draw_references(count, references, seed=seed)
        (wide,) = _centered(as_float(features)[0])
        average = partial(mean_of_lowest, count=interval_count(references, interval), axis=0)
        scorers = wide[drawn.samples]

        def one(sample: tuple[jax.Array, jax.Array]) -> jax.Array:
            tokens, columns = sample
            return average(panel_scores(tokens[None], scorers, precision=precision)[0][columns])

        return jax.lax.map(one, (wide, jnp.asarray(drawn.columns))).astype(dtype)
    scores = all_pair_scores(features, precision=precision)
    average = partial(mean_of_lowest, count=interval_count(scores.shape[1], interval), axis=0)
    # One sample after the other: its scores stay in the cache while they are counted over and over.
    return jax.lax.map(average, scores).astype(dtype)
