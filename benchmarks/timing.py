"""Two or more things timed in alternation, and what is said about them."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import plain

Run = Callable[[], Any]

# Short runs are repeated more often: the fastest of three milliseconds is chance.
_SECONDS_AT_LEAST, _ROUNDS_AT_MOST = 6.0, 10


def alternate(runs: Mapping[str, Run], repeats: int) -> dict[str, float]:
    """Seconds of each one's fastest run, after one that compiles. What loads the machine meanwhile meets all alike.

    Args:
        runs: What to time, in this order, round by round.
        repeats: Rounds; up to ten times as many while they have taken less than six seconds together.
    """
    for run in runs.values():
        jax.block_until_ready(run())
    best = dict.fromkeys(runs, np.inf)
    total, rounds = 0.0, 0
    while rounds < repeats or (total < _SECONDS_AT_LEAST and rounds < _ROUNDS_AT_MOST * repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            jax.block_until_ready(run())
            seconds = time.perf_counter() - started
            best[name] = min(best[name], seconds)
            total += seconds
        rounds += 1
    return best


def exponent(counts: Sequence[int], seconds: Sequence[float]) -> float:
    """The p of seconds = c * count^p: the slope through the logarithms, by least squares."""
    return float(np.polyfit(np.log(counts), np.log(seconds), 1)[0])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One figure of a row.

    Attributes:
        what: What ours is compared with, or what the figure is.
        value: The figure.
        unit: "x" (times as fast), "%" (value is a share), "MB", or "" (a plain number).
        must: What it must reach; None for information only.
        at_most: `must` is an upper limit.
        milliseconds: The other side's time.
    """

    what: str
    value: float
    unit: str = "x"
    must: float | None = None
    at_most: bool = False
    milliseconds: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the figure is what it must be; None where nothing is asked."""
        if self.must is None:
            return None
        return self.value <= self.must if self.at_most else self.value >= self.must

    def shown(self, value: float | None) -> str:
        """A figure of this kind as text."""
        if value is None:
            return ""
        if self.unit == "%":
            return f"{value:.0%}"
        return f"{value:.2f}" if self.unit == "" else f"{value:.3g} {self.unit}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        named = dataclasses.asdict(self) | {"met": self.met}
        return {key: value for key, value in named.items() if value is not None}


@dataclasses.dataclass
class Row:
    """What was measured of one hot path.

    Attributes:
        title: What was run.
        milliseconds: Of ours.
        comparisons: With what, and how it compares.
        notes: What else was seen, what was left out and why.
        details: More figures, for JSON.
    """

    title: str
    milliseconds: float | None = None
    comparisons: list[Comparison] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        named = dataclasses.asdict(self) | {"comparisons": [c.as_dict() for c in self.comparisons]}
        return {key: value for key, value in named.items() if value not in (None, [], {})}


def compare(title: str, runs: Mapping[str, Run], repeats: int, must: Mapping[str, float] | None = None) -> Row:
    """Times the first of `runs` beside the others: how many times as fast it is as each.

    Args:
        title: Of the row.
        runs: Ours first.
        repeats: See `alternate`.
        must: What the ratio to a side must reach.
    """
    seconds = alternate(runs, repeats)
    ours, *others = seconds
    must = must or {}
    row = Row(title, 1000 * seconds[ours])
    for name in others:
        ratio = seconds[name] / seconds[ours]
        row.comparisons.append(Comparison(name, ratio, must=must.get(name), milliseconds=1000 * seconds[name]))
    return row


class Probe:
    """The rate of matrix products, measured again and again between other work.

    Attributes:
        seconds: Spent so far.
        best: Operations a second of the fastest call.
    """

    def __init__(self, *, maxima: bool = False) -> None:
        self.run, self.operations = plain.products(maxima=maxima)
        self.run()
        self.seconds, self._calls, self.best = 0.0, 0, 0.0

    def __call__(self) -> None:
        """Measures once."""
        started = time.perf_counter()
        self.run()
        seconds = time.perf_counter() - started
        self.seconds += seconds
        self._calls += 1
        self.best = max(self.best, self.operations / seconds)

    def reset(self) -> None:
        """Starts the mean anew; the best stays."""
        self.seconds, self._calls = 0.0, 0

    @property
    def mean(self) -> float:
        """Operations a second over all calls since the last reset."""
        return self.operations * self._calls / self.seconds


def expect(condition: bool, text: str) -> None:
    """A benchmark of something wrong is worth nothing."""
    if not condition:
        raise AssertionError(text)
