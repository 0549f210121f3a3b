"""Both transformers: a Vision Transformer of DINO's kind, and the encoder of Point-MAE."""

import numpy as np
from plain_bicubic import naive_positions
from scipy.special import erf


def _dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0)


def _layer_norm(x, p, epsilon):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + epsilon) * p["scale"] + p["bias"]


def _gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def _attention(x, p, heads):
    parts = np.split(_dense(x, p["qkv"]), 3, axis=-1)
    out = []
    for q, k, v in zip(*(np.split(part, heads, axis=-1) for part in parts), strict=True):
        logits = q @ k.T / np.sqrt(q.shape[-1])
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        out.append(weights / weights.sum(-1, keepdims=True) @ v)
    return _dense(np.concatenate(out, axis=-1), p["proj"])


def _block(x, p, heads, epsilon):
    x = x + _attention(_layer_norm(x, p["norm1"], epsilon), p, heads)
    return x + _dense(_gelu(_dense(_layer_norm(x, p["norm2"], epsilon), p["fc1"])), p["fc2"])


def image_tokens(params, image, *, mean, std, patch, heads, blocks, depth, epsilon=1e-6):
    """The tokens of chosen blocks after the final norm, class token dropped; and the class token at the end."""
    pixels = (np.asarray(image, np.float64) / 255 - np.array(mean)) / np.array(std)
    side = len(pixels) // patch
    tiles = [
        pixels[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch].reshape(-1)
        for row in range(side)
        for column in range(side)
    ]
    positions = params["position_embedding"]
    native = round((len(positions) - 1) ** 0.5)
    grid = positions[1:] if side == native else naive_positions(positions[1:], (side, side), 0.1)
    x = np.concatenate(
        [(params["class_token"] + positions[0])[None], _dense(np.stack(tiles), params["patch_embedding"]) + grid]
    )
    tokens = []
    for index in range(depth):
        x = _block(x, params[f"blocks_{index}"], heads, epsilon)
        if index in blocks:
            tokens.append(_layer_norm(x[1:], params["norm"], epsilon))
    return tokens, _layer_norm(x[0], params["norm"], epsilon)


def _batch_norm(x, p, stored, point_norm, epsilon):
    """Of (points, channels): by their own mean and biased variance, or by those of the checkpoint."""
    mean, var = (x.mean(0), x.var(0)) if point_norm == "cloud" else (stored["mean"], stored["var"])
    return (x - mean) / np.sqrt(var + epsilon) * p["norm_scale"] + p["norm_bias"]


def _group_tokens(params, stats, groups, point_norm, epsilon):
    """Mini-PointNet: points to channels, the group's maximum put before each of them, and once more."""
    count, size, _ = groups.shape
    norm = lambda x, name: _batch_norm(x, params[name], stats[name], point_norm, epsilon)  # noqa: E731
    x = norm(_dense(groups.reshape(-1, 3), params["conv1"]), "conv1")
    x = _dense(np.maximum(x, 0), params["conv2"]).reshape(count, size, -1)
    whole = np.repeat(x.max(1, keepdims=True), size, axis=1)
    x = np.concatenate([whole, x], axis=-1).reshape(count * size, -1)
    x = norm(_dense(x, params["conv3"]), "conv3")
    return _dense(np.maximum(x, 0), params["conv4"]).reshape(count, size, -1).max(1)


def point_tokens(params, stats, groups, centers, *, heads, blocks, point_norm, epsilon=1e-5):
    """The tokens of chosen blocks after the final norm; the position is added again before every block."""
    x = _group_tokens(params["encoder"], stats["encoder"], groups, point_norm, epsilon)
    positions = _dense(_gelu(_dense(centers, params["position1"])), params["position2"])
    tokens = []
    for index in range(max(blocks) + 1):
        x = _block(x + positions, params[f"blocks_{index}"], heads, epsilon)
        if index in blocks:
            tokens.append(_layer_norm(x, params["norm"], epsilon))
    return tokens
