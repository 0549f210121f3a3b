"""Naming schemes as tables: for each parameter of a module, the names it has in a checkpoint and how it is turned."""

import re
from collections.abc import Callable

from musc_jax.models import PointTransformerConfig, VitConfig
from weights import rotary_schemes
from weights.rules import (
    FIRST_OF_TWO,
    FLAT,
    LINEAR,
    PATCHES,
    POINTWISE,
    ROWS,
    ROWS_OF_PATCHES,
    SAME,
    SECOND_OF_TWO,
    Rule,
    Scheme,
    Transform,
    dense,
    norm,
    separate_qkv,
)

# Entries that have no counterpart here, by naming scheme. One that is neither used nor listed is an error.
_HEADS = r"head\..*|fc_norm\..*|mask_token"
_TRANSFORMERS = (
    r"(.*\.)?position_ids|pooler\..*|embeddings\.mask_token|classifier\..*|logit_scale|logit_bias"
    r"|text_model\..*|text_projection\..*"
)
_OPENAI_TEXT = (
    r"transformer\..*|token_embedding\.weight|positional_embedding|ln_final\..*|text_projection|logit_scale|logit_bias"
    r"|attn_mask|input_resolution|context_length|vocab_size"
)
_TIPS_TEXT = r"|text_encoder\..*|text_model\..*|temperature(_contrastive)?"
_POINT_MAE_TRAINING = (
    r"(.*\.)?num_batches_tracked|mask_token|decoder_pos_embed\..*|MAE_decoder\..*|increase_dim\..*|optimizer\..*"
)


def _transformers_dino(c: VitConfig) -> list[Rule]:
    """ViTModel, Dinov2Model and Dinov2WithRegistersModel of transformers."""
    e = "embeddings."
    rules = [
        Rule("class_token", (f"{e}cls_token",), FLAT),
        Rule("position_embedding", (f"{e}position_embeddings",), ROWS),
        Rule("patch_embedding/kernel", (f"{e}patch_embeddings.projection.weight",), PATCHES),
        Rule("patch_embedding/bias", (f"{e}patch_embeddings.projection.bias",), SAME),
        *norm("norm", "layernorm"),
    ]
    if c.num_registers:
        rules.append(Rule("registers", (f"{e}register_tokens",), ROWS))
    for i in range(c.depth):
        b, layer = f"blocks_{i}/", f"encoder.layer.{i}."
        a = f"{layer}attention.attention."
        rules += separate_qkv(f"{b}qkv", f"{a}query", f"{a}key", f"{a}value")
        rules += dense(f"{b}proj", f"{layer}attention.output.dense")
        if c.layer_scale:
            first, last = ("up_proj", "down_proj") if c.gated else ("fc1", "fc2")
            rules += norm(f"{b}norm1", f"{layer}norm1") + norm(f"{b}norm2", f"{layer}norm2")
            rules += dense(f"{b}fc1", f"{layer}mlp.{first}") + dense(f"{b}fc2", f"{layer}mlp.{last}")
            if c.gated:
                rules += dense(f"{b}gate", f"{layer}mlp.gate_proj")
            rules += [Rule(f"{b}scale{n}", (f"{layer}layer_scale{n}.lambda1",), SAME) for n in (1, 2)]
        else:
            rules += norm(f"{b}norm1", f"{layer}layernorm_before") + norm(f"{b}norm2", f"{layer}layernorm_after")
            rules += dense(f"{b}fc1", f"{layer}intermediate.dense") + dense(f"{b}fc2", f"{layer}output.dense")
    return rules


# What transformers 5 calls the same in memory, and so in files that torch.save makes of a state_dict().
_RENAMED = (
    (re.compile(r"^(?:encoder\.)?layers?\.(\d+)\."), r"encoder.layer.\1."),
    (re.compile(r"\.attention\.q_proj\."), ".attention.attention.query."),
    (re.compile(r"\.attention\.k_proj\."), ".attention.attention.key."),
    (re.compile(r"\.attention\.v_proj\."), ".attention.attention.value."),
    (re.compile(r"\.attention\.o_proj\."), ".attention.output.dense."),
)
_RENAMED_DINO = (
    *_RENAMED,
    (re.compile(r"\.mlp\.fc1\."), ".intermediate.dense."),
    (re.compile(r"\.mlp\.fc2\."), ".output.dense."),
)


