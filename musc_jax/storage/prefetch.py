"""Work done ahead of its consumer in threads, results in order.

Threads are enough: decoding, resizing, digests and clustering all release Python's lock.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int = 2, ahead: int = 8
) -> Iterator[Result]:
    """Apply `function` to every item in worker threads and yield the results in order.

    Args:
        function: called in a worker thread. What it raises is raised here, in its item's place.
        items: consumed only as far as needed.
        workers: number of threads, at least 1.
        ahead: how many results may be in the making or waiting, at least 1. It bounds memory:
            `Executor.map` would run through all the items whether or not anybody takes them.

    Yields:
        `function(item)` for each item in order. When the iterator is closed or an exception leaves
        it, what has not begun is dropped and the threads end.

    Raises:
        ValueError: `workers` or `ahead` is less than 1.
    """
    if workers < 1 or ahead < 1:
        raise ValueError(f"workers and ahead must be at least 1, received workers={workers}, ahead={ahead}")
    return _run(function, iter(items), workers, ahead)


def _run(function: Callable[[Item], Result], items: Iterator[Item], workers: int, ahead: int) -> Iterator[Result]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="musc-data")
    waiting: deque[Future[Result]] = deque()
    try:
        waiting.extend(pool.submit(function, item) for item in islice(items, ahead))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
