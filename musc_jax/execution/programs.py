"""Compiles the stages of the pipeline, once for each shape, and keeps their times apart from the compiler's."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax


class Programs:
    """Runs jitted stages and adds up seconds by stage.

    The library's functions do not call `jit`; whoever composes them does, and that is here. A program is compiled when
    a shape is met for the first time, and the time this takes is booked under `compile_seconds`, not under the stage.

    Attributes:
        seconds: Wall-clock seconds by stage, compilation excluded.
        compile_seconds: Wall-clock seconds spent in tracing and compilation.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.compile_seconds = 0.0
        self._compiled: dict[Any, Callable] = {}

    @property
    def count(self) -> int:
        """How many programs were compiled."""
        return len(self._compiled)

    def run(self, stage: str, function: Callable, *args: Any, donate: tuple[int, ...] = (), **static: Any) -> Any:
        """Calls `function(*args, **static)` compiled, waits for the result and books the time under `stage`.

        Args:
            stage: Name the time is booked under.
            function: A pure function; the same object must be passed each time for its program to be found again.
            args: Arrays and trees of arrays.
            donate: Positions of those whose memory the result may take; they cannot be used again.
            static: Hashable options the program is compiled for.
        """
        leaves, structure = jax.tree.flatten(args)
        shapes = tuple((x.shape, str(x.dtype)) for x in leaves)
        key = (function, structure, shapes, donate, tuple(sorted(static.items())))
        if key not in self._compiled:
            started = time.perf_counter()
            jitted = jax.jit(function, static_argnames=tuple(static), donate_argnums=donate)
            self._compiled[key] = jitted.lower(*args, **static).compile()
            self.compile_seconds += time.perf_counter() - started
        with self.timed(stage):
            return jax.block_until_ready(self._compiled[key](*args))

    def timed(self, stage: str) -> "_Timer":
        """A context whose duration is booked under `stage`."""
        return _Timer(self.seconds, stage)


class _Timer:
    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds, self._stage = seconds, stage

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._stage] += time.perf_counter() - self._started
