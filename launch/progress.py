"""A progress bar for each stage on the terminal; in a file, a line now and then and one when a stage is done."""

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from launch.command import say

_LINE_SECONDS = 15
# Units of sizes: from so many bytes on, by so much, with so many decimals.
_SIZES = ((1e7, "MB", 1e6, 0), (1e6, "MB", 1e6, 1), (1e4, "kB", 1e3, 0), (1e3, "kB", 1e3, 1), (0, "bytes", 1, 0))


class ProgressBar:
    """Called with (stage, done, total); shows what is being done, how far it is and how long it will take.

    Args:
        label: In front of the stage's name.
        in_bytes: Whether bytes are counted, which are shown as kB or MB.
        clock: Seconds that pass.
    """

    def __init__(self, label: str = "", *, in_bytes: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._label, self._in_bytes, self._clock = label, in_bytes, clock
        self._stage: str | None = None
        self._bar: tqdm | None = None
        self._started = self._printed = 0.0
        self._line, self._is_done = "", False
        self._told = clock()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Shows that so many are done."""
        if stage != self._stage:
            # A stage's first report comes when its first sample is done; it began when the one before was told of last.
            self._printed = self._started = self._told
            self.close()
            self._stage, self._is_done = stage, False
            if sys.stderr.isatty():
                units: dict[str, Any] = {"unit": "B", "unit_scale": True} if self._in_bytes else {}
                self._bar = tqdm(desc=f"{self._label}{stage}", total=total, leave=False, dynamic_ncols=True, **units)
        self._told = self._clock()
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        else:
            self._report(done, total)

    def _report(self, done: int, total: int | None) -> None:
        """Prints a line where a stage is done, and else where the last one is some time ago."""
        now = self._told
        seconds = now - self._started
        amounts = self._amounts(done, total)
        if done == total:
            if not self._is_done:
                self._print(f"{amounts} in {seconds:.1f} s", now)
            self._is_done = True
            return
        self._is_done = False
        if now - self._printed < _LINE_SECONDS:
            return
        left = f", {seconds / done * (total - done):.0f} s left" if done and total is not None else ""
        self._print(f"{amounts}{left}", now)

    def _print(self, text: str, now: float) -> None:
        line = f"{self._label}{self._stage}: {text}"
        self._printed = now
        if line != self._line:
            say(line)
        self._line = line

    def _amounts(self, done: int, total: int | None) -> str:
        unit, scale, decimals = "", 1.0, 0
        if self._in_bytes:
            largest = done if total is None else total
            unit, scale, decimals = next(
                (f" {name}", scale, decimals) for least, name, scale, decimals in _SIZES if largest >= least
            )
        shown = f"{done / scale:.{decimals}f}"
        return f"{shown}{unit} so far" if total is None else f"{shown} of {total / scale:.{decimals}f}{unit}"

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, None
        self._told = self._clock()
