"""The backbones and the whole of a run (image+points, released variant) as plain statements put together."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import plain
from musc_jax import Config
from musc_jax.data import Sample
from musc_jax.models import PointTransformerConfig, VitConfig
from musc_jax.tokens import normalize_points

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


def point_tokens(
    variables: dict, groups: jax.Array, centers: jax.Array, *, config: PointTransformerConfig, blocks: tuple[int, ...]
) -> jax.Array:
    """(G, K, 3), (G, 3) -> (stages, G, C), statistics of the cloud."""
    params = variables["params"]
    x = plain.group_encoder(groups, checkpoint_names(variables), "cloud")[None]
    positions = jax.nn.gelu(_dense(centers, params["position1"]), approximate=False)
    positions = _dense(positions, params["position2"])[None]
    taps = []
    for i in range(blocks[-1] + 1):
        x = _block(x + positions, params[f"blocks_{i}"], config, config.epsilon)
        if i in blocks:
            taps.append(_norm(x, params["norm"], config.epsilon)[0])
    return jnp.stack(taps)


class Found(NamedTuple):
    """What the run says about N samples."""

    image: np.ndarray
    """(N, M2) patch scores."""
    points: np.ndarray
    """(N, M3) group scores."""
    anomaly_maps: np.ndarray
    """(N, S, S); the point part has passed through 8 bits."""
    pred_scores: np.ndarray


class PlainEval:
    """Jits the JAX statements once; scores samples of one product by each other."""

    def __init__(self, config: Config) -> None:
        config = config.resolved().config
        image, points = config.image_backbone, config.point_backbone
        assert image is not None
        assert points is not None
        assert config.blocks is not None
        self._config, self._image, self._points = config, image, points
        self._image_tokens = jax.jit(partial(image_tokens, config=image.module.config, blocks=config.blocks))
        self._point_tokens = jax.jit(partial(point_tokens, config=points.module.config, blocks=points.blocks))
        self._sample = jax.jit(partial(plain.farthest_points, num=config.grouping.num_groups))
        self._pairs = jax.jit(plain.pair_scores)

    def _image_stages(self, sample: Sample) -> list[np.ndarray]:
        scaled = (sample.image / 255.0 - np.array(self._image.mean)) / np.array(self._image.std)
        tokens = self._image_tokens(self._image.variables["params"], jnp.asarray(scaled[None], jnp.float32))
        return [plain.snamd_grid(stage) for stage in np.asarray(tokens)[:, 0]]

    def _point_stages(self, sample: Sample) -> tuple[list[np.ndarray], tuple]:
        grouping = self._config.grouping
        assert sample.points is not None
        points, valid = normalize_points(sample.points)
        candidates = valid & ((points**2).sum(1) > 1e-3)
        pixels = np.asarray(self._sample(points, candidates=candidates, start=int(valid.argmax())))
        compact, centers = points[valid], (np.cumsum(valid) - 1)[pixels]
        near = plain.tree_neighbors(compact[centers], compact, 2 * grouping.group_size)
        bend = plain.curvature(compact[near[:, 1 : grouping.group_size]], compact[centers])
        groups = plain.expand_groups(compact, near, bend, grouping.group_size, grouping.k_iter)
        at = points[pixels]
        tokens = self._point_tokens(self._points.variables, compact[groups] - at[:, None], at)
        rough = bend >= grouping.curvature_threshold
        return [plain.snamd_points(stage, at, rough) for stage in np.asarray(tokens)], (points, valid, at, pixels)

    def compile_pairs(self, count: int) -> None:
        """Compiles what depends on the number of samples."""
        config, image, points = self._config, self._image.module.config, self._points.module.config
        assert config.image_size is not None
        patches = (config.image_size // image.patch_size) ** 2
        for tokens, width in ((patches, image.width), (config.grouping.num_groups, points.width)):
            self._pairs(np.zeros((count, tokens, width), np.float32))

    def __call__(self, samples: Sequence[Sample]) -> Found:
        """Features sample by sample, then stage by stage the scores, then maps and sample scores."""
        size, interval = self._config.image_size, self._config.scoring.interval
        assert size is not None
        image = np.stack([self._image_stages(sample) for sample in samples], 1)
        clouds, point_stages = [], []
        for sample in samples:
            stages, cloud = self._point_stages(sample)
            point_stages.append(stages)
            clouds.append(cloud)
        points = np.stack(point_stages, 1)
        scores = [np.zeros(image.shape[1:3]), np.zeros(points.shape[1:3])]
        side = round(image.shape[2] ** 0.5)
        for own in zip(image, points, strict=True):
            pairs = [np.asarray(self._pairs(stage)) for stage in own]
            for i, (_, _, _, pixels) in enumerate(clouds):
                two, three = (np.delete(pair[i], i, 0).T for pair in pairs)
                patch = (pixels // size * side // size) * side + pixels % size * side // size
                for total, enhanced in zip(scores, plain.cross_modal_enhancement(two, three, patch), strict=True):
                    kept = max(1, int(enhanced.shape[1] * interval))
                    total[i] += np.sort(enhanced, axis=1)[:, :kept].mean(1) / len(image)
        maps = np.stack(
            [
                plain.image_map(two, size) + plain.point_map(*cloud[:3], three.astype(np.float32), size)
                for two, three, cloud in zip(*scores, clouds, strict=True)
            ]
        )
        every, stage = np.arange(len(samples)), max(0, len(image) - 2)
        salient = [tokens[stage][every, own.argmax(1)] for tokens, own in zip((image, points), scores, strict=True)]
        return Found(*scores, maps, plain.rescore(maps.max((1, 2)), np.concatenate(salient, 1)))
