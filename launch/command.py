"""What every command does alike: flags, one readable line for bad input, exit codes."""

import contextlib
import errno
import faulthandler
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags, logging

from launch.own_flags import OwnFlags, help_text, parse, wants_help
from musc_jax.execution.memory import return_freed_memory

# DBSCAN's package would start a thread for each core, and between its calls they poll instead of sleeping. A scan takes
# it a tenth of a second.
os.environ.setdefault("PARLAY_NUM_THREADS", "1")

# What the file system says without a file's name, where one is written that is open already.
_NO_ROOM = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EFBIG")} - {None}
_NEEDED = re.compile(r"flag --\w+=None: Flag (--\w+) must have a value other than None\.")


def say(text: str) -> None:
    """Prints a line for people, apart from the command's output; where nobody reads it, work goes on."""
    with contextlib.suppress(OSError):
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
    argv: list[str],
    work: Callable[[], int | None],
    bad_input: tuple[type[Exception], ...],
    *,
    interrupted: str,
    own: tuple[OwnFlags, ...] = (),
    about: str | None = None,
    takes_arguments: bool = False,
) -> int:
    """Reads a command's flags and runs it. Nothing is expected of absl's own: a notebook can call it, too.

    Args:
        argv: The program's name, and what follows it on the command line.
        work: The command; what it returns is the exit code, None is 0.
        bad_input: What it raises for input that the user can change: said in a line.
        interrupted: What to say on Ctrl-C.
        own: Its flags.
        about: What --help says above them.
        takes_arguments: Whether what is no flag means something to it.

    Returns:
        The exit code: that of `work`, 2 for bad input, 130 on Ctrl-C, 141 where whoever read what is printed stopped
        doing so, as of programs that end by that (`| head`).
    """
    if wants_help(argv):
        return _printed(lambda: print(help_text(about, *own)))
    try:
        arguments = parse(argv, *own)
    except (flags.Error, ValueError) as error:
        problem = _NEEDED.sub(r"\1 is needed", str(error).splitlines()[0])
        say(f"error: {problem}; see --help")
        return 2
    return_freed_memory(scarce=False)
    refused: tuple[type[Exception], ...] = (PathError, *bad_input)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # JAX tells at length which accelerators it did not find
    if arguments and not takes_arguments:
        say(f"error: expected flags only, received {' '.join(arguments)!r}; see --help")
        return 2
    try:
        return _printed(work)
    except refused as error:
        say(f"error: {error}")
        return 2
    except OSError as error:
        if error.filename is None and error.errno in _NO_ROOM:
            say(f"error: cannot write ({error.strerror}); make room for --cache_dir and --output_dir")
            return 2
        if error.filename is None:
            raise
        # A file that cannot be read or written is nothing that a traceback would explain.
        say(f"error: {error.filename}: {error.strerror or error}; see to its place and permissions")
        return 2
    except KeyboardInterrupt:
        say(interrupted)
        return 130


def _printed(work: Callable[[], int | None]) -> int:
    """The exit code of a command whose output may not arrive; what it wrote by then is written."""
    try:
        code = work() or 0
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError as error:
        if error.filename is not None:
            raise
        _print_nowhere()
        return 128 + 13  # a shell's number for the end by SIGPIPE, which Python does not let happen
    return code


def _print_nowhere() -> None:
    """Spares the interpreter another try to print what was not read, and its message on that."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(main: Callable[[list[str]], int]) -> None:
    """Runs a command as a process of its own, and ends that with its exit code."""
    prepare_process()
    sys.exit(main(sys.argv))


def prepare_process() -> None:
    """What a process of our own is started with, and somebody else's is spared."""
    _open_standard_streams()
    logging.use_absl_handler()
    faulthandler.enable()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names in any script, whatever the locale has letters for


def _open_standard_streams() -> None:
    """Lets standard streams that whoever started us has closed (`2>&-`) lead nowhere.

    Otherwise the next file that is opened takes a stream's number, and libraries print into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        # O_RDWR serves reading and writing; not inherited unless said, but a process of ours is to have them, too.
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
