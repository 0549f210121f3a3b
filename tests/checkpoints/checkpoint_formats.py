"""Randomly initialised models of PyTorch, and the files in which such models are passed around.

Everything starts from the names that transformers writes; the other namings are derived from those here, by hand.
"""

import re

import numpy as np

PATCH, NATIVE, WIDTH, DEPTH, HEADS = 14, 112, 32, 3, 2
SETTINGS = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "image_size": NATIVE,
    "patch_size": PATCH,
}
# family -> (backbone, class of transformers, what else its config says)
FAMILIES = {
    "dino": ("dino_vitb8", "ViTModel", {"intermediate_size": 48}),
    "dinov2": ("dinov2_vitb14", "Dinov2Model", {"mlp_ratio": 2}),
    "registers": ("dinov2_vitb14_reg", "Dinov2WithRegistersModel", {"mlp_ratio": 2, "num_register_tokens": 4}),
    "tipsv2": ("tipsv2_vitb14", "Tipsv2VisionModel", {"mlp_ratio": 2}),
    "tipsv2_gated": ("tipsv2_vitg14", "Tipsv2VisionModel", {"mlp_ratio": 2, "use_swiglu_ffn": True}),
    "dinov3": ("dinov3_vitb16", "DINOv3ViTModel", {"intermediate_size": 48, "num_register_tokens": 4}),
    "dinov3_gated": (
        "dinov3_vits16plus",
        "DINOv3ViTModel",
        {
            "intermediate_size": 48,
            "num_register_tokens": 4,
            "use_gated_mlp": True,
            "hidden_act": "silu",
            "key_bias": True,
        },
    ),
    "clip": ("clip_vitl14", "CLIPVisionModelWithProjection", {"intermediate_size": 48, "projection_dim": 24}),
    "openclip": (
        "clip_vitb16_plus_240",
        "CLIPVisionModelWithProjection",
        {"intermediate_size": 48, "projection_dim": 24, "hidden_act": "gelu"},
    ),
    "clip_alone": ("clip_vitl14", "CLIPVisionModel", {"intermediate_size": 48}),
    "clip_whole": ("clip_vitl14", "CLIPModel", {"intermediate_size": 48}),
}


