"""A command that kills itself, for tests, just before it changes something in a folder for the n-th time.

    KILLED_FOLDER=DIR KILLED_AT=N python killed_command.py eval ...

N = 0: never; how many changes there were is then written to DIR.changes.
"""

import importlib
import os
import signal
import sys
from pathlib import Path

program = importlib.import_module(f"launch.{sys.argv[1]}")

FOLDER, at = os.environ["KILLED_FOLDER"], int(os.environ["KILLED_AT"])
# Of each event the arguments that are paths. Reading is no change.
_CHANGES = {"open": 1, "os.mkdir": 1, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.truncate": 1}
changes = 0


def count(event, arguments):
    global changes
    if event not in _CHANGES or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        return
    paths = [os.fsdecode(path) for path in arguments[: _CHANGES[event]] if isinstance(path, str | bytes | os.PathLike)]
    if any(path.startswith(FOLDER) for path in paths):
        changes += 1
        if changes == at:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.addaudithook(count)
    code = program.main(sys.argv[1:])
    if at == 0:
        Path(f"{FOLDER}.changes").write_text(str(changes))
    sys.exit(code)
