"""What every command does alike: flags, one readable line for bad input, exit codes."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging

from musc_jax.execution.memory import return_freed_memory

# DBSCAN's package would start a thread for each core, and between its calls they poll instead of sleeping. A scan takes
# it a tenth of a second.
os.environ.setdefault("PARLAY_NUM_THREADS", "1")

_NEEDED = re.compile(r"flag --\w+=None: Flag (--\w+) must have a value other than None\.")


def say(text: str) -> None:
    """Prints a line for people, apart from the command's output."""
    print(text, file=sys.stderr, flush=True)


def expanded(path: str | None) -> str | None:
    """A path with its ~ replaced: in --data_dir=~/data no shell does that."""
    return None if path is None else os.path.expanduser(path)


class PathError(ValueError):
    """A path on the command line that leads nowhere; one line that names the flag."""


def path(flag: str, text: str) -> Path:
    """A path out of a flag, its ~ replaced.

    Raises:
        PathError: It is empty, or the home folder of nobody known.
    """
    if not text:
        raise PathError(f"--{flag}: expected a path, received ''")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise PathError(f"--{flag}: {text}: there is no such home folder") from None


def execute(
    argv: list[str], work: Callable[[], None], bad_input: tuple[type[Exception], ...], *, interrupted: str
) -> int:
    """Runs a command whose flags are parsed.

    Args:
        argv: The program's name, and what is no flag: nothing.
        work: The command.
        bad_input: What it raises for input that the user can change: said in a line.
        interrupted: What to say on Ctrl-C.

    Returns:
        The exit code: 0, 2 for bad input, 130 on Ctrl-C.
    """
    return_freed_memory(scarce=False)
    refused: tuple[type[Exception], ...] = (PathError, *bad_input)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # JAX tells at length which accelerators it did not find
    if len(argv) > 1:
        say(f"error: expected flags only, received {' '.join(argv[1:])!r}; see --help")
        return 2
    try:
        work()
    except refused as error:
        say(f"error: {error}")
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        # A file that cannot be read or written is nothing that a traceback would explain.
        say(f"error: {error.filename}: {error.strerror or error}; see to its place and permissions")
        return 2
    except KeyboardInterrupt:
        say(interrupted)
        return 130
    return 0


def run(main: Callable[[list[str]], int]) -> None:
    """Parses the flags, runs `main` and exits; --help is a success, which absl does not think."""
    try:
        app.run(main, flags_parser=_parse)
    except SystemExit as end:
        if end.code == 1 and any(a.lstrip("-") in ("help", "helpshort", "helpfull", "?") for a in sys.argv[1:]):
            raise SystemExit(0) from None
        raise


def _parse(argv: list[str]) -> list[str]:
    """Absl's parser; what it refuses is bad input like any other: one line, exit code 2."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        problem = _NEEDED.sub(r"\1 is needed", str(error).splitlines()[0])
        say(f"error: {problem}; see --help")
        sys.exit(2)
