"""Conversion as a table: for each parameter of a module, the names it has in a checkpoint and how it is turned.

Checked both ways: every parameter must be found with the right shape, and every entry of the checkpoint must be used or
be on the list of what is ignored. All that is wrong comes in one error.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from musc_jax.models import PointTransformerConfig, VitConfig
from weights.errors import WeightsError

_LISTED = 12

# Entries that have no counterpart here. An entry that matches nothing and is not listed is an error.
IGNORED = re.compile(
    r"(^|\.)("
    r"num_batches_tracked|pooler\..*|mask_token|position_ids|head\..*|heads\..*|fc_norm\..*|classifier\..*"
    r"|logit_scale|logit_bias|text_model\..*|text_projection\..*|text_projection"
    r"|decoder_pos_embed\..*|MAE_decoder\..*|increase_dim\..*|optimizer\..*|lm_head\..*"
    r")$"
)


class Rule(NamedTuple):
    """One parameter: where it goes, which entries it is made of, and how."""

    target: str
    sources: tuple[str, ...]
    transform: Callable[..., np.ndarray]


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1)


def _rows(x: np.ndarray) -> np.ndarray:
    """(1, T, C) or (T, C) to (T, C)."""
    return x.reshape(x.shape[-2:]) if x.ndim == 3 and x.shape[0] == 1 else x


def _linear(x: np.ndarray) -> np.ndarray:
    """(out, in) to (in, out)."""
    return x.T


def _pointwise(x: np.ndarray) -> np.ndarray:
    """A convolution of width 1, (out, in, 1), to (in, out)."""
    return x[..., 0].T if x.ndim == 3 and x.shape[2] == 1 else x


def _patches(x: np.ndarray) -> np.ndarray:
    """(out, 3, p, p) to (p * p * 3, out): rows, columns, colours, as patches are flattened."""
    return x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0])


def _joined_linear(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate([part.T for part in parts], axis=1)


def _joined(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)


def _norm(target: str, source: str) -> list[Rule]:
    return [
        Rule(f"{target}/scale", (f"{source}.weight",), _same),
        Rule(f"{target}/bias", (f"{source}.bias",), _same),
    ]


def _dense(target: str, source: str) -> list[Rule]:
    return [
        Rule(f"{target}/kernel", (f"{source}.weight",), _linear),
        Rule(f"{target}/bias", (f"{source}.bias",), _same),
    ]


def _separate_qkv(target: str, query: str, key: str, value: str) -> list[Rule]:
    names = (query, key, value)
    return [
        Rule(f"{target}/kernel", tuple(f"{n}.weight" for n in names), _joined_linear),
        Rule(f"{target}/bias", tuple(f"{n}.bias" for n in names), _joined),
    ]


def _transformers_dino(c: VitConfig) -> list[Rule]:
    """ViTModel, Dinov2Model and Dinov2WithRegistersModel of transformers."""
    e = "embeddings."
    rules = [
        Rule("class_token", (f"{e}cls_token",), _flat),
        Rule("position_embedding", (f"{e}position_embeddings",), _rows),
        Rule("patch_embedding/kernel", (f"{e}patch_embeddings.projection.weight",), _patches),
        Rule("patch_embedding/bias", (f"{e}patch_embeddings.projection.bias",), _same),
        *_norm("norm", "layernorm"),
    ]
    if c.num_registers:
        rules.append(Rule("registers", (f"{e}register_tokens",), _rows))
    for i in range(c.depth):
        b, layer = f"blocks_{i}/", f"encoder.layer.{i}."
        a = f"{layer}attention.attention."
        rules += _separate_qkv(f"{b}qkv", f"{a}query", f"{a}key", f"{a}value")
        rules += _dense(f"{b}proj", f"{layer}attention.output.dense")
        if c.layer_scale:
            rules += _norm(f"{b}norm1", f"{layer}norm1") + _norm(f"{b}norm2", f"{layer}norm2")
            rules += _dense(f"{b}fc1", f"{layer}mlp.fc1") + _dense(f"{b}fc2", f"{layer}mlp.fc2")
            rules += [Rule(f"{b}scale{n}", (f"{layer}layer_scale{n}.lambda1",), _same) for n in (1, 2)]
        else:
            rules += _norm(f"{b}norm1", f"{layer}layernorm_before") + _norm(f"{b}norm2", f"{layer}layernorm_after")
            rules += _dense(f"{b}fc1", f"{layer}intermediate.dense") + _dense(f"{b}fc2", f"{layer}output.dense")
    return rules


def _original_dino(c: VitConfig) -> list[Rule]:
    """DINO's and DINOv2's own names, which timm keeps."""
    rules = [
        Rule("class_token", ("cls_token",), _flat),
        Rule("position_embedding", ("pos_embed",), _rows),
        Rule("patch_embedding/kernel", ("patch_embed.proj.weight",), _patches),
        Rule("patch_embedding/bias", ("patch_embed.proj.bias",), _same),
        *_norm("norm", "norm"),
    ]
    if c.num_registers:
        rules.append(Rule("registers", ("register_tokens",), _rows))
    for i in range(c.depth):
        b, layer = f"blocks_{i}/", f"blocks.{i}."
        rules += _norm(f"{b}norm1", f"{layer}norm1") + _norm(f"{b}norm2", f"{layer}norm2")
        rules += _dense(f"{b}qkv", f"{layer}attn.qkv") + _dense(f"{b}proj", f"{layer}attn.proj")
        rules += _dense(f"{b}fc1", f"{layer}mlp.fc1") + _dense(f"{b}fc2", f"{layer}mlp.fc2")
        if c.layer_scale:
            rules += [Rule(f"{b}scale{n}", (f"{layer}ls{n}.gamma",), _same) for n in (1, 2)]
    return rules


def _transformers_clip(c: VitConfig) -> list[Rule]:
    """CLIPModel, CLIPVisionModel and CLIPVisionModelWithProjection of transformers."""
    e = "embeddings."
    rules = [
        Rule("class_token", (f"{e}class_embedding",), _flat),
        Rule("position_embedding", (f"{e}position_embedding.weight",), _rows),
        Rule("patch_embedding/kernel", (f"{e}patch_embedding.weight",), _patches),
        *_norm("pre_norm", "pre_layrnorm"),
        *_norm("norm", "post_layernorm"),
    ]
    if c.projection:
        rules.append(Rule("projection/kernel", ("visual_projection.weight",), _linear))
    for i in range(c.depth):
        b, layer = f"blocks_{i}/", f"encoder.layers.{i}."
        a = f"{layer}self_attn."
        rules += _norm(f"{b}norm1", f"{layer}layer_norm1") + _norm(f"{b}norm2", f"{layer}layer_norm2")
        rules += _separate_qkv(f"{b}qkv", f"{a}q_proj", f"{a}k_proj", f"{a}v_proj")
        rules += _dense(f"{b}proj", f"{a}out_proj")
        rules += _dense(f"{b}fc1", f"{layer}mlp.fc1") + _dense(f"{b}fc2", f"{layer}mlp.fc2")
    return rules


def _point_mae(c: PointTransformerConfig) -> list[Rule]:
    """Point-MAE's own names, below MAE_encoder."""
    rules = [
        *_dense("position1", "pos_embed.0"),
        *_dense("position2", "pos_embed.2"),
        *_norm("norm", "norm"),
    ]
    convolutions = (
        ("conv1", "first_conv.0"),
        ("conv2", "first_conv.3"),
        ("conv3", "second_conv.0"),
        ("conv4", "second_conv.3"),
    )
    for target, source in convolutions:
        rules.append(Rule(f"encoder/{target}/kernel", (f"encoder.{source}.weight",), _pointwise))
        rules.append(Rule(f"encoder/{target}/bias", (f"encoder.{source}.bias",), _same))
    for target, source in (("conv1", "first_conv.1"), ("conv3", "second_conv.1")):
        rules += [
            Rule(f"encoder/{target}/norm_scale", (f"encoder.{source}.weight",), _same),
            Rule(f"encoder/{target}/norm_bias", (f"encoder.{source}.bias",), _same),
            Rule(f"batch_stats/encoder/{target}/mean", (f"encoder.{source}.running_mean",), _same),
            Rule(f"batch_stats/encoder/{target}/var", (f"encoder.{source}.running_var",), _same),
        ]
    for i in range(c.depth):
        b, layer = f"blocks_{i}/", f"blocks.blocks.{i}."
        rules += _norm(f"{b}norm1", f"{layer}norm1") + _norm(f"{b}norm2", f"{layer}norm2")
        rules.append(Rule(f"{b}qkv/kernel", (f"{layer}attn.qkv.weight",), _linear))
        rules += _dense(f"{b}proj", f"{layer}attn.proj")
        rules += _dense(f"{b}fc1", f"{layer}mlp.fc1") + _dense(f"{b}fc2", f"{layer}mlp.fc2")
    return rules


