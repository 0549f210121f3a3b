"""Naming schemes of DINOv3 and of models built like it: transformers', Meta's own, timm's.

Keys have no bias. A file says so in one of several ways, and each is a scheme of its own, told by an entry of the first
block, so that a bias is there in every block or in none.
"""

from collections.abc import Callable

from musc_jax.models import VitConfig
from weights.rules import (
    FLAT,
    KEYS_MASKED,
    NO_BIAS,
    PATCHES,
    ROWS,
    SAME,
    THREE,
    THREE_LINEAR,
    TWO_OF_THREE,
    Rule,
    Scheme,
    dense,
    norm,
)

# transformers 5.24 calls layers `model.layer`, where `model.` is taken for a wrapper like any other.
_TRANSFORMERS_IGNORED = r"pooler\..*|embeddings\.mask_token|rope_embeddings\..*|classifier\..*"
# The periods are those of every such model. `local_cls_norm` normalised the class token of small crops in training.
_META_IGNORED = r"head\..*|mask_token|rope_embed\.periods|.*\.bias_mask|local_cls_norm\..*"
_TIMM_IGNORED = r"head\..*|fc_norm\..*|mask_token|rope\..*"


def _transformers(bias: Callable[[str], Rule]) -> Callable[[VitConfig], list[Rule]]:
    """DINOv3ViTModel; `bias` makes the rule of a block's qkv/bias from what its attention is called."""

    def rules(c: VitConfig) -> list[Rule]:
        e = "embeddings."
        found = [
            Rule("class_token", (f"{e}cls_token",), FLAT),
            Rule("patch_embedding/kernel", (f"{e}patch_embeddings.weight",), PATCHES),
            Rule("patch_embedding/bias", (f"{e}patch_embeddings.bias",), SAME),
            *norm("norm", "norm"),
        ]
        if c.num_registers:
            found.append(Rule("registers", (f"{e}register_tokens",), ROWS))
        for i in range(c.depth):
            b, layer = f"blocks_{i}/", f"layer.{i}."
            weights = tuple(f"{layer}attention.{part}_proj.weight" for part in "qkv")
            found += norm(f"{b}norm1", f"{layer}norm1") + norm(f"{b}norm2", f"{layer}norm2")
            found.append(Rule(f"{b}qkv/kernel", weights, THREE_LINEAR))
            found.append(bias(f"{layer}attention.")._replace(target=f"{b}qkv/bias"))
            found += dense(f"{b}proj", f"{layer}attention.o_proj")
            found += dense(f"{b}fc1", f"{layer}mlp.up_proj") + dense(f"{b}fc2", f"{layer}mlp.down_proj")
            if c.gated:
                found += dense(f"{b}gate", f"{layer}mlp.gate_proj")
            found += [Rule(f"{b}scale{n}", (f"{layer}layer_scale{n}.lambda1",), SAME) for n in (1, 2)]
        return found

    return rules


def _fused(
    bias: Callable[[str], Rule], *, registers: str, scale: str, gated: tuple[str, str, str]
) -> Callable[[VitConfig], list[Rule]]:
    """Meta's and timm's names, which differ in registers, LayerScale, and a gated MLP's gate, first and last layer."""

    def rules(c: VitConfig) -> list[Rule]:
        found = [
            Rule("class_token", ("cls_token",), FLAT),
            Rule("patch_embedding/kernel", ("patch_embed.proj.weight",), PATCHES),
            Rule("patch_embedding/bias", ("patch_embed.proj.bias",), SAME),
            *norm("norm", "norm"),
        ]
        if c.num_registers:
            found.append(Rule("registers", (registers,), ROWS))
        for i in range(c.depth):
            b, layer = f"blocks_{i}/", f"blocks.{i}."
            gate, first, last = gated if c.gated else ("", "fc1", "fc2")
            found += norm(f"{b}norm1", f"{layer}norm1") + norm(f"{b}norm2", f"{layer}norm2")
            found += dense(f"{b}qkv", f"{layer}attn.qkv")[:1]
            found.append(bias(f"{layer}attn.")._replace(target=f"{b}qkv/bias"))
            found += dense(f"{b}proj", f"{layer}attn.proj")
            found += dense(f"{b}fc1", f"{layer}mlp.{first}") + dense(f"{b}fc2", f"{layer}mlp.{last}")
            if gate:
                found += dense(f"{b}gate", f"{layer}mlp.{gate}")
            found += [Rule(f"{b}scale{n}", (f"{layer}{scale.format(n)}",), SAME) for n in (1, 2)]
        return found

    return rules


def _all(a: str) -> Rule:
    return Rule("", tuple(f"{a}{part}_proj.bias" for part in "qkv"), THREE)


def _no_keys(a: str) -> Rule:
    return Rule("", (f"{a}q_proj.bias", f"{a}v_proj.bias"), TWO_OF_THREE)


def _meta(bias: Callable[[str], Rule]) -> Callable[[VitConfig], list[Rule]]:
    return _fused(bias, registers="storage_tokens", scale="ls{}.gamma", gated=("w1", "w2", "w3"))


def _timm(bias: Callable[[str], Rule]) -> Callable[[VitConfig], list[Rule]]:
    return _fused(bias, registers="reg_token", scale="gamma_{}", gated=("fc1_g", "fc1_x", "fc2"))


_TRANSFORMERS = Scheme(
    name="transformers",
    marker="layer.0.attention.q_proj.bias",
    rules=_transformers(_no_keys),
    blocks="layer.",
    hidden="mlp.up_proj.weight",
    gate="mlp.gate_proj.weight",
    ignored=_TRANSFORMERS_IGNORED,
    patches="embeddings.patch_embeddings.weight",
    registers="embeddings.register_tokens",
)
_META = Scheme(
    name="Meta",
    marker="blocks.0.attn.qkv.bias_mask",
    rules=_meta(lambda a: Rule("", (f"{a}qkv.bias",), KEYS_MASKED)),
    blocks="blocks.",
    hidden="mlp.fc1.weight",
    gate="mlp.w1.weight",
    ignored=_META_IGNORED,
    patches="patch_embed.proj.weight",
    registers="storage_tokens",
)
_TIMM = _META._replace(
    name="timm",
    marker="blocks.0.attn.q_bias",
    rules=_timm(lambda a: Rule("", (f"{a}q_bias", f"{a}v_bias"), TWO_OF_THREE)),
    gate="mlp.fc1_g.weight",
    ignored=_TIMM_IGNORED,
    registers="reg_token",
)

# The first whose marker is there counts.
SCHEMES = (
    _TRANSFORMERS._replace(marker="layer.0.attention.k_proj.bias", rules=_transformers(_all)),
    _TRANSFORMERS,
    _META,
    # Without a mask the keys' part counts as it is; LingBot-Vision's is 0.
    _META._replace(marker="storage_tokens", rules=_meta(lambda a: Rule("", (f"{a}qkv.bias",), SAME))),
    _TIMM,
    _TIMM._replace(marker="blocks.0.gamma_1", rules=_timm(lambda a: Rule("", (f"{a}qkv.weight",), NO_BIAS))),
)
