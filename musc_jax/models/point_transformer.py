"""The Point-MAE encoder, for inference: point groups to the tokens of chosen blocks."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from musc_jax.models.layers import PRECISION, Block, Dense, LayerNorm, exact_gelu

# So many groups stay in a CPU's cache with all their channels; all 1024 at once would be 270 MB a layer. With 16 the
# products' scratch memory grows beyond what the C library keeps between two of them: a third slower where that happens,
# no faster where it does not.
_GROUPS_AT_ONCE = 8


@dataclasses.dataclass(frozen=True)
class PointTransformerConfig:
    """Sizes of the encoder.

    Attributes:
        width, depth, heads, mlp_width: Of the transformer.
        conv_widths: Channels after the first three of the mini-PointNet's four convolutions; the last gives `width`.
        position_width: Hidden channels of the position embedding.
        epsilon: Of layer and batch norms.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_width: int = 1536
    conv_widths: tuple[int, int, int] = (128, 256, 512)
    position_width: int = 128
    epsilon: float = 1e-5


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

    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """Kernel and bias."""
        return self.kernel, self.bias

    def stored(self) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of the checkpoint."""
        return self.mean.value, self.var.value

    def folded(self, mean: jax.Array, var: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
        """Kernel and bias with a batch norm of these statistics folded in."""
        factor = self.scale * jax.lax.rsqrt(var + epsilon)
        return self.kernel * factor[None], (self.bias - mean) * factor + self.shift


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean (C,) and biased covariance (C, C) of the rows of x."""
    mean = x.mean(0)
    centered = x - mean[None]
    return mean, jnp.matmul(centered.T, centered, precision=PRECISION) / len(x)


