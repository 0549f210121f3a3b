"""All that a borrowed accelerator is to be asked, in a few minutes: rates, stages, scoring, compiling, agreement.

    python -m benchmarks.gpu [--minutes=4] [--output=FILE.json] [--quick]

Prints as it goes and writes after every step, most important first; what no longer fits into the time is left out and
said to be. Random weights, samples made in memory. --quick shows on a CPU that everything works; its figures mean
nothing.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from launch import command
from launch.own_flags import OwnFlags
from musc_jax.storage import atomic

flags = OwnFlags()
MINUTES = flags.DEFINE_float("minutes", 4.0, "What all of it may take.", lower_bound=0.0)
OUTPUT = flags.DEFINE_string("output", None, "Write the figures here as JSON, too.")
QUICK = flags.DEFINE_bool("quick", False, "Small sizes: shows that everything works; nothing is judged.")
ONLY = flags.DEFINE_list("only", None, "Steps to run, by name; default all.")
# What the processes that it starts are told.
STEP = flags.DEFINE_enum("step", None, ["first", "measure"], "For the processes it starts itself: what to do.")
UNTIL = flags.DEFINE_float("until", 0.0, "For the processes it starts itself: when to end.")
STARTED = flags.DEFINE_float("started", 0.0, "For the processes it starts itself: when they were started.")
CACHE = flags.DEFINE_string("cache", "", "For the processes it starts itself: where programs are kept.")


def _child(step: str, file: Path, cache: Path, until: float) -> None:
    """One step in a process of its own, so that nothing is compiled in it that it did not compile itself."""
    own = [sys.executable, "-m", "benchmarks.gpu", f"--step={step}", f"--output={file}", f"--cache={cache}"]
    own += [f"--until={until}", f"--started={time.time()}", *(["--quick"] if QUICK.value else [])]
    own += [f"--only={','.join(ONLY.value)}"] if ONLY.value else []
    try:
        done = subprocess.run(own, timeout=max(1.0, until - time.time() + 5), check=False)
    except subprocess.TimeoutExpired:
        print(f"{step}: not done in time", flush=True)
        return
    if done.returncode:
        print(f"{step}: ended with {done.returncode}", flush=True)


def _orchestrate() -> None:
    """Starts the steps one after the other; never touches a device, which belongs to one process at a time."""
    started = time.time()
    until = started + 60 * MINUTES.value
    with tempfile.TemporaryDirectory() as folder:
        file, cache = Path(folder) / "figures.json", Path(folder) / "programs"
        if OUTPUT.value:
            file = Path(OUTPUT.value).absolute()
        atomic.write_text(file, json.dumps({"quick": QUICK.value}) + "\n")
        if not ONLY.value:
            # The first one compiles everything, the second one finds it; both are asked for the first features.
            for _ in range(2):
                _child("first", file, cache, until)
        _child("measure", file, cache, until)
    print(f"took {time.time() - started:.0f} s of {60 * MINUTES.value:.0f}")


def _work() -> None:
    if STEP.value is None:
        _orchestrate()
        return
    from benchmarks import gpu_steps  # JAX, which takes the device

    bench = gpu_steps.Bench(QUICK.value, STARTED.value, UNTIL.value, Path(OUTPUT.value or ""))
    gpu_steps.run(STEP.value, bench, CACHE.value, ONLY.value)


def main(argv: list[str]) -> int:
    """The command."""
    return command.execute(argv, _work, (ValueError, OSError), interrupted="stopped", own=(flags,), about=__doc__)


if __name__ == "__main__":
    command.run(main)
