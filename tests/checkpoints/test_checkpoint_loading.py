"""From files to backbones: what is found, and what is said when it does not fit."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from compiled import tokens_of
from safetensors.numpy import load_file, save_file

import weights

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = {"width": 32, "depth": 2, "heads": 2, "mlp_width": 48}


def dino_entries(rng, width=32, depth=2, mlp=48, grid=4):
    """A DINO checkpoint under transformers' names."""
    w = lambda *s: rng.normal(size=s).astype(np.float32)  # noqa: E731
    out = {
        "embeddings.cls_token": w(1, 1, width),
        "embeddings.position_embeddings": w(1, grid * grid + 1, width),
        "embeddings.patch_embeddings.projection.weight": w(width, 3, 8, 8),
        "embeddings.patch_embeddings.projection.bias": w(width),
        "layernorm.weight": w(width),
        "layernorm.bias": w(width),
        "pooler.dense.weight": w(width, width),
    }
    for i in range(depth):
        layer = f"encoder.layer.{i}."
        shapes = {f"attention.attention.{n}": (width, width) for n in ("query", "key", "value")}
        shapes |= {
            "attention.output.dense": (width, width),
            "intermediate.dense": (mlp, width),
            "output.dense": (width, mlp),
        }
        for name, shape in shapes.items():
            out[f"{layer}{name}.weight"], out[f"{layer}{name}.bias"] = w(*shape), w(shape[0])
        for name in ("layernorm_before", "layernorm_after"):
            out[f"{layer}{name}.weight"], out[f"{layer}{name}.bias"] = w(width), w(width)
    return out


CONFIG = {
    "model_type": "vit",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "patch_size": 8,
    "layer_norm_eps": 1e-6,
}


@pytest.fixture
def folder(tmp_path, rng):
    save_file(dino_entries(rng), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def change(folder, **edits):
    """Rewrites the checkpoint with entries added, replaced, or (None) removed."""
    file = folder / "model.safetensors"
    entries = load_file(file) | edits
    save_file({k: v for k, v in entries.items() if v is not None}, file)


def tokens(backbone):
    images = np.random.default_rng(5).normal(size=(1, 32, 32, 3)).astype(np.float32)
    return np.asarray(tokens_of(backbone, images, blocks=(1,))[0])


def test_a_folder_gives_a_backbone(folder):
    backbone = weights.load(folder, "dino_vitb8")
    assert (backbone.name, backbone.random, backbone.depth, backbone.patch_size) == ("dino_vitb8", False, 2, 8)
    assert backbone.module.config.native_grid == 4
    assert tokens(backbone).shape == (1, 16, 32)
    assert weights.load(folder, "dino_vitb8").digest == backbone.digest
    change(folder, **{"layernorm.bias": np.zeros(32, np.float32)})
    assert weights.load(folder, "dino_vitb8").digest != backbone.digest


def test_prefixes_and_precision_do_not_matter(folder):
    plain = tokens(weights.load(folder, "dino_vitb8"))
    entries = load_file(folder / "model.safetensors")
    save_file({f"vit.{k}": v for k, v in entries.items()}, folder / "model.safetensors")
    np.testing.assert_array_equal(tokens(weights.load(folder, "dino_vitb8")), plain)
    save_file({k: v.astype(np.float16) for k, v in entries.items()}, folder / "model.safetensors")
    half = weights.load(folder, "dino_vitb8")
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(half.variables))
    np.testing.assert_allclose(tokens(half), plain, atol=0.05)