def _through(kernel: jax.Array, bias: jax.Array, mean: jax.Array, cov: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of each channel of x @ kernel + bias, from those of x."""
    out = jnp.matmul(mean, kernel, precision=PRECISION) + bias
    return out, jnp.sum(kernel * jnp.matmul(cov, kernel, precision=PRECISION), axis=0)


class GroupEncoder(nn.Module):
    """The mini-PointNet: a group's points to one token.

    Its second half sees [maximum of the group, point]. The first part is the same for all points of a group, so its
    product is made once a group: a quarter of the arithmetic less.
    """

    config: PointTransformerConfig
    dtype: str = "float32"

    @nn.compact
    def __call__(self, groups: jax.Array, point_norm: str) -> jax.Array:
        """(G, K, 3) to (G, width)."""
        c = self.config
        first, second, third = c.conv_widths
        conv1 = Affine(3, first, batch_norm=True, name="conv1")
        conv2 = Affine(first, second, name="conv2")
        conv3 = Affine(2 * second, third, batch_norm=True, name="conv3")
        conv4 = Affine(third, c.width, name="conv4")
        cloud = point_norm == "cloud"

        count, size, _ = groups.shape
        chunk = min(_GROUPS_AT_ONCE, count)
        chunks = -(-count // chunk)
        padded = jnp.pad(groups, ((0, chunks * chunk - count), (0, 0), (0, 0))).reshape(chunks, chunk, size, 3)

        statistics = _through(*conv1(), *_moments(groups.reshape(-1, 3))) if cloud else conv1.stored()
        kernel1, bias1 = conv1.folded(*statistics, c.epsilon)
        kernel2, bias2 = conv2()

        def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.matmul(
                x.astype(self.dtype), kernel.astype(self.dtype), precision=PRECISION, preferred_element_type=jnp.float32
            )

        def hidden(points: jax.Array) -> jax.Array:
            """(chunk * K, first)."""
            return nn.relu(product(points.reshape(-1, 3), kernel1) + bias1[None])

        def half(hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
            """(chunk * K, second) and its maxima (chunk, second)."""
            x = product(hidden, kernel2) + bias2[None]
            return x, x.reshape(chunk, size, -1).max(1)

        def between(points: jax.Array) -> tuple[jax.Array, jax.Array]:
            """What `half` sees, as its product sees it, and the maxima of what it makes of that."""
            x = hidden(points)
            return x.astype(self.dtype).astype(jnp.float32), half(x)[1]

        if cloud:
            conv2_seen = kernel2.astype(self.dtype).astype(jnp.float32), bias2
            statistics = self._second_statistics(padded, between, count, conv2_seen, conv3())
        else:
            statistics = conv3.stored()
        kernel3, bias3 = conv3.folded(*statistics, c.epsilon)
        kernel4, bias4 = conv4()
        # Outside the loop, which would copy them at every step.
        kernel3_whole, kernel3_local = kernel3[:second], kernel3[second:]

        def token(points: jax.Array) -> jax.Array:
            local, whole = half(hidden(points))
            local = product(local, kernel3_local).reshape(chunk, size, -1)
            whole = product(whole, kernel3_whole) + bias3[None]
            x = product(nn.relu(local + whole[:, None]).reshape(chunk * size, -1), kernel4)
            return x.reshape(chunk, size, -1).max(1) + bias4[None]

        return jax.lax.map(token, padded).reshape(chunks * chunk, -1)[:count]

    def _second_statistics(
        self, padded: jax.Array, between: Callable, count: int, conv2: tuple, conv3: tuple[jax.Array, jax.Array]
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


class PointTransformer(nn.Module):
    """Point groups to the tokens of chosen blocks.

    Attributes:
        config: The sizes.
        dtype: Operands of the products; everything else is float32.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.
    """

    config: PointTransformerConfig
    dtype: str = "float32"
    implementation: str = "auto"

    @nn.compact
    def __call__(
        self,
        groups: Float[jax.Array | np.ndarray, "G K 3"],
        centers: Float[jax.Array | np.ndarray, "G 3"],
        *,
        blocks: Sequence[int],
        point_norm: str = "cloud",
    ) -> tuple:
        """Encodes ONE cloud.

        Args:
            groups: Points relative to their group's centre, of a cloud scaled to the unit sphere.
            centers: The centres.
            blocks: 0-based blocks, rising; the last one asked for is the last one run.
            point_norm: "cloud": batch norms use mean and biased variance over all points of this cloud's groups, as the
                released program does, which never leaves training mode. "checkpoint": the stored statistics.

        Returns:
            For each of `blocks` its tokens (G, width) after the final norm, float32.

        Raises:
            ValueError: Wrong shapes, blocks that do not exist or do not rise, an unknown `point_norm`.
        """
        c = self.config
        if np.ndim(groups) != 3 or groups.shape[-1] != 3 or np.shape(centers) != (groups.shape[0], 3):
            raise ValueError(
                f"groups, centers: expected shapes (G, K, 3) and (G, 3), "
                f"received {np.shape(groups)} and {np.shape(centers)}"
            )
        if point_norm not in ("cloud", "checkpoint"):
            raise ValueError(f'point_norm: expected "cloud" or "checkpoint", received {point_norm!r}')
        blocks = tuple(blocks)
        if list(blocks) != sorted(set(blocks)) or not blocks or blocks[0] < 0 or blocks[-1] >= c.depth:
            raise ValueError(f"blocks: expected rising numbers from 0 to {c.depth - 1}, received {blocks}")
        groups, centers = (jnp.asarray(x, jnp.float32) for x in (groups, centers))
        x = GroupEncoder(c, self.dtype, name="encoder")(groups, point_norm)[None]
        positions = Dense(c.position_width, dtype=self.dtype, name="position1")(centers)
        positions = Dense(c.width, dtype=self.dtype, name="position2")(exact_gelu(positions))[None]
        final_norm = LayerNorm(c.epsilon, name="norm")
        tokens = []
        for index in range(blocks[-1] + 1):
            # The position is added again before every block, not once.
            x = Block(
                heads=c.heads,
                mlp_width=c.mlp_width,
                norm_epsilon=c.epsilon,
                qkv_bias=False,
                dtype=self.dtype,
                implementation=self.implementation,
                name=f"blocks_{index}",
            )(x + positions)
            if index in blocks:
                tokens.append(final_norm(x)[0])
        return tuple(tokens)
