"""The image towers' own rules; against transformers' models they are held in tests/checkpoints."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import tokens_of
from plain_bicubic import naive_bicubic

import weights
from musc_jax.models import VitConfig
from musc_jax.models.layers import attention
from musc_jax.models.positions import bicubic_weights, interpolate_positions


def test_stops_after_the_last_tapped_block(rng):
    backbone = weights.load("random", "dino_vits16", width=32, heads=2, mlp_width=32, depth=6)
    images = rng.normal(size=(1, 32, 32, 3)).astype(np.float32)
    first = {k: v for k, v in backbone.variables["params"].items() if k not in ("blocks_3", "blocks_4", "blocks_5")}
    all_of_it = tokens_of(backbone, images, blocks=(1, 2))
    without = tokens_of(dataclasses.replace(backbone, variables={"params": first}), images, blocks=(1, 2))
    for a, b in zip(all_of_it, without, strict=True):
        np.testing.assert_array_equal(a, b)
    many = jax.vmap(lambda x: tokens_of(backbone, x[None], blocks=(1,))[0][0])(np.repeat(images, 2, axis=0))
    np.testing.assert_allclose(many[1], all_of_it[0][0], atol=1e-5)


def _form_elsewhere(*arrays, default, **forms):
    return default(*arrays)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_every_form_of_attention_is_its_definition(rng, monkeypatch, dtype, tolerance, elsewhere):
    """A CPU has a form of its own; scores reach hundreds, so that exponentials overflow where no maximum is taken.

    Rounded to bfloat16, queries and keys change scores by up to 2^-8 of them: the rounded arrays are the reference's.
    """
    if elsewhere:
        monkeypatch.setattr(jax.lax, "platform_dependent", _form_elsewhere)
    # Powers of two scale without rounding; so does 16^-0.5.
    q, k, v = (jnp.asarray(rng.normal(size=(2, 3, 11, 16)) * scale, dtype) for scale in (16, 8, 1))
    got = attention(*(x.astype("float32") for x in (q, k, v)), dtype=dtype)
    q, k, v = (np.asarray(x.astype("float32"), np.float64) for x in (q, k, v))
    scores = q @ k.swapaxes(2, 3) / 4
    assert scores.max() > 200
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    want = shares / shares.sum(-1, keepdims=True) @ v
    np.testing.assert_allclose(got, want, atol=tolerance)


@pytest.mark.usefixtures("unchecked")
def test_bad_sizes_and_blocks_are_named():
    backbone = weights.load("random", "dino_vits16", width=32, heads=2, mlp_width=32, depth=2)
    images = np.zeros((1, 40, 32, 3), np.float32)
    with pytest.raises(ValueError, match="multiples of 16"):
        backbone.module.apply(backbone.variables, images, blocks=(0,))
    with pytest.raises(ValueError, match="rising numbers from 0 to 1"):
        backbone.module.apply(backbone.variables, images[:, :32], blocks=(0, 2))


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
