"""Reads PyTorch's zip checkpoints without PyTorch and without executing anything.

The pickle inside is interpreted here, opcode by opcode. The few globals such files name become inert stand-ins; any
other global becomes a placeholder that holds its name and can do nothing, and any opcode that is not on the list ends
the reading. Tensors are described first and read only when asked for, so an optimizer costs nothing.
"""

import dataclasses
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from weights.errors import WeightsError

_MAX_PICKLE = 16 << 20
# A large CLIP checkpoint takes 30,000; a bomb would keep the interpreter busy for minutes.
_MAX_OPERATIONS = 200_000
_MAX_TENSOR = 8 << 30
_MAX_STACK = 100_000
_MAX_DEPTH = 100
_LEGACY_START = bytes.fromhex("80028a0a6cfc9c46f9206aa850 19".replace(" ", ""))

_DTYPES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "DoubleStorage": np.dtype("<f8"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


@dataclasses.dataclass(frozen=True)
class Name:
    """A global the pickle mentions; only a name."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Inert:
    """The result of something that was not executed."""

    what: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """Raw values in the archive."""

    dtype: np.dtype
    key: str
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A strided view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class _Mark:
    """Where a group of stack entries begins."""


class _Broken(Exception):
    """What is wrong, without the file's name."""


def _hashable_key(key: Any) -> Any:
    # No tuples: hashing deeply nested ones overruns the stack of the interpreter.
    if not isinstance(key, str | int | bytes | type(None)):
        raise _Broken(f"a dictionary key of type {type(key).__name__}")
    return key


class _Pickle:
    """An interpreter of the opcodes that PyTorch's own safe reader accepts."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The object the pickle describes."""
        table = self._table()
        for _ in range(_MAX_OPERATIONS):
            code = self._take(1)[0]
            if code == ord("."):
                return self._pop()
            if code not in table:
                raise _Broken(f"the pickle uses opcode 0x{code:02x}, which checkpoints do not need")
            table[code]()
            if len(self._stack) > _MAX_STACK:
                raise _Broken("the pickle is nested too deeply")
        raise _Broken("the pickle does not come to an end")

    def _take(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._data):
            raise _Broken("the pickle ends early")
        self._at += count
        return self._data[self._at - count : self._at]

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at)
        if end < 0 or end - self._at > 1000:
            raise _Broken("the pickle holds an endless name")
        return self._take(end + 1 - self._at)[:-1].decode("utf-8", "replace")

    def _unpack(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self._take(struct.calcsize("<" + kind)))[0]

    def _pop(self) -> Any:
        if not self._stack or isinstance(self._stack[-1], _Mark):
            raise _Broken("the pickle takes more than it put down")
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        for i in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[i], _Mark):
                items = self._stack[i + 1 :]
                del self._stack[i:]
                return items
        raise _Broken("the pickle closes a group it never opened")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _table(self) -> dict[int, Callable[[], None]]:
        push, pop = self._push, self._pop
        codes: dict[str, Callable[[], None]] = {
            "\x80": lambda: self._protocol(),
            "(": lambda: push(_Mark()),
            "N": lambda: push(None),
            "\x88": lambda: push(True),
            "\x89": lambda: push(False),
            "J": lambda: push(self._unpack("i")),
            "K": lambda: push(self._unpack("B")),
            "M": lambda: push(self._unpack("H")),
            "\x8a": lambda: push(int.from_bytes(self._take(self._unpack("B")), "little", signed=True)),
            "G": lambda: push(struct.unpack(">d", self._take(8))[0]),
            "X": lambda: push(self._take(self._unpack("I")).decode("utf-8", "replace")),
            "U": lambda: push(self._take(self._unpack("B")).decode("latin-1")),
            ")": lambda: push(()),
            "]": lambda: push([]),
            "}": lambda: push({}),
            "\x8f": lambda: push(set()),
            "t": lambda: push(tuple(self._pop_mark())),
            "\x85": lambda: push((pop(),)),
            "\x86": lambda: self._tuple(2),
            "\x87": lambda: self._tuple(3),
            "a": lambda: self._append([pop()]),
            "e": lambda: self._append(self._pop_mark()),
            "s": lambda: self._set_items([pop(), pop()][::-1]),
            "u": lambda: self._set_items(self._pop_mark()),
            "h": lambda: push(self._remembered(self._unpack("B"))),
            "j": lambda: push(self._remembered(self._unpack("I"))),
            "q": lambda: self._remember(self._unpack("B")),
            "r": lambda: self._remember(self._unpack("I")),
            "c": lambda: push(Name(self._line(), self._line())),
            "Q": lambda: push(self._persistent(pop())),
            "R": lambda: self._reduce(),
            "\x81": lambda: self._reduce(),
            "b": lambda: self._build(),
        }
        return {ord(code): action for code, action in codes.items()}

    def _protocol(self) -> None:
        if self._unpack("B") > 5:
            raise _Broken("the pickle has an unknown protocol")

    def _tuple(self, count: int) -> None:
        self._push(tuple([self._pop() for _ in range(count)][::-1]))

    def _append(self, items: list[Any]) -> None:
        if not self._stack or not isinstance(self._stack[-1], list):
            raise _Broken("the pickle appends to something that is no list")
        self._stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        if not self._stack or not isinstance(self._stack[-1], dict) or len(items) % 2:
            raise _Broken("the pickle sets an item of something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._stack[-1][_hashable_key(key)] = value

    def _remember(self, slot: int) -> None:
        if not self._stack:
            raise _Broken("the pickle remembers nothing")
        self._memo[slot] = self._stack[-1]

    def _remembered(self, slot: int) -> Any:
        if slot not in self._memo:
            raise _Broken("the pickle recalls what it never put down")
        return self._memo[slot]

    def _persistent(self, identity: Any) -> Storage | Inert:
        match identity:
            case ("storage", Name("torch" | "torch.storage", kind), str(key), _, int(count)):
                if kind == "UntypedStorage":
                    return Storage(np.dtype("u1"), key, count)
                if kind not in _DTYPES:
                    return Inert(f"torch.{kind}")
                return Storage(_DTYPES[kind], key, count)
        raise _Broken("a storage is described in an unknown way")

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            raise _Broken("a call without arguments")
        match function, arguments:
            case Name("collections", "OrderedDict"), ():
                self._push({})
            case Name("torch._utils", "_rebuild_tensor_v2"), (Storage(), int(), tuple(), tuple(), *_):
                self._push(_tensor(*arguments[:4]))
            case Name("torch._utils", "_rebuild_parameter"), (Tensor() as data, *_):
                self._push(data)
            case Name(module, name), _:
                # NumPy scalars, devices, dtypes, and whatever else: nothing is called, its value is just not known.
                self._push(Inert(f"{module}.{name}"))
            case _:
                raise _Broken("a call of something that is no function")

    def _build(self) -> None:
        # The state of an OrderedDict is PyTorch's version metadata; of anything else it would be attributes.
        self._pop()
        if not self._stack:
            raise _Broken("the pickle sets the state of nothing")


def _tensor(storage: Storage, offset: int, shape: tuple, strides: tuple) -> Tensor:
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in numbers):
        raise _Broken("a tensor with negative or odd sizes, strides or offset")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if math.prod(shape) else -1
    if len(shape) > 16 or last >= storage.count or math.prod(shape) * storage.dtype.itemsize > _MAX_TENSOR:
        raise _Broken("a tensor that reaches past the end of its storage")
    # Elements laid over each other would let a small file ask for any amount of memory.
    if math.prod(shape) > storage.count:
        raise _Broken("a tensor with more elements than its storage")
    return Tensor(storage, offset, shape, strides)


