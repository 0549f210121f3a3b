"""The examples run."""

import json
import runpy
from functools import partial
from pathlib import Path
from types import SimpleNamespace

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


NOTEBOOK = EXAMPLES / "score_folder.ipynb"


def notebook_runner():
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES.parent / "docs" / "notebook.py")))


def shown(outputs):
    """What a cell's outputs show, by kind; numbers differ from machine to machine."""
    return [sorted(output["data"]) if "data" in output else output["name"] for output in outputs]


def test_the_notebook_has_its_outputs():
    assert NOTEBOOK.stat().st_size < 300_000
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    kinds = [shown(cell["outputs"]) for cell in cells]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(kinds)
    assert ["text/html", "text/plain"] in kinds[1]
    assert "washer 11" in "".join(cells[1]["outputs"][0]["data"]["text/html"])
    assert ["image/png", "text/plain"] in kinds[4]
    for cell in cells:
        compile("".join(cell["source"]), "cell", "exec")


def test_a_cells_outputs_are_what_it_prints_and_its_last_line():
    cells = [{"cell_type": "code", "source": ["a = 2\n", "print('x')\n", "a + 1"]}, {"cell_type": "markdown"}]
    cells.append({"cell_type": "code", "source": ["a = a * 2"]})
    first, second = notebook_runner().run(cells)
    assert first[0]["text"] == ["x\n"]
    assert first[1]["data"] == {"text/plain": ["3"]}
    assert second == []


@pytest.mark.full
def test_the_notebook_runs(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    kept = [shown(cell["outputs"]) for cell in cells if cell["cell_type"] == "code"]
    outputs = notebook_runner().run(cells)
    assert [shown(found) for found in outputs] == kept
    assert "<td>washer 11</td>" in "".join(outputs[1][0]["data"]["text/html"])
    assert outputs[-1][-1]["data"]["text/plain"] == ["['washer 11']"]
