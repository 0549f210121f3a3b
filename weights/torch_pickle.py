"""Interprets the pickles of PyTorch's checkpoints without PyTorch and without executing anything.

Opcode by opcode: those that PyTorch's own safe reader accepts, two more that Python 2 wrote, and no other. The few
globals such files name become inert stand-ins: tensors are described, not read; NumPy's numbers and the like are
placeholders that hold a name and can do nothing. Any other global ends the reading.
"""

import dataclasses
import math
import struct
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from musc_jax._text import shown

MAX_PICKLE = 16 << 20
# A large CLIP checkpoint takes 30,000; a bomb would keep the interpreter busy for minutes.
_MAX_OPERATIONS = 200_000
_MAX_LINE = 200
# Larger numbers can be chosen so that all of them meet in one slot of a dictionary, which then takes minutes to fill.
_MAX_KEY = 1 << 31
_MAX_STACK = 100_000
_MAX_COUNT = 1 << 40
_MAX_AXES = 16

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


# What a checkpoint may mention besides its tensors; none of it is ever called. Modules of which all names are harmless
# are those that hold types of values only.
_HARMLESS_MODULES = ("torch", "torch.storage", "torch._utils", "torch.torch_version", "numpy", "numpy.dtypes")
_HARMLESS = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("collections", "Counter"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
    ("argparse", "Namespace"),
    ("torch.nn.parameter", "Parameter"),
    ("torch.autograd.variable", "Variable"),
    ("torch._tensor", "_rebuild_from_type_v2"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("pathlib", "Path"),
    ("datetime", "datetime"),
} | {(module, name) for module in ("builtins", "__builtin__") for name in ("dict", "list", "set", "tuple", "slice")}


class BrokenPickleError(Exception):
    """What is wrong, without the file's name."""


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
    """Raw values in the archive.

    Attributes:
        dtype: Of one value.
        key: Its name there.
        count: Number of values.
        start: First of them; other than 0 only where the old format has one storage inside of another.
        whole: Number of values of the one it is inside of, None where that is not said.
    """

    dtype: np.dtype
    key: str
    count: int
    start: int = 0
    whole: int | None = None


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


def _hashable_key(key: Any) -> Any:
    # No tuples: hashing deeply nested ones overruns the stack of the interpreter.
    if not isinstance(key, str | int | bytes | type(None)):
        raise BrokenPickleError(f"a dictionary key of type {type(key).__name__}")
    if isinstance(key, int) and not -_MAX_KEY <= key < _MAX_KEY:
        raise BrokenPickleError("a dictionary key of a senseless size")
    return key


class Pickle:
    """An interpreter of the opcodes of checkpoints.

    Args:
        data: One pickle or several in a row.
        position: Where the first begins; `load` leaves it behind the one it read.

    Attributes:
        storages: Every storage that was met, by its key.
    """

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data, self.position = data, position
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._left = _MAX_OPERATIONS  # of all pickles together: the older format has five

    def load(self) -> Any:
        """The object the pickle describes."""
        table = self._table()
        self._stack, self._memo = [], {}
        while self._left:
            self._left -= 1
            code = self._take(1)[0]
            if code == ord("."):
                return self._pop()
            if code not in table:
                raise BrokenPickleError(f"the pickle uses opcode 0x{code:02x}, which checkpoints do not need")
            table[code]()
            if len(self._stack) > _MAX_STACK:
                raise BrokenPickleError("the pickle is nested too deeply")
        raise BrokenPickleError("the pickle does not come to an end")

    def _take(self, count: int) -> bytes:
        if count < 0 or self.position + count > len(self._data):
            raise BrokenPickleError("the pickle ends early")
        self.position += count
        return self._data[self.position - count : self.position]

    def _line(self) -> str:
        end = self._data.find(b"\n", self.position)
        if end < 0 or end - self.position > _MAX_LINE:
            raise BrokenPickleError("the pickle holds an endless name")
        return self._take(end + 1 - self.position)[:-1].decode("utf-8", "replace")

    def _unpack(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self._take(struct.calcsize("<" + kind)))[0]

    def _pop(self) -> Any:
        if not self._stack or isinstance(self._stack[-1], _Mark):
            raise BrokenPickleError("the pickle takes more than it put down")
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        for i in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[i], _Mark):
                items = self._stack[i + 1 :]
                del self._stack[i:]
                return items
        raise BrokenPickleError("the pickle closes a group it never opened")

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
            "T": lambda: push(self._take(self._unpack("i")).decode("latin-1")),
            "I": lambda: push(self._number_as_text()),
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
            "c": lambda: push(self._global()),
            "Q": lambda: push(self._persistent(pop())),
            "R": lambda: self._reduce(),
            "\x81": lambda: self._reduce(),
            "b": lambda: self._build(),
        }
        return {ord(code): action for code, action in codes.items()}

    def _global(self) -> Name:
        found = Name(self._line(), self._line())
        if found.module in _HARMLESS_MODULES or (found.module, found.name) in _HARMLESS:
            return found
        raise BrokenPickleError(
            f"it wants to use {shown(found.module)}.{shown(found.name)}, which parameters do not need and which is not "
            f"executed; if you trust the file, load it with PyTorch and save its state_dict()"
        )

    def _number_as_text(self) -> int | bool:
        line = self._line()
        try:
            return {"00": False, "01": True}[line] if line in ("00", "01") else int(line)
        except ValueError:
            raise BrokenPickleError("the pickle holds a number that is none") from None

    def _protocol(self) -> None:
        if self._unpack("B") > 5:
            raise BrokenPickleError("the pickle has an unknown protocol")

    def _tuple(self, count: int) -> None:
        self._push(tuple([self._pop() for _ in range(count)][::-1]))

    def _append(self, items: list[Any]) -> None:
        if not self._stack or not isinstance(self._stack[-1], list):
            raise BrokenPickleError("the pickle appends to something that is no list")
        self._stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        if not self._stack or not isinstance(self._stack[-1], dict) or len(items) % 2:
            raise BrokenPickleError("the pickle sets an item of something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._stack[-1][_hashable_key(key)] = value

    def _remember(self, slot: int) -> None:
        if not self._stack:
            raise BrokenPickleError("the pickle remembers nothing")
        self._memo[slot] = self._stack[-1]

    def _remembered(self, slot: int) -> Any:
        if slot not in self._memo:
            raise BrokenPickleError("the pickle recalls what it never put down")
        return self._memo[slot]

    def _persistent(self, identity: Any) -> Storage | Inert:
        match identity:
            case ("storage", Name("torch" | "torch.storage", kind), str(key), _, int(count), *view):
                if not 0 <= count < _MAX_COUNT:
                    raise BrokenPickleError("a storage of a negative or senseless size")
                if kind != "UntypedStorage" and kind not in _DTYPES:
                    return Inert(f"torch.{kind}")
                dtype = _DTYPES.get(kind, np.dtype("u1"))
                match view:
                    case [] | [None]:
                        storage = Storage(dtype, key, count)
                    case [(str(), int(start), int(size))] if 0 <= start <= start + size <= count:
                        storage = Storage(dtype, key, size, start, count)
                    case _:
                        raise BrokenPickleError("a storage is described in an unknown way")
                known = self.storages.setdefault(key, storage)
                if (known.dtype, known.whole or known.count) != (dtype, count):
                    raise BrokenPickleError(f"storage {shown(key)!r} has two types or lengths")
                return storage
        raise BrokenPickleError("a storage is described in an unknown way")

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            raise BrokenPickleError("a call without arguments")
        match function, arguments:
            case Name("collections", "OrderedDict"), ():
                self._push({})
            case Name("collections", "OrderedDict"), (list() as pairs,):  # Python 2
                self._push({})
                for pair in pairs:
                    if not isinstance(pair, list | tuple):
                        raise BrokenPickleError("a dictionary of something that is no pair")
                    self._set_items(list(pair))
            case Name("torch", "Size"), (list() | tuple() as sizes,):
                self._push(tuple(sizes))
            case Name("torch._utils", "_rebuild_tensor"), (Storage(), int(), tuple(), tuple()):  # before PyTorch 0.4
                self._push(_tensor(*arguments))
            case Name("torch._utils", "_rebuild_tensor_v2"), (Storage(), int(), tuple(), tuple(), *_):
                self._push(_tensor(*arguments[:4]))
            case Name("torch._utils", "_rebuild_tensor_v3"), (_, _, tuple(), tuple(), _, _, Name(_, name), *_):
                # Only the types without a storage class of their own are saved so, and no backbone has them.
                self._push(Inert(f"a tensor of type {name}"))
            case (
                (
                    Name("torch._utils", "_rebuild_parameter")
                    | Name("torch.nn.parameter", "Parameter")
                    | Name("torch.autograd.variable", "Variable")
                ),
                (Tensor() as data, *_),
            ):
                self._push(data)
            case Name(module, name), _:
                # NumPy scalars, devices, dtypes, and whatever else: nothing is called, its value is just not known.
                self._push(Inert(f"{module}.{name}"))
            case _:
                raise BrokenPickleError("a call of something that is no function")

    def _build(self) -> None:
        # The state of an OrderedDict is PyTorch's version metadata; of anything else it would be attributes.
        self._pop()
        if not self._stack:
            raise BrokenPickleError("the pickle sets the state of nothing")


def _tensor(storage: Storage, offset: int, shape: tuple, strides: tuple) -> Tensor:
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > _MAX_AXES:
        raise BrokenPickleError("a tensor with another number of sizes than strides, or too many")
    if any(not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < _MAX_COUNT for n in numbers):
        raise BrokenPickleError("a tensor with negative or odd sizes, strides or offset")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if math.prod(shape) else -1
    if last >= storage.count:
        raise BrokenPickleError("a tensor that reaches past the end of its storage")
    # Elements laid over each other would let a small file ask for any amount of memory.
    if math.prod(shape) > storage.count:
        raise BrokenPickleError("a tensor with more elements than its storage")
    return Tensor(storage, offset, shape, strides)
