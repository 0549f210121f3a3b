"""Compiles the stages of the pipeline once for each shape, dispatches them, and bounds what is in flight."""

import contextlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

import jax

Item = TypeVar("Item")


# Threads that compile ahead: more would take a machine's cores from loading samples.
_COMPILERS = 4
# How often whoever waits for a program says how many are done.
_TELL_SECONDS = 0.5


class Programs:
    """Runs jitted stages and, where asked to, adds up seconds by stage.

    The library's functions do not call `jit`; whoever composes them does, and that is here. A program is compiled when
    a shape is met for the first time, or ahead of that (`musc_jax.execution.ahead`), and the time that this is waited
    for is booked under `compile_seconds`, not under the stage.

    Args:
        profile: Wait for every stage to read its time. Otherwise stages are dispatched and not waited for, and how much
            of the time was whose cannot be told.

    Attributes:
        profile: As given.
        seconds: With `profile`, wall-clock seconds by stage, compilation excluded.
        compile_seconds: Wall-clock seconds in which compilation was waited for.
        waiting: Called with (programs compiled, programs known of) while one that is compiled ahead is waited for.
    """

    def __init__(self, *, profile: bool = False) -> None:
        self.profile = profile
        self.seconds: dict[str, float] = defaultdict(float)
        self.compile_seconds = 0.0
        self.waiting: Callable[[int, int], None] | None = None
        self._compiled: dict[Any, Callable] = {}
        self._coming: dict[Any, Future[Callable]] = {}
        self._taken: set[Any] = set()
        self._stopped = False
        self._shapes: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def count(self) -> int:
        """How many programs were compiled, or are about to be."""
        return len(self._compiled) + len(self._coming)

    def run(self, stage: str, function: Callable, *args: Any, donate: tuple[int, ...] = (), **static: Any) -> Any:
        """Dispatches `function(*args, **static)` compiled; with `profile`, waits and books the time under `stage`.

        Args:
            stage: Name the time is booked under.
            function: A pure function; the same object must be passed each time for its program to be found again.
            args: Arrays and trees of arrays.
            donate: Positions of those whose memory the result may take; they cannot be used again.
            static: Hashable options the program is compiled for.
        """
        key = _key(function, args, donate, static)
        if key not in self._compiled:
            # The stages that made these would run meanwhile, and count as compilation.
            jax.block_until_ready(args)
            started = time.perf_counter()
            found = self._arrived(key)
            if found is None:
                found = _jitted(function, donate, static).lower(*args, **static).compile()
            self._compiled[key] = found
            self.compile_seconds += time.perf_counter() - started
        if not self.profile:
            return self._compiled[key](*args)
        with self.timed(stage):
            return jax.block_until_ready(self._compiled[key](*args))

    def prepare(self, function: Callable, *args: Any, donate: tuple[int, ...] = (), **static: Any) -> Any:
        """Has a program compiled in a thread, for `run` to find it.

        Args:
            function: As in `run`.
            args: Arrays, or `jax.ShapeDtypeStruct` in their place.
            donate: As in `run`.
            static: As in `run`.

        Returns:
            What the program will return, as `jax.ShapeDtypeStruct`.

        Raises:
            RuntimeError: Nothing is to be compiled ahead any more, see `cancel`.
        """
        key = _key(function, args, donate, static)
        if key in self._shapes:
            return self._shapes[key]
        traced = _jitted(function, donate, static).trace(*args, **static)
        self._shapes[key] = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), traced.out_info)
        with self._lock:
            if self._stopped:
                raise RuntimeError("compiling ahead was cancelled")
            # What `run` has taken up, it compiles itself if it must.
            if key not in self._taken and key not in self._coming:
                self._pool = self._pool or ThreadPoolExecutor(_COMPILERS, thread_name_prefix="compile")
                self._coming[key] = self._pool.submit(lambda: traced.lower().compile())
        return self._shapes[key]

    def _arrived(self, key: Any) -> Callable | None:
        """A program that is compiled ahead, as soon as it is there; None where it is not, or could not be compiled."""
        with self._lock:
            future = self._coming.pop(key, None)
            self._taken.add(key)
        if future is None:
            return None
        while not wait([future], timeout=_TELL_SECONDS).done:
            if self.waiting is not None:
                with self._lock:
                    open_ = 1 + sum(not other.done() for other in self._coming.values())
                self.waiting(self.count + 1 - open_, self.count + 1)
        return None if future.exception() is not None else future.result()

    def cancel(self) -> None:
        """Compiles nothing more ahead but what is begun; whoever ends a process waits for no more than that."""
        with self._lock:
            pool, self._pool, self._stopped = self._pool, None, True
            self._coming.clear()
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """A context whose duration, with `profile`, is booked under `stage`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if self.profile:
                self.seconds[stage] += time.perf_counter() - started


def _jitted(function: Callable, donate: tuple[int, ...], static: dict[str, Any]) -> Any:
    return jax.jit(function, static_argnames=tuple(static), donate_argnums=donate)


def _key(function: Callable, args: tuple, donate: tuple[int, ...], static: dict[str, Any]) -> Any:
    leaves, structure = jax.tree.flatten(args)
    shapes = tuple((x.shape, str(x.dtype)) for x in leaves)
    return function, structure, shapes, donate, tuple(sorted(static.items()))


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
