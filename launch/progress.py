"""A progress bar for each stage on the terminal; in a file, a line now and then and one when a stage is done."""

import sys
import time

from tqdm import tqdm

_LINE_SECONDS = 15


class ProgressBar:
    """Called with (stage, done, total); shows what is being done, how far it is and how long it will take."""

    def __init__(self, label: str = "") -> None:
        self._label = label
        self._stage: str | None = None
        self._bar: tqdm | None = None
        self._started = self._printed = 0.0
        self._ended = time.monotonic()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Shows that so many are done."""
        if stage != self._stage:
            self.close()
            self._stage = stage
            # A stage's first report comes when its first sample is done; it began before.
            self._printed = self._started = self._ended
            if sys.stderr.isatty():
                self._bar = tqdm(desc=f"{self._label}{stage}", total=total, leave=False, dynamic_ncols=True)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif total is not None:
            self._print_line(done, total)

    def _print_line(self, done: int, total: int) -> None:
        now = time.monotonic()
        seconds = now - self._started
        if done == total:
            text = f"{done} of {total} in {seconds:.1f} s"
        elif now - self._printed >= _LINE_SECONDS:
            text = f"{done} of {total}, {seconds / done * (total - done):.0f} s left"
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
