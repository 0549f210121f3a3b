"""Converted parameters as a safetensors file that says where they come from, loaded by memory map.

A file that is damaged, of another converter or of another backbone is never used: `read` raises, and whoever has the
source converts it again.
"""

import dataclasses
import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from musc_jax._text import shown
from musc_jax.models import PointTransformerConfig, VitConfig
from musc_jax.storage import atomic
from weights.architecture import Architecture, check
from weights.backbones import BACKBONES
from weights.errors import WeightsError
from weights.files import SAFETENSORS, safetensors_header

# Raised whenever the same checkpoint would become other parameters, so that files of an older converter are not used.
CONVERTER = 1
_KEY = "musc_jax_converter"


class CannotWriteError(WeightsError):
    """There is no room, or no permission."""


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where converted parameters come from.

    Attributes:
        backbone: Name of the backbone.
        source: What was converted, for people.
        source_digest: SHA-256 of the source and its settings.
        architecture: What was found in it.
        origin: The published place it was fetched from, "" for a file of the user.
        revision: What was asked for there.
    """

    backbone: str
    source: str
    source_digest: str
    architecture: Architecture
    origin: str = ""
    revision: str = ""


def write(path: Path, values: Mapping[str, np.ndarray], provenance: Provenance) -> None:
    """Writes converted parameters: whole or not at all, whatever happens meanwhile.

    Args:
        path: Where to; a file that is there is replaced.
        values: float32 arrays by parameter path.
        provenance: Goes into the metadata, with the converter's version and a digest of the values.

    Raises:
        CannotWriteError: Not there.
    """
    metadata = {
        _KEY: str(CONVERTER),
        "backbone": provenance.backbone,
        "source": provenance.source,
        "origin": provenance.origin,
        "revision": provenance.revision,
        "source_sha256": provenance.source_digest,
        "architecture": json.dumps(dataclasses.asdict(provenance.architecture), sort_keys=True),
        "parameters_sha256": _digest(values),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.sweep(path.parent)
        with atomic.temporary(path) as part:
            part.touch()
            mode = part.stat().st_mode  # what new files have here; safetensors makes its own for the owner alone
            save_file(dict(values), part, metadata)
            part.chmod(mode)
            part.replace(path)
    except (OSError, SafetensorError) as error:
        raise CannotWriteError(f"{path}: cannot be written ({shown(error)}); pass another folder") from None


def is_converted(path: Path) -> bool:
    """Whether a file was written by `write`, by any version."""
    if path.suffix != SAFETENSORS or not path.is_file():
        return False
    try:
        return _KEY in _metadata(path)
    except WeightsError:
        return False


def _metadata(path: Path) -> dict[str, str]:
    safetensors_header(path)
    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({shown(error)})") from None


def is_own(path: Path) -> bool:
    """Whether a converted file was made from a file of the user, so that nothing published can replace it."""
    return not _metadata(path).get("origin")


def read(path: Path, backbone: str) -> tuple[dict[str, np.ndarray], Provenance]:
    """Converted parameters of a backbone, checked.

    Args:
        path: A file by `write`.
        backbone: Whose parameters they must be.

    Returns:
        float32 arrays by parameter path, which lie in the mapped file, and where they come from.

    Raises:
        WeightsError: The file is damaged, of another converter, or of another backbone.
    """
    try:
        size = safetensors_header(path)
        metadata = _metadata(path)
        if metadata.get(_KEY) != str(CONVERTER):
            raise WeightsError(
                f"{path}: version {shown(metadata.get(_KEY))} of the converter wrote it, this is {CONVERTER}; "
                f"convert it again"
            )
        if metadata.get("backbone") != backbone:
            raise WeightsError(
                f"{path}: parameters of {shown(metadata.get('backbone'))}, not of {backbone}; pass the right --backbone"
            )
        provenance = _provenance(path, metadata)
        values = _map(path, size)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({shown(error)})") from None
    if _digest(values) != metadata.get("parameters_sha256"):
        raise WeightsError(f"{path}: damaged (its checksum differs); convert it again")
    return values, provenance


def _provenance(path: Path, metadata: Mapping[str, str]) -> Provenance:
    backbone = metadata["backbone"]
    try:
        fields: Any = json.loads(metadata["architecture"])
        if "conv_widths" in fields:
            fields["conv_widths"] = tuple(fields["conv_widths"])
        kind = type(BACKBONES[backbone].config)
        assert kind in (VitConfig, PointTransformerConfig)
        architecture = kind(**fields)
        known = {k: metadata[k] for k in ("source", "origin", "revision")} | {
            "source_digest": metadata["source_sha256"]
        }
    except (KeyError, TypeError, ValueError, RecursionError):
        raise WeightsError(f"{path}: its metadata are damaged; convert it again") from None
    check(architecture, str(path))
    return Provenance(backbone=backbone, architecture=architecture, **known)


def _map(path: Path, header_size: int) -> dict[str, np.ndarray]:
    """The arrays, without reading them. That offsets are in order was checked when the library opened the file."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header = json.loads(mapped[8 : 8 + header_size])
    values = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise WeightsError(f"{path}: {shown(name)} is not float32; convert it again")
        start, end = entry["data_offsets"]
        flat = np.frombuffer(mapped, np.float32, (end - start) // 4, 8 + header_size + start)
        values[name] = flat.reshape(entry["shape"])
    return values


def _digest(values: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes and the SHA-256 of every array; arrays side by side, hashing leaves the lock alone."""

    def one(name: str) -> str:
        value = np.ascontiguousarray(values[name])
        return f"{name} {value.shape} {hashlib.sha256(value.reshape(-1).view(np.uint8).data).hexdigest()}"

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        lines = list(pool.map(one, sorted(values)))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
