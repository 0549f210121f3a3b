"""The commands of this package behind one name, which works from any folder and beside any other software.

python -m musc_jax VERB [flags]
python -m musc_jax VERB --help
"""

import importlib
import sys
from pathlib import Path

VERBS = {
    "score": "score a folder of your own parts: scores, decisions, masks, overlays",
    "eval": "score the samples of a dataset, and report how well that finds the defects",
    "features": "write the tokens of a dataset's samples, to be scored later or elsewhere",
    "fetch": "fetch a published dataset and unpack it, or compare one on disk with what was published",
    "prepare": "check a dataset and clean its raw scans ahead of time",
    "compare": "compare finished runs with the published results or with each other",
    "fetch_weights": "bring published parameters to disk, converted",
    "convert_weights": "convert a checkpoint to the file that loads fastest",
    "doctor": "say what is here: versions, devices, memory, caches, weights, a dataset",
}
"""Modules of `launch`, and what they do."""

_OURS = ("launch", "weights")


def main(argv: list[str] | None = None) -> int:
    """Hands over to a command.

    Args:
        argv: The program's name, a verb, the verb's flags; default those of this process.

    Returns:
        The exit code; 2 for a verb that is none.
    """
    program, *given = sys.argv if argv is None else argv
    program = "python -m musc_jax" if Path(program).stem == "__main__" else Path(program).name
    if given and given[0].lstrip("-") in ("help", "h"):
        sys.stdout.write(_help(program))
        return 0
    # With hyphens, too, as in `fetch-weights`: most programs have them in their verbs.
    verb = given[0].replace("-", "_") if given and not given[0].startswith("-") else None
    if verb not in VERBS:
        received = repr(given[0]) if given else "none"
        sys.stderr.write(f"error: expected a verb, one of {', '.join(VERBS)}; received {received}; see --help\n")
        return 2
    if foreign := _find_ours():
        sys.stderr.write(f"error: {foreign} was imported before this program's own; run it in a process of its own\n")
        return 2
    if argv is None:
        importlib.import_module("launch.command").prepare_process()
    return importlib.import_module(f"launch.{verb}").main([f"{program} {verb}", *given[1:]])


def _help(program: str) -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {what}" for verb, what in VERBS.items()]
    return "\n".join([f"{program} VERB [flags]", "", *lines, "", f"{program} VERB --help shows the flags.", ""])


def _find_ours() -> str | None:
    """Lets `launch` and `weights` be looked for beside this package first; returns another's that is loaded already.

    They are common names, which the folder at hand may have, or PYTHONPATH: ROS has a `launch` there.
    """
    here = Path(__file__).resolve().parents[1]
    if sys.path[:1] != [str(here)]:
        sys.path.insert(0, str(here))
    for name in _OURS:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and Path(file).resolve().parents[1] != here:
            return file
    return None


if __name__ == "__main__":
    sys.exit(main())
