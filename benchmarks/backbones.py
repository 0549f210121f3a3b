"""The two backbones at full size beside the same mathematics without the tricks and PyTorch, random weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import weights
from benchmarks import plain, plain_backbones
from benchmarks.hot_paths import Setting, agree, torch_run, torch_statements
from benchmarks.timing import Comparison, Row, compare
from musc_jax.models import Backbone
from musc_jax.models.group_encoder import GroupEncoder

BLOCKS = (3, 7, 11)


def encoder(setting: Setting) -> Row:
    """The mini-PointNet with stored statistics: split and in chunks, or all at once; and its memory."""
    backbone = weights.load("random", "point_mae")
    count = setting.pick(1024, 64)
    groups = jnp.asarray(np.random.default_rng(0).normal(0, 0.05, (count, 128, 3)), jnp.float32)
    own = {kind: values["encoder"] for kind, values in backbone.variables.items()}
    encode = jax.jit(partial(GroupEncoder(backbone.module.config).apply, point_norm="checkpoint"))
    straightforward = jax.jit(plain.group_encoder)
    named = plain_backbones.checkpoint_names(backbone.variables)
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: encode(own, groups),
        "straightforward": lambda: straightforward(groups, named),
    }
    if torch_statements():
        module = torch_statements().group_encoder()
        runs["torch"] = torch_run(torch_statements().inference(module), groups)
    row = compare(f"mini-PointNet encoder ({count} x 128)", runs, setting.repeats, {"straightforward": 2.0})
    # What XLA sets aside beside arguments and results.
    extra, theirs = (
        f.lower(*args).compile().memory_analysis().temp_size_in_bytes / 1e6
        for f, args in ((encode, (own, groups)), (straightforward, (groups, named)))
    )
    row.comparisons.append(Comparison("extra memory", extra, "MB", 200, at_most=True))
    row.notes.append(f"straightforward: {theirs:.0f} MB extra")
    agree(row, runs["ours"], runs["straightforward"], 1e-5)
    return row


def _vit(setting: Setting, dtype: str) -> tuple[Backbone, Callable[[], Any], jax.Array]:
    sizes = setting.pick({}, {"depth": 2})
    backbone = weights.load("random", "dino_vitb8", dtype=dtype, **sizes)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 224, 224, 3)), jnp.float32)
    apply = jax.jit(partial(backbone.module.apply, blocks=setting.pick(BLOCKS, (0, 1))))
    return backbone, lambda: apply(backbone.variables, images), images


def _torch_vit(images: jax.Array, depth: int, half: bool) -> Callable[[], Any]:
    statements = torch_statements()
    assert statements is not None
    module = statements.vit_b8(depth)
    pixels = np.moveaxis(np.asarray(images), 3, 1)
    return torch_run(statements.inference(module.bfloat16() if half else module, half), pixels)


def vit(setting: Setting) -> Row:
    """ViT-B/8 at 224, one image."""
    backbone, ours, images = _vit(setting, "float32")
    config = backbone.module.config
    taps = setting.pick(BLOCKS, (0, 1))
    straightforward = jax.jit(partial(plain_backbones.image_tokens, config=config, blocks=taps))
    runs = {"ours": ours, "straightforward": lambda: straightforward(backbone.variables["params"], images)}
    if torch_statements():
        runs["torch"] = _torch_vit(images, config.depth, half=False)
    row = compare("ViT-B/8 at 224, one image", runs, setting.repeats, {"torch": 1.8})
    agree(row, lambda: jnp.stack(runs["ours"]()), runs["straightforward"], 1e-4)
    return row


def vit_bfloat16(setting: Setting) -> Row:
    """The same with the operands of its products in bfloat16."""
    backbone, ours, images = _vit(setting, "bfloat16")
    _, single, _ = _vit(setting, "float32")
    runs = {"ours": ours, "ours in float32": single}
    if torch_statements():
        runs["torch in bfloat16 throughout"] = _torch_vit(images, backbone.depth, half=True)
    row = compare("ViT-B/8 at 224, one image, bfloat16", runs, setting.repeats)
    # Relative to the largest value; a product's operands have 8 bits.
    agree(row, lambda: jnp.stack(ours()), lambda: jnp.stack(single()), 0.1)
    return row


ROWS: dict[str, Callable[[Setting], Row]] = {"encoder": encoder, "vit": vit, "vit_bfloat16": vit_bfloat16}