def make(family):
    """A model of transformers, all of its parameters different from each other."""
    import torch
    import transformers

    torch.manual_seed(0)
    _, kind, extra = FAMILIES[family]
    model_type = getattr(transformers, kind)
    if kind == "CLIPModel":
        text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = transformers.CLIPConfig(
            text_config=text | {"vocab_size": 50}, vision_config=SETTINGS | extra, projection_dim=24
        )
    else:
        config = model_type.config_class(**SETTINGS | extra)
    model = model_type(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the usual initialisation leaves much at 0 or 1, where mistakes hide
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def _swap(entries, table, joined):
    """Renames by pattern; `joined` are the entries whose query, key and value become one."""
    out = {}
    for name, value in entries.items():
        if joined.search(name):
            name = joined.sub("QKV", name)
            out[name] = [*out.get(name, []), value]
        else:
            out[name] = value
    out = {name: np.concatenate(value) if isinstance(value, list) else value for name, value in out.items()}
    renamed = {}
    for name, value in out.items():
        for pattern, new in table:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    return renamed


def original_dino(entries):
    """DINO's and DINOv2's own names; timm's are the same but for registers."""
    table = (
        (r"embeddings\.cls_token", "cls_token"),
        (r"embeddings\.mask_token", "mask_token"),
        (r"embeddings\.register_tokens", "register_tokens"),
        (r"embeddings\.position_embeddings", "pos_embed"),
        (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
        (r"encoder\.layer\.", "blocks."),
        (r"attention\.attention\.QKV", "attn.qkv"),
        (r"attention\.output\.dense", "attn.proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"(?<!attn\.)output\.dense", "mlp.fc2"),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        (r"^layernorm", "norm"),
        (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
    )
    entries = {k: v for k, v in entries.items() if not k.startswith("pooler")}
    order = {"query": 0, "key": 1, "value": 2}
    ordered = dict(sorted(entries.items(), key=lambda kv: order.get(kv[0].split(".")[-2], 9)))
    return _swap(ordered, table, re.compile(r"(?<=attention\.attention\.)(query|key|value)"))


def timm_registers(entries):
    """timm's names of a model that transformers has saved."""
    return timm_own_registers(original_dino(entries))


def timm_own_registers(entries):
    """timm adds the class token's position to the class token, and has none for it."""
    out = dict(entries)
    positions, out["reg_token"] = out.pop("pos_embed"), out.pop("register_tokens")
    out.pop("mask_token")
    out["cls_token"] = out["cls_token"] + positions[:, :1]
    out["pos_embed"] = np.ascontiguousarray(positions[:, 1:])
    return out


def _joined_qkv(entries, layer, part):
    """The three of a layer as one; what is not there counts as 0."""
    found = [entries.pop(f"{layer}attention.{one}_proj.{part}", None) for one in "qkv"]
    shape = next(value for value in found if value is not None)
    return np.concatenate([np.zeros_like(shape) if value is None else value for value in found])


def _rotary(entries, table):
    """Names of Meta and of timm that differ in the table alone."""
    common = (
        (r"^embeddings\.(cls_token|mask_token)", r"\1"),
        (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"^layer\.", "blocks."),
        (r"attention\.o_proj", "attn.proj"),
    )
    return _swap(entries, (*common, *table), re.compile("$^"))


def meta_dinov3(entries, *, masked):
    """Meta's names; with a mask the keys' bias, which may be anything, is not looked at."""
    entries, gated = dict(entries), "layer.0.mlp.gate_proj.weight" in entries
    for i in range(DEPTH):
        layer = f"layer.{i}."
        for part in ("weight", "bias"):
            entries[f"{layer}attn.qkv.{part}"] = _joined_qkv(entries, layer, part)
        if masked:
            mask = np.repeat(np.float32([1, 0, 1]), WIDTH)
            entries[f"{layer}attn.qkv.bias"] += 7 * (1 - mask)
            # A mask that nobody has filled in is NaN.
            entries[f"{layer}attn.qkv.bias_mask"] = mask if i else np.full_like(mask, np.nan)
    first, last = ("w2", "w3") if gated else ("fc1", "fc2")
    table = (
        (r"^embeddings\.register_tokens", "storage_tokens"),
        (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
        (r"mlp\.gate_proj", "mlp.w1"),
        (r"mlp\.up_proj", f"mlp.{first}"),
        (r"mlp\.down_proj", f"mlp.{last}"),
    )
    out = _rotary(entries, table)
    return out | {"rope_embed.periods": np.ones(WIDTH // HEADS // 4, np.float32)}


def timm_dinov3(entries):
    """timm's names: queries and values have a bias of their own, or there is none at all."""
    entries, gated = dict(entries), "layer.0.mlp.gate_proj.weight" in entries
    for i in range(DEPTH):
        layer = f"layer.{i}."
        entries[f"{layer}attn.qkv.weight"] = _joined_qkv(entries, layer, "weight")
        for one in "qv":
            if f"{layer}attention.{one}_proj.bias" in entries:
                entries[f"{layer}attn.{one}_bias"] = entries.pop(f"{layer}attention.{one}_proj.bias")
    del entries["embeddings.mask_token"]
    first, last = ("fc1_x", "fc2") if gated else ("fc1", "fc2")
    table = (
        (r"^embeddings\.register_tokens", "reg_token"),
        (r"layer_scale(\d)\.lambda1", r"gamma_\1"),
        (r"mlp\.gate_proj", "mlp.fc1_g"),
        (r"mlp\.up_proj", f"mlp.{first}"),
        (r"mlp\.down_proj", f"mlp.{last}"),
    )
    return _rotary(entries, table)


def openai_clip(entries, prefix="visual."):
    """The names of OpenAI's state dict, which OpenCLIP keeps."""
    entries = {k.removeprefix("vision_model."): v for k, v in entries.items() if not k.endswith("position_ids")}
    table = (
        (r"^embeddings\.class_embedding", "class_embedding"),
        (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"^embeddings\.patch_embedding", "conv1"),
        (r"^pre_layrnorm", "ln_pre"),
        (r"^post_layernorm", "ln_post"),
        (r"encoder\.layers\.", "transformer.resblocks."),
        (r"layer_norm(\d)", r"ln_\1"),
        (r"self_attn\.QKV\.", "attn.in_proj_"),
        (r"self_attn\.out_proj", "attn.out_proj"),
        (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"),
    )
    order = {"q_proj": 0, "k_proj": 1, "v_proj": 2}
    ordered = dict(sorted(entries.items(), key=lambda kv: order.get(kv[0].split(".")[-2], 9)))
    out = _swap(ordered, table, re.compile(r"(?<=self_attn\.)[qkv]_proj"))
    if "visual_projection.weight" in out:
        out["proj"] = np.ascontiguousarray(out.pop("visual_projection.weight").T)
    out = {prefix + k: v for k, v in out.items()}
    if prefix:
        out |= {
            "positional_embedding": np.zeros((7, 5), np.float32),
            "text_projection": np.zeros((5, 5), np.float32),
            "logit_scale": np.zeros((), np.float32),
            "token_embedding.weight": np.zeros((9, 5), np.float32),
            "transformer.resblocks.0.ln_1.weight": np.zeros(5, np.float32),
            "ln_final.weight": np.zeros(5, np.float32),
        }
    return out


def timm_clip(entries):
    """timm's names; its head is the projection, with a bias of 0."""
    entries = openai_clip(entries, "")
    table = (
        (r"^class_embedding", "cls_token"),
        (r"^positional_embedding", "pos_embed"),
        (r"^conv1", "patch_embed.proj"),
        (r"^ln_pre", "norm_pre"),
        (r"^ln_post", "norm"),
        (r"transformer\.resblocks\.", "blocks."),
        (r"ln_(\d)", r"norm\1"),
        (r"attn\.in_proj_", "attn.qkv."),
        (r"attn\.out_proj", "attn.proj"),
        (r"mlp\.c_fc", "mlp.fc1"),
        (r"mlp\.c_proj", "mlp.fc2"),
    )
    out = _swap(entries, table, re.compile("$^"))
    out["cls_token"], out["pos_embed"] = out["cls_token"].reshape(1, 1, -1), out["pos_embed"][None]
    if "proj" in out:
        out["head.weight"] = np.ascontiguousarray(out.pop("proj").T)
        out["head.bias"] = np.zeros(len(out["head.weight"]), np.float32)
    return out


def point_mae(width=24, depth=3, heads=3):
    """The Point-MAE encoder as ../FACTS.md's words say it, as a PyTorch module with the published names."""
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

        def forward(self, x):
            q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
            weights = (q @ k.transpose(2, 3) * (width // heads) ** -0.5).softmax(-1)
            return self.proj((weights @ v).transpose(1, 2).flatten(2))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

        def forward(self, x):
            return self.fc2(nn.functional.gelu(self.fc1(x)))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.attn, self.norm2, self.mlp = nn.LayerNorm(width), Attention(), nn.LayerNorm(width), Mlp()

        def forward(self, x):
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.first_conv = nn.Sequential(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 16, 1))
            self.second_conv = nn.Sequential(
                nn.Conv1d(32, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, width, 1)
            )

        def forward(self, groups):
            x = self.first_conv(groups.transpose(1, 2))
            x = torch.cat([x.max(2, keepdim=True).values.expand_as(x), x], 1)
            return self.second_conv(x).max(2).values

    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(depth))

    class PointMae(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.blocks, self.norm = Encoder(), Blocks(), nn.LayerNorm(width)
            self.pos_embed = nn.Sequential(nn.Linear(3, 10), nn.GELU(), nn.Linear(10, width))

        def forward(self, groups, centers):
            """The encoder's tokens, and those of every block through the final norm."""
            stages = [self.encoder(groups)]
            x, positions = stages[0][None], self.pos_embed(centers)[None]
            for block in self.blocks.blocks:
                x = block(x + positions)
                stages.append(self.norm(x)[0])
            return stages

    torch.manual_seed(1)
    model = PointMae().eval()
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))
    return model
