"""The mini-PointNet of the Point-MAE encoder: the points of a group to one token (paper III-A)."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from musc_jax.kernels import operation
from musc_jax.models.layers import PRECISION


@operation("group_tokens")
def group_tokens(
    groups: Float[jax.Array, "G K 3"],
    layers: tuple[tuple[jax.Array, jax.Array], ...],
    norms: tuple[tuple[jax.Array, ...], ...],
    *,
    point_norm: str,
    epsilon: float,
    dtype: str,
) -> Float[jax.Array, "G width"]:
    """Four layers that all points share, a maximum over each group after the second and the fourth.

    Args:
        groups: Points relative to their group's centre.
        layers: (kernel, bias) of each; the third takes [maximum of the group, point].
        norms: (scale, shift, mean, variance) of the batch norms behind the first and the third.
        point_norm: "cloud": mean and biased variance over all points of all groups; "checkpoint": those given.
        epsilon: Of the batch norms.
        dtype: Operands of the products.
    """
    first, second, third, fourth = layers

    def through(layer: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
        kernel, bias = (array.astype(kind) for array, kind in zip(layer, (dtype, jnp.float32), strict=True))
        product = jnp.matmul(x.astype(dtype), kernel, precision=PRECISION, preferred_element_type=jnp.float32)
        return product + bias[None, None]

    def normalized(norm: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
        scale, shift, mean, var = norm
        if point_norm == "cloud":
            mean, var = x.mean((0, 1)), x.var((0, 1))
        factor = scale * jax.lax.rsqrt(var + epsilon)
        return (x - mean[None, None]) * factor[None, None] + shift[None, None]

    x = through(second, nn.relu(normalized(norms[0], through(first, groups))))
    whole = jnp.broadcast_to(x.max(1, keepdims=True), x.shape)
    x = nn.relu(normalized(norms[1], through(third, jnp.concatenate([whole, x], axis=-1))))
    return through(fourth, x).max(1)


@runtime_checkable
class Sizes(Protocol):
    """What of a `PointTransformerConfig` the encoder has to know."""

    width: int
    conv_widths: tuple[int, int, int]
    epsilon: float


class Affine(nn.Module):
    """A convolution of width 1, with the batch norm behind it where there is one; only holds the parameters."""

    inputs: int
    features: int
    batch_norm: bool = False

    def setup(self) -> None:
        """Declares the parameters; statistics are a collection of their own."""
        self.kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.inputs, self.features), jnp.float32)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        if self.batch_norm:
            self.scale = self.param("norm_scale", nn.initializers.ones, (self.features,), jnp.float32)
            self.shift = self.param("norm_bias", nn.initializers.zeros, (self.features,), jnp.float32)
            self.mean = self.variable("batch_stats", "mean", jnp.zeros, (self.features,), jnp.float32)
            self.var = self.variable("batch_stats", "var", jnp.ones, (self.features,), jnp.float32)

    def layer(self) -> tuple[jax.Array, jax.Array]:
        """Kernel and bias."""
        return self.kernel, self.bias

    def norm(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Scale, shift, and mean and variance of the checkpoint."""
        return self.scale, self.shift, self.mean.value, self.var.value


class GroupEncoder(nn.Module):
    """Holds the parameters of `group_tokens`.

    Attributes:
        config: A `PointTransformerConfig`.
        dtype: Operands of the products; everything else is float32.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.
    """

    config: Sizes
    dtype: str = "float32"
    implementation: str = "auto"

    @nn.compact
    def __call__(self, groups: jax.Array, point_norm: str) -> jax.Array:
        """(G, K, 3) to (G, width)."""
        c = self.config
        first, second, third = c.conv_widths
        convolutions = (
            Affine(3, first, batch_norm=True, name="conv1"),
            Affine(first, second, name="conv2"),
            Affine(2 * second, third, batch_norm=True, name="conv3"),
            Affine(third, c.width, name="conv4"),
        )
        return group_tokens(
            groups,
            tuple(layer.layer() for layer in convolutions),
            tuple(layer.norm() for layer in convolutions if layer.batch_norm),
            implementation=self.implementation,
            point_norm=point_norm,
            epsilon=c.epsilon,
            dtype=self.dtype,
        )
