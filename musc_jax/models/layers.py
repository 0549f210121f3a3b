"""Building blocks of both transformers: norms and attention in float32, products in the compute dtype."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn

from musc_jax.kernels import operation

# Without it, an H100 multiplies float32 as TF32 and a TPU as bfloat16.
PRECISION = jax.lax.Precision.HIGHEST


def exact_gelu(x: jax.Array) -> jax.Array:
    """GELU by the error function: x * Phi(x), as PyTorch states it.

    Flax takes erfc, which keeps the relative error of the negative tail small; on a CPU it takes three times as long,
    and what is added to the residual stream needs the absolute error only.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * np.float32(np.sqrt(0.5))))


def quick_gelu(x: jax.Array) -> jax.Array:
    """OpenAI's approximation of GELU: x * sigmoid(1.702 x)."""
    return x * nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"gelu": exact_gelu, "quick_gelu": quick_gelu}


class LayerNorm(nn.Module):
    """Layer norm over the last axis, in float32 whatever comes in."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., C) to (..., C), float32."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        centered = x - x.mean(-1, keepdims=True)
        normal = centered * jax.lax.rsqrt(jnp.mean(centered**2, -1, keepdims=True) + self.epsilon)
        lead = (1,) * (x.ndim - 1)
        return normal * scale.reshape(*lead, -1) + bias.reshape(*lead, -1)


class Dense(nn.Module):
    """x @ kernel + bias, multiplied in `dtype`, returned in float32."""

    features: int
    use_bias: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., inputs) to (..., features), float32."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features), jnp.float32)
        y = jnp.matmul(
            x.astype(self.dtype), kernel.astype(self.dtype), precision=PRECISION, preferred_element_type=jnp.float32
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
        return y


@operation("attention")
def attention(q: jax.Array, k: jax.Array, v: jax.Array, *, dtype: str) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v for (batch, heads, tokens, d), multiplied in `dtype`, float32 out."""
    q, k, v = (x.astype(dtype) for x in (q, k, v))
    product = partial(jnp.matmul, precision=PRECISION, preferred_element_type=jnp.float32)
    weights = nn.softmax(product(q, k.swapaxes(-1, -2)) * (q.shape[-1] ** -0.5))
    return product(weights.astype(dtype), v)


def rotated(x: jax.Array, angles: np.ndarray) -> jax.Array:
    """Queries or keys (batch, heads, tokens, d), each pair of channels i and i + d/2 turned by the token's i-th angle.

    Args:
        x: float32.
        angles: (n, d/2), of the last n tokens. Those before, class token and registers, stay as they are.
    """
    front = np.zeros((x.shape[-2] - len(angles), angles.shape[-1]))
    angles = np.concatenate([front, angles])
    cosine, sine = (f(angles).astype(np.float32)[None, None] for f in (np.cos, np.sin))
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    Attributes:
        heads, mlp_width: Attention heads, hidden channels of the MLP.
        norm_epsilon: Of both norms.
        activation: Between the two layers of the MLP.
        gated: Whether the MLP is SwiGLU, fc2(silu(gate(x)) * fc1(x)), which has no other activation.
        layer_scale: Whether each branch is scaled per channel.
        qkv_bias: Whether queries, keys and values have a bias.
        dtype: Operands of the products.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.
    """

    heads: int
    mlp_width: int
    norm_epsilon: float
    activation: Callable[[jax.Array], jax.Array] = exact_gelu
    gated: bool = False
    layer_scale: bool = False
    qkv_bias: bool = True
    dtype: str = "float32"
    implementation: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, angles: np.ndarray | None = None) -> jax.Array:
        """(batch, tokens, width) to the same; `angles` as in `rotated`."""
        width = x.shape[-1]
        qkv = Dense(3 * width, use_bias=self.qkv_bias, dtype=self.dtype, name="qkv")(
            LayerNorm(self.norm_epsilon, name="norm1")(x)
        )
        q, k, v = rearrange(qkv, "b m (part h d) -> part b h m d", part=3, h=self.heads)
        if angles is not None:
            q, k = rotated(q, angles), rotated(k, angles)
        mixed = attention(q, k, v, dtype=self.dtype, implementation=self.implementation)
        mixed = rearrange(mixed, "b h m d -> b m (h d)")
        mixed = Dense(width, dtype=self.dtype, name="proj")(mixed)
        x = x + self._scaled(mixed, "scale1")
        normal = LayerNorm(self.norm_epsilon, name="norm2")(x)
        hidden = Dense(self.mlp_width, dtype=self.dtype, name="fc1")(normal)
        if self.gated:
            hidden = nn.silu(Dense(self.mlp_width, dtype=self.dtype, name="gate")(normal)) * hidden
        else:
            hidden = self.activation(hidden)
        hidden = Dense(width, dtype=self.dtype, name="fc2")(hidden)
        return x + self._scaled(hidden, "scale2")

    def _scaled(self, x: jax.Array, name: str) -> jax.Array:
        if not self.layer_scale:
            return x
        return x * self.param(name, nn.initializers.ones, (x.shape[-1],), jnp.float32)[None, None]
