"""The image towers against transformers' models, stage by stage, and position embeddings against plain statements."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weights
from musc_jax.models import VitConfig
from musc_jax.models.positions import bicubic_weights, interpolate_positions

SMALL = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
FAMILIES = {
    "vit": ("dino_vitb8", "ViTModel", {"intermediate_size": 96}),
    "dinov2": ("dinov2_vitb14", "Dinov2Model", {"mlp_ratio": 2}),
    "registers": ("dinov2_vitb14_reg", "Dinov2WithRegistersModel", {"mlp_ratio": 2, "num_register_tokens": 4}),
    "clip": ("clip_vitb16", "CLIPVisionModel", {"intermediate_size": 96, "projection_dim": 24}),
    "clip_projected": ("clip_vitb16", "CLIPVisionModelWithProjection", {"intermediate_size": 96, "projection_dim": 24}),
    "clip_whole": ("clip_vitb16", "CLIPModel", {"intermediate_size": 96}),
}


@pytest.fixture(scope="session", params=FAMILIES)
def pair(request, tmp_path_factory):
    """(our backbone, transformers' model) with the same random parameters, through a folder on disk."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    name, kind, extra = FAMILIES[request.param]
    torch.manual_seed(0)
    model_type = getattr(transformers, kind)
    settings = SMALL | extra
    if kind == "CLIPModel":
        text = {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "vocab_size": 50,
        }
        config = transformers.CLIPConfig(text_config=text, vision_config=settings, projection_dim=24)
    else:
        config = model_type.config_class(**settings)
    model = model_type(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the usual initialisation leaves much at 0 or 1, where mistakes hide
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return weights.load(folder, name), model


def hidden_states(model, images):
    """The outputs of all blocks and the model's own outputs."""
    import torch

    tower = getattr(model, "vision_model", model)
    pixels = torch.from_numpy(np.moveaxis(images, 3, 1).copy())
    options = {} if "Dinov2" in type(model).__name__ else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        out = tower(pixels, output_hidden_states=True, **options)
        return tower, list(out.hidden_states[1:]), out


@pytest.mark.parametrize("size", [(32, 32), (48, 40)])
def test_tokens_agree_at_every_block(pair, rng, size):
    backbone, model = pair
    clip, registers = backbone.module.config.pre_norm, backbone.module.config.num_registers
    if size != (32, 32) and not clip:
        # DINO's own interpolation differs from transformers' on purpose; with the rule swapped the rest must agree.
        backbone = weights.load(backbone.source, backbone.name, interpolation="antialias" if registers else "size")
    images = rng.normal(size=(2, *size, 3)).astype(np.float32)
    tower, states, out = hidden_states(model, images)
    tokens, embedding = backbone.module.apply(backbone.variables, images, blocks=(0, 1, 2), embedding=True)
    for block, (ours, theirs) in enumerate(zip(tokens, states, strict=True)):
        if not clip:
            theirs = tower.layernorm(theirs)
        theirs = theirs[:, 1 + registers :].detach().numpy()
        assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max(), f"block {block}"
    if hasattr(model, "visual_projection"):
        import torch

        with torch.no_grad():
            want = model.visual_projection(out.pooler_output).numpy()
    elif clip:
        want = out.pooler_output.numpy()
    else:
        want = out.last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(embedding, want, atol=1e-4 * np.abs(want).max())


def test_bfloat16_stays_within_two_percent(pair, rng):
    backbone, _ = pair
    images = rng.normal(size=(1, 32, 32, 3)).astype(np.float32)
    plain = backbone.module.apply(backbone.variables, images, blocks=(2,))[0]
    half = weights.load(backbone.source, backbone.name, dtype="bfloat16")
    rough = half.module.apply(half.variables, images, blocks=(2,))[0]
    assert rough.dtype == jnp.float32
    assert 0 < np.linalg.norm(rough - plain) < 0.02 * np.linalg.norm(plain)


def test_stops_after_the_last_tapped_block(rng):
    backbone = weights.load("random", "dino_vits16", width=32, heads=2, mlp_width=32, depth=6)
    images = rng.normal(size=(1, 32, 32, 3)).astype(np.float32)
    first = {k: v for k, v in backbone.variables["params"].items() if k not in ("blocks_3", "blocks_4", "blocks_5")}
    all_of_it = backbone.module.apply(backbone.variables, images, blocks=(1, 2))
    without = backbone.module.apply({"params": first}, images, blocks=(1, 2))
    for a, b in zip(all_of_it, without, strict=True):
        np.testing.assert_array_equal(a, b)
    many = jax.vmap(lambda x: backbone.module.apply(backbone.variables, x[None], blocks=(1,))[0][0])(
        np.repeat(images, 2, axis=0)
    )
    np.testing.assert_allclose(many[1], all_of_it[0][0], atol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_bad_sizes_and_blocks_are_named():
    backbone = weights.load("random", "dino_vits16", width=32, heads=2, mlp_width=32, depth=2)
    images = np.zeros((1, 40, 32, 3), np.float32)
    with pytest.raises(ValueError, match="multiples of 16"):
        backbone.module.apply(backbone.variables, images, blocks=(0,))
    with pytest.raises(ValueError, match="rising numbers from 0 to 1"):
        backbone.module.apply(backbone.variables, images[:, :32], blocks=(0, 2))


def naive_bicubic(values, target, offset):
    """One axis in plain words: the four taps around each sampled position, a = -0.75, clamped at the edge."""
    a, scale, out = -0.75, (target + offset) / len(values), []
    for i in range(target):
        x = (i + 0.5) / scale - 0.5
        total = 0.0
        for tap in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            d = abs(x - tap)
            w = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4)
            total += w * values[min(max(tap, 0), len(values) - 1)]
        out.append(total)
    return np.array(out)


@pytest.mark.parametrize(("source", "target"), [(28, 37), (37, 16), (5, 5), (7, 23)])
@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_bicubic_weights(rng, source, target, offset):
    values = rng.normal(size=source)
    got = bicubic_weights(source, target, offset=offset) @ values
    np.testing.assert_allclose(got, naive_bicubic(values, target, offset), atol=1e-12)


@pytest.mark.parametrize("grid", [(9, 6), (4, 12)])
def test_interpolation_is_torchs(rng, grid):
    torch = pytest.importorskip("torch")
    embedding = rng.normal(size=(49, 5)).astype(np.float32)
    square = torch.from_numpy(embedding.reshape(7, 7, 5)).permute(2, 0, 1)[None]
    for rule, options in {
        "size": {"size": grid},
        "antialias": {"size": grid, "antialias": True},
        "offset": {"scale_factor": tuple((n + 0.1) / 7 for n in grid)},
    }.items():
        want = torch.nn.functional.interpolate(square, mode="bicubic", align_corners=False, **options)
        want = want[0].permute(1, 2, 0).reshape(-1, 5).numpy()
        got = interpolate_positions(jnp.asarray(embedding), grid, rule=rule)
        np.testing.assert_allclose(got, want, atol=1e-5, err_msg=rule)
    np.testing.assert_array_equal(interpolate_positions(jnp.asarray(embedding), (7, 7), rule="offset"), embedding)


def test_the_table_of_backbones_is_whole():
    for name, spec in weights.BACKBONES.items():
        assert spec.name == name
        assert spec.licence
        assert spec.blocks[-1] < spec.config.depth
        if isinstance(spec.config, VitConfig):
            assert spec.image_size % spec.config.patch_size == 0
            assert spec.config.width % spec.config.heads == 0
    assert json.dumps(sorted(weights.BACKBONES))
