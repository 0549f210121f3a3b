"""The image backbone as a plain statement, and the point encoder's parameters for another one."""

from typing import Any

import jax
import jax.numpy as jnp

from musc_jax.models import VitConfig

HIGHEST = jax.lax.Precision.HIGHEST


def _norm(x: jax.Array, p: dict, epsilon: float) -> jax.Array:
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + epsilon) * p["scale"] + p["bias"]


def _dense(x: jax.Array, p: dict) -> jax.Array:
    x = jnp.matmul(x, p["kernel"], precision=HIGHEST)
    return x + p["bias"] if "bias" in p else x


def _block(x: jax.Array, p: dict, config: Any, epsilon: float) -> jax.Array:
    """Attention as one einsum with the heads in the third place."""
    qkv = _dense(_norm(x, p["norm1"], epsilon), p["qkv"]).reshape(*x.shape[:2], 3, config.heads, -1)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, precision=HIGHEST) / q.shape[-1] ** 0.5
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v, precision=HIGHEST)
    x = x + _dense(mixed.reshape(x.shape), p["proj"])
    return x + _dense(jax.nn.gelu(_dense(_norm(x, p["norm2"], epsilon), p["fc1"]), approximate=False), p["fc2"])


def image_tokens(params: dict, images: jax.Array, *, config: VitConfig, blocks: tuple[int, ...]) -> jax.Array:
    """(B, S, S, 3) -> (stages, B, M, C) by DINO's ViT at its native size."""
    count, size, side = images.shape[0], config.patch_size, config.native_grid
    patches = images.reshape(count, side, size, side, size, 3).transpose(0, 1, 3, 2, 4, 5).reshape(count, side**2, -1)
    token = jnp.broadcast_to(params["class_token"], (count, 1, config.width))
    x = jnp.concatenate([token, _dense(patches, params["patch_embedding"])], 1) + params["position_embedding"]
    taps = []
    for i in range(blocks[-1] + 1):
        x = _block(x, params[f"blocks_{i}"], config, config.norm_epsilon)
        if i in blocks:
            taps.append(_norm(x, params["norm"], config.norm_epsilon)[:, 1:])
    return jnp.stack(taps)


def checkpoint_names(variables: dict) -> dict[str, jax.Array]:
    """The mini-PointNet's parameters by the names of the released checkpoint."""
    names = {
        "conv1": ("first_conv.0", "first_conv.1"),
        "conv2": ("first_conv.3", None),
        "conv3": ("second_conv.0", "second_conv.1"),
        "conv4": ("second_conv.3", None),
    }
    named = {}
    for ours, (conv, norm) in names.items():
        own = variables["params"]["encoder"][ours]
        named[f"encoder.{conv}.weight"], named[f"encoder.{conv}.bias"] = own["kernel"].T[..., None], own["bias"]
        if norm:
            statistics, norm = variables["batch_stats"]["encoder"][ours], f"encoder.{norm}"
            named[f"{norm}.weight"], named[f"{norm}.bias"] = own["norm_scale"], own["norm_bias"]
            named[f"{norm}.running_mean"], named[f"{norm}.running_var"] = statistics["mean"], statistics["var"]
    return named