def test_dinos_own_names(folder, tmp_path):
    names = {"embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed"}
    entries, out = load_file(folder / "model.safetensors"), {}
    for i in range(2):
        a = f"encoder.layer.{i}.attention.attention."
        for part in ("weight", "bias"):
            joined = [entries.pop(f"{a}{n}.{part}") for n in ("query", "key", "value")]
            out[f"blocks.{i}.attn.qkv.{part}"] = np.concatenate(joined)
    table = (
        ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("encoder.layer", "blocks"),
        ("attention.output.dense", "attn.proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("layernorm", "norm"),
    )
    for name, value in entries.items():
        new = names.get(name, name)
        for old, short in table:
            new = new.replace(old, short)
        if "pooler" not in name:
            out[new] = value
    other = tmp_path / "original"
    other.mkdir()
    save_file(out, other / "model.safetensors")
    (other / "config.json").write_text(json.dumps(CONFIG))
    np.testing.assert_array_equal(tokens(weights.load(other, "dino_vitb8")), tokens(weights.load(folder, "dino_vitb8")))


def test_every_problem_comes_in_one_error(folder):
    change(
        folder,
        **{
            "layernorm.bias": None,
            "encoder.layer.1.output.dense.bias": None,
            "embeddings.patch_embeddings.projection.bias": np.zeros(31, np.float32),
            "something.else": np.zeros(3, np.float32),
        },
    )
    with pytest.raises(weights.WeightsError) as error:
        weights.load(folder, "dino_vitb8")
    text = str(error.value)
    for part in ("layernorm.bias", "layer.1.output.dense.bias", "projection.bias (31,)", "something.else"):
        assert part in text
    assert "2 missing" in text
    assert "1 unexpected" in text
    assert "1 misshapen" in text
    assert str(folder) in text


def test_values_that_are_not_finite_are_named(folder):
    change(folder, **{"layernorm.weight": np.full(32, np.nan, np.float32)})
    with pytest.raises(weights.WeightsError, match=r"1 not finite \(layernorm.weight\)"):
        weights.load(folder, "dino_vitb8")


def test_ignored_entries_are_no_error(folder):
    change(
        folder,
        **{
            k: np.zeros(2, np.float32)
            for k in ("classifier.weight", "embeddings.mask_token", "logit_scale", "text_model.a.b")
        },
    )
    weights.load(folder, "dino_vitb8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "config.json").write_text("{"), "JSON"),
        (lambda f: (f / "config.json").write_text(json.dumps(CONFIG | {"model_type": "dinov2"})), "'dinov2'"),
        (lambda f: (f / "config.json").write_text(json.dumps(CONFIG | {"hidden_size": "x"})), "whole numbers"),
        (lambda f: (f / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": 3})), "missing"),
        (lambda f: (f / "model.safetensors").unlink(), "found neither"),
        (lambda f: (f / "model.safetensors").write_bytes(b"<html>"), "safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:999]), "safetensors"),
        (lambda f: save_file({"a": np.zeros(1)}, f / "model.safetensors"), "first entries: a"),
    ],
)
def test_broken_folders_are_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(weights.WeightsError, match=message) as error:
        weights.load(folder, "dino_vitb8")
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_architecture_is_recognised(folder):
    with pytest.raises(weights.WeightsError, match="looks like point_mae"):
        weights.load(GOLDEN / "point_mae_tiny.pth", "dino_vitb8")
    with pytest.raises(weights.WeightsError, match="looks like dino"):
        weights.load(folder / "model.safetensors", "point_mae")
    with pytest.raises(weights.WeightsError, match="no such file"):
        weights.load(folder / "nowhere", "dino_vitb8")
    with pytest.raises(weights.WeightsError, match="'': no such file or folder; pass a path, 'pretrained' or 'random'"):
        weights.load("", "dino_vitb8")
    with pytest.raises(weights.WeightsError, match="expected one of"):
        weights.load(folder, "resnet50")
    with pytest.raises(weights.WeightsError, match="no colour"):
        weights.load(folder, "dino_vitb8", colour=3)


def test_pretrained_looks_in_order_and_says_what_to_do(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("MUSC_WEIGHTS_DIR", raising=False)
    for name, flag in (("dino_vitb8", "--weights_rgb"), ("point_mae", "--weights_points")):
        with pytest.raises(weights.WeightsError, match=flag) as error:
            weights.load("pretrained", name, weights_dir=tmp_path, cache_dir=tmp_path / "none")
        assert "download" in str(error.value)
        # launch.fetch_weights, which says it, has no such flag.
        assert "to launch.eval or launch.score" in str(error.value)
        assert "\n" not in str(error.value)
    place = tmp_path / "place"
    place.mkdir()
    (place / "dino-vitb8").symlink_to(folder)
    (place / "pointmae_pretrain.pth").symlink_to(GOLDEN / "point_mae_tiny.pth")
    assert weights.load("pretrained", "dino_vitb8", weights_dir=place).depth == 2
    assert weights.load("pretrained", "point_mae", cache_dir=place, heads=3).depth == 3
    monkeypatch.setenv("MUSC_WEIGHTS_DIR", str(place))
    assert weights.load("pretrained", "dino_vitb8").depth == 2


def test_random_is_seeded_and_says_so():
    one, same, other = (weights.load("random", "dino_vits8", seed=s, **TINY) for s in (0, 0, 1))
    assert one.random
    assert "random" in one.source
    assert one.digest == same.digest != other.digest
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(same.variables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_point_mae_from_safetensors_is_the_same(tmp_path, golden):
    z = golden("point_transformer")
    file = tmp_path / "pointmae.safetensors"
    entries = {
        k.replace("param:", "MAE_encoder."): np.ascontiguousarray(v) for k, v in z.items() if k.startswith("param:")
    }
    save_file(entries | {"MAE_decoder.x": np.zeros(2), "mask_token": np.zeros(2)}, file)
    one, other = (
        weights.load(file, "point_mae", heads=3),
        weights.load(GOLDEN / "point_mae_tiny.pth", "point_mae", heads=3),
    )
    assert jax.tree.structure(one.variables) == jax.tree.structure(other.variables)
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_loading_needs_no_torch():
    code = (
        f"import sys, weights; weights.load({str(GOLDEN / 'point_mae_tiny.pth')!r}, 'point_mae', heads=3); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["dino_vitb8", "dinov2_vits14_reg", "dinov3_vits16plus", "clip_vitb16", "point_mae"])
def test_expected_shapes_are_the_modules(name):
    """One block stands for all of them; the whole module is asked here."""
    from flax.traverse_util import flatten_dict

    config = dataclasses.replace(weights.BACKBONES[name].config, depth=3)
    whole = flatten_dict(jax.eval_shape(weights.sources._init(weights.sources._module(config, "float32"), 0)), sep="/")
    assert weights.sources._expected(config) == {k.removeprefix("params/"): v.shape for k, v in whole.items()}


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("dinov3_vits16", 21), ("dinov3_vits16plus", 29), ("dinov3_vitb16", 86), ("dinov3_vitl16", 300),
        ("dinov3_vith16plus", 840), ("tipsv2_vitb14", 85.7), ("tipsv2_vitl14", 303.2), ("tipsv2_vitso400m14", 412.4),
        ("tipsv2_vitg14", 1100),
    ],
)  # fmt: skip
def test_rows_have_as_many_parameters_as_their_authors_say(name, millions):
    """Their pages round, by up to 3 %; a wrong depth, width or MLP is more. TIPSv2's counts are 0.7 % too small."""
    shapes = weights.sources._expected(weights.BACKBONES[name].config)
    assert sum(map(math.prod, shapes.values())) / 1e6 == pytest.approx(millions, rel=0.04)


def test_the_page_shows_the_table():
    """Held against the sources, where they are beside the tests."""
    page = Path(__file__).parents[2] / "docs" / "backbones.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    for name, spec in weights.BACKBONES.items():
        line = next(line for line in lines if line.startswith(f"| `{name}`"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        config = spec.config
        points = name == "point_mae"
        assert cells[1] == f"{config.depth} x {config.width}"
        assert cells[2:4] == (["-", "-"] if points else [str(config.patch_size), str(spec.image_size)])
        assert cells[4] == ", ".join(map(str, spec.blocks))
        assert float(cells[5]) == (config.epsilon if points else config.norm_epsilon)
        assert cells[6] == ("-" if points else config.interpolation)
        assert all(origin in cells[7] for origin in spec.origins)
        assert cells[8] == (f"[{spec.licence}]({spec.terms})" if spec.terms else spec.licence)
        assert spec.ask_at in cells[7]
