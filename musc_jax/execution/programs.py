"""Compiles the stages of the pipeline once for each shape, dispatches them, and bounds what is in flight."""

import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import jax

Item = TypeVar("Item")


class Programs:
    """Runs jitted stages and, where asked to, adds up seconds by stage.

    The library's functions do not call `jit`; whoever composes them does, and that is here. A program is compiled when
    a shape is met for the first time, and the time this takes is booked under `compile_seconds`, not under the stage.

    Args:
        profile: Wait for every stage to read its time. Otherwise stages are dispatched and not waited for, and how much
            of the time was whose cannot be told.

    Attributes:
        profile: As given.
        seconds: With `profile`, wall-clock seconds by stage, compilation excluded.
        compile_seconds: Wall-clock seconds spent in tracing and compilation.
    """

    def __init__(self, *, profile: bool = False) -> None:
        self.profile = profile
        self.seconds: dict[str, float] = defaultdict(float)
        self.compile_seconds = 0.0
        self._compiled: dict[Any, Callable] = {}

    @property
    def count(self) -> int:
        """How many programs were compiled."""
        return len(self._compiled)

    def run(self, stage: str, function: Callable, *args: Any, donate: tuple[int, ...] = (), **static: Any) -> Any:
        """Dispatches `function(*args, **static)` compiled; with `profile`, waits and books the time under `stage`.

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
            # The stages that made these would run meanwhile, and count as compilation.
            jax.block_until_ready(args)
            started = time.perf_counter()
            jitted = jax.jit(function, static_argnames=tuple(static), donate_argnums=donate)
            self._compiled[key] = jitted.lower(*args, **static).compile()
            self.compile_seconds += time.perf_counter() - started
        if not self.profile:
            return self._compiled[key](*args)
        with self.timed(stage):
            return jax.block_until_ready(self._compiled[key](*args))

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """A context whose duration, with `profile`, is booked under `stage`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if self.profile:
                self.seconds[stage] += time.perf_counter() - started


class InFlight(Generic[Item]):
    """A queue of dispatched work, so short that what the work holds does not pile up in memory.

    Args:
        settle: Called with each item in order; waits for it, and does what is left to do on the host.
        most: So many items may be unsettled while the next is dispatched: 1 keeps a device busy.
    """

    def __init__(self, settle: Callable[[Item], None], *, most: int = 1) -> None:
        self._settle, self._most = settle, most
        self._items: deque[Item] = deque()

    def add(self, item: Item) -> None:
        """Takes what was just dispatched; settles the oldest items beyond `most`."""
        self._items.append(item)
        while len(self._items) > self._most:
            self._settle(self._items.popleft())

    def drain(self) -> None:
        """Settles all."""
        while self._items:
            self._settle(self._items.popleft())


def copy_to_host_async(arrays: Any) -> None:
    """Starts copying every array of a tree to the host, where `numpy.asarray` finds it later, unless it is there."""
    for array in jax.tree.leaves(arrays):
        if isinstance(array, jax.Array):
            array.copy_to_host_async()
