"""A progress bar for each stage on the terminal; in a file, a line now and then and one when a stage is done."""

import sys
import time

from tqdm import tqdm

_LINE_SECONDS = 15


class ProgressBar:
    """Called with (stage, done, total); shows what is being done, how far it is and how long it will take.

    Args:
        label: In front of the stage's name.
        unit: What is counted.
        scale: How many of what is reported make one of that.
    """

    def __init__(self, label: str = "", *, unit: str = "", scale: float = 1) -> None:
        self._label, self._unit, self._scale = label, unit, scale
        self._stage: str | None = None
        self._bar: tqdm | None = None
        self._started = self._printed = 0.0
        self._ended = time.monotonic()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Shows that so many are done."""
        if self._scale != 1:
            done, total = round(done / self._scale), None if total is None else round(total / self._scale)
        if stage != self._stage:
            self.close()
            self._stage = stage
            # A stage's first report comes when its first sample is done; it began before.
            self._printed = self._started = self._ended
            if sys.stderr.isatty():
                self._bar = tqdm(
                    desc=f"{self._label}{stage}", total=total, unit=self._unit or "it", leave=False, dynamic_ncols=True
                )
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif total is not None:
            self._print_line(done, total)

    def _print_line(self, done: int, total: int) -> None:
        now = time.monotonic()
        seconds, unit = now - self._started, f" {self._unit}" if self._unit else ""
        if done == total:
            text = f"{done} of {total}{unit} in {seconds:.1f} s"
        elif now - self._printed >= _LINE_SECONDS:
            text = f"{done} of {total}{unit}, {seconds / max(done, 1) * (total - done):.0f} s left"
        else:
            return
        self._printed = now
        print(f"{self._label}{self._stage}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, None
        self._ended = time.monotonic()
