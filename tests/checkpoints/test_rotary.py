"""DINOv3: its positions as the paper states them, its ways of saying that keys have no bias, its files' signs."""

import dataclasses
import json

import checkpoint_formats as formats
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import tokens_of
from safetensors.numpy import load_file, save_file

import weights
from musc_jax.models.layers import rotated
from musc_jax.models.positions import rotary_angles

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

BARE = {"heads": formats.HEADS}


def turned_in_plain_words(x, rows, columns):
    """One head's queries or keys (class token, registers, patches; d), by the rule of the paper and Meta's program.

    Coordinates of patch centres are mapped to [-1, 1], each axis by itself. d / 4 periods rise from 1 by the ratio
    100^(4/d). The first d / 4 pairs (i, i + d/2) are turned by the row, the next by the column.
    """
    out, d, front = x.copy(), x.shape[1], len(x) - rows * columns
    for row in range(rows):
        for column in range(columns):
            token = front + row * columns + column
            for pair in range(d // 2):
                place = (row + 0.5) / rows if pair < d // 4 else (column + 0.5) / columns
                period = 100 ** (4 * (pair % (d // 4)) / d)
                turn = np.exp(2j * np.pi * (2 * place - 1) / period) * (x[token, pair] + 1j * x[token, pair + d // 2])
                out[token, pair], out[token, pair + d // 2] = turn.real, turn.imag
    return out


@pytest.mark.parametrize(("rows", "columns", "front", "width"), [(3, 5, 5, 16), (4, 4, 1, 64), (1, 2, 0, 4)])
def test_patches_are_turned_as_the_paper_says(rng, rows, columns, front, width):
    x = rng.normal(size=(2, 3, front + rows * columns, width)).astype(np.float32)
    got = rotated(jnp.asarray(x), rotary_angles((rows, columns), width))
    want = [[turned_in_plain_words(head.astype(np.float64), rows, columns) for head in image] for image in x]
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_array_equal(got[:, :, :front], x[:, :, :front])


@pytest.fixture(scope="module", params=["dinov3", "dinov3_gated"])
def saved(request, tmp_path_factory):
    """A model's backbone, its folder, and its entries."""
    folder = tmp_path_factory.mktemp(request.param)
    formats.make(request.param).save_pretrained(folder)
    return formats.FAMILIES[request.param][0], folder, load_file(folder / "model.safetensors")


def tokens(backbone):
    images = np.random.default_rng(5).normal(size=(1, 28, 42, 3)).astype(np.float32)
    return np.asarray(tokens_of(backbone, images, blocks=(0, 2))[1])


def test_no_bias_at_all_is_a_bias_of_0(saved, tmp_path):
    """timm's models without, where the published biases are 0; and Meta's plain ones, whose keys' bias counts."""
    backbone, folder, entries = saved
    biases = {f"layer.{i}.attention.{one}_proj.bias" for i in range(formats.DEPTH) for one in "qkv"}
    zeros = {k: np.zeros_like(v) if k in biases else v for k, v in entries.items()}
    without = {k: v for k, v in entries.items() if k not in biases}
    save_file(zeros, tmp_path / "zeros.safetensors")
    bare = formats.timm_dinov3(without)
    save_file(bare, tmp_path / "bare.safetensors")
    # PyTorch's files give out each of their tensors once.
    torch.save({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in bare.items()}, tmp_path / "bare.pth")
    want = tokens(weights.load(tmp_path / "zeros.safetensors", backbone, **BARE))
    for name in ("bare.safetensors", "bare.pth"):
        np.testing.assert_array_equal(tokens(weights.load(tmp_path / name, backbone, **BARE)), want)
    assert np.abs(tokens(weights.load(folder, backbone)) - want).max() > 0.01


def test_a_mask_takes_the_keys_bias_away(saved, tmp_path):
    backbone, _, entries = saved
    keyless = {k: np.zeros_like(v) if k.endswith("k_proj.bias") else v for k, v in entries.items()}
    for name, file in {
        "plain": formats.meta_dinov3(keyless, masked=False),
        "masked": formats.meta_dinov3(entries, masked=True),
    }.items():
        save_file(file, tmp_path / f"{name}.safetensors")
    plain, masked = (weights.load(tmp_path / f"{name}.safetensors", backbone, **BARE) for name in ("plain", "masked"))
    np.testing.assert_array_equal(tokens(masked), tokens(plain))


@pytest.mark.parametrize("naming", ["its own", "timm"])
def test_lingbots_files(saved, tmp_path, naming):
    """DINOv3's parameters but for the keys' bias, which is there and 0."""
    backbone, _, entries = saved
    keyless = {k: np.zeros_like(v) if k.endswith("k_proj.bias") else v for k, v in entries.items()}
    save_file(keyless, tmp_path / "w.safetensors")
    want = tokens(weights.load(tmp_path / "w.safetensors", backbone, **BARE))
    if naming == "timm":
        keyless = {k: v for k, v in keyless.items() if not k.endswith("k_proj.bias")}
        file = formats.timm_dinov3(keyless)
    else:
        file = formats.meta_dinov3(keyless, masked=False)
    torch.save(
        {"backbone": {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in file.items()}}, tmp_path / "model.pt"
    )
    np.testing.assert_array_equal(tokens(weights.load(tmp_path / "model.pt", "lingbot_vitb16", **BARE)), want)


@pytest.mark.parametrize(
    ("name", "of"),
    [("lingbot_vits16", "dinov3_vits16"), ("lingbot_vitb16", "dinov3_vitb16"), ("lingbot_vitl16", "dinov3_vitl16")],
)
def test_lingbots_sizes_are_dinov3s(name, of):
    one, other = weights.BACKBONES[name], weights.BACKBONES[of]
    assert one.config == dataclasses.replace(other.config, native_grid=one.config.native_grid)
    assert (one.blocks, one.v1_blocks, one.mean, one.std) == (other.blocks, other.v1_blocks, other.mean, other.std)


def test_a_bias_that_one_block_lacks_is_missing(saved, tmp_path):
    backbone, _, entries = saved
    for change in (lambda e: e, lambda e: formats.meta_dinov3(e, masked=True)):
        cut = change(entries)
        name = next(
            k for k in cut if k.startswith(("layer.2.", "blocks.2.")) and k.endswith(("q_proj.bias", "qkv.bias"))
        )
        del cut[name]
        save_file(cut, tmp_path / "cut.safetensors")
        with pytest.raises(weights.WeightsError, match=rf"1 missing \({name}\)"):
            weights.load(tmp_path / "cut.safetensors", backbone, **BARE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope_theta": 10000.0}, "rotary positions of base 10000.0; expected 100"),
        ({"rope_parameters": {"rope_theta": 50}, "rope_theta": None}, "rotary positions of base 50"),
        ({"model_type": "dinov2"}, "expected dinov3_vit for dinov3_"),
        ({"num_attention_heads": 16}, "2 channels in each of 16 heads, expected a multiple of 4"),
    ],
)
def test_settings_of_another_model_are_named(saved, tmp_path, settings, message):
    backbone, folder, entries = saved
    kept = json.loads((folder / "config.json").read_text()) | settings
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in kept.items() if v is not None}))
    save_file(entries, tmp_path / "model.safetensors")
    with pytest.raises(weights.WeightsError, match=message):
        weights.load(tmp_path, backbone)


def test_sizes_that_differ_in_the_mlp_alone_are_told_apart(tmp_path):
    """S and S+ have the same width, depth and hidden channels; one MLP has a gate."""
    shapes = weights.sources._expected(weights.BACKBONES["dinov3_vits16plus"].config)
    sizes = {"width": 384, "mlp": 1536}
    assert shapes["blocks_0/gate/kernel"] == (sizes["width"], sizes["mlp"])
    w = lambda *s: np.zeros(s, np.float16)  # noqa: E731
    entries = {
        "embeddings.cls_token": w(1, 1, 384),
        "embeddings.register_tokens": w(1, 4, 384),
        "embeddings.patch_embeddings.weight": w(384, 3, 16, 16),
        "layer.0.attention.q_proj.bias": w(384),
        "layer.0.mlp.up_proj.weight": w(1536, 384),
        "layer.0.mlp.gate_proj.weight": w(1536, 384),
    }
    save_file(entries, tmp_path / "w.safetensors")
    with pytest.raises(weights.WeightsError, match="this is dinov3_vits16plus, not dinov3_vits16; pass --backbone"):
        weights.load(tmp_path / "w.safetensors", "dinov3_vits16")


def test_other_families_are_told_apart(saved, tmp_path):
    _, _, entries = saved
    for number, file in enumerate((entries, formats.meta_dinov3(entries, masked=True), formats.timm_dinov3(entries))):
        path = tmp_path / f"{number}.safetensors"
        save_file(file, path)
        for other in ("dino_vitb16", "dinov2_vitb14_reg", "clip_vitb16"):
            with pytest.raises(weights.WeightsError, match="it looks like dinov3"):
                weights.load(path, other)
    formats.make("dinov2").save_pretrained(tmp_path)
    with pytest.raises(weights.WeightsError, match="it looks like dinov2"):
        weights.load(tmp_path, "dinov3_vitb16")
