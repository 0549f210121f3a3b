"""A checkpoint on disk as named entries, whatever its format: described at once, read one by one."""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from musc_jax._text import shown
from musc_jax.storage.signatures import START, foreign
from weights.errors import WeightsError
from weights.foreign import foreign_model, refuse_foreign
from weights.npz_file import is_npz, npz_arrays
from weights.torch_file import TorchFile

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
SAFETENSORS = ".safetensors"
_OTHER_FORMS = ("*.index.json", "*.msgpack", "*.h5", "*.onnx", "*.gguf", "*.pb", "*.index", "*.zip")
# Headers of the largest checkpoints take some 100 KB; the library would read one of 100 MB.
_MAX_HEADER = 4 << 20
_MAX_SETTINGS = 1 << 20
# CLIP with its text part has 600, a training state of Point-MAE 500.
_MAX_ENTRIES = 10_000
_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# What wrappers put in front of names, in any order.
_WRAPPERS = re.compile(
    r"(?:(?:module|base_model|MAE_encoder|state_dict|vision_model|backbone|vit|dinov2|dinov2_with_registers|vision_encoder|model)\.)*"
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One named array of a checkpoint.

    Attributes:
        shape: Its shape.
        dtype: The name of its type.
        read: Brings in the values; checked already is that they are no more than the file holds.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A file with parameters, and what lies beside it.

    Attributes:
        path: The file.
        settings: The content of config.json, of its vision part where it has one; None without.
    """

    path: Path
    settings: dict[str, Any] | None

    @property
    def settings_path(self) -> Path:
        """Where config.json is, or would be."""
        return self.path.parent / "config.json"

    def file_digest(self) -> str:
        """SHA-256 of the file."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def digest(self, file_digest: str | None = None) -> str:
        """SHA-256 of the file's digest and the settings: what the parameters depend on."""
        parts = [file_digest or self.file_digest(), self.settings]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def locate(path: Path) -> Checkpoint:
    """The file with the parameters that a path names, itself or the one in a folder.

    Raises:
        WeightsError: Nothing there, a folder without the files of a model, settings that cannot be read.
    """
    try:
        if path.is_dir():
            file = next((path / name for name in FOLDER_FILES if (path / name).is_file()), None)
            if file is None:
                expected = f"{path}: expected {' or '.join(FOLDER_FILES)} in this folder, found neither"
                raise WeightsError(expected + _other_forms(path))
            if not (path / "config.json").is_file():
                raise WeightsError(
                    f"{path}: expected config.json beside {file.name}; copy the whole folder of the model, or pass "
                    f"{file} if there is none"
                )
            return Checkpoint(file, _settings(path / "config.json"))
        if path.is_file():
            beside = path.parent / "config.json"
            # These come without one; a config.json there is another model's.
            alone = path.suffix in (".pth", ".pt", ".npz")
            return Checkpoint(path, _settings(beside) if not alone and beside.is_file() else None)
        if os.path.lexists(path):
            raise WeightsError(f"{path}: neither a file nor a folder (a broken link?); pass a path that is one")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be looked at ({error.strerror or error})") from None
    raise WeightsError(f"{path}: no such file or folder")


def _other_forms(folder: Path) -> str:
    """In which other form a folder holds a model, to be said behind what was expected."""
    for pattern in _OTHER_FORMS:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and (other := foreign_model(path)) is not None:
                return f", but {path.name}: {other.what}; {other.way_out}"
    return ""


def _settings(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_SETTINGS:
            raise ValueError("larger than any such file")
        data = path.read_bytes()
        if (other := foreign(data[:START])) is not None:
            raise WeightsError(f"{path}: {other.what}; {other.way_out}")
        content = json.loads(data)
        content = content.get("vision_config") or content if isinstance(content, dict) else content
        if not isinstance(content, dict):
            raise ValueError("expected an object")
    except WeightsError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON ({shown(error)}); fetch it again") from None
    return content


def read_entries(path: Path) -> dict[str, Entry]:
    """All entries of a checkpoint by their names, without what wrappers put in front of them.

    Raises:
        WeightsError: The file is not sound; names it and the way out.
    """
    refuse_foreign(path)
    with path.open("rb") as file:
        start = file.read(9)
    # By what it is, not by what it is called: the header of a safetensors file is JSON behind its length.
    if path.suffix == SAFETENSORS or start[8:9] == b"{":
        found = _safetensors(path)
    else:
        found = _npz(path) if is_npz(path) else _torch(path)
    entries: dict[str, Entry] = {}
    for name, entry in found.items():
        bare = strip_prefixes(name)
        if bare in entries:
            raise WeightsError(
                f"{path}: holds {shown(bare)} more than once, in several wrappers; pass one model's file"
            )
        entries[bare] = entry
    if not entries:
        raise WeightsError(f"{path}: holds no parameters; pass the model's checkpoint")
    return entries


def _refuse_crowds(path: Path, entries: int) -> None:
    """Comparing hundreds of thousands of names with the tables takes long, and longer to tell of them."""
    if entries > _MAX_ENTRIES:
        raise WeightsError(f"{path}: holds {entries} parameters, which no backbone has; pass one model's checkpoint")


def safetensors_header(path: Path) -> int:
    """Size of a safetensors file's header in bytes.

    Raises:
        WeightsError: It is cut short, or larger than any checkpoint's.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if not 2 <= size <= min(_MAX_HEADER, path.stat().st_size - 8):
        raise WeightsError(f"{path}: cannot be read as safetensors (its header's size is senseless); fetch it again")
    return size


def _safetensors(path: Path) -> dict[str, Entry]:
    safetensors_header(path)
    try:
        archive = safe_open(path, framework="np")
        names = archive.keys()
        _refuse_crowds(path, len(names))
        entries = {}
        for name in names:
            part = archive.get_slice(name)
            kind = part.get_dtype()
            entries[name] = Entry(tuple(part.get_shape()), _TYPES.get(kind, kind), partial(archive.get_tensor, name))
        return entries
    except WeightsError:
        raise
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({shown(error)}); fetch it again") from None


def _torch(path: Path) -> dict[str, Entry]:
    archive = TorchFile(path)
    tensors = archive.tensors()
    _refuse_crowds(path, len(tensors))
    return {
        name: Entry(tensor.shape, tensor.storage.dtype.name, partial(archive.read_parameter, tensor))
        for name, tensor in tensors.items()
    }


def _npz(path: Path) -> dict[str, Entry]:
    arrays = npz_arrays(path, most=_MAX_ENTRIES)
    return {name: Entry(array.shape, array.dtype.name, array.read) for name, array in arrays.items()}


def strip_prefixes(name: str) -> str:
    """A name without what wrappers put in front of it, in any order."""
    return _WRAPPERS.sub("", name, count=1)
