"""Checking and cleaning a whole dataset ahead of time, in several processes.

What a sample's check derives lands in the cache directory as soon as it is made, whole or not at all, so that a
preparation that is killed at any moment goes on where it stopped, and one that loses a worker loses nothing.
"""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from musc_jax.data.dataset import Candidate, Progress
from musc_jax.data.opening import find_samples
from musc_jax.data.trees import Request


class Prepared(NamedTuple):
    """What a preparation found.

    Attributes:
        sound: how many samples are ready.
        faults: a line for each thing that is wrong, in the order of the samples.
        warnings: oddities that stop nothing.
    """

    sound: int
    faults: tuple[str, ...]
    warnings: tuple[str, ...]


class _Outcome(NamedTuple):
    sound: bool
    faults: tuple[str, ...]
    warnings: tuple[str, ...]


def prepare(name: str, request: Request, *, workers: int = 2, progress: Progress | None = None) -> Prepared:
    """Check every sample of a dataset and derive what it needs.

    Args:
        name: one of `DATASETS`.
        request: as for opening it.
        workers: processes, at least 1.
        progress: told how many samples are done.

    Raises:
        DataError: there is no such dataset.
        ValueError: an option is out of its range.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, received {workers}")
    found = find_samples(name, request)
    jobs = [(category, candidate) for category, samples in found.candidates.items() for candidate in samples]
    outcomes: dict[int, _Outcome] = {}
    if progress is not None:
        progress("prepare", 0, len(jobs))
    for index, outcome in _run([candidate for _, candidate in jobs], workers):
        outcomes[index] = outcome
        if progress is not None:
            progress("prepare", len(outcomes), len(jobs))
    ordered = [outcomes[index] for index in range(len(jobs))]
    return Prepared(
        sound=sum(outcome.sound for outcome in ordered),
        faults=(*(fault.line for fault in found.faults), *(line for outcome in ordered for line in outcome.faults)),
        warnings=(*found.warnings, *(line for outcome in ordered for line in outcome.warnings)),
    )


def _check(candidate: Candidate) -> _Outcome:
    """In a worker: only what is to be told comes back."""
    checked = candidate.check()
    return _Outcome(checked.entry is not None, checked.faults, checked.warnings)


def _run(candidates: Sequence[Candidate], workers: int) -> Iterator[tuple[int, _Outcome]]:
    """Yield (index, outcome) as they are done.

    When a worker dies, what was in the making is done again; what was so twice, in a process of its own.
    """
    waiting = deque(range(len(candidates)))
    losses: Counter[int] = Counter()
    while waiting:
        running: dict[Future[_Outcome], int] = {}
        with _pool(workers) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < 2 * workers:
                        running[pool.submit(_check, candidates[waiting[0]])] = waiting[0]
                        waiting.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        outcome = future.result()
                        yield running.pop(future), outcome
            except BrokenProcessPool:
                pass
            finally:
                pool.shutdown(cancel_futures=True)
        losses.update(running.values())
        for index in sorted(running.values()):
            if losses[index] < 2:
                waiting.append(index)
            else:
                yield index, _alone(candidates[index])


def _pool(workers: int) -> ProcessPoolExecutor:
    # Fresh interpreters: forked ones would inherit JAX's threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Ends this worker when the process that started it is killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return  # nobody started it

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _alone(candidate: Candidate) -> _Outcome:
    """A check in a process of its own, which tells whether it is this sample that ends processes."""
    with _pool(1) as pool:
        try:
            return pool.submit(_check, candidate).result()
        except BrokenProcessPool:
            line = f"{candidate.name}: ended the process that looked into it; is there enough memory?"
            return _Outcome(False, (line,), ())
