"""The Point-MAE encoder, for inference: point groups to the tokens of chosen blocks."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from musc_jax.models.group_encoder import GroupEncoder
from musc_jax.models.layers import Block, Dense, LayerNorm, exact_gelu


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
        x = GroupEncoder(c, self.dtype, self.implementation, name="encoder")(groups, point_norm)[None]
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
