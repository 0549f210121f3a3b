"""Attention for a platform (operation `attention`)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

PRECISION = jax.lax.Precision.HIGHEST


def head_by_head(q: jax.Array, k: jax.Array, v: jax.Array, *, dtype: str) -> jax.Array:
    """On a CPU: the scores of one head stay in the cache.

    Nine times faster than the batched product that `jax.nn.dot_product_attention` becomes there. Keys are rows, so that
    the maxima over them are taken lane by lane, and a column of ones beside the values gives the sums that the result
    is divided by: two passes over the scores less.
    """

    def one(head: tuple[jax.Array, ...]) -> jax.Array:
        q, k, v = head
        q = q * (q.shape[-1] ** -0.5)
        v = jnp.pad(v, ((0, 0), (0, 1)), constant_values=1)
        q, k, v = (x.astype(dtype) for x in (q, k, v))
        scores = jnp.matmul(k, q.T, precision=PRECISION, preferred_element_type=jnp.float32)
        weights = jnp.exp(scores - scores.max(0, keepdims=True)).astype(dtype)
        out = jnp.matmul(v.T, weights, precision=PRECISION, preferred_element_type=jnp.float32)
        return (out[:-1] / out[-1:]).T

    heads = tuple(x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
    return jax.lax.map(one, heads).reshape(q.shape)


def fused_where_taken(q: jax.Array, k: jax.Array, v: jax.Array, *, dtype: str) -> jax.Array:
    """On NVIDIA: half precision goes to cuDNN's fused kernel, where cuDNN takes it.

    Whether it does is asked of this machine, so a program exported for cuda where there is no cuDNN has plain products.
    Where there is, half precision exports for one platform at a time: JAX lowers cuDNN's call for no other.
    """

    def fused(*heads: jax.Array) -> jax.Array:
        moved = (x.astype(dtype).swapaxes(1, 2) for x in heads)
        out = jax.nn.dot_product_attention(*moved, implementation="cudnn")
        return out.swapaxes(1, 2).astype(jnp.float32)

    if dtype != "float32" and _is_taken(fused, q, k, v):
        return fused(q, k, v)
    return all_heads(q, k, v, dtype=dtype)


def all_heads(q: jax.Array, k: jax.Array, v: jax.Array, *, dtype: str) -> jax.Array:
    """All heads in one product."""
    q, k, v = (x.astype(dtype) for x in (q, k, v))
    scores = jnp.matmul(q, k.swapaxes(-1, -2), precision=PRECISION, preferred_element_type=jnp.float32)
    weights = nn.softmax(scores * (q.shape[-1] ** -0.5))
    return jnp.matmul(weights.astype(dtype), v, precision=PRECISION, preferred_element_type=jnp.float32)


def _is_taken(form: object, *arrays: jax.Array) -> bool:
    """Whether a form can be traced here: cuDNN is found and has a kernel for these shapes on this device."""
    try:
        jax.eval_shape(form, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays))  # type: ignore[arg-type]
    except (RuntimeError, ValueError):  # no cuDNN, head sizes or a version that it does not take
        return False
    return True
