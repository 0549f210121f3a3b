"""One Vision Transformer that is DINO, DINOv2, DINOv3, TIPSv2 or CLIP's image tower, for inference."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jaxtyping import Float

from musc_jax.models.layers import ACTIVATIONS, Block, Dense, LayerNorm
from musc_jax.models.positions import interpolate_positions, rotary_angles


@dataclasses.dataclass(frozen=True)
class VitConfig:
    """What tells one Vision Transformer from another.

    Attributes:
        width, depth, heads, mlp_width: Channels, blocks, attention heads, hidden channels of the MLP.
        patch_size: Side of a patch in pixels.
        native_grid: Side of the patch grid the position embedding was trained for.
        norm_epsilon: Of every layer norm.
        activation: "gelu" (exact) or "quick_gelu".
        patch_bias: Whether the patch projection has a bias (CLIP's has none).
        layer_scale: Whether each branch is scaled per channel (DINOv2).
        gated: Whether the MLP is SwiGLU (DINOv3's S+ and H+).
        num_registers: Register tokens between class token and patches (DINOv2 with registers, DINOv3).
        pre_norm: Whether embeddings are normalised before the first block, and tokens are taken raw (CLIP).
        projection: Channels of the projected image embedding (CLIP); 0 for none.
        interpolation: Rule for position embeddings of other sizes, see `interpolate_positions`; "rotary" for a model
            that has none and turns queries and keys instead (DINOv3), for which `native_grid` says nothing.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    patch_size: int = 8
    native_grid: int = 28
    norm_epsilon: float = 1e-6
    activation: str = "gelu"
    patch_bias: bool = True
    layer_scale: bool = False
    num_registers: int = 0
    pre_norm: bool = False
    projection: int = 0
    interpolation: str = "offset"
    gated: bool = False


class VisionTransformer(nn.Module):
    """Images to the tokens of chosen blocks.

    Attributes:
        config: The architecture.
        dtype: Operands of the products; residual stream, norms and softmax are float32 in any case.
        implementation: One of `musc_jax.kernels.IMPLEMENTATIONS`.
    """

    config: VitConfig
    dtype: str = "float32"
    implementation: str = "auto"

    @nn.compact
    def __call__(
        self,
        images: Float[jax.Array | np.ndarray, "batch height width 3"],
        *,
        blocks: Sequence[int],
        embedding: bool = False,
    ) -> tuple:
        """Runs the blocks up to the last one asked for.

        Args:
            images: Normalised images; sides multiples of the patch size.
            blocks: 0-based blocks, rising.
            embedding: Also return the image embedding; all blocks are run then.

        Returns:
            For each of `blocks` its patch tokens (batch, patches, width) in row order, float32, class token and
            registers dropped. They pass through the final norm; CLIP's are the raw outputs. With
            `embedding`, (tokens, image embedding): the class token after the final norm and, with CLIP, the projection.

        Raises:
            ValueError: Sides that are no multiples of the patch size, blocks that do not exist or do not rise.
        """
        c = self.config
        _, height, width, _ = images.shape
        if height % c.patch_size or width % c.patch_size:
            raise ValueError(
                f"images: expected sides that are multiples of {c.patch_size}, received {height} x {width}"
            )
        blocks = tuple(blocks)
        if list(blocks) != sorted(set(blocks)) or not blocks or blocks[0] < 0 or blocks[-1] >= c.depth:
            raise ValueError(f"blocks: expected rising numbers from 0 to {c.depth - 1}, received {blocks}")
        grid = (height // c.patch_size, width // c.patch_size)
        x = self._embed(jnp.asarray(images, jnp.float32), grid)
        angles = rotary_angles(grid, c.width // c.heads) if c.interpolation == "rotary" else None
        final_norm = LayerNorm(c.norm_epsilon, name="norm")
        tokens = []
        for index in range(c.depth if embedding else blocks[-1] + 1):
            x = Block(
                heads=c.heads,
                mlp_width=c.mlp_width,
                norm_epsilon=c.norm_epsilon,
                activation=ACTIVATIONS[c.activation],
                gated=c.gated,
                layer_scale=c.layer_scale,
                dtype=self.dtype,
                implementation=self.implementation,
                name=f"blocks_{index}",
            )(x, angles)
            if index in blocks:
                patches = x[:, 1 + c.num_registers :]
                tokens.append(patches if c.pre_norm else final_norm(patches))
        if not embedding:
            return tuple(tokens)
        summary = final_norm(x[:, 0])
        if c.projection:
            summary = Dense(c.projection, use_bias=False, dtype=self.dtype, name="projection")(summary)
        return tuple(tokens), summary

    def _embed(self, images: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """Patches, class token, positions, registers; CLIP's norm on top."""
        c, p = self.config, self.config.patch_size
        batch = images.shape[0]
        # A convolution whose stride is its size is a product over flattened patches.
        patches = rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=p, q=p)
        x = Dense(c.width, use_bias=c.patch_bias, dtype=self.dtype, name="patch_embedding")(patches)
        init = nn.initializers.normal(0.02)
        if c.interpolation == "rotary":
            class_token = self.param("class_token", init, (c.width,), jnp.float32)
        else:
            positions = self.param("position_embedding", init, (1 + c.native_grid**2, c.width), jnp.float32)
            class_token = self.param("class_token", init, (c.width,), jnp.float32) + positions[0]
            x = x + interpolate_positions(positions[1:], grid, rule=c.interpolation)[None]
        front = [class_token[None]]
        if c.num_registers:
            front.append(self.param("registers", init, (c.num_registers, c.width), jnp.float32))
        front = [jnp.broadcast_to(t[None], (batch, *t.shape)) for t in front]
        x = jnp.concatenate([*front, x], axis=1)
        return LayerNorm(c.norm_epsilon, name="pre_norm")(x) if c.pre_norm else x
