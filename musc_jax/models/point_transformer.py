"""The Point-MAE encoder, for inference: point groups to the tokens of chosen blocks."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from musc_jax.models.layers import PRECISION, Block, Dense, LayerNorm, exact_gelu

# So many groups stay in a CPU's cache with all their channels; all 1024 at once would be 270 MB a layer.
_GROUPS_AT_ONCE = 16


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

        def half(points: jax.Array) -> tuple[jax.Array, jax.Array]:
            """(chunk * K, second) and its maxima (chunk, second)."""
            x = product(points.reshape(-1, 3), kernel1) + bias1[None]
            x = product(nn.relu(x), kernel2) + bias2[None]
            return x, x.reshape(chunk, size, -1).max(1)

        statistics = self._second_statistics(padded, half, count, conv3()) if cloud else conv3.stored()
        kernel3, bias3 = conv3.folded(*statistics, c.epsilon)
        kernel4, bias4 = conv4()

        def token(points: jax.Array) -> jax.Array:
            local, whole = half(points)
            local = product(local, kernel3[second:]).reshape(chunk, size, -1)
            whole = product(whole, kernel3[:second]) + bias3[None]
            x = product(nn.relu(local + whole[:, None]).reshape(chunk * size, -1), kernel4)
            return x.reshape(chunk, size, -1).max(1) + bias4[None]

        return jax.lax.map(token, padded).reshape(chunks * chunk, -1)[:count]

    def _second_statistics(
        self, padded: jax.Array, half: Callable, count: int, conv3: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Batch statistics behind the third convolution, without computing it.

        They follow from mean and covariance of what goes in: half the arithmetic of the convolution itself, and
        nothing of its size is kept. Second moments are taken about the first chunk's mean, against cancellation.
        """
        chunks, chunk, size, _ = padded.shape
        about = half(padded[0])[0].reshape(chunk, size, -1)[: min(chunk, count)].mean((0, 1))

        def one(total: jax.Array, step: tuple) -> tuple[jax.Array, tuple]:
            points, real = step
            local, whole = half(points)
            local = (local - about[None]).reshape(chunk, size, -1) * real[:, None, None]
            flat = local.reshape(chunk * size, -1)
            return total + jnp.matmul(flat.T, flat, precision=PRECISION), (local.mean(1), whole)

        real = (jnp.arange(chunks * chunk) < count).reshape(chunks, chunk).astype(jnp.float32)
        width = about.shape[0]
        total, (local, whole) = jax.lax.scan(one, jnp.zeros((width, width), jnp.float32), (padded, real))
        local, whole = (x.reshape(chunks * chunk, width)[:count] for x in (local, whole))
        mean, between = _moments(jnp.concatenate([whole, local], axis=1))
        # Between groups everything is in `between`; only the points' own covariance has a part within the groups.
        own = total / (count * size) - mean[width:, None] * mean[None, width:]
        cov = between.at[width:, width:].set(own)
        mean = mean.at[width:].add(about)
        return _through(*conv3, mean, cov)


class PointTransformer(nn.Module):
    """Point groups to the tokens of chosen blocks.

    Attributes:
        config: The sizes.
        dtype: Operands of the products; everything else is float32.
    """

    config: PointTransformerConfig
    dtype: str = "float32"

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
                name=f"blocks_{index}",
            )(x + positions)
            if index in blocks:
                tokens.append(final_norm(x)[0])
        return tuple(tokens)
