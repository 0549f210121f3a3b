"""What several commands are tested with."""

import json

import numpy as np
import pytest
from eyecandies_tree import write_category
from safetensors.numpy import save_file


@pytest.fixture(autouse=True)
def no_kept_programs(monkeypatch):
    """A command that runs in this process would set where compiled programs are kept for all tests after it."""
    monkeypatch.setattr("launch.eval.keep_programs", lambda cache_dir: None)


@pytest.fixture
def in_process(capsys):
    """Runs a command in this process, with flags that are its own: exit code, stdout, stderr."""

    def call(module, *arguments):
        try:
            code = module.main([module.__name__, *map(str, arguments)])
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="session")
def image_weights(tmp_path_factory):
    """A DINO folder of three narrow blocks, so that a run takes a second."""
    folder = tmp_path_factory.mktemp("dino")
    rng = np.random.default_rng(3)
    w = lambda *s: (rng.normal(size=s) / np.sqrt(s[-1])).astype(np.float32)  # noqa: E731
    entries = {
        "cls_token": w(1, 1, 32),
        "pos_embed": 0.1 * w(1, 17, 32),
        "patch_embed.proj.weight": w(32, 3, 8, 8) / 4,
        "patch_embed.proj.bias": w(32),
        "norm.weight": 1 + w(32),
        "norm.bias": w(32),
    }
    for i in range(3):
        b = f"blocks.{i}."
        for name in ("norm1", "norm2"):
            entries[f"{b}{name}.weight"], entries[f"{b}{name}.bias"] = 1 + w(32), w(32)
        for name, shape in {
            "attn.qkv": (96, 32),
            "attn.proj": (32, 32),
            "mlp.fc1": (64, 32),
            "mlp.fc2": (32, 64),
        }.items():
            entries[f"{b}{name}.weight"], entries[f"{b}{name}.bias"] = w(*shape), w(shape[0])
    save_file(entries, folder / "model.safetensors")
    config = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "patch_size": 8,
    }
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "vit"}))
    return folder


@pytest.fixture(scope="session")
def candies(tmp_path_factory):
    """Two categories in the Eyecandies layout, six samples each, raw scans."""
    root = tmp_path_factory.mktemp("candies")
    for category in ("Apple", "Berry"):
        write_category(root, category, [f"{i:02d}" for i in range(6)])
    return root
