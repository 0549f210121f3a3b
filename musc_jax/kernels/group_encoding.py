"""The mini-PointNet, some groups at a time (operation `group_tokens`): nothing of all points is written down.

Its second half sees [maximum of the group, point]. The first part is the same for all points of a group, so its product
is made once a group: a quarter of the arithmetic less. The statistics of its batch norms follow from second moments.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

# Without it, an H100 multiplies float32 as TF32 and a TPU as bfloat16.
PRECISION = jax.lax.Precision.HIGHEST
# So many groups stay in a CPU's cache with all their channels; all 1024 at once would be 270 MB a layer. With 16 the
# products' scratch memory grows beyond what the C library keeps between two of them: a third slower where that happens,
# no faster where it does not.
_GROUPS_ON_CPU = 8
# An accelerator starts a kernel for each product of a chunk: on an H200 chunks of 8 take twice as long.
_GROUPS_ELSEWHERE = 256

_Layer = tuple[jax.Array, jax.Array]
"""Kernel and bias."""


def _folded(layer: _Layer, norm: tuple, statistics: _Layer, epsilon: float) -> _Layer:
    """Kernel and bias with a batch norm of these statistics, mean and variance, folded in."""
    (kernel, bias), (scale, shift, *_), (mean, var) = layer, norm, statistics
    factor = scale * jax.lax.rsqrt(var + epsilon)
    return kernel * factor[None], (bias - mean) * factor + shift


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean (C,) and biased covariance (C, C) of the rows of x."""
    mean = x.mean(0)
    centered = x - mean[None]
    return mean, jnp.matmul(centered.T, centered, precision=PRECISION) / len(x)


def _through(kernel: jax.Array, bias: jax.Array, mean: jax.Array, cov: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of each channel of x @ kernel + bias, from those of x."""
    out = jnp.matmul(mean, kernel, precision=PRECISION) + bias
    return out, jnp.sum(kernel * jnp.matmul(cov, kernel, precision=PRECISION), axis=0)


def in_chunks(
    groups: jax.Array,
    layers: tuple[_Layer, ...],
    norms: tuple[tuple, ...],
    *,
    point_norm: str,
    epsilon: float,
    dtype: str,
    at_once: int,
) -> jax.Array:
    """(G, K, 3) to (G, width), `at_once` groups at a time."""
    conv1, conv2, conv3, conv4 = layers
    cloud = point_norm == "cloud"
    second = conv2[0].shape[1]

    count, size, _ = groups.shape
    chunk = min(at_once, count)
    chunks = -(-count // chunk)
    padded = jnp.pad(groups, ((0, chunks * chunk - count), (0, 0), (0, 0))).reshape(chunks, chunk, size, 3)

    stored1, stored3 = (norm[2:] for norm in norms)
    statistics = _through(*conv1, *_moments(groups.reshape(-1, 3))) if cloud else stored1
    kernel1, bias1 = _folded(conv1, norms[0], statistics, epsilon)
    kernel2, bias2 = conv2

    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.matmul(
            x.astype(dtype), kernel.astype(dtype), precision=PRECISION, preferred_element_type=jnp.float32
        )

    def hidden(points: jax.Array) -> jax.Array:
        """(chunk * K, first)."""
        return jax.nn.relu(product(points.reshape(-1, 3), kernel1) + bias1[None])

    def half(hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(chunk * K, second) and its maxima (chunk, second)."""
        x = product(hidden, kernel2) + bias2[None]
        return x, x.reshape(chunk, size, -1).max(1)

    def between(points: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What `half` sees, as its product sees it, and the maxima of what it makes of that."""
        x = hidden(points)
        return x.astype(dtype).astype(jnp.float32), half(x)[1]

    if cloud:
        conv2_seen = kernel2.astype(dtype).astype(jnp.float32), bias2
        statistics = _second_statistics(padded, between, count, conv2_seen, conv3)
    else:
        statistics = stored3
    kernel3, bias3 = _folded(conv3, norms[1], statistics, epsilon)
    kernel4, bias4 = conv4
    # Outside the loop, which would copy them at every step.
    kernel3_whole, kernel3_local = kernel3[:second], kernel3[second:]

    def token(points: jax.Array) -> jax.Array:
        local, whole = half(hidden(points))
        local = product(local, kernel3_local).reshape(chunk, size, -1)
        whole = product(whole, kernel3_whole) + bias3[None]
        x = product(jax.nn.relu(local + whole[:, None]).reshape(chunk * size, -1), kernel4)
        return x.reshape(chunk, size, -1).max(1) + bias4[None]

    return jax.lax.map(token, padded).reshape(chunks * chunk, -1)[:count]


def in_small_chunks(groups: jax.Array, layers: tuple, norms: tuple, **options: Any) -> jax.Array:
    """Chunks that stay in a CPU's cache."""
    return in_chunks(groups, layers, norms, at_once=_GROUPS_ON_CPU, **options)


def in_large_chunks(groups: jax.Array, layers: tuple, norms: tuple, **options: Any) -> jax.Array:
    """Chunks that fill an accelerator."""
    return in_chunks(groups, layers, norms, at_once=_GROUPS_ELSEWHERE, **options)


def _second_statistics(
    padded: jax.Array, between: Callable, count: int, conv2: tuple, conv3: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Batch statistics behind the third convolution, without computing it.

    They follow from mean and covariance of what goes in, and these, as far as single points go, from those of what
    goes into the second: it is half as wide, so its second moments cost a quarter. Nothing of either size is kept:
    to write the second's output down and read it again takes as long as to compute it anew. Moments are taken about
    the first chunk's mean, against cancellation.
    """
    chunks, chunk, size, _ = padded.shape
    kernel2, bias2 = conv2
    first, second = kernel2.shape
    about = between(padded[0])[0].reshape(chunk, size, first)[: min(chunk, count)].mean((0, 1))

    def one(total: jax.Array, step: tuple) -> tuple[jax.Array, tuple]:
        points, real = step
        hidden, whole = between(points)
        hidden = (hidden - about[None]).reshape(chunk, size, first) * real[:, None, None]
        flat = hidden.reshape(chunk * size, first)
        return total + jnp.matmul(flat.T, flat, precision=PRECISION), (hidden.mean(1), whole)

    real = (jnp.arange(chunks * chunk) < count).reshape(chunks, chunk).astype(jnp.float32)
    total, (hidden, whole) = jax.lax.scan(one, jnp.zeros((first, first), jnp.float32), (padded, real))
    hidden, whole = hidden.reshape(-1, first)[:count], whole.reshape(-1, second)[:count]
    center = hidden.mean(0)
    covariance = total / (count * size) - center[:, None] * center[None]
    # Between groups everything is in `means`; only the points' own covariance has a part within the groups.
    through = partial(jnp.matmul, precision=PRECISION)
    mean, means = _moments(jnp.concatenate([whole, through(hidden, kernel2)], axis=1))
    covariance = means.at[second:, second:].set(through(kernel2.T, through(covariance, kernel2)))
    mean = mean.at[second:].add(through(about, kernel2) + bias2)
    return _through(*conv3, mean, covariance)
