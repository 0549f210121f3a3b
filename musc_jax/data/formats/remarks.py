"""What the libraries that decode files remark, heard by whoever decodes instead of written onto the screen.

Pillow warns through Python, tifffile logs, libtiff writes to the standard error of the process from C. All three are
settings of the process and not of a thread, so they are diverted only while some thread decodes, each thread hears its
own, and all others go where they went before. Standard error itself is never touched: others write to it meanwhile.
`warnings.catch_warnings` would not do: of two threads in it, the one that leaves last restores what the first one set.
"""

import ctypes
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

_LONGEST = 200
_TIFFFILE = logging.getLogger("tifffile")
_FILTER = ("always", None, Warning, re.compile(r"PIL\.|pillow_heif|tifffile"), 0)
# C's type of libtiff's handlers: module, format, va_list. How the last is passed differs between machines, but it is a
# pointer on all of them, handed on as it came.
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)

_heard = threading.local()


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Collect what libraries remark in this thread, each remark once; within another such block, that gets them, too.

    Yields:
        The remarks so far, a line each.
    """
    outer, lines = getattr(_heard, "lines", None), []  # type: ignore[var-annotated]
    _heard.lines = lines
    if outer is None:
        _DIVERSION.begin()
    try:
        yield lines
    finally:
        _heard.lines = outer
        if outer is None:
            _DIVERSION.end()
        else:
            outer += [line for line in lines if line not in outer]


def _hear(text: str) -> bool:
    """Keep a remark; False if this thread does not decode."""
    lines = getattr(_heard, "lines", None)
    if lines is None:
        return False
    text = " ".join(text.split())[:_LONGEST]
    # Of the size of a picture this program says itself what there is to say.
    if text not in lines and "decompression bomb" not in text:
        lines.append(text)
    return True


class _Diversion:
    """The process's three ways of remarking, diverted while at least one thread decodes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._show: Callable[..., Any] = warnings.showwarning
        self._libtiff: _Libtiff | None = None

    def begin(self) -> None:
        """Another thread decodes."""
        with self._lock:
            self._threads += 1
            if self._threads > 1:
                return
            if warnings.showwarning != self._on_warning:
                self._show = warnings.showwarning
            warnings.showwarning = self._on_warning
            warnings.filters.insert(0, _FILTER)  # type: ignore[attr-defined]
            _TIFFFILE.addFilter(_is_not_heard)
            if self._libtiff is None:
                self._libtiff = _Libtiff()
            self._libtiff.divert()

    def end(self) -> None:
        """A thread has decoded."""
        with self._lock:
            self._threads -= 1
            if self._threads:
                return
            if warnings.showwarning == self._on_warning:
                warnings.showwarning = self._show
            if _FILTER in warnings.filters:
                warnings.filters.remove(_FILTER)  # type: ignore[attr-defined]
            _TIFFFILE.removeFilter(_is_not_heard)
            if self._libtiff is not None:
                self._libtiff.restore()

    def _on_warning(self, message: Warning | str, *arguments: Any, **options: Any) -> None:
        if not _hear(str(message)):
            self._show(message, *arguments, **options)


class _Libtiff:
    """libtiff as Pillow has loaded it; does nothing where it cannot be reached (Windows, where it is linked in)."""

    def __init__(self) -> None:
        self._handler = _HANDLER(self._on_error)  # kept: libtiff has only its address
        self._before: int | None = None
        try:
            self._set = ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler
            self._format = ctypes.CDLL(None).vsnprintf
        except (AttributeError, OSError, TypeError):
            self._set = None  # type: ignore[assignment]
            return
        self._set.restype, self._set.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        self._format.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]

    def divert(self) -> None:
        if self._set is not None:
            self._before = self._set(ctypes.cast(self._handler, ctypes.c_void_p))

    def restore(self) -> None:
        if self._set is not None:
            self._set(self._before)

    def _on_error(self, module: bytes | None, form: bytes | None, values: int | None) -> None:
        text = ctypes.create_string_buffer(_LONGEST)
        self._format(text, _LONGEST, form or b"", values)
        _hear(text.value.decode(errors="replace"))


def _is_not_heard(record: logging.LogRecord) -> bool:
    return not _hear(record.getMessage())


_DIVERSION = _Diversion()
