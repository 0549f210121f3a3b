"""Files that hold a model, but not in a form that is read here, and those that hold none: named, with the way out."""

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from musc_jax._text import shown
from musc_jax.storage.signatures import START, Foreign, foreign
from weights.errors import WeightsError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x80\x02\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little")
"""How PyTorch's older format begins."""

_PASS = "pass the model's checkpoint of PyTorch or safetensors"
_EXPORT = f"it cannot be turned back; {_PASS}"
_MAX_JSON = 16 << 20
_TENSORFLOW_PART = re.compile(r"\.data-\d{5}-of-\d{5}")
_TENSORFLOW_INDEX = bytes.fromhex("57fb808b247547db")  # the last bytes
_TENSORFLOW = Foreign("a checkpoint of TensorFlow, which is not read", _PASS)
# What PyTorch put into its archives before version 0.1.10.
_OLDEST = (b"sys_info\0", b"pickle\0", b"tensors\0", b"storages\0")
_OLDEST_PYTORCH = Foreign(
    "PyTorch's format of before version 0.1.10, which is not read", "load it with PyTorch and save it again"
)
_PICTURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
_NOT_READ = {
    b"GGUF": Foreign("a model in GGUF, as llama.cpp has it, which is not read", _PASS),
    b"\x93NUMPY": Foreign("a single array of NumPy", _PASS),
    b"\x89HDF\r\n\x1a\n": Foreign("HDF5, as Keras and TensorFlow write, which is not read", _PASS),
    b"model_checkpoint_path:": _TENSORFLOW,
    **dict.fromkeys(_PICTURES, Foreign("a picture", _PASS)),
}
_INSIDE = (".safetensors", ".bin", ".pth", ".pt")


def foreign_model(path: Path) -> Foreign | None:
    """What a file is, if its first bytes tell that it is no checkpoint of PyTorch or safetensors."""
    with path.open("rb") as file:
        start = file.read(START)
        file.seek(max(0, file.seek(0, 2) - len(_TENSORFLOW_INDEX)))
        end = file.read()
    if not start:
        return Foreign("empty", "fetch it again")
    if start[4:9] == b"\0\0\0\0{":  # safetensors: the length of its header could look like anything
        return None
    if start[257:262] == b"ustar" and start.startswith(_OLDEST):
        return _OLDEST_PYTORCH
    if start.startswith(b"PK\x03\x04"):  # PyTorch's own form, too: what is in it tells
        return None
    if start.startswith(b"<?xml") and b"<net" in start:
        return Foreign("a model of OpenVINO", _EXPORT)
    known = next((kind for signature, kind in _NOT_READ.items() if start.startswith(signature)), None) or foreign(start)
    if known is not None:
        return known
    if end == _TENSORFLOW_INDEX or _TENSORFLOW_PART.search(path.name):
        return _TENSORFLOW
    if start[4:8] == b"TFL3":
        return Foreign("a model of TensorFlow Lite", _EXPORT)
    if _is_protobuf(start) or path.suffix in (".onnx", ".pb"):
        return Foreign("a model of TensorFlow" if path.suffix == ".pb" else "a model in ONNX", _EXPORT)
    if start[0] == 0x80 and 2 <= (start[1:2] or b"\0")[0] <= 5 and not start.startswith(LEGACY_START[2:], 2):
        way_out = "load it with what wrote it and save the parameters by torch.save or safetensors"
        return Foreign("a pickle of Python objects, which could execute anything", way_out)
    if _is_msgpack(start):
        return Foreign("parameters of Flax (msgpack), which are not read", _PASS)
    return _of_text(path, start) if b"\0" not in start else None


def refuse_foreign(path: Path) -> None:
    """Refuses a file that is no checkpoint of PyTorch or safetensors, where its first bytes tell.

    Raises:
        WeightsError: It is something else; says what.
    """
    if (found := foreign_model(path)) is not None:
        raise WeightsError(f"{path}: {found.what}; {found.way_out}")


def _is_protobuf(start: bytes) -> bool:
    """Version of the format, then the name of who wrote it, or the graph."""
    return len(start) > 3 and start[0] == 0x08 and 1 <= start[1] < 64 and start[2] in (0x12, 0x1A, 0x3A, 0x42)


def _is_msgpack(start: bytes) -> bool:
    """A map whose first key is text."""
    at = 1 if 0x81 <= start[0] <= 0x8F else {0xDE: 3, 0xDF: 5}.get(start[0], len(start))
    return at < len(start) and (0xA1 <= start[at] <= 0xBF or start[at] == 0xD9)


def _of_text(path: Path, start: bytes) -> Foreign | None:
    try:
        text = start.decode("utf-8-sig", "strict" if len(start) < START else "ignore").strip()
    except UnicodeDecodeError:
        return None
    if text.startswith(("{", "[")):
        return _of_json(path)
    if any(not (c.isprintable() or c.isspace()) for c in text):
        return None
    first = (text.splitlines() or [""])[0]
    return Foreign(f"text ({shown(first[:60])!r})", f"if that is a server's answer, fetch the file again, else {_PASS}")


def _of_json(path: Path) -> Foreign:
    content = None
    if path.stat().st_size <= _MAX_JSON:
        with contextlib.suppress(ValueError, RecursionError):
            content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict) and isinstance(content.get("weight_map"), dict):
        parts = len({str(part) for part in content["weight_map"].values()})
        return Foreign(
            f"the list of a model in {parts} parts, which are not joined",
            "load it with transformers and save it whole: model.save_pretrained(FOLDER, max_shard_size='100GB')",
        )
    if isinstance(content, dict) and "error" in content:
        return Foreign(f"a server's answer ({shown(str(content['error'])[:60])!r})", "fetch it again")
    return Foreign("JSON, not a checkpoint", "pass the file with the parameters, or the folder that has both")


def of_archive(names: Sequence[str]) -> Foreign | None:
    """What a ZIP archive with these members is; None if it may be a checkpoint of PyTorch."""
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return None
    if any(name.endswith(("model.weights.h5", "variables.h5")) for name in names):
        return Foreign("a model of Keras, which is not read", _PASS)
    inside = next((name for name in names if name.endswith(_INSIDE)), None)
    if inside is not None:
        return Foreign(f"a ZIP archive around {shown(inside)}", "unpack it, and pass that")
    listed = ", ".join(shown(name) for name in names[:3])
    return Foreign(f"a ZIP archive of something else ({listed}{', ...' * (len(names) > 3)})", _PASS)
