"""DINOv3's parameters: its licence is named before anything is fetched, and they are written into the cache alone."""

import io
import json
import zipfile

import huggingface_hub.constants
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save
from test_hub import fill

import weights
from launch import convert_weights, features, fetch_weights, score

NAME, WIDTH, DEPTH = "dinov3_vits16", 32, 3
SPEC = weights.BACKBONES[NAME]
SETTINGS = {
    "model_type": "dinov3_vit",
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "patch_size": 8,
    "rope_theta": 100.0,
}


@pytest.fixture(scope="module")
def entries():
    """A narrow DINOv3 under transformers' names."""
    rng = np.random.default_rng(3)
    w = lambda *s: (rng.normal(size=s) / np.sqrt(s[-1])).astype(np.float32)  # noqa: E731
    out = {
        "embeddings.cls_token": w(1, 1, WIDTH),
        "embeddings.mask_token": w(1, 1, WIDTH),
        "embeddings.register_tokens": w(1, 4, WIDTH),
        "embeddings.patch_embeddings.weight": w(WIDTH, 3, 8, 8),
        "embeddings.patch_embeddings.bias": w(WIDTH),
    }
    linear = {f"attention.{part}_proj": (WIDTH, WIDTH) for part in "qkvo"}
    linear |= {"mlp.up_proj": (64, WIDTH), "mlp.down_proj": (WIDTH, 64)}
    for layer in (f"layer.{i}." for i in range(DEPTH)):
        for name, shape in linear.items():
            out |= {f"{layer}{name}.weight": w(*shape), f"{layer}{name}.bias": w(shape[0])}
        del out[f"{layer}attention.k_proj.bias"]
        out |= {f"{layer}norm{n}.{part}": 1 + w(WIDTH) for n in (1, 2) for part in ("weight", "bias")}
        out |= {f"{layer}layer_scale{n}.lambda1": w(WIDTH) for n in (1, 2)}
    return out | {f"norm.{part}": 1 + w(WIDTH) for part in ("weight", "bias")}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for everything, without a network and with nothing fetched before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSC_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("launch.score.keep_programs", lambda cache_dir: None)
    monkeypatch.setattr("launch.features.keep_programs", lambda cache_dir: None, raising=False)
    return tmp_path


@pytest.fixture
def published(place, entries):
    """The model in the hub's cache, as it is once somebody has signed in."""
    files = {"model.safetensors": save(entries), "config.json": json.dumps(SETTINGS).encode()}
    fill(place / "hub", files, repository=SPEC.hub_id)
    return place


@pytest.mark.usefixtures("place")
def test_who_has_no_access_is_told_where_to_ask(in_process):
    code, _, err = in_process(fetch_weights, f"--backbone={NAME}")
    assert code == 2
    told = err[err.index("error: ") :]
    for part in (SPEC.ask_at, SPEC.given_file, SPEC.origins[0], "HF_TOKEN", "--weights_rgb=FILE", SPEC.licence):
        assert part in told
    assert err.index(SPEC.terms) < err.index("trying ")


def test_the_licence_is_named_before_anything_is_fetched(published, monkeypatch):
    said = []
    monkeypatch.setattr(weights.sources.hub, "fetch", lambda *_: pytest.fail(f"nothing was said but {said}"))
    monkeypatch.setattr(weights.sources, "_from_hub", lambda *_: said.append("fetching"))
    with pytest.raises(weights.WeightsError):
        weights.load("pretrained", NAME, report=said.append)
    assert SPEC.licence in said[0]
    assert SPEC.terms in said[0]
    assert said[1:] == ["fetching"]


def test_nothing_is_said_of_parameters_that_everybody_may_pass_on(place):
    said = []
    with pytest.raises(weights.WeightsError):
        weights.load("pretrained", "dino_vitb8", report=said.append)
    assert not [line for line in said if "passing on" in line]


def test_they_are_not_converted_into_a_file_to_carry_along(published, in_process, entries, monkeypatch):
    (published / "own.safetensors").write_bytes(save(entries))
    given = (f"--backbone={NAME}", "--source=own.safetensors", "--output=made.safetensors", "--heads=2")
    code, _, err = in_process(convert_weights, *given)
    assert (code, (published / "made.safetensors").exists()) == (2, False)
    assert "local cache only; pass --weights_rgb=own.safetensors itself" in err
    assert err.count("\n") == 1
    code, _, err = in_process(fetch_weights, f"--backbone={NAME}", "--weights_dir=carried")
    assert (code, (published / "carried").exists()) == (2, False)
    assert f"{SPEC.licence} alone ({SPEC.terms})" in err
    assert "leave out --weights_dir" in err
    monkeypatch.setenv("MUSC_WEIGHTS_DIR", str(published / "carried"))
    assert in_process(fetch_weights, f"--backbone={NAME}")[0] == 2
    assert not (published / "carried").exists()


def test_what_lies_in_a_folder_of_ones_own_is_not_replaced_there(published):
    """A damaged converted file is made anew; this one in the cache."""
    kept = weights.fetch(NAME)
    assert kept == published / "user" / "musc_jax" / "weights" / f"{NAME}.safetensors"
    carried = published / "carried" / kept.name
    carried.parent.mkdir()
    damaged = kept.read_bytes()[:-1] + b"x"
    carried.write_bytes(damaged)
    kept.unlink()
    backbone = weights.load("pretrained", NAME, weights_dir=carried.parent)
    assert backbone.depth == DEPTH
    assert kept.exists()
    assert carried.read_bytes() == damaged


def contents(path):
    """What a file holds, also what is packed in it."""
    data = path.read_bytes()
    yield data
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def holds(path, values):
    """Whether sixteen numbers in a row out of any parameter are in a file, in single or half precision."""
    rows = [np.ascontiguousarray(value).reshape(-1)[-16:] for value in values]
    marks = [row.astype(kind).tobytes() for row in rows for kind in (np.float32, np.float16)]
    return any(mark in data for data in contents(path) for mark in marks)


def test_nothing_that_is_passed_on_holds_parameters(published, in_process, entries):
    """Scores, maps, pages, tokens, records, caches of features: of the model they hold its name and its digest."""
    rng = np.random.default_rng(0)
    (published / "parts").mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(published / "parts" / f"{i}.png")
    cache = ("--image_size=32", f"--backbone={NAME}", f"--cache_dir={published / 'cache'}")
    code, _, err = in_process(
        score, published / "parts", *cache, f"--output_dir={published / 'results'}", "--save=maps,overlays"
    )
    assert code == 0, err
    folder = ("--dataset=folder", f"--data_dir={published / 'parts'}", "--modality=rgb")
    code, _, err = in_process(features, *folder, *cache, f"--output_dir={published / 'tokens'}")
    assert code == 0, err
    made = published / "cache" / "weights" / f"{NAME}.safetensors"
    converted = load_file(made)
    values = [value for value in (*entries.values(), *converted.values()) if value.size >= 16 and value.any()]
    assert holds(made, converted.values())
    others = [p for p in published.rglob("*") if p.is_file() and p != made and published / "hub" not in p.parents]
    assert len(others) > 12
    assert [p for p in others if holds(p, values)] == []
    assert any(NAME.encode() in p.read_bytes() for p in others)