# TIPSv2's own program calls the two layers of an MLP as OpenAI does, or as DINOv2 does.
_RENAMED_TIPS = (
    (re.compile(r"\.mlp\.c_fc\."), ".mlp.fc1."),
    (re.compile(r"\.mlp\.c_proj\."), ".mlp.fc2."),
)


def _renaming(table: tuple[tuple[re.Pattern, str], ...]) -> Callable[[str], str]:
    def rename(name: str) -> str:
        for pattern, replacement in table:
            name = pattern.sub(replacement, name)
        return name

    return rename


def _original_dino(*, registers: str = "register_tokens", positions: Transform = ROWS) -> Callable:
    """DINO's and DINOv2's own names, and timm's, which differ where there are registers."""

    def rules(c: VitConfig) -> list[Rule]:
        found = [
            Rule("class_token", ("cls_token",), FLAT),
            Rule("position_embedding", ("pos_embed",), positions),
            Rule("patch_embedding/kernel", ("patch_embed.proj.weight",), PATCHES),
            Rule("patch_embedding/bias", ("patch_embed.proj.bias",), SAME),
            *norm("norm", "norm"),
        ]
        if c.num_registers:
            found.append(Rule("registers", (registers,), ROWS))
        return found + _fused_blocks(c)

    return rules


def _fused_blocks(c: VitConfig) -> list[Rule]:
    rules: list[Rule] = []
    for i in range(c.depth):
        b, layer = f"blocks_{i}/", f"blocks.{i}."
        rules += norm(f"{b}norm1", f"{layer}norm1") + norm(f"{b}norm2", f"{layer}norm2")
        rules += dense(f"{b}qkv", f"{layer}attn.qkv") + dense(f"{b}proj", f"{layer}attn.proj")
        if c.gated:
            for part, of in (("kernel", "weight"), ("bias", "bias")):
                rules.append(Rule(f"{b}gate/{part}", (f"{layer}mlp.w12.{of}",), FIRST_OF_TWO))
                rules.append(Rule(f"{b}fc1/{part}", (f"{layer}mlp.w12.{of}",), SECOND_OF_TWO))
            rules += dense(f"{b}fc2", f"{layer}mlp.w3")
        else:
            rules += dense(f"{b}fc1", f"{layer}mlp.fc1") + dense(f"{b}fc2", f"{layer}mlp.fc2")
        if c.layer_scale:
            rules += [Rule(f"{b}scale{n}", (f"{layer}ls{n}.gamma",), SAME) for n in (1, 2)]
    return rules


def _timm_clip(c: VitConfig) -> list[Rule]:
    rules = [
        Rule("class_token", ("cls_token",), FLAT),
        Rule("position_embedding", ("pos_embed",), ROWS),
        Rule("patch_embedding/kernel", ("patch_embed.proj.weight",), PATCHES),
        *norm("pre_norm", "norm_pre"),
        *norm("norm", "norm"),
        *_fused_blocks(c),
    ]
    if c.projection:
        rules.append(Rule("projection/kernel", ("head.weight",), LINEAR))
    return rules


