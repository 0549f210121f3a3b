"""A progress bar for each stage on the terminal; in a file, one line when a stage is done."""

import sys
import time

from tqdm import tqdm


class ProgressBar:
    """Called with (stage, done, total); shows what is being done, how far it is and how long it will take."""

    def __init__(self, label: str = "") -> None:
        self._label = label
        self._stage: str | None = None
        self._bar: tqdm | None = None
        self._started = 0.0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Shows that so many are done."""
        if stage != self._stage:
            self.close()
            self._stage, self._started = stage, time.monotonic()
            if sys.stderr.isatty():
                self._bar = tqdm(desc=f"{self._label}{stage}", total=total, leave=False, dynamic_ncols=True)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif total is not None and done == total:
            seconds = time.monotonic() - self._started
            print(f"{self._label}{stage}: {done} of {total} in {seconds:.1f} s", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, None
