"""The examples run."""

import runpy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import picture, save

import weights

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def parts(tmp_path):
    for i in range(4):
        pixels = (picture(0).astype(int) // 2 + 60).astype(np.uint8)
        pixels[10:20, 10:20] = 255 if i == 2 else pixels[10:20, 10:20]
        save(tmp_path / "parts" / f"p{i}.png", pixels)
    return tmp_path / "parts"


def test_tokens_of_a_torch_model_are_scored(parts, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(parts.parent)
    torch.manual_seed(0)
    main = runpy.run_path(str(EXAMPLES / "torch_features.py"))["main"]
    results = main(str(parts), size=64)
    assert results.anomaly_maps.shape == (4, 64, 64)
    assert len(capsys.readouterr().out.splitlines()) == 4
    # All others are equal, so nothing but the spot is left.
    assert results.max_scores.argmax() == 2
    assert sorted(path.name for path in parts.iterdir()) == [f"p{i}.png" for i in range(4)]


def test_pictures_in_memory_are_scored(monkeypatch, capsys):
    monkeypatch.setattr(weights, "load", partial(weights.load, width=64, depth=3, heads=2, mlp_width=64))
    main = runpy.run_path(str(EXAMPLES / "arrays.py"))["main"]
    results = main(count=6, size=64)
    assert results.max_scores.argmax() == 3
    assert capsys.readouterr().out.splitlines()[0].split()[1] == "003"


def test_a_variant_of_the_scoring_finds_what_is_wrong_for_its_kind(capsys):
    """By all others the patch has matches: those of the other kind."""
    run = runpy.run_path(str(EXAMPLES / "scoring_variant.py"))
    found = run["main"]()
    assert np.unravel_index(found.argmax(), found.shape) == (4, 24)
    assert "24 of sample 4" in capsys.readouterr().out


def test_every_example_is_run_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"torch_features.py", "arrays.py", "scoring_variant.py"}