def _transformers_clip(c: VitConfig) -> list[Rule]:
    """CLIPModel, CLIPVisionModel and CLIPVisionModelWithProjection of transformers."""
    e = "embeddings."
    rules = [
        Rule("class_token", (f"{e}class_embedding",), FLAT),
        Rule("position_embedding", (f"{e}position_embedding.weight",), ROWS),
        Rule("patch_embedding/kernel", (f"{e}patch_embedding.weight",), PATCHES),
        *norm("pre_norm", "pre_layrnorm"),
        *norm("norm", "post_layernorm"),
    ]
    if c.projection:
        rules.append(Rule("projection/kernel", ("visual_projection.weight",), LINEAR))
    for i in range(c.depth):
        b, layer = f"blocks_{i}/", f"encoder.layers.{i}."
        a = f"{layer}self_attn."
        rules += norm(f"{b}norm1", f"{layer}layer_norm1") + norm(f"{b}norm2", f"{layer}layer_norm2")
        rules += separate_qkv(f"{b}qkv", f"{a}q_proj", f"{a}k_proj", f"{a}v_proj")
        rules += dense(f"{b}proj", f"{a}out_proj")
        rules += dense(f"{b}fc1", f"{layer}mlp.fc1") + dense(f"{b}fc2", f"{layer}mlp.fc2")
    return rules


def _openai_clip(prefix: str) -> Callable[[VitConfig], list[Rule]]:
    """OpenAI's own names, which OpenCLIP keeps; an image tower saved alone has no prefix."""

    def rules(c: VitConfig) -> list[Rule]:
        found = [
            Rule("class_token", (f"{prefix}class_embedding",), FLAT),
            Rule("position_embedding", (f"{prefix}positional_embedding",), ROWS),
            Rule("patch_embedding/kernel", (f"{prefix}conv1.weight",), PATCHES),
            *norm("pre_norm", f"{prefix}ln_pre"),
            *norm("norm", f"{prefix}ln_post"),
        ]
        if c.projection:
            found.append(Rule("projection/kernel", (f"{prefix}proj",), SAME))
        for i in range(c.depth):
            b, layer = f"blocks_{i}/", f"{prefix}transformer.resblocks.{i}."
            found += norm(f"{b}norm1", f"{layer}ln_1") + norm(f"{b}norm2", f"{layer}ln_2")
            found.append(Rule(f"{b}qkv/kernel", (f"{layer}attn.in_proj_weight",), LINEAR))
            found.append(Rule(f"{b}qkv/bias", (f"{layer}attn.in_proj_bias",), SAME))
            found += dense(f"{b}proj", f"{layer}attn.out_proj")
            found += dense(f"{b}fc1", f"{layer}mlp.c_fc") + dense(f"{b}fc2", f"{layer}mlp.c_proj")
        return found

    return rules


def _point_mae(c: PointTransformerConfig) -> list[Rule]:
    """Point-MAE's own names, below MAE_encoder."""
    rules = [
        *dense("position1", "pos_embed.0"),
        *dense("position2", "pos_embed.2"),
        *norm("norm", "norm"),
    ]
    convolutions = (
        ("conv1", "first_conv.0"),
        ("conv2", "first_conv.3"),
        ("conv3", "second_conv.0"),
        ("conv4", "second_conv.3"),
    )
    for target, source in convolutions:
        rules.append(Rule(f"encoder/{target}/kernel", (f"encoder.{source}.weight",), POINTWISE))
        rules.append(Rule(f"encoder/{target}/bias", (f"encoder.{source}.bias",), SAME))
    for target, source in (("conv1", "first_conv.1"), ("conv3", "second_conv.1")):
        rules += [
            Rule(f"encoder/{target}/norm_scale", (f"encoder.{source}.weight",), SAME),
            Rule(f"encoder/{target}/norm_bias", (f"encoder.{source}.bias",), SAME),
            Rule(f"batch_stats/encoder/{target}/mean", (f"encoder.{source}.running_mean",), SAME),
            Rule(f"batch_stats/encoder/{target}/var", (f"encoder.{source}.running_var",), SAME),
        ]
    for i in range(c.depth):
        b, layer = f"blocks_{i}/", f"blocks.blocks.{i}."
        rules += norm(f"{b}norm1", f"{layer}norm1") + norm(f"{b}norm2", f"{layer}norm2")
        rules.append(Rule(f"{b}qkv/kernel", (f"{layer}attn.qkv.weight",), LINEAR))
        rules += dense(f"{b}proj", f"{layer}attn.proj")
        rules += dense(f"{b}fc1", f"{layer}mlp.fc1") + dense(f"{b}fc2", f"{layer}mlp.fc2")
    return rules


