"""One full-size parity run: ViT-B/8 at 224 against transformers' model in PyTorch, random weights.

pip install torch transformers
python -m benchmarks.parity [--output=FILE.json]
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import torch
import transformers
from absl import app, flags, logging

import weights
from musc_jax.storage import atomic

OUTPUT = flags.DEFINE_string("output", None, "Write the figures here as JSON, too.")
BLOCKS = (3, 7, 11)


def fastest(run: Callable) -> float:
    """Seconds of the fastest of three runs, after one to warm up."""
    run()
    times = []
    for _ in range(3):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def main(_: list[str]) -> None:
    """Compares tokens block by block, and times."""
    logging.set_verbosity(logging.WARNING)
    torch.manual_seed(0)
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    config = transformers.ViTConfig(image_size=224, patch_size=8, layer_norm_eps=1e-6, **sizes)
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        backbone = weights.load(folder, "dino_vitb8")
    images = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
    pixels = torch.from_numpy(np.moveaxis(images, 3, 1).copy())
    apply = jax.jit(backbone.module.apply, static_argnames="blocks")
    ours = apply(backbone.variables, images, blocks=BLOCKS)
    figures: dict = {"jax": jax.__version__, "torch": torch.__version__, "relative_difference": {}}
    with torch.no_grad():
        states = model(pixels, output_hidden_states=True).hidden_states
        for block, tokens in zip(BLOCKS, ours, strict=True):
            want = model.layernorm(states[block + 1])[:, 1:].numpy()
            difference = float(np.abs(tokens - want).max() / np.abs(want).max())
            figures["relative_difference"][f"block {block}"] = difference
        theirs = fastest(lambda: model(pixels))
    own = fastest(lambda: jax.block_until_ready(apply(backbone.variables, images, blocks=BLOCKS)))
    figures["torch_over_ours"] = theirs / own
    print(json.dumps(figures, indent=2))
    if OUTPUT.value:
        atomic.write_text(Path(OUTPUT.value), json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
