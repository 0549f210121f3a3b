"""Files that people take for checkpoints: named for what they are, with the way out."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile

import msgpack
import numpy as np
import pytest
from safetensors.numpy import save

import weights
from weights import WeightsError
from weights.files import read_entries

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 346293852\n".format("83d7" * 16).encode()
INDEX = {
    "metadata": {"total_size": 9},
    "weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"},
}


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return file.getvalue()


def tarred(name):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    return file.getvalue()


def npy():
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


def numbered(*fields):
    """Protocol buffers' fields: numbers, or bytes."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += bytes([number << 3, value])
        else:
            out += bytes([number << 3 | 2, len(value)]) + value
    return out


FOREIGN = {
    "w.pth, a Git LFS pointer": (POINTER, "a Git LFS pointer, not the file itself; fetch that by `git lfs pull`"),
    "w.safetensors, a Git LFS pointer": (POINTER, "a Git LFS pointer"),
    "w.bin, a git-annex pointer": (b"/annex/objects/SHA256E-s3--abc.bin\n", "a git-annex pointer.*git annex get"),
    "w.npy, an array": (npy(), "a single array of NumPy"),
    "w.pth, a page": (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page, not the file itself; .*fetch it again"),
    "w.safetensors, an answer in XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
    "w.pth, an answer in a line": (
        b"404: Not Found",
        r"text \('404: Not Found'\); if that is a server's answer",
    ),
    "w.safetensors, an answer in a line": (b"Entry not found", r"text \('Entry not found'\)"),
    "w.bin, an answer in JSON": (b'{"error": "Repository is gated"}', r"a server's answer \('Repository is gated'\)"),
    "w.pth.gz, packed": (gzip.compress(b"x" * 999), "a gzip archive; unpack it, and use what is in it"),
    "w.zip, around a checkpoint": (
        zipped(model__model_best__pth=b"", model__weights__safetensors=b"").replace(b"/pth", b".pth"),
        r"a ZIP archive around model/model_best\.pth; unpack it, and pass that",
    ),
    "w.zip, around others": (
        zipped(a="", b="", c="", d=""),
        r"a ZIP archive of something else \(a, b, c, \.\.\.\); pass the model's checkpoint",
    ),
    "w.tar, around something": (tarred("model/w.pth"), "a tar archive; unpack it"),
    "w.pth, of PyTorch 0.1": (tarred("sys_info"), "PyTorch's format of before version 0.1.10.*save it again"),
    "w.onnx, of PyTorch": (
        numbered((1, 8), (2, b"pytorch"), (3, b"2.1"), (7, b"graph")),
        "a model in ONNX; it cannot",
    ),
    "w.onnx, of others": (numbered((8, b"\n\0\x10\x11"), (1, 7)), "a model in ONNX"),
    "saved_model.pb, of TensorFlow": (numbered((1, 1), (2, b"graph")), "a model of TensorFlow; .*turned back"),
    "w.ckpt.index, of TensorFlow": (
        b"\0\0\x0c\x08\x01\x12" + bytes(50) + bytes.fromhex("57fb808b247547db"),
        "a checkpoint of TensorFlow, which is not read",
    ),
    "w.ckpt.data-00000-of-00001, of TensorFlow": (np.ones(9, "f4").tobytes(), "a checkpoint of TensorFlow"),
    "checkpoint, of TensorFlow": (b'model_checkpoint_path: "w.ckpt"\n', "a checkpoint of TensorFlow"),
    "w.tflite, of TensorFlow": (b"\x1c\0\0\0TFL3" + bytes(20), "a model of TensorFlow Lite"),
    "w.h5, of Keras": (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5, as Keras and TensorFlow write"),
    "w.keras, of Keras": (
        zipped(config__json="{}").replace(b"config/json", b"config.json"),
        "a ZIP archive of some",
    ),
    "w.keras, with its parameters": (
        zipped(m="{}", **{"model.weights.h5": b""}),
        "a model of Keras",
    ),
    "flax_model.msgpack, of Flax": (
        msgpack.packb({"vit": {"kernel": msgpack.ExtType(1, b"x" * 40)}}),
        r"parameters of Flax \(msgpack\), which are not read",
    ),
    "w.msgpack, of many": (msgpack.packb({f"layer {i}": i for i in range(99)}), "parameters of Flax"),
    "w.gguf, of llama.cpp": (b"GGUF\x03\0\0\0" + bytes(40), "a model in GGUF"),
    "w.xml, of OpenVINO": (
        b'<?xml version="1.0"?>\n<net name="vit" version="11">',
        "a model of OpenVINO; it cannot",
    ),
    "w.pkl, of Python": (pickle.dumps({"a": np.ones(3)}), "a pickle of Python objects, which could execute anything"),
    "w.pth, empty": (b"", "empty; fetch it again"),
    "w.safetensors, empty": (b"", "empty; fetch it again"),
    "model.safetensors.index.json, a list": (
        json.dumps(INDEX).encode(),
        "the list of a model in 2 parts, which are not joined; .*save_pretrained",
    ),
    "config.json, settings": (b'{"hidden_size": 32}', "JSON, not a checkpoint; pass the file with the parameters"),
    "w.png, a picture": (b"\x89PNG\r\n\x1a\n" + bytes(30), "a picture; pass the model's checkpoint"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_checkpoint_is_named(tmp_path, case):
    data, message = FOREIGN[case]
    path = tmp_path / case.partition(",")[0]
    path.write_bytes(data)
    if path.name != "config.json":
        with pytest.raises(WeightsError, match=f"^{path}: {message}"):
            weights.load(path, "dino_vitb8", heads=2)
    with pytest.raises(WeightsError, match=f"^{path}: {message}") as error:
        read_entries(path)
    assert str(error.value).isprintable()


def test_a_header_of_any_length_is_no_signature(tmp_path):
    """The length of a safetensors header comes first: of 35,615 bytes it begins as gzip does, of 16,961 as BMP."""
    for length in (0x8B1F, 0x4D42, 0x0808, 0xA181, 0x0280):
        data = save({"w": np.ones(3, np.float32)})
        (size,) = np.frombuffer(data[:8], "<u8")
        header = data[8 : 8 + size].rstrip().ljust(length)
        (tmp_path / "w.bin").write_bytes(length.to_bytes(8, "little") + header + data[8 + size :])
        assert set(read_entries(tmp_path / "w.bin")) == {"w"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "model.safetensors.index.json",
            "found neither, but model.safetensors.index.json: the list of a model",
        ),
        ("flax_model.msgpack", "found neither, but flax_model.msgpack: parameters of Flax"),
        ("notes.txt", "found neither$"),
    ],
)
def test_what_a_folder_has_instead_is_named(tmp_path, name, message):
    content = {"index.json": json.dumps(INDEX).encode(), "msgpack": msgpack.packb({"vit": {}}), "txt": b"notes"}
    (tmp_path / name).write_bytes(next(data for end, data in content.items() if name.endswith(end)))
    with pytest.raises(WeightsError, match=message):
        weights.load(tmp_path, "dino_vitb8")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_cloned_without_git_lfs_is_named(tmp_path, name):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes(POINTER if file == name else b"{}")
    with pytest.raises(WeightsError, match=f"{tmp_path / name}: a Git LFS pointer.*git lfs pull"):
        weights.load(tmp_path, "dino_vitb8")