_TRANSFORMERS_DINO = Scheme(
    name="transformers",
    marker="embeddings.cls_token",
    rules=_transformers_dino,
    blocks="encoder.layer.",
    hidden="intermediate.dense.weight",
    ignored=_TRANSFORMERS,
    patches="embeddings.patch_embeddings.projection.weight",
    positions="embeddings.position_embeddings",
    registers="embeddings.register_tokens",
    rename=_renaming(_RENAMED_DINO),
)
_OWN = Scheme(
    name="original or timm",
    marker="cls_token",
    rules=_original_dino(),
    blocks="blocks.",
    hidden="mlp.fc1.weight",
    ignored=_HEADS,
    patches="patch_embed.proj.weight",
    positions="pos_embed",
    registers="register_tokens",
)
_TIMM_REGISTERS = _OWN._replace(
    name="timm",
    marker="reg_token",
    rules=_original_dino(registers="reg_token", positions=ROWS_OF_PATCHES),
    registers="reg_token",
    class_rows=0,
)
_OPENAI = Scheme(
    name="OpenAI",
    marker="visual.class_embedding",
    rules=_openai_clip("visual."),
    blocks="visual.transformer.resblocks.",
    hidden="mlp.c_fc.weight",
    ignored=_OPENAI_TEXT,
    patches="visual.conv1.weight",
    positions="visual.positional_embedding",
    projection="visual.proj",
    projection_axis=1,
)

SCHEMES: dict[str, tuple[Scheme, ...]] = {
    "dinov3": rotary_schemes.SCHEMES,
    "lingbot": rotary_schemes.SCHEMES,
    "dino": (_TRANSFORMERS_DINO, _OWN),
    "dinov2": (
        _TRANSFORMERS_DINO._replace(hidden="mlp.fc1.weight", rename=_renaming(_RENAMED)),
        _TIMM_REGISTERS,
        _OWN,
    ),
    "tipsv2": (
        _TRANSFORMERS_DINO._replace(
            hidden="mlp.fc1.weight",
            gate="mlp.gate_proj.weight",
            rename=_renaming(_RENAMED),
            ignored=_TRANSFORMERS + _TIPS_TEXT,
        ),
        _TIMM_REGISTERS,
        _OWN._replace(
            gate="mlp.w12.weight", gate_parts=2, rename=_renaming(_RENAMED_TIPS), ignored=_HEADS + _TIPS_TEXT
        ),
    ),
    "clip": (
        Scheme(
            name="transformers",
            marker="embeddings.class_embedding",
            rules=_transformers_clip,
            blocks="encoder.layers.",
            hidden="mlp.fc1.weight",
            ignored=_TRANSFORMERS,
            patches="embeddings.patch_embedding.weight",
            positions="embeddings.position_embedding.weight",
            projection="visual_projection.weight",
        ),
        _OPENAI,
        _OPENAI._replace(
            marker="class_embedding",
            rules=_openai_clip(""),
            blocks="transformer.resblocks.",
            ignored="input_resolution",
            patches="conv1.weight",
            positions="positional_embedding",
            projection="proj",
        ),
        _OWN._replace(
            name="timm",
            marker="norm_pre.weight",
            rules=_timm_clip,
            registers="",
            projection="head.weight",
            zero=("head.bias",),
        ),
    ),
    "point_mae": (
        Scheme(
            name="original",
            marker="encoder.first_conv.0.weight",
            rules=_point_mae,
            blocks="blocks.blocks.",
            hidden="mlp.fc1.weight",
            ignored=_POINT_MAE_TRAINING,
        ),
    ),
}

# Families whose files have another family's names, and are told from it by their sizes.
_NAMED_LIKE = {"tipsv2": "dinov2", "lingbot": "dinov3"}


def named_like(family: str) -> str:
    """The family whose names this one's files have; mostly itself."""
    return _NAMED_LIKE.get(family, family)
