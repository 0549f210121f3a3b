"""The two backbones against the same mathematics without the tricks, random weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import weights
from benchmarks import plain
from musc_jax.models.point_transformer import GroupEncoder

Case = tuple[Callable[[], Any], Callable[[], Any]]
HIGHEST = jax.lax.Precision.HIGHEST


def points() -> Case:
    """The mini-PointNet on 1024 groups of 128 points, stored statistics: split and in chunks, or all at once."""
    backbone = weights.load("random", "point_mae")
    groups = jnp.asarray(np.random.default_rng(0).normal(0, 0.05, (1024, 128, 3)), jnp.float32)
    variables = {kind: values["encoder"] for kind, values in backbone.variables.items()}
    encode = jax.jit(GroupEncoder(backbone.module.config).apply, static_argnums=2)
    names = {
        "conv1": "encoder.first_conv.0",
        "conv2": "encoder.first_conv.3",
        "conv3": "encoder.second_conv.0",
        "conv4": "encoder.second_conv.3",
    }
    norms = {"conv1": "encoder.first_conv.1", "conv3": "encoder.second_conv.1"}
    p = {}
    for ours, name in names.items():
        own = variables["params"][ours]
        p[f"{name}.weight"], p[f"{name}.bias"] = own["kernel"].T[..., None], own["bias"]
        if ours in norms:
            statistics, norm = variables["batch_stats"][ours], norms[ours]
            p[f"{norm}.weight"], p[f"{norm}.bias"] = own["norm_scale"], own["norm_bias"]
            p[f"{norm}.running_mean"], p[f"{norm}.running_var"] = statistics["mean"], statistics["var"]
    straightforward = jax.jit(plain.group_encoder)
    return lambda: encode(variables, groups, "checkpoint"), lambda: straightforward(groups, p)


def image() -> Case:
    """ViT-B/8 at 224: against the same parameters, attention as one einsum with the heads in the third place."""
    backbone = weights.load("random", "dino_vitb8")
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 224, 224, 3)), jnp.float32)
    apply = jax.jit(backbone.module.apply, static_argnames="blocks")
    params, config = backbone.variables["params"], backbone.module.config

    def norm(x: jax.Array, p: dict) -> jax.Array:
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + config.norm_epsilon)
        return x * p["scale"] + p["bias"]

    def dense(x: jax.Array, p: dict) -> jax.Array:
        return jnp.matmul(x, p["kernel"], precision=HIGHEST) + p["bias"]

    @jax.jit
    def straightforward(params: dict, images: jax.Array) -> jax.Array:
        patches = images.reshape(1, 28, 8, 28, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(1, 784, 192)
        x = jnp.concatenate([params["class_token"][None, None], dense(patches, params["patch_embedding"])], 1)
        x = x + params["position_embedding"]
        taps = []
        for i in range(config.depth):
            p = params[f"blocks_{i}"]
            qkv = dense(norm(x, p["norm1"]), p["qkv"]).reshape(1, 785, 3, config.heads, -1)
            q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
            scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, precision=HIGHEST) / np.sqrt(q.shape[-1])
            mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v, precision=HIGHEST)
            x = x + dense(mixed.reshape(x.shape), p["proj"])
            hidden = jax.nn.gelu(dense(norm(x, p["norm2"]), p["fc1"]), approximate=False)
            x = x + dense(hidden, p["fc2"])
            if i in (3, 7, 11):
                taps.append(norm(x, params["norm"])[:, 1:])
        return jnp.stack(taps)

    return lambda: apply(backbone.variables, images, blocks=(3, 7, 11)), lambda: straightforward(params, images)
