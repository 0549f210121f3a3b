"""The Hugging Face hub: its cache without a network, and a server that speaks as it does."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_torch_file import sound

import weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SETTINGS = {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
REPOSITORY = "facebook/dino-vitb8"


@pytest.fixture
def model(tmp_path):
    """The files of a model, by name."""
    save_file(sound(), tmp_path / "made.safetensors")
    data = (tmp_path / "made.safetensors").read_bytes()
    return {"model.safetensors": data, "config.json": json.dumps(SETTINGS).encode()}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache, and nothing beyond it."""
    monkeypatch.delenv("MUSC_WEIGHTS_DIR", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


def fill(home, files, repository=REPOSITORY, commit=COMMIT):
    """A cache as the hub's library lays it out: contents under their digests, links with names."""
    folder = home / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for place in (folder / "blobs", folder / "refs", snapshot):
        place.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    for name, data in files.items():
        blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


def load(tmp_path, **options):
    said = []
    backbone = weights.load("pretrained", "dino_vitb8", cache_dir=tmp_path / "cache", report=said.append, **options)
    return backbone, said


def test_a_filled_cache_needs_no_network(home, model, tmp_path, monkeypatch):
    fill(home, model)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    backbone, said = load(tmp_path)
    assert backbone.depth == 2
    assert backbone.source == f"huggingface.co/{REPOSITORY}@{COMMIT}/model.safetensors"
    assert any(backbone.source in line for line in said)
    again, said = load(tmp_path)
    assert again.digest == backbone.digest
    assert said == [f"dino_vitb8: {tmp_path / 'cache' / 'dino_vitb8.safetensors'}"]


def test_a_revision_is_no_path_out_of_the_cache(home, model, tmp_path, monkeypatch):
    """The hub's library looks for, and writes, a file called as the revision."""
    fill(home, model)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "outside").write_text(COMMIT)
    for revision in ("../../../outside", str(tmp_path / "outside")):
        with pytest.raises(weights.WeightsError, match=r"Hugging Face: revision '.*outside' (climbs out|is absolute)"):
            load(tmp_path, revision=revision)


def test_the_converted_file_does_not_need_the_hub_any_more(home, model, tmp_path, monkeypatch):
    fill(home, model)
    load(tmp_path)
    monkeypatch.setattr(weights.sources.hub, "fetch", None)
    assert load(tmp_path)[0].depth == 2


def test_pytorchs_file_where_there_is_no_other(home, model, tmp_path):
    torch = pytest.importorskip("torch")
    entries = {k: torch.from_numpy(v) for k, v in load_file(tmp_path / "made.safetensors").items()}
    torch.save(entries, tmp_path / "made.bin")
    fill(home, {"pytorch_model.bin": (tmp_path / "made.bin").read_bytes(), "config.json": model["config.json"]})
    backbone, _ = load(tmp_path)
    assert backbone.source.endswith("/pytorch_model.bin")


def test_a_damaged_file_in_the_cache_is_noticed(home, model, tmp_path):
    snapshot = fill(home, model)
    blob = (snapshot / "model.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-3] ^= 1
    blob.write_bytes(bytes(data))
    with pytest.raises(weights.WeightsError, match="damaged in the cache of Hugging Face") as error:
        load(tmp_path)
    assert str(blob) in str(error.value)
    assert not (tmp_path / "cache" / "dino_vitb8.safetensors").exists()


def test_an_empty_cache_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    for offline in (True, False):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        with pytest.raises(weights.WeightsError) as error:
            load(tmp_path)
        text = str(error.value)
        reasons = ("HF_HUB_OFFLINE is set",) if offline else ("huggingface.co cannot be reached",)
        parts = ("config.json and model.safetensors", "https://huggingface.co/facebook/dino-vitb8", "--weights_rgb=")
        for part in (*reasons, *parts, "dino_vitbase8_pretrain.pth"):
            assert part in text
        assert text.isprintable()
    assert not [p for p in tmp_path.glob("cache/*") if not p.name.endswith(".lock")]


# The hub's protocol


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.server.asked.append(f"{self.command} {self.path}")
        _, owner, name, _, revision, file = self.path.split("/", 5)
        data, error = None, None
        if f"{owner}/{name}" != REPOSITORY:
            error = "RepoNotFound"
        elif revision not in ("main", COMMIT, "v1"):
            error = "RevisionNotFound"
        elif file not in self.server.files:
            error = "EntryNotFound"
        else:
            data = self.server.files[file]
        self.send_response(200 if error is None else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        if error is not None:
            self.send_header("X-Error-Code", error)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def hub(model, monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.daemon_threads, server.asked, server.files = True, [], dict(model)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield server
        server.shutdown()
        thread.join()


def test_fetches_from_the_hub(hub, tmp_path):
    backbone, said = load(tmp_path)
    assert backbone.depth == 2
    assert backbone.source == f"huggingface.co/{REPOSITORY}@{COMMIT}/model.safetensors"
    assert said[0] == f"dino_vitb8: trying https://huggingface.co/{REPOSITORY}, revision main"
    asked = len(hub.asked)
    assert load(tmp_path)[0].digest == backbone.digest
    assert len(hub.asked) == asked


def test_a_revision_is_kept_to(hub, home, tmp_path):
    backbone, _ = load(tmp_path, revision="v1")
    assert any("/resolve/v1/" in line for line in hub.asked)
    asked = len(hub.asked)
    for same in ("v1", COMMIT):
        assert load(tmp_path, revision=same)[0].digest == backbone.digest
    assert len(hub.asked) == asked
    with pytest.raises(weights.WeightsError, match="no-such-revision"):
        load(tmp_path, revision="no-such-revision")
    assert load(tmp_path, revision="v1")[0].digest == backbone.digest


def test_a_damaged_file_is_fetched_again(hub, home, model, tmp_path):
    blob = (fill(home, model) / "model.safetensors").resolve()
    blob.write_bytes(b"x" * 100)
    assert load(tmp_path)[0].depth == 2
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def test_a_model_that_does_not_fit_is_said(hub, tmp_path):
    save_file({"something": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    hub.files["model.safetensors"] = (tmp_path / "other.safetensors").read_bytes()
    with pytest.raises(weights.WeightsError, match="no dino checkpoint"):
        load(tmp_path)
    assert not (tmp_path / "cache" / "dino_vitb8.safetensors").exists()


def test_a_repository_without_parameters_is_said(hub, tmp_path):
    del hub.files["model.safetensors"]
    with pytest.raises(weights.WeightsError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load(tmp_path)


def test_fetch_leaves_what_is_there(hub, tmp_path):
    said = []
    one = weights.fetch("dino_vitb8", tmp_path / "mine", report=said.append)
    assert one == tmp_path / "mine" / "dino_vitb8.safetensors"
    changed = one.stat().st_mtime_ns
    assert weights.fetch("dino_vitb8", tmp_path / "mine", report=said.append) == one
    assert one.stat().st_mtime_ns == changed
    assert "there already" in said[-1]
    assert weights.load("pretrained", "dino_vitb8", weights_dir=tmp_path / "mine").depth == 2
    one.write_bytes(one.read_bytes()[:-1])
    weights.fetch("dino_vitb8", tmp_path / "mine", report=said.append)
    assert any("made anew" in line for line in said)
    assert weights.load(one, "dino_vitb8").depth == 2


def test_a_folder_that_cannot_be_written_does_not_stop_the_run(hub, tmp_path):
    (tmp_path / "cache").write_text("a file where the cache should be")
    backbone, said = load(tmp_path)
    assert backbone.depth == 2
    assert any("not kept" in line for line in said)
