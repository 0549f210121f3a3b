"""Files of tokens, one a sample: safetensors with a key for each array, or NumPy's own with the tokens of an image.

Written by anybody, so nothing in them is believed: sizes are compared with the file's before anything is made of them,
and nothing in them is run.
"""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from musc_jax.data.formats.files import DECODE_ERRORS, NPY_PARSING, Content, FileFault, brief, read
from musc_jax.data.sample import SampleTokens
from musc_jax.models.given import grid_objection

ENDINGS = (".safetensors", ".npy")
"""Of files of tokens."""

_FLOATS: dict[str, np.dtype] = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}
_WHOLE: dict[str, np.dtype] = {
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "U32": np.dtype(np.uint32),
    "U64": np.dtype(np.uint64),
}
_STAGES = ("image", "points")
_ROWS = {"pixels": (None,), "centers": (None, 3), "curvature": (None,), "embedding": (None,)}
_KEYS = "image.0, image.1, ..., points.0, points.1, ..., pixels, centers, curvature, embedding"
_TYPES = "save float32, float16, bfloat16 or float64"


class TokenFile(NamedTuple):
    """What a file holds of a sample.

    Attributes:
        tokens: Of the sample; its pixels are none where only centers say where groups lie.
        centers: Of the groups, in the unit of the scan; None where there are none.
        digest: SHA-256 of the file.
        notes: What who wrote it has put beside.
    """

    tokens: SampleTokens
    centers: Float32[np.ndarray, "G 3"] | None
    digest: str
    notes: Mapping[str, str]

    @property
    def shapes(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Of the stages, by modality."""
        return {kind: tuple(stage.shape for stage in getattr(self.tokens, kind)) for kind in _STAGES}


def read_tokens(path: Path, *, grid: int | None = None) -> TokenFile:
    """Reads a file strictly.

    Args:
        path: The file.
        grid: Side of the patch grid; default what the number of tokens says.

    Raises:
        FileFault: It is damaged, or holds anything else; names the file and the way out.
    """
    content = read(path)
    if path.suffix == ".npy":
        found = TokenFile(SampleTokens(image=_npy_stages(content, grid)), None, content.digest, {})
    else:
        arrays, notes = _safetensors(content)
        found = TokenFile(*_from_arrays(path, arrays), content.digest, notes)
    for i, stage in enumerate(found.tokens.image):
        _expect_grid(path, f"image.{i}", len(stage), grid)
    return found


def tokens_bytes(tokens: SampleTokens, notes: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file that `read_tokens` gives back as they are.

    Args:
        tokens: Of one sample.
        notes: Kept beside.
    """
    arrays: dict[str, Any] = {f"{kind}.{i}": a for kind in _STAGES for i, a in enumerate(getattr(tokens, kind))}
    if tokens.points:
        arrays |= {"pixels": tokens.pixels, "curvature": tokens.curvature}
    arrays["embedding"] = tokens.embedding
    return save({k: np.ascontiguousarray(a) for k, a in arrays.items() if a is not None}, metadata=dict(notes))


def _npy_stages(content: Content, grid: int | None) -> tuple[np.ndarray, ...]:
    file = io.BytesIO(content.data)
    dtype: Any
    try:
        with NPY_PARSING:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = header(file)
    except DECODE_ERRORS as error:
        raise FileFault(content.path, f"cannot be read as NPY ({brief(error)})", "save it by numpy.save") from None
    if dtype.hasobject:
        raise FileFault(content.path, "holds Python objects, which are not read", "save an array of numbers")
    if dtype.kind == "V":
        raise FileFault(content.path, f"holds {dtype}, as NPY files of bfloat16 do", "save float32, or safetensors")
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise FileFault(content.path, f"holds {dtype}", _TYPES)
    if math.prod(shape) * dtype.itemsize != len(content.data) - file.tell():
        raise FileFault(content.path, f"claims {shape} values of {dtype} and does not hold so many", "save it again")
    if len(shape) not in (2, 3) or 0 in shape:
        raise FileFault(
            content.path, f"has the shape {shape}", "expected (tokens, channels) or (stages, tokens, channels)"
        )
    side = math.isqrt(shape[1])
    if len(shape) == 3 and shape[0] == shape[1] and grid != side and side * side == shape[1]:
        raise FileFault(
            content.path,
            f"{shape} may be {shape[0]} stages of {side} x {side} patches, or {shape[0]} x {shape[0]} patches",
            f'save patches as ({shape[0] ** 2}, {shape[2]}), or say {{"grid": {side}}} in features.json',
        )
    values = np.frombuffer(content.data, np.dtype(dtype), offset=file.tell())
    array = values.reshape(shape, order="F" if by_columns else "C")
    stages = array[None] if array.ndim == 2 else array
    return tuple(_floats(content.path, "the array", stage) for stage in stages)


def _safetensors(content: Content) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, notes)."""
    path, data = content.path, content.data
    try:
        entries: list[tuple[str, Any]] = deserialize(data)  # compares all sizes with the file's
        notes = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
    except (SafetensorError, ValueError, RecursionError) as error:
        raise FileFault(path, f"cannot be read as safetensors ({brief(error)})", "save it again") from None
    arrays = {}
    for name, entry in entries:
        kind = entry["dtype"]
        wanted = _WHOLE if name == "pixels" else _FLOATS
        if kind not in wanted:
            way_out = "save int32 or int64" if name == "pixels" else _TYPES
            raise FileFault(path, f"{name}: holds {kind}", way_out)
        arrays[name] = np.frombuffer(entry["data"], wanted[kind]).reshape(entry["shape"])
    return arrays, notes


def _from_arrays(path: Path, arrays: dict[str, np.ndarray]) -> tuple[SampleTokens, np.ndarray | None]:
    """(tokens, centers) of named arrays."""
    stages = {kind: _take_stages(path, kind, arrays) for kind in _STAGES}
    if unknown := sorted(arrays.keys() - _ROWS.keys()):
        raise FileFault(path, f"{unknown[0]!r} is no name of an array here", f"expected {_KEYS}")
    if not any(stages.values()):
        raise FileFault(path, "holds no tokens", f"expected {_KEYS}")
    groups = len(stages["points"][0]) if stages["points"] else 0
    for name, array in arrays.items():
        shape = tuple(groups if size is None and name != "embedding" else size for size in _ROWS[name])
        if array.ndim != len(shape) or any(size not in (None, got) for size, got in zip(shape, array.shape)):
            shown = ", ".join("any" if size is None else str(size) for size in shape)
            raise FileFault(path, f"{name}: expected the shape ({shown}), received {array.shape}", "save it so")
    if groups and not arrays.keys() & {"pixels", "centers"}:
        raise FileFault(path, "does not say where its groups lie", "save pixels (row * size + column), or centers")
    pixels = arrays.pop("pixels", np.zeros(0, np.int32))
    # Before it becomes narrower.
    if len(pixels) and not (pixels.min() >= 0 and pixels.max() < 2**31):
        raise FileFault(path, "pixels: expected numbers from 0 on", "save row * size + column of each group's centre")
    rows = {name: _floats(path, name, array) for name, array in arrays.items()}
    tokens = SampleTokens(
        stages["image"], stages["points"], pixels.astype(np.int32), rows.get("curvature"), rows.get("embedding")
    )
    return tokens, rows.get("centers")


def _take_stages(path: Path, kind: str, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Takes `kind.0`, `kind.1`, ... out of the arrays."""
    found: list[np.ndarray] = []
    while (name := f"{kind}.{len(found)}") in arrays:
        array = arrays.pop(name)
        if array.ndim != 2 or 0 in array.shape or (found and len(array) != len(found[0])):
            wanted = f"({len(found[0])}, channels)" if found else "(tokens, channels)"
            raise FileFault(path, f"{name}: expected the shape {wanted}, received {array.shape}", "save it so")
        found.append(_floats(path, name, array))
    return tuple(found)


def _floats(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinite then, which is said
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise FileFault(path, f"{name}: holds values that are not finite", "leave the sample out, or compute it again")
    return values


def _expect_grid(path: Path, name: str, count: int, grid: int | None) -> None:
    objection = grid_objection(count)
    if objection is not None:
        fault, _, way_out = objection.partition("; ")
        raise FileFault(path, f"{name}: {fault}", way_out)
    if grid is not None and grid * grid != count:
        raise FileFault(path, f"{name}: {count} tokens are not the {grid} x {grid} of features.json", "correct either")