class TorchFile:
    """A zip checkpoint: `tensors` describes what is in it, `read` brings one in.

    Raises:
        WeightsError: The file is no such checkpoint, or not a sound one; names the file and the way out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._open()
        except _Broken as problem:
            raise WeightsError(f"{path}: no sound PyTorch checkpoint: {problem}; fetch it again") from None
        except (OSError, zipfile.BadZipFile, RecursionError, NotImplementedError) as error:
            raise WeightsError(f"{path}: cannot be read as a PyTorch checkpoint ({error}); fetch it again") from None

    def _open(self) -> None:
        with self.path.open("rb") as file:
            start = file.read(64)
        if start.startswith(_LEGACY_START):
            raise WeightsError(
                f"{self.path}: PyTorch's format of before version 1.6; load it with PyTorch and save it again"
            )
        if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
            raise WeightsError(f"{self.path}: a web page, not a checkpoint; the download went wrong, fetch it again")
        if not start.startswith(b"PK"):
            raise _Broken("it is no zip archive")
        self._zip = zipfile.ZipFile(self.path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        tops, size = set(), self.path.stat().st_size
        for info in self._zip.infolist():
            top, _, rest = info.filename.partition("/")
            tops.add(top)
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size > size:
                raise _Broken(f"its member {info.filename!r} is compressed, encrypted or larger than the file")
            if rest in self._members:
                raise _Broken(f"its member {info.filename!r} comes twice")
            self._members[rest] = info
        if "constants.pkl" in self._members:
            raise WeightsError(
                f"{self.path}: a TorchScript archive, which holds code; pass the model's Hugging Face folder instead"
            )
        if len(tops) != 1 or "data.pkl" not in self._members:
            raise _Broken("it holds no data.pkl")
        if self._members["data.pkl"].file_size > _MAX_PICKLE:
            raise _Broken("its pickle is too large")
        order = self._zip.read(self._members["byteorder"]) if "byteorder" in self._members else b"little"
        if order != b"little":
            raise _Broken("its byte order is not little-endian")
        self.content = _Pickle(self._zip.read(self._members["data.pkl"])).load()

    def tensors(self) -> dict[str, Tensor]:
        """All tensors outside an optimizer, by their names joined with dots."""
        found: dict[str, Tensor] = {}
        seen: set[int] = set()

        def walk(value: Any, name: str, depth: int) -> None:
            if isinstance(value, Tensor):
                found[name] = value
            elif isinstance(value, dict):
                if depth > _MAX_DEPTH or id(value) in seen:
                    raise WeightsError(f"{self.path}: no sound PyTorch checkpoint: it nests dictionaries endlessly")
                seen.add(id(value))
                for key, inner in value.items():
                    if not (depth == 0 and key in ("optimizer", "lr_scheduler", "scheduler")):
                        walk(inner, f"{name}.{key}" if name else str(key), depth + 1)

        walk(self.content, "", 0)
        return found

    def read(self, tensor: Tensor) -> np.ndarray:
        """The values of one tensor.

        Raises:
            WeightsError: The storage is missing, or not as long as the pickle says.
        """
        storage = tensor.storage
        info = self._members.get(f"data/{storage.key}")
        if info is None or info.file_size != storage.count * storage.dtype.itemsize:
            raise WeightsError(
                f"{self.path}: no sound PyTorch checkpoint: storage {storage.key!r} is missing or of another length; "
                f"fetch it again"
            )
        try:
            flat = np.frombuffer(self._zip.read(info), storage.dtype)
        except (OSError, zipfile.BadZipFile) as error:
            raise WeightsError(f"{self.path}: cannot be read ({error}); fetch it again") from None
        strides = tuple(s * storage.dtype.itemsize for s in tensor.strides)
        view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
        return np.array(view)