# family -> naming schemes: an entry that only this scheme has, and its rules.
_SCHEMES: dict[str, list[tuple[str, Callable]]] = {
    "dino": [("embeddings.cls_token", _transformers_dino), ("cls_token", _original_dino)],
    "dinov2": [("embeddings.cls_token", _transformers_dino), ("cls_token", _original_dino)],
    "clip": [("embeddings.class_embedding", _transformers_clip)],
    "point_mae": [("encoder.first_conv.0.weight", _point_mae)],
}
_PREFIXES = (
    "module.",
    "base_model.",
    "MAE_encoder.",
    "vision_model.",
    "vit.",
    "dinov2.",
    "dinov2_with_registers.",
    "model.",
)


def strip_prefixes(name: str) -> str:
    """A name without what wrappers put in front of it, in any order."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name, stripped = name[len(prefix) :], True
    return name


def looks_like(names: set[str]) -> str | None:
    """The family whose naming a set of stripped names follows, for a helpful message."""
    if "embeddings.class_embedding" in names:
        return "clip"
    if "encoder.first_conv.0.weight" in names:
        return "point_mae"
    if {"encoder.layer.0.layer_scale1.lambda1", "blocks.0.ls1.gamma"} & names:
        return "dinov2"
    if {"embeddings.cls_token", "cls_token"} & names:
        return "dino"
    return None


def rules_for(family: str, config: VitConfig | PointTransformerConfig, names: set[str], file: str) -> list[Rule]:
    """The rules of the naming scheme that a checkpoint follows.

    Raises:
        WeightsError: It follows none of the family's; says which family it looks like.
    """
    for marker, rules in _SCHEMES[family]:
        if marker in names:
            return rules(config)
    other = looks_like(names)
    hint = f"it looks like {other}" if other and other != family else f"first entries: {', '.join(sorted(names)[:4])}"
    raise WeightsError(f"{file}: no {family} checkpoint ({hint}); pass the file of the backbone named by --backbone")


def convert(
    tensors: Mapping[str, np.ndarray],
    rules: list[Rule],
    shapes: Mapping[str, tuple[int, ...]],
    file: str,
) -> dict[str, np.ndarray]:
    """Turns a checkpoint's entries into parameters.

    Args:
        tensors: Entries by stripped name.
        rules: One for each parameter.
        shapes: Expected shape by parameter path.
        file: For the message.

    Returns:
        float32 arrays by parameter path.

    Raises:
        WeightsError: Lists every missing, unexpected and misshapen entry, and those that hold NaN or infinity.
    """
    missing, misshapen, broken, used = [], [], [], set()
    out: dict[str, np.ndarray] = {}
    for rule in rules:
        used |= set(rule.sources)
        absent = [name for name in rule.sources if name not in tensors]
        if absent:
            missing += absent
            continue
        parts = [tensors[name] for name in rule.sources]
        try:
            value = rule.transform(*parts)
        except ValueError:
            value = None
        if value is None or value.shape != shapes[rule.target]:
            received = ", ".join(str(part.shape) for part in parts)
            misshapen.append(f"{' + '.join(rule.sources)} {received} for {rule.target} {shapes[rule.target]}")
        elif not np.issubdtype(value.dtype, np.floating) and value.dtype.name != "bfloat16":
            misshapen.append(f"{rule.sources[0]} of type {value.dtype}")
        else:
            out[rule.target] = np.ascontiguousarray(value, np.float32)
            if not np.isfinite(out[rule.target]).all():
                broken.append(rule.sources[0])
    unexpected = [name for name in tensors if name not in used and not IGNORED.search(name)]
    problems = [
        f"{len(found)} {kind} ({'; '.join(sorted(found)[:_LISTED])}{'; ...' if len(found) > _LISTED else ''})"
        for kind, found in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
            ("not finite", broken),
        )
        if found
    ]
    if problems:
        raise WeightsError(f"{file}: does not fit this backbone: {', '.join(problems)}")
    unfilled = set(shapes) - set(out)
    assert not unfilled, f"the table has no rule for {sorted(unfilled)}"
    return out
